"""Why a pod ended, read from its last known state."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from astrocloud_hub.spawners.ends import End, Reason
from astrocloud_hub.spawners.kube.models import CONTAINER, Json

_KILLED: Final = 128 + 9

# What the kubelet writes when it evicts: "The node was low on resource: memory. …", "The node had condition:
# [DiskPressure].", "Usage of EmptyDir volume "tmp" exceeds the limit "10Gi".", "Pod ephemeral local storage usage …"
_RAN_OUT: Final = (
    (re.compile(r"EmptyDir volume|emptyDir volume"), "tmp"),
    (re.compile(r"inodes", re.IGNORECASE), "inodes"),
    (re.compile(r"resource: memory|MemoryPressure"), "memory"),
    (re.compile(r"ephemeral|DiskPressure|local storage"), "disk"),
    (re.compile(r"resource: pids|PIDPressure"), "processes"),
)

_BY_KUBELET: Final[dict[str, Reason]] = {
    "NodeLost": "node-lost",
    "NodeShutdown": "drained",
    "Shutdown": "drained",
    "Terminated": "drained",
    "Preempting": "preempted",
}
"""``status.reason`` of a pod that its node ended."""

_BY_CONTROL_PLANE: Final[dict[str, Reason]] = {
    "PreemptionByScheduler": "preempted",
    "EvictionByEvictionAPI": "drained",
    "DeletionByTaintManager": "drained",
    "DeletionByPodGC": "node-lost",
}
"""Reasons of the condition DisruptionTarget."""


def has_ended(pod: Json | None) -> bool:
    """Tell whether `pod` will not run any more: it is over, on its way out, or not there."""
    if pod is None or "deletionTimestamp" in pod["metadata"]:
        return True
    return pod.get("status", {}).get("phase") in {"Succeeded", "Failed"} or terminated(pod) is not None


def container_status(pod: Json) -> Json:
    """Return the status of the server's container, empty while there is none."""
    found: list[Json] = pod.get("status", {}).get("containerStatuses") or []
    return next((status for status in found if status["name"] == CONTAINER), {})


def running_since(pod: Json) -> str:
    """Return when the server's container started, as Kubernetes writes times; empty while it does not run."""
    return str((container_status(pod).get("state", {}).get("running") or {}).get("startedAt") or "")


def terminated(pod: Json) -> Json | None:
    """Return how the server's container ended, or `None`."""
    state: Json | None = container_status(pod).get("state", {}).get("terminated")
    return state


def condition(pod: Json, kind: str) -> Json:
    """Return one condition of a pod, empty when it has none of that kind."""
    found: list[Json] = pod.get("status", {}).get("conditions") or []
    return next((each for each in found if each["type"] == kind), {})


def node_of(pod: Json | None) -> str:
    """Return the name of the node that `pod` is on, empty when it has none."""
    return str((pod or {}).get("spec", {}).get("nodeName") or "")


def end_of_pod(
    pod: Json | None, *, asked: tuple[Reason, str] | None, node_lost: bool = False, now: datetime | None = None
) -> End:
    """Return why a server ended.

    Parameters
    ----------
    pod
        Its pod as it was last seen, `None` when it never was.
    asked
        Reason and name, when the platform or somebody ended it on purpose.
    node_lost
        Whether its node was found not to answer any more.
    now
        The time to note; the present one for `None`.
    """
    at = (now or datetime.now(UTC)).isoformat(timespec="seconds")
    state = terminated(pod) if pod is not None else None
    exit_code = int(state["exitCode"]) if state is not None else None
    if asked is not None:
        return End(reason=asked[0], by=asked[1], at=at, exit_code=exit_code)
    node = node_of(pod)
    if node_lost:
        return End(reason="node-lost", at=at, node=node)
    if pod is None:
        return End(reason="deleted", at=at)
    found = _by_cluster(pod)
    if found is not None:
        reason, what = found
        return End(reason=reason, at=at, exit_code=exit_code, what=what, node=node)
    # What ends while its pod is being deleted ended because of that.
    if state is None or _deleted_before(pod, state):
        return End(reason="deleted", at=at, exit_code=exit_code, node=node)
    return _by_itself(state, at=at, node=node)


def what_ran_out(message: str) -> str:
    """Return what a node had too little of, by the words in which it says that it evicted a pod."""
    return next((what for pattern, what in _RAN_OUT if pattern.search(message)), "memory")


def _by_cluster(pod: Json) -> tuple[Reason, str] | None:
    """Return the reason that the cluster gives, and what ran out; `None` when it gives none."""
    status = pod.get("status", {})
    if status.get("reason") == "Evicted":
        return "evicted", what_ran_out(str(status.get("message", "")))
    if status.get("reason") in _BY_KUBELET:
        return _BY_KUBELET[status["reason"]], ""
    disruption = condition(pod, "DisruptionTarget")
    if disruption.get("status") == "True" and disruption.get("reason") in _BY_CONTROL_PLANE:
        reason = _BY_CONTROL_PLANE[disruption["reason"]]
        # Taints clear a node for maintenance, and one that is gone: there nobody saw the container end.
        lost = condition(pod, "Ready").get("status") != "True" and terminated(pod) is None
        return ("node-lost", "") if disruption["reason"] == "DeletionByTaintManager" and lost else (reason, "")
    return None


def _by_itself(state: Json, *, at: str, node: str) -> End:
    exit_code = int(state["exitCode"])
    why = state.get("reason")
    # Control groups of version 1: a kernel that was ended for memory leaves its mark, and the server ends well, later.
    if why == "OOMKilled" and exit_code != 0:
        return End(reason="out-of-memory", at=at, exit_code=exit_code, node=node)
    if why in {"ContainerStatusUnknown", "Unknown"}:
        return End(reason="host-restart", at=at, node=node)
    if exit_code == _KILLED:
        return End(reason="killed", at=at, exit_code=exit_code, node=node)
    return End(reason="exited", at=at, exit_code=exit_code, node=node)


def _deleted_before(pod: Json, state: dict[str, Any]) -> bool:
    """Tell whether somebody had asked for the pod's deletion when the container ended."""
    metadata = pod["metadata"]
    if "deletionTimestamp" not in metadata:
        return False
    finished = _time(state.get("finishedAt"))
    # The timestamp is when the time to end by itself is over.
    grace = timedelta(seconds=int(metadata.get("deletionGracePeriodSeconds") or 0))
    deadline = _time(metadata["deletionTimestamp"])
    return finished is None or deadline is None or finished >= deadline - grace


def _time(value: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(str(value).replace("Z", "+00:00"))
    except ValueError:
        return None
