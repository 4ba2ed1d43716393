"""Knowing on which nodes the file tree can be used, where pods of the platform mount it.

A mount ends with the container that made it: servers that were there before hold what is no file system any more, and
nothing but a new pod gives them the new one.
"""

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Final

import structlog

from astrocloud.core.cluster import Cluster
from astrocloud_hub.spawners.kube.api import ClusterApi, ClusterError
from astrocloud_hub.spawners.kube.ends import condition, node_of
from astrocloud_hub.spawners.kube.models import Json

LOOK_EVERY_S: Final = 5.0
_REMEMBERED: Final = 50
"""So many of the last mounts that were made anew are told of: that takes less time than a look."""

_log = structlog.get_logger()


class StorageWatch:
    """The nodes' mounts.

    Parameters
    ----------
    api
        The cluster.
    cluster
        What the chart says of it: where the pods are that mount the tree, if any do.
    """

    def __init__(self, *, api: ClusterApi, cluster: Cluster) -> None:
        self._api = api
        self._cluster = cluster
        self._namespace = cluster.servers.storage_namespace
        self._unwell: frozenset[str] = frozenset()
        self._since: dict[str, str] = {}
        self._looked = False
        self._remounts: deque[Json] = deque(maxlen=_REMEMBERED)
        self._mounted_at: dict[str, str] = {}
        self._nodes = 0
        self._remounted = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look, where there is something to look at; nothing when that has begun."""
        if self._task is None and self._namespace:
            self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Stop looking."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    @property
    def unwell(self) -> tuple[str, ...]:
        """The nodes on which the tree cannot be used now."""
        return tuple(sorted(self._unwell))

    @property
    def since(self) -> dict[str, str]:
        """Node -> since when the tree cannot be used there, as Kubernetes writes times; empty where it does not say."""
        return {node: self._since.get(node, "") for node in self.unwell}

    @property
    def remounts(self) -> list[Json]:
        """The times at which a node's mount was made anew: its node, ``since`` the one before ended, ``until``."""
        return list(self._remounts)

    @property
    def sure(self) -> bool:
        """Whether that is known, or there is nothing to know."""
        return self._looked or not self._namespace

    @property
    def nowhere(self) -> bool:
        """Whether it can be used on no node."""
        return bool(self._unwell) and len(self._unwell) == self._nodes

    def cut_off(self, node: str, since: str) -> bool:
        """Tell whether what was started on `node` at `since` (as Kubernetes writes times) has lost its mount."""
        return bool(since) and since < self._mounted_at.get(node, "")

    def note(self, pods: Iterable[Json]) -> None:
        """Take how the pods are that mount the tree."""
        found = [pod for pod in pods if pod["spec"].get("nodeName") and "deletionTimestamp" not in pod["metadata"]]
        unwell = frozenset(pod["spec"]["nodeName"] for pod in found if condition(pod, "Ready").get("status") != "True")
        if unwell != self._unwell:
            _log.warning("storage-nodes-unwell", nodes=sorted(unwell))
        self._unwell, self._nodes, self._looked = unwell, len(found), True
        self._since = {node_of(pod): str(condition(pod, "Ready").get("lastTransitionTime") or "") for pod in found}
        for pod in found:
            node, started = node_of(pod), _started(pod)
            if started and self._mounted_at.get(node) != started:
                if node in self._mounted_at:
                    self._remounts.append({"node": node, "since": _ended_before(pod) or started, "until": started})
                self._mounted_at[node] = started
                self._remounted = True

    async def _run(self) -> None:
        while True:
            try:
                self.note(await self._pods(self._namespace, "storage"))
                await self._replace_cut_off()
            except (ClusterError, KeyError, TypeError) as err:
                _log.warning("storage-not-watched", reason=str(err)[:300])
            await asyncio.sleep(LOOK_EVERY_S)

    async def _pods(self, namespace: str, part: str) -> list[Json]:
        selector = f"app.kubernetes.io/instance={self._cluster.release},app.kubernetes.io/component={part}"
        found = await self._api.get(f"/api/v1/namespaces/{namespace}/pods", labelSelector=selector)
        return list(found["items"])

    async def _replace_cut_off(self) -> None:
        """Have the cluster make the replicas of VOSpace anew that lost their mount."""
        if not self._remounted:
            return
        for pod in await self._pods(self._cluster.namespace, "vospace"):
            metadata = pod["metadata"]
            if "deletionTimestamp" not in metadata and self.cut_off(node_of(pod), _started(pod)):
                _log.warning("vospace-replaced", pod=metadata["name"], node=node_of(pod))
                await self._api.delete_pod(metadata["namespace"], metadata["name"], grace_s=10, uid=metadata["uid"])
        self._remounted = False


def _started(pod: Json) -> str:
    """Return when the first container of `pod` started, as Kubernetes writes times; empty while it does not run."""
    statuses = pod.get("status", {}).get("containerStatuses") or [{}]
    return str((statuses[0].get("state", {}).get("running") or {}).get("startedAt") or "")


def _ended_before(pod: Json) -> str:
    """Return when the first container of `pod` ended the last time; empty where it never did."""
    statuses = pod.get("status", {}).get("containerStatuses") or [{}]
    return str((statuses[0].get("lastState", {}).get("terminated") or {}).get("finishedAt") or "")
