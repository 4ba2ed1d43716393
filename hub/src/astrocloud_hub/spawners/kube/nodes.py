"""Knowing which nodes do not answer any more, before the cluster takes note: it waits 50 s.

Each node renews its lease every ten seconds. When one stopped, each server on it is tried as well, so that a node which
only cannot reach the cluster's API keeps its servers.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

import structlog

from astrocloud_hub.spawners.kube.api import ClusterApi, ClusterError

LEASES: Final = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
LOOK_EVERY_S: Final = 2.5
SILENT_S: Final = 18.0
"""So long without a renewal and a node counts as silent.

A node that dies is told of after 23 s at most: one look until its last renewal is seen, so long, and one look more.
"""

_log = structlog.get_logger()


class NodeWatch:
    """The nodes that are silent now.

    Parameters
    ----------
    api
        The cluster.
    tell
        Called with the name of a node that has become silent, once.
    """

    def __init__(self, *, api: ClusterApi, tell: Callable[[str], None]) -> None:
        self._api = api
        self._tell = tell
        self._told: set[str] = set()
        self._began = time.monotonic()
        self._renewed: dict[str, tuple[str, float]] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look; nothing when that has begun."""
        if self._task is None:
            self._began = time.monotonic()
            self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Stop looking."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def silent(self, node: str) -> bool:
        """Tell whether `node` has not been heard of for a while; one that never was is not silent."""
        _, since = self._renewed.get(node, ("", time.monotonic()))
        return time.monotonic() - since > SILENT_S

    @property
    def sure(self) -> bool:
        """Whether it has looked for so long that whoever is silent is known."""
        return bool(self._renewed) and time.monotonic() - self._began > SILENT_S + LOOK_EVERY_S

    def silences(self) -> dict[str, float]:
        """Return node -> for how many seconds it has not been heard of, of those that are silent."""
        return self._silences(time.monotonic())

    def _silences(self, now: float) -> dict[str, float]:
        return {node: now - since for node, (_, since) in self._renewed.items() if now - since > SILENT_S}

    def note(self, leases: dict[str, str], *, now: float) -> None:
        """Note when each node last renewed its lease, and tell who has become silent; by our own clock, not theirs.

        Parameters
        ----------
        leases
            Node -> what its lease says, which changes with each renewal.
        now
            The present time, by the monotonic clock.
        """
        for node, said in leases.items():
            if self._renewed.get(node, ("", 0.0))[0] != said:
                self._renewed[node] = (said, now)
        for node in set(self._renewed) - set(leases):
            del self._renewed[node]
        silent = set(self._silences(now))
        new, self._told = silent - self._told, silent
        for node in sorted(new):
            _log.warning("node-silent", node=node)
            self._tell(node)

    async def _run(self) -> None:
        failing = False
        while True:
            try:
                found = await self._api.get(LEASES)
                said = {each["metadata"]["name"]: str(each["spec"].get("renewTime")) for each in found["items"]}
                self.note(said, now=time.monotonic())
                failing = False
            except (ClusterError, KeyError, TypeError) as err:
                # Nobody is silent whom we cannot hear.
                self._renewed.clear()
                self._told.clear()
                self._began = time.monotonic()
                if not failing:
                    _log.warning("nodes-not-watched", reason=str(err)[:300])
                failing = True
            await asyncio.sleep(LOOK_EVERY_S)
