"""A platform whose file tree is on a GlusterFS volume, and what holds on each such volume."""

import asyncio
import itertools
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import aiohttp

from tests.kube.cluster.layout import NODES
from tests.kube.conftest import say
from tests.kube.gluster import Volume
from tests.kube.ground import Cluster
from tests.kube.installation import Installation, installed, until
from tests.kube.working import working


@contextmanager
def on_volume(cluster: Cluster, images: dict[str, str], tree: dict[str, Any], *, people: str) -> Iterator[Installation]:
    """Install a platform with cara and dan, who are of one group.

    `tree` are values of `storage.tree.glusterfs`; `people` is the prefix of people's namespaces.
    """
    small = {"requests": {"cpu": "20m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}}
    volume = {"port": free_port(), "resources": small} | tree
    with installed(
        cluster,
        images,
        storage={"tree": {"kind": "glusterfs", "claim": {"size": "1Gi"}, "glusterfs": volume}},
        servers={"namespacePrefix": people, "reserve": {"memory": 0.1, "cpus": 0.05}},
        priorityClasses={"create": False},
    ) as running:
        for name in ("cara", "dan"):
            running.add(name, groups=("survey",))
        yield running
    # Uninstalling leaves it, as it does people's files.
    cluster.kubectl("delete", "pv", "--wait=false", f"{running.namespace}-{running.name}-tree")


def free_port() -> int:
    """Return a port that the nodes, which are this machine's namespaces, hardly have."""
    return 20000 + secrets.randbelow(9000)


def storage_pods(platform: Installation) -> dict[str, dict[str, Any]]:
    """Return node -> the pod that mounts the volume there."""
    namespace = f"{platform.namespace}-storage"
    return {pod["spec"]["nodeName"]: pod for pod in platform.kube.get("pods", "-n", namespace)["items"]}


def is_ready(pod: dict[str, Any]) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))


async def all_mounted(platform: Installation) -> bool:
    pods = storage_pods(platform)
    return len(pods) == len(NODES) and all(map(is_ready, pods.values()))


APPEND = """
import os, time
file = open({path!r}, "ab", buffering=0)
until = time.monotonic() + {seconds}
number = 0
while time.monotonic() < until:
    file.write(b"%08d\\n" % number)
    os.fsync(file.fileno())
    number += 1
    time.sleep(0.02)
print(number)
"""
"""Writes lines that are on the disk before the next one begins, and prints how many."""


async def put_until(session: aiohttp.ClientSession, files: str, done: asyncio.Event) -> dict[str, bytes]:
    """Send files one after the other; return those that were acknowledged."""
    kept: dict[str, bytes] = {}
    for number in itertools.count():
        if done.is_set():
            return kept
        name, data = f"sent-{number}", secrets.token_bytes(1000)
        with suppress(aiohttp.ClientError, TimeoutError):
            async with session.put(f"{files}/{name}", data=data) as answer:
                if answer.status in {200, 201}:
                    kept[name] = data
    raise AssertionError


async def keeps_what_was_acknowledged(platform: Installation, sky: Volume) -> None:
    """Kill a brick while a notebook and VOSpace write: what they were told is written is on all bricks at the end."""
    await until("the mounts", lambda: all_mounted(platform))
    headers = {"Authorization": f"Bearer {platform.token('cara')}"}
    files = f"{platform.url}/services/vospace/files/home/cara"
    async with working(platform, "cara") as cara, aiohttp.ClientSession(headers=headers) as session:
        code = APPEND.format(path="/home/cara/appended", seconds=25)
        appending = asyncio.create_task(cara.run(code, within_s=120))
        done = asyncio.Event()
        sending = asyncio.create_task(put_until(session, files, done))
        await until("the first file", lambda: exists(session, f"{files}/sent-3"))
        await asyncio.to_thread(sky.kill_brick, sky.servers[1])
        lines = int(await appending)
        done.set()
        kept = await sending
        say(f"while a brick was away: {lines} lines from a notebook, {len(kept)} files by VOSpace were acknowledged")
        assert lines > 10
        assert len(kept) > 10

    await asyncio.to_thread(sky.start_bricks)
    await asyncio.to_thread(sky.wait_until_healed)
    for server in sky.servers:
        home = sky.brick(server) / "astrocloud/home/cara"
        assert (home / "appended").read_bytes() == b"".join(b"%08d\n" % n for n in range(lines)), server.name
        assert {name: (home / name).read_bytes() for name in kept} == kept, server.name
        assert (home.stat().st_mode & 0o7777) == 0o700


async def exists(session: aiohttp.ClientSession, url: str) -> bool:
    async with session.get(url) as answer:
        return answer.status == 200
