"""The file tree on a GlusterFS volume whose servers have no addresses but those of IPv6."""

import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import pytest

from tests.kube.cluster.layout import NODES, PREFIX_LENGTH_6, REPOSITORY, Host
from tests.kube.cluster.machines import inside, run, wait_until
from tests.kube.gluster import NETWORK_6, Volume, volume
from tests.kube.ground import Cluster
from tests.kube.installation import Installation, named, until
from tests.kube.on_glusterfs import all_mounted, free_port, keeps_what_was_acknowledged, on_volume
from tests.kube.working import two_at_work

pytestmark = [
    pytest.mark.kube,
    pytest.mark.slow,
    pytest.mark.own_nodes("GlusterFS runs beside them"),
    pytest.mark.timeout(1800),
]

UNUSED = f"{NETWORK_6}29"
"""An address that no machine has."""
SILENT = f"{NETWORK_6}28"
"""An address whose machine takes no packet, as one behind a firewall."""

PLACE = "/run/astrocloud-test-six"


@pytest.fixture(scope="module")
def six(cluster: Cluster) -> Iterator[Volume]:
    assert cluster.own
    with volume("six", ipv6=True) as made:
        first = made.servers[0]
        # No preferred one: the server itself is to use its other address.
        own = (f"{SILENT}/{PREFIX_LENGTH_6}", "dev", "eth0", "nodad", "preferred_lft", "0")
        run(*inside(first, "ip", "addr", "add", *own))
        run(*inside(first, "ip6tables", "-A", "INPUT", "-d", SILENT, "-j", "DROP"))
        yield made


def test_the_servers_have_no_other_addresses(six: Volume) -> None:
    for server in six.servers:
        assert run(*inside(server, "ip", "-4", "-o", "addr", "show", "scope", "global")) == ""


# What mounts it, by itself


@contextmanager
def mounting(node: Host, hosts: Path, *servers: str) -> Iterator[Path]:
    """Run on `node` what the chart runs there, with names of its own; the volume, as this process sees it."""
    port = free_port()
    program = REPOSITORY / "images/glusterfs/mount_volume.py"
    options = ["--volume=six", f"--target={PLACE}", "--folder=astrocloud", f"--port={port}", "--ipv6"]
    # No mount of it is seen on the node, whose pods go on with their names.
    script = f'mount --bind {hosts} /etc/hosts && exec "$@"'
    alone = ["unshare", "--mount", "--propagation=private", "sh", "-c", script, "sh"]
    command = [sys.executable, str(program), *options, *(f"--server={server}" for server in servers)]
    with subprocess.Popen(inside(node, *alone, *command)) as process:
        # nsenter's child: it does not pass on signals.
        inner = ""

        def is_usable() -> bool:
            nonlocal inner
            assert process.poll() is None
            inner = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().strip()
            return bool(inner) and answers(f"http://{node.address}:{port}/health")

        try:
            wait_until("the volume", is_usable, within_s=120)
            yield Path(f"/proc/{inner}/root{PLACE}")
        finally:
            if inner:
                os.kill(int(inner), signal.SIGTERM)
            assert process.wait(timeout=30) == 0
            run(*inside(node, "rmdir", PLACE))


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def peers_of_client(node: Host) -> set[str]:
    """Return the addresses that the client at `PLACE` is connected to."""
    pid = run(*inside(node, "pgrep", "-f", f"^glusterfs .* {PLACE}$")).strip()
    lines = run(*inside(node, "ss", "--no-header", "--tcp", "--numeric", "--processes", "state", "established"))
    peers = [line.split()[3] for line in lines.splitlines() if f"pid={pid}," in line]
    return {peer.rpartition(":")[0].strip("[]") for peer in peers}


BY_NAME = [f"gluster{number}.example.org" for number in (1, 2, 3)]


@pytest.mark.parametrize(
    "servers",
    [
        pytest.param((UNUSED, f"{NETWORK_6}21"), id="the-first-does-not-exist"),
        pytest.param((SILENT, f"{NETWORK_6}22"), id="the-first-is-silent"),
        pytest.param(("10.89.0.29", "nobody.example.org", f"{NETWORK_6}23"), id="the-first-have-no-such-address"),
        pytest.param((f"[{NETWORK_6}21]",), id="brackets"),
        pytest.param(tuple(BY_NAME), id="names-with-both-kinds"),
    ],
)
def test_the_volume_is_mounted_by_ipv6(six: Volume, servers: tuple[str, ...], tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    both = [
        (name, f"10.89.0.2{number} {name}\n{NETWORK_6}2{number} {name}\n") for number, name in enumerate(BY_NAME, 1)
    ]
    hosts.write_text("127.0.0.1 localhost\n" + "".join(lines for _, lines in both))
    with mounting(NODES[0], hosts, *servers) as place:
        (place / "astrocloud/seen").write_text(servers[0])
        assert peers_of_client(NODES[0]) == set(six.addresses)
    six.wait_until_healed()
    assert [(six.brick(server) / "astrocloud/seen").read_text() for server in six.servers] == 3 * [servers[0]]


# A platform on the volume


@pytest.fixture(scope="module")
def platform(
    cluster: Cluster, six: Volume, glusterfs: str, built_images: dict[str, str], astro: str
) -> Iterator[Installation]:
    tree = {"image": named(glusterfs), "servers": [UNUSED, *six.addresses], "volume": six.name, "ipv6": True}
    with on_volume(cluster, built_images | {"astro": astro}, tree, people="gluster6-") as running:
        yield running


async def test_people_on_two_nodes_and_vospace_see_the_same_file(platform: Installation) -> None:
    await until("the mounts", lambda: all_mounted(platform))
    async with two_at_work(platform) as (cara, dan):
        assert cara.node != dan.node
        await cara.run("open('/project/survey/night.txt', 'w').write('seen from one node')")
        assert await dan.run("print(open('/project/survey/night.txt').read())") == "seen from one node"
    headers = {"Authorization": f"Bearer {platform.token('dan')}"}
    address = f"{platform.url}/services/vospace/files/project/survey/night.txt"
    async with aiohttp.ClientSession(headers=headers) as session, session.get(address) as answer:
        assert (answer.status, await answer.text()) == (200, "seen from one node")


async def test_a_killed_brick_loses_nothing_that_was_acknowledged(platform: Installation, six: Volume) -> None:
    await keeps_what_was_acknowledged(platform, six)
