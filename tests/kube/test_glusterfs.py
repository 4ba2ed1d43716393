"""The file tree on a real GlusterFS volume with three replicas."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kube.cluster.layout import NODES, REPOSITORY, Host
from tests.kube.cluster.machines import first_process, inside
from tests.kube.conftest import say
from tests.kube.gluster import Volume, volume
from tests.kube.ground import Cluster
from tests.kube.installation import Installation, named, until
from tests.kube.on_glusterfs import all_mounted, is_ready, keeps_what_was_acknowledged, on_volume, storage_pods
from tests.kube.working import events_page, two_at_work, working

pytestmark = [
    pytest.mark.kube,
    pytest.mark.slow,
    pytest.mark.own_nodes("GlusterFS runs beside them"),
    pytest.mark.timeout(1800),
]

UNUSED = "10.89.0.29"
"""An address that no machine has."""

PLACE = "/run/astrocloud-test-volume"


@pytest.fixture(scope="module")
def sky(cluster: Cluster) -> Iterator[Volume]:
    assert cluster.own
    with volume("sky") as made:
        yield made


# Two nodes and one tree


@contextmanager
def copying(node: Host, tree: str) -> Iterator[subprocess.Popen[str]]:
    """A process on `node` in the middle of copying a folder."""
    command = inside(node, sys.executable, "-m", "tests.kube.holding_a_copy", tree)
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "half\n"
            yield process
        finally:
            process.kill()


def environment() -> dict[str, str]:
    return {"PYTHONPATH": str(REPOSITORY), "PATH": "/usr/bin:/bin:/usr/sbin:/sbin"}


def swept(node: Host, tree: str) -> int:
    """Return how many hidden things a sweep on `node` removed."""
    command = inside(node, sys.executable, "-m", "tests.kube.holding_a_copy", tree, "sweep")
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment())
    return int(done.stdout)


@pytest.fixture
def two_nodes(sky: Volume) -> Iterator[tuple[Host, Host]]:
    """Two nodes on which the volume is mounted, with a folder to copy in it."""
    first, second = NODES[:2]
    with sky.mounted_in(first, PLACE), sky.mounted_in(second, PLACE):
        script = f"mkdir -p {PLACE}/home/ada/d; for n in 1 2 3 4; do echo $n >{PLACE}/home/ada/d/$n; done"
        subprocess.run(inside(first, "sh", "-ec", script), check=True)
        yield first, second
        subprocess.run(inside(first, "rm", "-rf", f"{PLACE}/home"), check=True)


def test_a_copy_on_one_node_is_left_alone_by_the_sweep_of_another(sky: Volume, two_nodes: tuple[Host, Host]) -> None:
    here, there = two_nodes
    with copying(here, PLACE) as process:
        assert swept(there, PLACE) == 0
        out, _ = process.communicate("go on\n", timeout=60)
        assert out == "done\n"

    # A brick may have joined a moment after the first file was written.
    sky.wait_until_healed()
    for server in sky.servers:
        home = sky.brick(server) / "home/ada"
        assert sorted(path.name for path in home.iterdir()) == ["copied", "d"]
        assert {p.name: p.read_text() for p in (home / "copied").iterdir()} == {n: f"{n}\n" for n in "1234"}


def test_a_copy_whose_process_died_is_swept_by_another_node(sky: Volume, two_nodes: tuple[Host, Host]) -> None:
    here, there = two_nodes
    with copying(here, PLACE) as process:
        # nsenter's child is the one that copies.
        inner = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        subprocess.run(["kill", "-9", *inner], check=True)
        process.wait(timeout=10)

    assert swept(there, PLACE) == 2
    sky.wait_until_healed()
    assert sorted(path.name for path in (sky.brick(sky.servers[2]) / "home/ada").iterdir()) == ["d"]


# A platform on the volume


@pytest.fixture(scope="module")
def platform(
    cluster: Cluster, sky: Volume, glusterfs: str, built_images: dict[str, str], astro: str
) -> Iterator[Installation]:
    # The first does not answer: the next ones are asked.
    tree = {"image": named(glusterfs), "servers": [UNUSED, *sky.addresses], "volume": sky.name}
    with on_volume(cluster, built_images | {"astro": astro}, tree, people="gluster-") as running:
        yield running


def mounts_of(node: Host, platform: Installation) -> int:
    """Return how often the volume is mounted on a node, as its kubelet sees it."""
    target = f"/var/lib/astrocloud/{platform.namespace}-{platform.name}/volume"
    lines = Path(f"/proc/{first_process(node)}/mountinfo").read_text().splitlines()
    return sum(line.split()[4] == target for line in lines)


async def test_a_killed_brick_loses_nothing_that_was_acknowledged(platform: Installation, sky: Volume) -> None:
    await keeps_what_was_acknowledged(platform, sky)


async def test_people_of_a_group_share_its_folder_from_two_nodes(platform: Installation) -> None:
    async with two_at_work(platform) as (cara, dan):
        await cara.run("open('/project/survey/night.txt', 'w').write('seen from one node')")
        assert await dan.run("print(open('/project/survey/night.txt').read())") == "seen from one node"
        await dan.run("open('/project/survey/night.txt', 'a').write(', changed on another')")
        assert (await cara.run("print(open('/project/survey/night.txt').read())")).endswith("another")
        error = await dan.fails("open('/home/cara/x', 'w')")
        assert error.split(":")[0] in {"FileNotFoundError", "PermissionError"}


async def test_a_node_whose_client_died_has_the_volume_again_and_says_so(platform: Installation) -> None:
    await until("the mounts", lambda: all_mounted(platform))
    async with platform.person("cara") as cara:
        assert (await cara.sign_in())[0] == 200
        await cara.start_server(environment="astro")
        pod = platform.kube.get("pods", "-n", platform.namespace_of("cara"))["items"][0]
        node = next(host for host in NODES if host.name == pod["spec"]["nodeName"])
        volume_id = f"--volfile-id={platform.values['storage']['tree']['glusterfs']['volume']}"
        client = subprocess.run(
            inside(node, "pgrep", "-f", f"^glusterfs .*{volume_id}"), capture_output=True, text=True, check=True
        )
        subprocess.run(inside(node, "kill", "-9", *client.stdout.split()), check=True)

        async def told() -> bool:
            return await cara.reason_of_end() == "storage"

        took = await until("the server's end", told, within_s=90)
        say(f"client killed: the server's end was told after {took:.1f} s")
        await until("the mounts", lambda: all_mounted(platform), within_s=120)
        assert mounts_of(node, platform) == 1

        async def on_the_page() -> bool:
            text = await events_page(platform)
            return f"Node {node.name}" in text and "The file tree cannot be used there" in text

        await until("the event", on_the_page, within_s=60)
    async with working(platform, "cara") as again:
        assert (await again.run("print(open('/home/cara/appended').read(8))")) == "00000000"
    await until("VOSpace", lambda: vospace_works(platform), within_s=120)


async def vospace_works(platform: Installation) -> bool:
    """Whether both replicas serve files, and no pod holds a dead mount."""
    pods = platform.pods("vospace")
    return len(pods) == 2 and all(map(is_ready, pods))


async def test_a_volume_that_somebody_unmounted_is_mounted_again(platform: Installation) -> None:
    await until("the mounts", lambda: all_mounted(platform))
    async with working(platform, "cara") as cara:
        node = next(host for host in NODES if host.name == cara.node)
        target = f"/var/lib/astrocloud/{platform.namespace}-{platform.name}/volume"
        subprocess.run(inside(node, "umount", "--lazy", target), check=True)
        await until("the mount", lambda: mounted(node, platform), within_s=60)
        # Who had it open goes on.
        assert await cara.run("print(open('/home/cara/appended').read(8))") == "00000000"


async def mounted(node: Host, platform: Installation) -> bool:
    return mounts_of(node, platform) == 1 and is_ready(storage_pods(platform)[node.name])


async def test_a_volume_that_stalls_is_told_and_keeps_no_page_of_the_hub(platform: Installation, sky: Volume) -> None:
    await until("the mounts", lambda: all_mounted(platform))
    async with platform.person("dan") as dan:
        assert (await dan.sign_in())[0] == 200

        async def files_state() -> str:
            async with dan.session.get(f"{dan.url}/services/portal/api/health") as answer:
                return str((await answer.json())["parts"]["files"])

        async def told() -> bool:
            return await files_state() == "away"

        assert await files_state() == "ok"
        sky.freeze()
        try:
            await until("the stall to be told", told, within_s=60)
            for path in ("/hub/home", "/hub/api/users/dan", "/services/portal/home"):
                async with dan.session.get(dan.url + path) as answer:
                    assert answer.status == 200, path
        finally:
            sky.thaw()

        async def well() -> bool:
            return await files_state() == "ok" and await all_mounted(platform)

        took = await until("the volume", well, within_s=120)
        say(f"stalled volume back: told after {took:.1f} s")
    async with working(platform, "dan") as at_work:
        assert await at_work.run("print(6 * 7)") == "42"
