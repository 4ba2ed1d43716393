"""A file tree without room left: who saves something is told, all else goes on, and room that is made is used."""

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import aiohttp
import pytest

from tests.kube.cluster.layout import NODES, VOLUMES
from tests.kube.cluster.machines import inside, run
from tests.kube.ground import Cluster
from tests.kube.installation import Installation, installed, until
from tests.kube.working import working

pytestmark = [
    pytest.mark.kube,
    pytest.mark.slow,
    pytest.mark.own_nodes("a volume's folder is put on a small disk"),
    pytest.mark.timeout(1800),
]

DISK_BYTES = 128 * 2**20
FILL = """
import os
written = 0
with open('/home/cara/fill', 'wb', buffering=0) as file:
    while True:
        written += file.write(bytes(2**20))
"""


@contextmanager
def on_a_disk_of_its_own(tree: Path, scratch: Path) -> Iterator[None]:
    """Put a small file system, with what is in it, in the place of a volume's folder: here and on all nodes."""
    disk = scratch / "disk"
    with disk.open("wb") as file:
        file.truncate(DISK_BYTES)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", disk], check=True)
    loop = run("losetup", "--find", "--show", disk).strip()
    places: list[list[str]] = [[], *(inside(node) for node in NODES)]
    with ExitStack() as undo:
        undo.callback(subprocess.run, ["losetup", "--detach", loop], check=False)
        before = scratch / "before"
        run("cp", "-a", tree, before)
        for place in places:
            run(*place, "mount", loop, tree)
            undo.callback(subprocess.run, [*place, "umount", "--lazy", tree], check=False)
        run("cp", "-a", f"{before}/.", tree)
        yield


@pytest.fixture(scope="module")
def platform(
    cluster: Cluster, built_images: dict[str, str], astro: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    servers = {"namespacePrefix": "full-", "reserve": {"memory": 0.1, "cpus": 0.05}}
    with installed(cluster, built_images | {"astro": astro}, servers=servers) as made:
        made.add("cara")
        claim = cluster.get("pvc", "-n", made.namespace, f"{made.name}-tree")
        tree = VOLUMES / claim["spec"]["volumeName"]
        with on_a_disk_of_its_own(tree, tmp_path_factory.mktemp("disk")):
            # What mounts the volume from now on mounts the disk.
            made.delete("vospace")
            made.wait()
            yield made


async def test_a_full_tree_is_told_and_keeps_nothing_else(platform: Installation) -> None:
    files = f"{platform.url}/services/vospace/files/home/cara"
    headers = {"Authorization": f"Bearer {platform.token('cara')}"}
    async with aiohttp.ClientSession(headers=headers) as session, working(platform, "cara") as cara:
        async with session.put(f"{files}/kept", data=b"acknowledged") as answer:
            assert answer.status == 201

        error = await cara.fails(FILL)
        assert error.startswith("OSError: [Errno 28] No space left"), error

        async with session.put(f"{files}/late", data=bytes(2**20)) as answer:
            assert (answer.status, "QuotaExceeded" in await answer.text()) == (507, True)

        async def full() -> bool:
            return await health(cara.person.session, platform) == "full"

        await until("the health page", full, within_s=60)
        for path in ("/hub/home", "/hub/api/users/cara", "/services/portal/home", "/services/vospace/my-files"):
            async with cara.person.session.get(platform.url + path) as answer:
                assert answer.status == 200, path
        # The kernel, and what is saved, are as they were.
        assert await cara.run("print(written > 2**24, open('/home/cara/kept').read())") == "True acknowledged"

        await cara.run("os.remove('/home/cara/fill')")

        async def well() -> bool:
            return await health(cara.person.session, platform) == "ok"

        await until("the health page", well, within_s=60)
        async with session.put(f"{files}/late", data=bytes(2**20)) as answer:
            assert answer.status == 201
        async with session.get(f"{files}/kept") as answer:
            assert await answer.text() == "acknowledged"


async def test_a_server_starts_on_a_tree_that_is_full(platform: Installation) -> None:
    async with working(platform, "cara") as cara:
        await cara.fails(FILL)
    async with working(platform, "cara") as again:
        assert await again.run("import os; os.remove('/home/cara/fill'); print(6 * 7)") == "42"


async def health(session: aiohttp.ClientSession, platform: Installation) -> str:
    async with session.get(f"{platform.url}/services/portal/api/health") as answer:
        return str((await answer.json())["parts"]["files"])
