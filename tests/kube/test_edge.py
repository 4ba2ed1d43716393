"""People come in by what is in front: an Ingress or a gateway's routes, with TLS and names of their own for bytes."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import aiohttp
import pytest

from tests.kube.cluster import schemas
from tests.kube.edge import BYTES_HOST, HOST, Outside, standing_in_front
from tests.kube.ground import Cluster
from tests.kube.installation import Installation, installed
from tests.kube.kubectl import Kubectl
from tests.kube.operators import Authority
from tests.kube.test_platform import signed_in
from tests.kube.working import working
from tests.support.platform import free_port

pytestmark = [
    pytest.mark.kube,
    pytest.mark.slow,
    pytest.mark.own_nodes("what is in front reaches Services from this machine"),
    pytest.mark.timeout(1800),
]

LARGE: Final = bytes(range(256)) * (32 << 12)
"""32 MiB: more than what stands in front holds by itself."""


@contextmanager
def kinds_of_others(kube: Kubectl) -> Iterator[None]:
    """Have the cluster know the kinds of other projects that the chart makes."""
    there = {each["metadata"]["name"] for each in kube.get("customresourcedefinitions")["items"]}
    made = {each["metadata"]["name"]: each for each in schemas.custom_definitions(say=print)}
    missing = {name: each for name, each in made.items() if name not in there}
    for each in missing.values():
        kube.kubectl("create", "-f", "-", given=each)
    try:
        names = [f"customresourcedefinition/{name}" for name in made]
        kube.kubectl("wait", "--for=condition=Established", "--timeout=60s", *names)
        yield
    finally:
        if missing:
            kube.kubectl("delete", "customresourcedefinitions", *missing, "--timeout=60s")


@pytest.fixture(scope="module")
def platform(
    cluster: Cluster, built_images: dict[str, str], astro: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    """A platform at names that only what is in front knows, with every object of other projects' kinds."""
    assert cluster.own
    authority = Authority(tmp_path_factory.mktemp("authority"), "everybody-s")
    url = f"https://{HOST}:{free_port()}"

    def prepare(made: Installation) -> None:
        certificate, key = authority.issue(HOST, BYTES_HOST)
        held = {"tls.crt": certificate, "tls.key": key}
        kind = {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": {"name": "astro-tls"}}
        made.kubectl("create", "-f", "-", given=kind | {"stringData": held})
        made.browser = lambda _, name, password: Outside(name, password, url=url, authority=authority.certificate)

    with (
        kinds_of_others(cluster),
        installed(
            cluster,
            built_images | {"astro": astro},
            prepare=prepare,
            config={"public_url": url, "vospace": {"bytes_url": url.replace(HOST, BYTES_HOST)}},
            servers={"namespacePrefix": "edge-", "reserve": {"memory": 0.1, "cpus": 0.05}},
            ingress={
                "enabled": True,
                "className": "nginx",
                "hosts": [HOST],
                "bytesHosts": [BYTES_HOST],
                "tls": [{"secretName": "astro-tls", "hosts": [HOST, BYTES_HOST]}],
            },
            gateway={
                "enabled": True,
                "parentRefs": [{"name": "public"}],
                "hostnames": [HOST],
                "bytesHostnames": [BYTES_HOST],
            },
            monitoring={"serviceMonitor": True, "alerts": True, "runbooks": "https://docs.example.org/runbooks.html"},
        ) as made,
    ):
        made.kubectl("rollout", "status", "--timeout=600s", f"daemonset/{made.name}-prepuller")
        yield made


async def works(platform: Installation) -> None:
    """Sign in, run a cell, and send a large file and have it back: by the name for bytes, and by that alone."""
    async with working(platform, "cara") as cara:
        person = cara.person
        assert await signed_in(person)
        # The server's own says nothing of who somebody is.
        assert all(cookie["secure"] for cookie in person.session.cookie_jar if cookie.key != "_xsrf")
        assert await cara.run("print(6 * 7)") == "42"

        # A program, which a browser's scripts are not: it has no cookie.
        headers = {"Authorization": f"Bearer {platform.token('cara')}"}
        address = f"{person.url}/services/vospace/files/home/cara/large.bin"
        async with aiohttp.ClientSession(connector=person.connector(), headers=headers) as program:
            async with program.put(address, data=io.BytesIO(LARGE)) as answer:
                assert answer.status in {200, 201}, await answer.text()
            async with program.get(address) as answer:
                assert [urlsplit(str(each.url)).hostname for each in answer.history] == [HOST]
                assert answer.url.host == BYTES_HOST
                assert await answer.read() == LARGE
            for path in ("/", "/hub/health", "/services/vospace/health", "/services/vospace/filesystem"):
                async with program.get(person.url.replace(HOST, BYTES_HOST) + path) as answer:
                    assert answer.status == 404, path
        assert await cara.run("import os; print(os.stat('/home/cara/large.bin').st_size)") == str(len(LARGE))


@pytest.mark.parametrize("kind", ["ingress", "httproute"])
async def test_a_person_works_by_what_is_in_front(
    platform: Installation, tmp_path: Path, kind: Literal["ingress", "httproute"]
) -> None:
    with standing_in_front(platform, kind, tmp_path / "edge", certificate="astro-tls"):
        await works(platform)


async def test_what_is_in_front_may_speak_tls_to_the_platform(platform: Installation, tmp_path: Path) -> None:
    before = platform.values
    platform.values = before | {"tls": {"internal": True, "front": True}}
    platform.apply()
    platform.wait()
    try:
        with standing_in_front(platform, "ingress", tmp_path / "edge", certificate="astro-tls"):
            await works(platform)
    finally:
        platform.values = before
        platform.apply()
        platform.wait()


def test_the_cluster_has_every_object_for_prometheus(platform: Installation) -> None:
    def names(kind: str) -> set[str]:
        found: list[dict[str, Any]] = platform.kube.get(kind, "-n", platform.namespace)["items"]
        return {each["metadata"]["name"].removeprefix(f"{platform.name}-") for each in found}

    assert names("servicemonitors") == {"hub", "passport", "portal", "vospace"}
    assert names("prometheusrules") == {platform.name}
