"""Servers on a node that does not answer any more are known as lost, and those that still answer are not."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any, cast

import kubespawner.spawner
import pytest

from astrocloud_hub.spawners.kube import spawner as spawning
from astrocloud_hub.spawners.kube.fleet import Fleet
from astrocloud_hub.spawners.kube.models import CONTAINER, LABEL, SERVER_PORT, Quota, server_label
from astrocloud_hub.spawners.kube.nodes import LEASES, SILENT_S, NodeWatch
from astrocloud_hub.spawners.kube.spawner import PodSpawner
from tests.hub.test_pod_objects import GIB, cluster

LEASE = "2026-11-22T19:00:00Z"


def pod(user: str, *, node: str, address: str) -> dict[str, Any]:
    metadata = {
        "namespace": f"astro-{user}",
        "name": "default-0a1b2c",
        "uid": f"uid-{user}",
        "resourceVersion": "1",
        "labels": {f"{LABEL}/server": server_label(""), f"{LABEL}/user": user},
    }
    status = {"phase": "Running", "podIP": address}
    return {"metadata": metadata, "spec": {"nodeName": node, "containers": [{"name": "notebook"}]}, "status": status}


class Api:
    """A cluster on which nothing changes but by `changes`."""

    def __init__(self, pods: list[dict[str, Any]]) -> None:
        self.pods = pods
        self.deleted: list[str] = []
        self.changes: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.leases_asked = asyncio.Event()
        self.events_asked = asyncio.Event()
        self.events_told = asyncio.Event()

    async def get(self, path: str, **_query: str) -> dict[str, Any]:
        if path == LEASES:
            self.leases_asked.set()
            names = {each["spec"]["nodeName"] for each in self.pods}
            return {"items": [{"metadata": {"name": name}, "spec": {"renewTime": LEASE}} for name in names]}
        if path.endswith("/events"):
            self.events_asked.set()
            await self.events_told.wait()
            return {"items": [{"message": 'Usage of EmptyDir volume "tmp" exceeds the limit "4Mi".'}]}
        assert path == "/api/v1/pods"
        return {"items": self.pods, "metadata": {"resourceVersion": "1"}}

    async def watch(self, _path: str, **_query: Any) -> AsyncIterator[dict[str, Any]]:
        while True:
            yield await self.changes.get()
            self.changes.task_done()

    async def delete_pod(self, namespace: str, name: str, **_how: Any) -> bool:
        self.deleted.append(f"{namespace}/{name}")
        return True


@pytest.fixture
def silent_host() -> Iterator[str]:
    """An address of this machine's at which no server answers, nor will."""
    with socket.socket() as held:
        held.bind(("127.9.0.1", SERVER_PORT))
        yield "127.9.0.1"


@pytest.fixture
def answering_host() -> Iterator[str]:
    with socket.create_server(("127.9.0.2", SERVER_PORT)):
        yield "127.9.0.2"


@pytest.fixture
def spawner_of(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make the spawner of a server that was started before, as a hub does that is started anew."""
    monkeypatch.setattr(kubespawner.spawner, "load_config", lambda **_: None)
    monkeypatch.setattr(kubespawner.spawner, "shared_client", lambda *_: SimpleNamespace())

    def make(fleet: Fleet, user: str) -> tuple[PodSpawner, asyncio.Event]:
        monkeypatch.setattr(PodSpawner, "_shared", fleet)
        owner = SimpleNamespace(name=user, id=1, url=f"/user/{user}/", escaped_name=user)
        hub = SimpleNamespace(public_host="", url="http://hub", base_url="/hub/", api_url="http://hub/hub/api")
        spawner = PodSpawner(_mock=True, user=owner, hub=hub)
        spawner.load_state({"pod_name": "default-0a1b2c", "pod_uid": f"uid-{user}"})
        told = asyncio.Event()
        spawner.add_poll_callback(told.set)
        return spawner, told

    return make


def fall_silent(watch: NodeWatch, *nodes: str, others: tuple[str, ...] = ()) -> None:
    """Let time pass in which `nodes` did not renew their leases, and `others` did."""
    now = time.monotonic()
    watch.note({}, now=now)
    watch.note(dict.fromkeys((*nodes, *others), LEASE), now=now - SILENT_S - 1)
    watch.note({**dict.fromkeys(nodes, LEASE), **dict.fromkeys(others, "later")}, now=now)


def test_a_node_is_told_of_once_when_it_falls_silent() -> None:
    told: list[str] = []
    watch = NodeWatch(api=cast("Any", None), tell=told.append)

    watch.note({"lost": "19:00", "well": "19:00"}, now=0.0)
    watch.note({"lost": "19:00", "well": "19:10"}, now=SILENT_S)
    assert told == []
    watch.note({"lost": "19:00", "well": "19:10"}, now=SILENT_S + 1)
    watch.note({"lost": "19:00", "well": "19:20"}, now=SILENT_S + 3)
    assert told == ["lost"]

    watch.note({"lost": "19:30", "well": "19:30"}, now=SILENT_S + 5)
    watch.note({"lost": "19:30", "well": "19:40"}, now=2 * SILENT_S + 6)
    assert told == ["lost", "lost"]


async def test_a_lost_node_s_servers_are_known_without_the_next_poll(
    spawner_of: Any, silent_host: str, answering_host: str
) -> None:
    api = Api(
        [
            pod("ada", node="lost", address=silent_host),
            pod("ben", node="lost", address=answering_host),
            pod("eve", node="well", address=silent_host),
        ]
    )
    quota = Quota(pods=5, memory_bytes=GIB, cpus=1, largest_memory_bytes=GIB)
    fleet = Fleet(api=cast("Any", api), cluster=cluster(), quota=quota)
    spawners = {user: spawner_of(fleet, user) for user in ("ada", "ben", "eve")}
    try:
        for spawner, _ in spawners.values():
            assert await spawner.poll() is None
        async with asyncio.timeout(20):
            await api.leases_asked.wait()

        fall_silent(fleet.nodes, "lost", others=("well",))

        ada, told = spawners["ada"]
        async with asyncio.timeout(20):
            await told.wait()
        # The next poll of hers finds nothing that is not known.
        assert await ada.poll() == 0
        assert ada.get_state()["last_end"]["reason"] == "node-lost"
        assert ada.get_state()["last_end"]["node"] == "lost"
        for user in ("ben", "eve"):
            assert await spawners[user][0].poll() is None
        assert api.deleted == ["astro-ada/default-0a1b2c"]
    finally:
        await fleet.stop()


async def test_an_end_that_two_looks_find_is_noted_once(spawner_of: Any, silent_host: str) -> None:
    api = Api([pod("ada", node="lost", address=silent_host)])
    quota = Quota(pods=5, memory_bytes=GIB, cpus=1, largest_memory_bytes=GIB)
    fleet = Fleet(api=cast("Any", api), cluster=cluster(), quota=quota)
    spawner, _ = spawner_of(fleet, "ada")
    try:
        assert await spawner.poll() is None
        async with asyncio.timeout(20):
            await api.leases_asked.wait()
        fall_silent(fleet.nodes, "lost")

        assert await asyncio.gather(*(spawner.poll() for _ in range(3))) == [0, 0, 0]
        assert api.deleted == ["astro-ada/default-0a1b2c"]
    finally:
        await fleet.stop()


async def test_a_late_look_at_a_lost_server_leaves_the_next_one_to_who_starts_it(
    spawner_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What JupyterHub forgets of a server that ended it forgets while a look at its node may still be under way."""
    api = Api([pod("ada", node="lost", address="127.9.0.1")])
    quota = Quota(pods=5, memory_bytes=GIB, cpus=1, largest_memory_bytes=GIB)
    fleet = Fleet(api=cast("Any", api), cluster=cluster(), quota=quota)
    ended, _ = spawner_of(fleet, "ada")
    tried, late = asyncio.Event(), asyncio.Event()

    async def accepts(_host: str, _port: int) -> bool:
        if not tried.is_set():
            tried.set()
            await late.wait()
        return False

    monkeypatch.setattr(spawning, "accepts", accepts)
    try:
        assert await ended.poll() is None
        async with asyncio.timeout(20):
            await api.leases_asked.wait()
        fall_silent(fleet.nodes, "lost")
        look = asyncio.ensure_future(ended.poll())
        await tried.wait()
        assert await ended.poll() == 0
        ended.clear_state()
        started = pod("ada", node="well", address="127.9.0.2")
        started["metadata"] |= {"uid": "another", "name": "default-another", "resourceVersion": "2"}
        told: list[str] = []
        fleet.watch.listen(("astro-ada", server_label("")), lambda changed: told.append(changed["metadata"]["name"]))
        async with asyncio.timeout(20):
            api.changes.put_nowait({"type": "DELETED", "object": api.pods[0]})
            api.changes.put_nowait({"type": "ADDED", "object": started})
            await api.changes.join()

            late.set()
            assert await look == 0

            api.changes.put_nowait({"type": "MODIFIED", "object": started})
            await api.changes.join()
        assert told == ["default-0a1b2c", "default-another", "default-another"]
    finally:
        await fleet.stop()


@pytest.mark.parametrize("started_anew", [False, True])
async def test_asking_whether_a_server_was_evicted_keeps_nothing_else_waiting(
    spawner_of: Any, *, started_anew: bool
) -> None:
    ended = pod("ada", node="well", address="")
    over = {"exitCode": 0, "finishedAt": LEASE, "reason": "Completed"}
    ended["status"] = {"phase": "Succeeded", "containerStatuses": [{"name": CONTAINER, "state": {"terminated": over}}]}
    api = Api([ended])
    quota = Quota(pods=5, memory_bytes=GIB, cpus=1, largest_memory_bytes=GIB)
    fleet = Fleet(api=cast("Any", api), cluster=cluster(), quota=quota)
    spawner, _ = spawner_of(fleet, "ada")
    try:
        first = asyncio.ensure_future(spawner.poll())
        async with asyncio.timeout(20):
            await api.events_asked.wait()
        # Another look finds an end with a reason, after which the server may be started anew.
        assert await spawner.poll() == 0
        assert spawner.get_state()["last_end"]["reason"] == "exited"
        if started_anew:
            spawner.clear_state()
            spawner.load_state({"pod_name": "default-another", "pod_uid": "another"})
        api.events_told.set()
        await first

        assert api.deleted == ["astro-ada/default-0a1b2c"]
        end = spawner.get_state().get("last_end")
        assert (end and end["reason"]) == (None if started_anew else "evicted")
    finally:
        await fleet.stop()
