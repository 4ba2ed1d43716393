"""TLS between the parts of an installed platform: switched on while somebody works, and nothing left without it."""

import json
from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.kube.conftest import say
from tests.kube.ground import Cluster
from tests.kube.installation import Installation, installed, until
from tests.kube.test_platform import both
from tests.kube.working import Worker, answers, working

pytestmark = [pytest.mark.kube, pytest.mark.slow, pytest.mark.timeout(2400)]

LISTENING: Final = {"hub": 8443, "passport": 8443, "portal": 8443, "vospace": 8443, "proxy-api": 8001}
"""Where each Service is called, once there is TLS."""

ASK: Final = """
import json, socket, sys
found = {}
for host, port in json.loads(sys.argv[1]):
    try:
        with socket.create_connection((host, port), timeout=5) as connection:
            connection.sendall(b"GET / HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n")
            found[f"{host}:{port}"] = connection.recv(16).decode("latin-1") or "closed"
    except ConnectionResetError:
        found[f"{host}:{port}"] = "closed"
    except OSError as error:
        found[f"{host}:{port}"] = "refused"
print(json.dumps(found))
"""
"""Says how each place answers to who speaks no TLS: ``HTTP/1.1 …``, ``closed`` or ``refused``."""

VOSPACE: Final = """
import fsspec, os
sky = fsspec.filesystem("vos")
sky.pipe("/home/{name}/by-vospace.txt", b"clear skies")
print(open("/home/{name}/by-vospace.txt").read(), os.environ["ASTROCLOUD_VOSPACE_URL"].partition(":")[0])
"""


@pytest.fixture(scope="module")
def platform(cluster: Cluster, built_images: dict[str, str], astro: str) -> Iterator[Installation]:
    """A platform that begins without TLS."""
    servers = {"namespacePrefix": "tls-", "reserve": {"memory": 0.1, "cpus": 0.05}}
    with installed(cluster, built_images | {"astro": astro}, servers=servers, tls={"internal": False}) as made:
        made.kubectl("rollout", "status", "--timeout=600s", f"daemonset/{made.name}-prepuller")
        yield made


def server_of(platform: Installation, name: str) -> dict[str, Any]:
    """Return the pod of the person's only server."""
    pods = platform.kube.get("pods", "-n", platform.namespace_of(name))["items"]
    (found,) = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    return dict(found)


def called_by_tls(pod: dict[str, Any]) -> bool:
    return bool(pod["spec"]["containers"][0]["ports"][0]["name"] == "https")


def without_tls(platform: Installation, *places: tuple[str, int]) -> dict[str, str]:
    """Return how each place answers a pod of the platform's that speaks no TLS."""
    found: dict[str, str] = json.loads(platform.run("python", "-c", ASK, json.dumps(places)))
    return found


async def goes_on(one: Worker) -> None:
    await until("the session", lambda: both(one.person), within_s=240)
    await until("the server", lambda: answers(one), within_s=60)
    assert await one.run("print(kept + 1)") == "42"


async def test_it_is_switched_on_while_people_work(platform: Installation) -> None:
    host = f"{platform.name}-{{}}.{platform.namespace}.svc"
    async with working(platform, "cara") as cara:
        await cara.run("kept = 41")
        assert not called_by_tls(server_of(platform, "cara"))

        platform.apply(tls={"internal": True, "alsoPlain": True})
        platform.wait()

        # Who was at work goes on, by the addresses that her server was given.
        await goes_on(cara)
        assert await cara.run(VOSPACE.format(name="cara")) == "clear skies http"
        # Who comes now has a server that is called by TLS, and calls by it.
        async with working(platform, "dan") as dan:
            await dan.run("kept = 41")
            assert called_by_tls(server_of(platform, "dan"))
            assert await dan.run(VOSPACE.format(name="dan")) == "clear skies https"

            # A new hub finds both as they are.
            platform.delete("hub")
            platform.wait("hub")
            await goes_on(cara)
            await goes_on(dan)

    platform.values = platform.values | {"tls": {"internal": True}}
    platform.apply()
    platform.wait()
    async with working(platform, "cara") as cara:
        await cara.run("kept = 41")
        platform.delete("proxy")
        platform.wait("proxy")
        await goes_on(cara)

        address = server_of(platform, "cara")["status"]["podIP"]
        places = [(host.format(part), port) for part, port in LISTENING.items()] + [(address, 8888)]
        found = without_tls(platform, *places)
        assert set(found.values()) == {"closed"}, found
        # Not by another port either: the ones of before are nobody's now.
        pods = {part: platform.pods(part)[0]["status"]["podIP"] for part in ("hub", "passport", "portal", "vospace")}
        before = without_tls(platform, *((ip, 8081 if part == "hub" else 8080) for part, ip in pods.items()))
        assert set(before.values()) == {"refused"}, before


async def test_nobody_is_believed_for_having_a_server_s_address(platform: Installation) -> None:
    """Her server's certificate is for her pod alone: by any other name it is refused, as by the proxy."""
    async with working(platform, "cara") as cara, working(platform, "dan"):
        pods = {name: server_of(platform, name) for name in ("cara", "dan")}
        assert await cara.run("print(1)") == "1"
        ask = (
            "import socket, ssl, sys\n"
            "context = ssl.create_default_context(cafile='/srv/astrocloud/secrets/servers-ca')\n"
            "with socket.create_connection((sys.argv[1], 8888), timeout=5) as raw:\n"
            "    try:\n"
            "        context.wrap_socket(raw, server_hostname=sys.argv[2]).close()\n"
            "        print('taken')\n"
            "    except ssl.SSLCertVerificationError as error:\n"
            "        print(error.verify_message)\n"
        )
        hub = f"deployment/{platform.name}-hub"
        said = {}
        for name, pod in pods.items():
            metadata, address = pod["metadata"], pods["cara"]["status"]["podIP"]
            label = address.replace(".", "-").replace(":", "-")
            called = f"{label}.{metadata['name']}.{metadata['namespace']}.server.astrocloud.internal"
            said[name] = platform.kubectl("exec", hub, "--", "python", "-c", ask, address, called).strip()

    assert said["cara"] == "taken"
    assert "Hostname mismatch" in said["dan"]


def test_the_chart_s_own_test_does_what_a_person_does(platform: Installation) -> None:
    said = platform.helm("test", platform.release, "--timeout", "300s")

    assert "Succeeded" in said
    status = json.loads(platform.run("astrocloud", "status", "--json"))
    assert set(status["parts"].values()) == {"ok"}, status


async def test_in_front_of_the_proxy_there_may_be_tls_too(platform: Installation) -> None:
    before = platform.values
    platform.values = before | {
        "tls": {"internal": True, "front": True},
        "config": before["config"] | {"public_url": platform.url.replace("http:", "https:")},
    }
    platform.apply()
    platform.wait()
    try:
        said = platform.helm("test", platform.release, "--timeout", "300s")
        assert "Succeeded" in said
        front = f"{platform.name}.{platform.namespace}.svc"
        assert set(without_tls(platform, (front, 80)).values()) == {"closed"}
        say("in front of the proxy: the trial session worked by TLS, and nothing answered without")
    finally:
        platform.values = before
        platform.apply()
        platform.wait()
