"""How far the start of a pod is, or what keeps it from starting: read from its status and its events."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from astrocloud_hub.errors import HubError
from astrocloud_hub.spawners.kube.ends import condition, container_status, node_of, terminated
from astrocloud_hub.spawners.kube.models import LABEL, Json
from astrocloud_hub.spawners.kube.objects import HOME_UNUSABLE
from astrocloud_hub.spawners.kube.room import quantity

_NEVER: Final = re.compile(
    r"not found|manifest unknown|denied|unauthorized|forbidden|no basic auth|invalid|no match for platform",
    re.IGNORECASE,
)
"""What a registry says when asking once more will not help."""

_PULLING: Final = frozenset({"ErrImagePull", "ImagePullBackOff", "RegistryUnavailable"})
_NO_PULL: Final = frozenset({"InvalidImageName", "ErrImageNeverPull", "ImageInspectError"})
_NO_CONTAINER: Final = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
_NO_PLACE: Final = re.compile(r"OutOf|NodeAffinity|Unexpected(?:Admission)Error|NodeNotReady")
"""``status.reason`` of a pod that its node did not take after all."""

_NO_VOLUME: Final = re.compile(r"unbound immediate PersistentVolumeClaims|persistentvolumeclaim \"[^\"]*\" not found")

NO_MOUNT: Final = frozenset({"FailedMount", "FailedAttachVolume"})
_LONGEST: Final = 300


@dataclass(frozen=True, kw_only=True)
class Look:
    """One look at a pod that starts."""

    stage: str
    """The stage's key: ``queue``, ``no-room``, ``placed``, ``pulling``, ``pull-again``, ``container``, ``waiting``."""
    percent: int
    parameters: dict[str, Any] = field(default_factory=dict)
    """What the stage's sentence names."""
    address: str = ""
    """The pod's address, once its container runs."""
    trouble: str = ""
    """What keeps it from going on, in the cluster's words; it may pass."""
    failure: HubError | None = None
    """Why it will never start."""


def look(pod: Json, events: Sequence[Json] = ()) -> Look:
    """Return how far `pod` is.

    Parameters
    ----------
    pod
        The pod as it is now.
    events
        Its own events as far as they are known, the last one last.
    """
    node = node_of(pod)
    status = pod.get("status", {})
    if status.get("phase") == "Failed" and _NO_PLACE.search(str(status.get("reason", ""))):
        return Look(stage="no-room", percent=10, trouble=_short(status.get("message") or status["reason"]))
    state = terminated(pod)
    if state is not None:
        return Look(stage="container", percent=70, failure=early_end(pod, state))
    if not node:
        scheduled = condition(pod, "PodScheduled")
        if scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable":
            message = _short(scheduled.get("message", ""))
            # In a new namespace the claim on the tree is bound a moment later.
            stage = "queue" if _NO_VOLUME.search(message) else "no-room"
            return Look(stage=stage, percent=10, trouble=message)
        return Look(stage="queue", percent=10)
    container = container_status(pod)
    waiting = container.get("state", {}).get("waiting") or {}
    if "running" in container.get("state", {}) and status.get("podIP"):
        return Look(stage="waiting", percent=85, address=str(status["podIP"]))
    return _before_running(node, waiting, events)


def _before_running(node: str, waiting: Json, events: Sequence[Json]) -> Look:
    reason, message = str(waiting.get("reason", "")), _short(waiting.get("message", ""))
    if reason in _NO_PULL or (reason in _PULLING and _NEVER.search(message)):
        return Look(stage="pulling", percent=30, failure=image_failure(node, message or reason))
    if reason in _PULLING:
        return Look(stage="pull-again", percent=30, trouble=message or reason)
    if reason in _NO_CONTAINER:
        return Look(stage="container", percent=70, failure=HubError("server-cluster", reason=message or reason))
    last = events[-1] if events else {}
    if last.get("reason") == "Pulling":
        return Look(stage="pulling", percent=30, parameters={"node": node})
    if last.get("reason") in NO_MOUNT:
        return Look(stage="placed", percent=20, parameters={"node": node}, trouble=_short(last.get("message", "")))
    if last.get("reason") in {"Pulled", "Created", "Started"}:
        return Look(stage="container", percent=70)
    return Look(stage="placed", percent=20, parameters={"node": node})


def image_failure(node: str, reason: str) -> HubError:
    """Return the error of an image that could not be fetched."""
    return HubError("server-image", node=node, reason=_short(reason))


def early_end(pod: Json, state: Json) -> HubError:
    """Return the error of a server that ended before it accepted connections.

    Parameters
    ----------
    pod
        Its pod.
    state
        How its container ended.
    """
    exit_code = int(state["exitCode"])
    container = pod["spec"]["containers"][0]
    labels = pod["metadata"].get("labels") or {}
    if exit_code == HOME_UNUSABLE:
        told = str(state.get("message", "")).strip()
        home = f"/home/{labels.get(f'{LABEL}/user', '')}"
        return HubError("server-home", folder=told if told.startswith("/project/") else home)
    if state.get("reason") == "OOMKilled":
        memory = quantity(container.get("resources", {}).get("limits", {}).get("memory", 0))
        return HubError("server-memory", memory_mib=round(memory / 2**20), resources=labels.get(f"{LABEL}/size", ""))
    # Of a program that could not be started at all it holds the runtime's own words.
    return HubError("server-exited", exit_code=exit_code, log=str(state.get("message", "")).strip()[-1500:])


def own_events(pod: Json, events: Sequence[Json]) -> list[Json]:
    """Return those of `events` that are about `pod` itself, not about an earlier one of its name, in their order."""
    uid = pod["metadata"].get("uid")
    found = [event for event in events if event.get("involvedObject", {}).get("uid") == uid]
    return sorted(found, key=lambda event: str(event.get("eventTime") or event.get("lastTimestamp") or ""))


def _short(message: Any) -> str:
    text = " ".join(str(message).split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
