"""Knowing all pods of people's servers as they are now, by one watch of the whole cluster.

In place of KubeSpawner's reflector, which lists everything anew every ten seconds, is looked at by polling with random
pauses, and may stop without a word (kubespawner#209).
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

import structlog

from astrocloud_hub.spawners.kube.api import ClusterApi, ClusterError
from astrocloud_hub.spawners.kube.models import LABEL, Json

_WATCH_S: Final = 25
"""A watch lasts so long at most: a change that it did not tell is found by the list after it."""
_LIST_EVERY_S: Final = 300.0
_LONGEST_PAUSE_S: Final = 10.0

_log = structlog.get_logger()

Key = tuple[str, str]
"""A namespace, and a server as its label calls it."""


class PodWatch:
    """All pods of one release that are people's servers.

    Parameters
    ----------
    api
        The cluster.
    labels
        What these pods have and no others.
    """

    def __init__(self, *, api: ClusterApi, labels: dict[str, str]) -> None:
        self._api = api
        self._selector = ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
        self._pods: dict[str, Json] = {}
        self._by_server: dict[Key, set[str]] = {}
        self._listeners: dict[Key, Callable[[Json], None]] = {}
        self._ready: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self.seen_at = 0.0
        """When what is known was last known to be true, by the monotonic clock."""

    async def start(self) -> None:
        """Return when all pods are known; from then on they stay so. Raises `ClusterError` when they cannot be had."""
        if self._ready is None:
            self._ready = asyncio.get_running_loop().create_future()
            self._task = asyncio.create_task(self._run())
        await asyncio.shield(self._ready)

    async def stop(self) -> None:
        """Stop watching."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def pods(self) -> list[Json]:
        """Return all of them."""
        return list(self._pods.values())

    def pod(self, namespace: str, name: str) -> Json | None:
        """Return a pod as it is now, `None` when there is none."""
        return self._pods.get(f"{namespace}/{name}")

    def pods_of(self, key: Key) -> list[Json]:
        """Return the pods of one server, the newest first."""
        found = [self._pods[name] for name in self._by_server.get(key, ())]
        return sorted(found, key=lambda pod: str(pod["metadata"].get("creationTimestamp")), reverse=True)

    def listen(self, key: Key, listener: Callable[[Json], None]) -> None:
        """Have `listener` called with each pod of a server that changes or goes, or should be looked at again."""
        self._listeners[key] = listener

    def forget(self, key: Key, listener: Callable[[Json], None]) -> None:
        """Call `listener` no more; whoever has listened to this server since goes on."""
        if self._listeners.get(key) == listener:
            del self._listeners[key]

    def look_again(self, node: str) -> None:
        """Have those who listen look at their pods on `node` once more: it is known by other ways how it is."""
        for pod in self.pods():
            listener = self._listeners.get(_key(pod))
            if listener is not None and pod["spec"].get("nodeName") == node:
                listener(pod)

    async def _run(self) -> None:
        pause_s, version, listed = 0.1, "", 0.0
        while True:
            try:
                if not version or time.monotonic() - listed > _LIST_EVERY_S:
                    version, listed = await self._list(), time.monotonic()
                version = await self._watch(version)
                pause_s = 0.1
            except ClusterError as err:
                if err.status == 410:
                    version = ""
                    continue
                _log.warning("pods-not-watched", reason=str(err)[:300], again_in_s=round(pause_s, 1))
                await asyncio.sleep(pause_s)
                version, pause_s = "", min(pause_s * 2, _LONGEST_PAUSE_S)
            except asyncio.CancelledError:
                raise
            except Exception:  # noqa: BLE001 - logged; a hub that does not see its servers is worse
                _log.exception("pods-not-watched")
                await asyncio.sleep(pause_s)
                version, pause_s = "", min(pause_s * 2, _LONGEST_PAUSE_S)

    async def _list(self) -> str:
        # From the API's cache: it may be some milliseconds old, and the watch goes on from there.
        found = await self._api.get("/api/v1/pods", labelSelector=self._selector, resourceVersion="0")
        there = _by_name(found)
        if set(self._pods) - set(there):
            # That API server's cache may be older than what another's watch told: without a version it is asked for
            # what is, and no healthy server ends for a list that is behind.
            found = await self._api.get("/api/v1/pods", labelSelector=self._selector)
            there = _by_name(found)
        for name in set(self._pods) - set(there):
            self._take(name, None)
        for name, pod in there.items():
            known = self._pods.get(name)
            if known is not None and known["metadata"]["uid"] != pod["metadata"]["uid"]:
                self._take(name, None)
                known = None
            if known is None or known["metadata"]["resourceVersion"] != pod["metadata"]["resourceVersion"]:
                self._take(name, pod)
        self.seen_at = time.monotonic()
        if self._ready is not None and not self._ready.done():
            self._ready.set_result(None)
        return str(found["metadata"]["resourceVersion"])

    async def _watch(self, version: str) -> str:
        changes = self._api.watch("/api/v1/pods", version=version, seconds=_WATCH_S, labelSelector=self._selector)
        async for event in changes:
            changed = event["object"]
            version = str(changed["metadata"]["resourceVersion"])
            self.seen_at = time.monotonic()
            if event["type"] != "BOOKMARK":
                self._take(_name(changed), None if event["type"] == "DELETED" else _plain(changed), last=changed)
        self.seen_at = time.monotonic()
        return version

    def _take(self, name: str, pod: Json | None, *, last: Json | None = None) -> None:
        """Know `pod`, or that it is gone; then it is told as it was `last`, marked as deleted."""
        before = self._pods.get(name)
        about = pod or last or before
        if about is None:
            return
        key = _key(about)
        if pod is not None:
            self._pods[name] = pod
            self._by_server.setdefault(key, set()).add(name)
        else:
            self._pods.pop(name, None)
            names = self._by_server.get(key, set())
            names.discard(name)
            if not names:
                self._by_server.pop(key, None)
            about = {**about, "metadata": {"deletionTimestamp": "", **about["metadata"]}}
        listener = self._listeners.get(key)
        if listener is not None:
            listener(about)


def _by_name(found: Json) -> dict[str, Json]:
    return {_name(pod): _plain(pod) for pod in found["items"]}


def _name(pod: Json) -> str:
    return f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"


def _key(pod: Json) -> Key:
    return pod["metadata"]["namespace"], (pod["metadata"].get("labels") or {}).get(f"{LABEL}/server", "")


def _plain(pod: Json) -> Json:
    """Return `pod` without what nobody reads: who changed which field, and the environment with its secrets."""
    pod["metadata"].pop("managedFields", None)
    for container in pod["spec"]["containers"]:
        container.pop("env", None)
    return pod
