"""From the version before to this one and back, and uninstalled and installed again, while people work."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import aiohttp
import pytest

from tests.kube.cluster import images
from tests.kube.cluster.layout import REPOSITORY
from tests.kube.conftest import say
from tests.kube.ground import Cluster
from tests.kube.installation import Installation, installed, named, until
from tests.kube.test_platform import both
from tests.kube.working import Worker, answers, two_at_work, working

pytestmark = [pytest.mark.kube, pytest.mark.slow, pytest.mark.timeout(2400)]

DATABASES: Final = ("astrocloud", "jupyterhub")
PARTS: Final = ("hub", "services", "proxy", "database")


@pytest.fixture(scope="module")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source tree of the version before this one."""
    listed = (Path(__file__).with_name("previous.txt")).read_text(encoding="utf-8").splitlines()
    commit = next(line for line in listed if line and not line.startswith("#"))
    done = subprocess.run(["git", "archive", commit], cwd=REPOSITORY, capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"the commit {commit} is not here; a clone with all history has it: git fetch --unshallow")
    folder = tmp_path_factory.mktemp("previous")
    subprocess.run(["tar", "-x"], cwd=folder, input=done.stdout, check=True)
    return folder


@pytest.fixture(scope="module")
def older(cluster: Cluster, previous: Path, astro: str) -> Iterator[Installation]:
    """A platform of the version before, installed from its chart, with two people of one group."""
    prefix = f"{cluster.registry}/astrocloud/"
    made = images.make(*PARTS, prefix=prefix, tag="previous", say=say, source=previous) | {"astro": astro}
    servers = {"namespacePrefix": "older-", "reserve": {"memory": 0.1, "cpus": 0.05}}
    with installed(cluster, made, chart=previous / "helm" / "astrocloud", servers=servers) as running:
        running.kubectl("rollout", "status", "--timeout=600s", f"daemonset/{running.name}-prepuller")
        for name in ("cara", "dan"):
            running.add(name, groups=("survey",))
        yield running


@pytest.fixture(scope="module")
def newer(older: Installation, built_images: dict[str, str]) -> Installation:
    """The same with the values of this version, not applied yet."""
    given = {part: dict(older.values[part]) for part in ("hub", "proxy", "services")}
    for part, value in given.items():
        value["image"] = named(built_images[part])
    bundled = older.values["database"]["bundled"] | {"image": named(built_images["database"])}
    # The version before knew TLS only where it was switched on: who works there goes on without.
    tls = {"internal": True, "alsoPlain": True}
    older.values = older.values | given | {"database": {"bundled": bundled}, "tls": tls}
    return older


async def put(platform: Installation, name: str, text: str) -> None:
    headers = {"Authorization": f"Bearer {platform.token('cara')}"}
    address = f"{platform.url}/services/vospace/files/home/cara/{name}"
    async with aiohttp.request("PUT", address, data=text.encode(), headers=headers) as answer:
        assert answer.status in {200, 201}, await answer.text()


async def works(platform: Installation, *people: Worker) -> None:
    """Whoever worked before goes on in the same kernel, with the same session and the same files."""
    for one in people:
        await until("the session", lambda one=one: both(one.person), within_s=240)  # type: ignore[misc]
        await until("the server", lambda one=one: answers(one), within_s=60)  # type: ignore[misc]
        assert await one.run("print(kept + 1)") == "42"
    cara = people[0]
    assert await cara.run("print(open('/home/cara/before.txt').read())") == "before"
    status, _ = await cara.person.server_api(cara.base, "GET", "api/contents/home/cara/before.txt")
    assert status == 200


async def test_up_from_the_version_before_and_back_while_people_work(newer: Installation) -> None:
    platform = newer
    database = f"statefulset/{platform.name}-database"
    await put(platform, "before.txt", "before")
    async with two_at_work(platform) as (cara, dan):
        for one in (cara, dan):
            await one.run("kept = 41")
        # As the guide says: saved first.
        for name in DATABASES:
            platform.kubectl(
                "exec", database, "--", "sh", "-c", f"pg_dump -U postgres -Fc {name} > {SAVED}/{name}.dump"
            )

        platform.apply()
        platform.wait()
        await works(platform, cara, dan)
        await put(platform, "after.txt", "after")

        # Back, with the databases of before: this version may have changed what the older one cannot read.
        platform.kubectl("scale", "deployment", "--replicas=0", "-l", f"app.kubernetes.io/instance={platform.release}")
        for name in DATABASES:
            for command in RESTORE:
                platform.kubectl("exec", database, "--", "sh", "-c", command.format(name=name))
        platform.helm("rollback", platform.release)
        platform.wait()
        await works(platform, cara, dan)
        assert await cara.run("print(open('/home/cara/after.txt').read())") == "after"

        platform.apply()
        platform.wait()
        await works(platform, cara, dan)


async def test_uninstalling_leaves_servers_and_installing_finds_them(newer: Installation) -> None:
    platform = newer
    await put(platform, "before.txt", "before")
    async with working(platform, "cara") as cara:
        await cara.run("kept = 41")

        platform.helm("uninstall", platform.release, "--wait")
        platform.apply()
        platform.wait()

        await works(platform, cara)


SAVED: Final = "/var/lib/postgresql/data"
"""The database's volume: /tmp ends with the pod, which an upgrade may replace."""

RESTORE: Final = (
    "dropdb -U postgres --force {name}",
    "createdb -U postgres -O astrocloud {name}",
    f"pg_restore -U postgres --exit-on-error --single-transaction -d {{name}} {SAVED}/{{name}}.dump",
)
"""Into an empty database: what a newer version has made besides would be in its way later."""
