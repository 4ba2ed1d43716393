"""What is known of people's pods when the API servers of a cluster do not know the same."""

import asyncio
import copy
from collections.abc import AsyncIterator
from typing import Any

from astrocloud_hub.spawners.kube.api import ClusterError
from astrocloud_hub.spawners.kube.models import LABEL
from astrocloud_hub.spawners.kube.watching import PodWatch

KEY = ("astro-ada", "ada")


def pod(name: str, *, uid: str = "1", version: int = 5) -> dict[str, Any]:
    metadata = {
        "namespace": KEY[0],
        "name": name,
        "uid": uid,
        "resourceVersion": str(version),
        "labels": {f"{LABEL}/server": KEY[1]},
    }
    return {"metadata": metadata, "spec": {"containers": [{"name": "server", "env": []}]}}


class Api:
    """A cluster whose API servers have caches, which may be behind."""

    def __init__(self) -> None:
        self.cached: list[dict[str, Any]] = []
        self.there: list[dict[str, Any]] = []
        self.broken = False
        self.asked: list[str] = []
        self.again = asyncio.Event()
        """Breaks the watch."""
        self.watching = asyncio.Event()

    async def get(self, path: str, **query: str) -> dict[str, Any]:
        assert (path, query["labelSelector"]) == ("/api/v1/pods", "app=x")
        self.asked.append(query.get("resourceVersion", "now"))
        if self.asked[-1] == "0":
            return {"items": copy.deepcopy(self.cached), "metadata": {"resourceVersion": "4"}}
        if self.broken:
            self.broken = False
            raise ClusterError(500, "not now")
        return {"items": copy.deepcopy(self.there), "metadata": {"resourceVersion": "9"}}

    async def watch(self, _path: str, **_query: Any) -> AsyncIterator[dict[str, Any]]:
        self.watching.set()
        await self.again.wait()
        self.again.clear()
        raise ClusterError(410, "too old")
        yield {}

    async def list_anew(self) -> None:
        self.watching.clear()
        self.again.set()
        async with asyncio.timeout(20):
            await self.watching.wait()


def gone(told: list[dict[str, Any]]) -> set[str]:
    return {each["metadata"]["uid"] for each in told if "deletionTimestamp" in each["metadata"]}


async def test_a_pod_that_a_list_is_without_is_gone_only_if_it_is() -> None:
    api = Api()
    api.cached = [pod("one"), pod("two", uid="2")]
    watch = PodWatch(api=api, labels={"app": "x"})  # type: ignore[arg-type]
    told: list[dict[str, Any]] = []
    watch.listen(KEY, told.append)
    await watch.start()
    try:
        async with asyncio.timeout(20):
            await api.watching.wait()
        await api.list_anew()
        assert api.asked == ["0", "0"]  # nothing is missing: caches do
        told.clear()
        api.cached, api.there = [], [pod("one", version=6)]
        await api.list_anew()
        assert [each["metadata"]["resourceVersion"] for each in watch.pods()] == ["6"]
        assert gone(told) == {"2"}
        told.clear()
        api.broken = True  # nobody says that it is gone
        await api.list_anew()
        assert [each["metadata"]["name"] for each in watch.pods()] == ["one"]
        assert gone(told) == set()
        api.there = [pod("one", uid="3", version=9)]  # another one of that name
        await api.list_anew()
        assert [each["metadata"]["uid"] for each in watch.pods_of(KEY)] == ["3"]
        assert gone(told) == {"1"}
        api.there = []
        await api.list_anew()
        assert watch.pods() == []
        assert gone(told) == {"1", "3"}
    finally:
        await watch.stop()


async def test_who_listens_no_more_takes_nobody_else_s_place() -> None:
    api = Api()
    watch = PodWatch(api=api, labels={"app": "x"})  # type: ignore[arg-type]
    first: list[dict[str, Any]] = []
    second: list[dict[str, Any]] = []
    watch.listen(KEY, first.append)
    watch.listen(KEY, second.append)
    watch.forget(KEY, first.append)
    api.cached = [pod("one")]
    await watch.start()
    try:
        async with asyncio.timeout(20):
            await api.watching.wait()
        watch.forget(KEY, second.append)
        api.cached = [pod("one", version=6)]
        await api.list_anew()
    finally:
        await watch.stop()

    assert [each["metadata"]["resourceVersion"] for each in watch.pods()] == ["6"]
    assert first == []
    assert [each["metadata"]["resourceVersion"] for each in second] == ["5"]
