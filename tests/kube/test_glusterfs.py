"""The file tree on a real GlusterFS volume with three replicas."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kube.cluster.layout import NODES, REPOSITORY, Host
from tests.kube.cluster.machines import inside
from tests.kube.gluster import SERVERS, Volume, volume
from tests.kube.ground import Cluster

pytestmark = pytest.mark.kube

PLACE = "/run/astrocloud-test-volume"


@pytest.fixture(scope="module")
def sky(cluster: Cluster) -> Iterator[Volume]:
    if not cluster.own:
        pytest.skip("GlusterFS runs beside a cluster of our own")
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
    for server in SERVERS:
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
    assert sorted(path.name for path in (sky.brick(SERVERS[2]) / "home/ada").iterdir()) == ["d"]
