"""How much room there is in the cluster, asked only when there was none for somebody."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from astrocloud_hub.spawners.kube.models import Json

_QUANTITY: Final = re.compile(r"([0-9.]+(?:e[0-9]+)?)\s*([a-zA-Z]*)\Z")
_SUFFIXES: Final = {
    "": 1.0, "n": 1e-9, "u": 1e-6, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18,
    "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50, "Ei": 2.0**60,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Room:
    """What is free on one node, or what a server needs there."""

    memory_bytes: float
    cpus: float

    def __add__(self, other: "Room") -> "Room":
        return Room(memory_bytes=self.memory_bytes + other.memory_bytes, cpus=self.cpus + other.cpus)

    def __or__(self, other: "Room") -> "Room":
        """Return what holds each of the two, one after the other."""
        return Room(memory_bytes=max(self.memory_bytes, other.memory_bytes), cpus=max(self.cpus, other.cpus))

    def holds(self, other: "Room") -> bool:
        """Tell whether `other` fits into it."""
        return self.memory_bytes >= other.memory_bytes and self.cpus >= other.cpus


def quantity(text: str | int | float) -> float:
    """Return the number that Kubernetes writes as `text`, such as ``512Mi`` or ``100m``; 0 for what is none."""
    match = _QUANTITY.match(str(text))
    if match is None or match[2] not in _SUFFIXES:
        return 0.0
    return float(match[1]) * _SUFFIXES[match[2]]


def free_room(nodes: Iterable[Json], pods: Iterable[Json], servers_spec: Json) -> list[Room]:
    """Return what is free on each node that a server may run on.

    Parameters
    ----------
    nodes, pods
        All of the cluster's.
    servers_spec
        The spec of the server's pod: its node selector, its tolerations and the nodes that it avoids count.
    """
    taken: dict[str, list[Room]] = {}
    count: dict[str, int] = {}
    for pod in pods:
        name = pod.get("spec", {}).get("nodeName")
        if name and pod.get("status", {}).get("phase") not in {"Succeeded", "Failed"}:
            taken.setdefault(name, []).append(requested(pod["spec"]))
            count[name] = count.get(name, 0) + 1
    found: list[Room] = []
    for node in nodes:
        if not _suits(node, servers_spec):
            continue
        there = node.get("status", {}).get("allocatable") or {}
        used = taken.get(node["metadata"]["name"], [])
        if count.get(node["metadata"]["name"], 0) >= quantity(there.get("pods", 110)):
            continue
        found.append(
            Room(
                memory_bytes=quantity(there.get("memory", 0)) - sum(each.memory_bytes for each in used),
                cpus=quantity(there.get("cpu", 0)) - sum(each.cpus for each in used),
            )
        )
    return found


def requested(spec: Json) -> Room:
    """Return what a pod is sure of on its node, as the scheduler counts it."""
    beside = peak = _room({})
    for container in spec.get("initContainers") or []:
        wanted = _room(container.get("resources", {}).get("requests") or {})
        # One that is restarted always stays beside all that come after it.
        peak = peak | (beside + wanted)
        beside = beside + wanted if container.get("restartPolicy") == "Always" else beside
    for container in spec.get("containers") or []:
        beside = beside + _room(container.get("resources", {}).get("requests") or {})
    return (beside | peak) + _room(spec.get("overhead") or {})


def _room(amounts: Json) -> Room:
    return Room(memory_bytes=quantity(amounts.get("memory", 0)), cpus=quantity(amounts.get("cpu", 0)))


def _suits(node: Json, spec: Json) -> bool:
    labels = node["metadata"].get("labels") or {}
    if node.get("spec", {}).get("unschedulable"):
        return False
    if any(labels.get(key) != value for key, value in (spec.get("nodeSelector") or {}).items()):
        return False
    if node["metadata"]["name"] in _avoided(spec):
        return False
    ready = [each for each in node.get("status", {}).get("conditions") or [] if each["type"] == "Ready"]
    if ready and ready[0]["status"] != "True":
        return False
    hard = [taint for taint in node.get("spec", {}).get("taints") or [] if taint.get("effect") != "PreferNoSchedule"]
    return all(_tolerated(taint, spec.get("tolerations") or []) for taint in hard)


def _avoided(spec: Json) -> set[str]:
    """Return the nodes that the platform keeps this pod from, as `objects` writes them."""
    affinity = spec.get("affinity", {}).get("nodeAffinity", {})
    terms = affinity.get("requiredDuringSchedulingIgnoredDuringExecution", {}).get("nodeSelectorTerms", [])
    return {
        node
        for term in terms
        for field in term.get("matchFields", [])
        if (field["key"], field["operator"]) == ("metadata.name", "NotIn")
        for node in field["values"]
    }


def _tolerated(taint: Json, tolerations: Sequence[Json]) -> bool:
    for each in tolerations:
        if each.get("effect") not in {None, "", taint.get("effect")}:
            continue
        if each.get("operator") == "Exists" and each.get("key") in {None, "", taint["key"]}:
            return True
        if each.get("key") == taint["key"] and each.get("value", "") == taint.get("value", ""):
            return True
    return False
