"""What a cluster tells of a pod is understood: how far it is, what keeps it from starting, and why it ended."""

import dataclasses
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from astrocloud.core import words
from astrocloud.core.cluster import Cluster
from astrocloud_hub.spawners.ends import End, Reason
from astrocloud_hub.spawners.kube import objects, starts
from astrocloud_hub.spawners.kube.api import ClusterApi
from astrocloud_hub.spawners.kube.ends import end_of_pod, has_ended
from astrocloud_hub.spawners.kube.models import Placement
from astrocloud_hub.spawners.kube.nodes import SILENT_S, NodeWatch
from astrocloud_hub.spawners.kube.refusals import refusal
from astrocloud_hub.spawners.kube.room import Room, free_room, quantity, requested
from astrocloud_hub.spawners.kube.storage import StorageWatch
from tests.hub.test_pod_objects import ground, plan

NOW = datetime(2026, 11, 22, 20, 0, tzinfo=UTC)
GIB = 2**30


def pod(
    *,
    state: dict[str, Any] | None = None,
    phase: str = "Running",
    node: str = "node1",
    conditions: tuple[dict[str, str], ...] = (),
    deleted: str = "",
    **status: Any,
) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "name": "default-0a1b2c",
        "namespace": "astro-ada",
        "uid": "1-2-3",
        "labels": {"astrocloud.org/user": "ada", "astrocloud.org/size": "small"},
    }
    if deleted:
        metadata |= {"deletionTimestamp": deleted, "deletionGracePeriodSeconds": 8}
    containers = [{"name": "notebook", "resources": {"limits": {"memory": "2Gi"}}}]
    return {
        "metadata": metadata,
        "spec": {"containers": containers, **({"nodeName": node} if node else {})},
        "status": {
            "phase": phase,
            "conditions": list(conditions),
            **({"containerStatuses": [{"name": "notebook", "state": state}]} if state is not None else {}),
            **status,
        },
    }


def over(exit_code: int, reason: str = "Error", at: str = "2026-11-22T19:59:00Z", message: str = "") -> dict[str, Any]:
    return {"terminated": {"exitCode": exit_code, "reason": reason, "finishedAt": at, "message": message}}


RUNNING = {"running": {"startedAt": "2026-11-22T19:00:00Z"}}


def disrupted(reason: str) -> dict[str, str]:
    return {"type": "DisruptionTarget", "status": "True", "reason": reason}


# Why it ended

ENDS: list[tuple[str, dict[str, Any], str]] = [
    ("out of memory", pod(state=over(137, "OOMKilled"), phase="Failed"), "out-of-memory"),
    ("a kernel was out of memory, the server ended well", pod(state=over(0, "OOMKilled")), "exited"),
    ("killed", pod(state=over(137), phase="Failed"), "killed"),
    ("crashed", pod(state=over(3), phase="Failed"), "exited"),
    ("ended by itself", pod(state=over(0, "Completed"), phase="Succeeded"), "exited"),
    ("node was started anew", pod(state=over(255, "Unknown"), phase="Failed"), "host-restart"),
    ("nobody knows since", pod(state=over(137, "ContainerStatusUnknown"), phase="Failed"), "host-restart"),
    ("deleted while it ran", pod(state=RUNNING, deleted="2026-11-22T19:59:30Z"), "deleted"),
    ("ended because it was deleted", pod(state=over(143), deleted="2026-11-22T19:59:08Z"), "deleted"),
    ("ended long before it was deleted", pod(state=over(3), deleted="2026-11-22T20:59:08Z"), "exited"),
    ("drained", pod(state=RUNNING, conditions=(disrupted("EvictionByEvictionAPI"),), deleted="x"), "drained"),
    ("preempted", pod(state=RUNNING, conditions=(disrupted("PreemptionByScheduler"),), deleted="x"), "preempted"),
    ("its node shut down", pod(phase="Failed", reason="Terminated"), "drained"),
    ("its node left the cluster", pod(conditions=(disrupted("DeletionByPodGC"),), deleted="x"), "node-lost"),
    (
        "its node is silent and the cluster noticed",
        pod(
            state=RUNNING,
            conditions=(disrupted("DeletionByTaintManager"), {"type": "Ready", "status": "False"}),
            deleted="x",
        ),
        "node-lost",
    ),
    (
        "a taint cleared its node",
        pod(
            state=RUNNING,
            conditions=(disrupted("DeletionByTaintManager"), {"type": "Ready", "status": "True"}),
            deleted="x",
        ),
        "drained",
    ),
]


@pytest.mark.parametrize(("about", "seen", "reason"), ENDS, ids=[about for about, _, _ in ENDS])
def test_an_end_has_its_reason(about: str, seen: dict[str, Any], reason: str) -> None:
    end = end_of_pod(seen, asked=None, now=NOW)

    assert end.reason == reason
    assert end.at == "2026-11-22T20:00:00+00:00"
    assert end.node == "node1"


@pytest.mark.parametrize(
    ("message", "what"),
    [
        ("The node was low on resource: memory. Threshold quantity: 100Mi, available: 70Mi.", "memory"),
        ("The node was low on resource: ephemeral-storage. Threshold quantity: 1Gi.", "disk"),
        ("The node was low on resource: inodes.", "inodes"),
        ("The node was low on resource: pids.", "processes"),
        ("The node had condition: [DiskPressure].", "disk"),
        ("The node had condition: [MemoryPressure].", "memory"),
        ('Usage of EmptyDir volume "tmp" exceeds the limit "10Gi".', "tmp"),
        ("Pod ephemeral local storage usage exceeds the total limit of containers 1Gi.", "disk"),
    ],
)
def test_an_eviction_names_what_ran_out(message: str, what: str) -> None:
    seen = pod(state=over(137), phase="Failed", reason="Evicted", message=message)

    end = end_of_pod(seen, asked=None, now=NOW)

    assert (end.reason, end.what) == ("evicted", what)
    assert f"portal.ran-out-{what}" in words.catalogue()


@pytest.mark.parametrize("reason", ["idle", "stopped", "disabled"])
def test_what_was_asked_for_is_the_reason(reason: Reason) -> None:
    end = end_of_pod(pod(state=over(0), deleted="x"), asked=(reason, "ada"), now=NOW)

    assert (end.reason, end.by, end.exit_code) == (reason, "ada", 0)


def test_a_node_that_does_not_answer_is_the_reason() -> None:
    assert end_of_pod(pod(state=RUNNING), asked=None, node_lost=True, now=NOW).reason == "node-lost"


def test_a_pod_that_is_gone_was_deleted() -> None:
    assert end_of_pod(None, asked=None, now=NOW).reason == "deleted"
    assert has_ended(None)


def test_an_end_that_a_later_version_kept_can_be_read() -> None:
    kept = {**end_of_pod(None, asked=None, now=NOW).document(), "unheard": 1}

    assert End.from_document(kept).reason == "deleted"


# How far a start is


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return {"waiting": {"reason": reason, "message": message}}


def event(reason: str, message: str = "", uid: str = "1-2-3", at: str = "2026-11-22T19:00:01Z") -> dict[str, Any]:
    return {"reason": reason, "message": message, "involvedObject": {"uid": uid}, "lastTimestamp": at}


UNSCHEDULABLE = {
    "type": "PodScheduled",
    "status": "False",
    "reason": "Unschedulable",
    "message": "0/3 nodes are available: 3 Insufficient memory.",
}

UNBOUND = {**UNSCHEDULABLE, "message": "0/3 nodes are available: pod has unbound immediate PersistentVolumeClaims."}

STAGES: list[tuple[dict[str, Any], tuple[dict[str, Any], ...], str]] = [
    (pod(phase="Pending", node=""), (), "queue"),
    (pod(phase="Pending", node="", conditions=(UNSCHEDULABLE,)), (), "no-room"),
    (pod(phase="Pending", node="", conditions=(UNBOUND,)), (), "queue"),
    (pod(phase="Failed", reason="OutOfmemory", message="Node didn't have enough resource"), (), "no-room"),
    (pod(phase="Pending"), (), "placed"),
    (pod(phase="Pending", state=waiting("ContainerCreating")), (event("Pulling"),), "pulling"),
    (pod(phase="Pending", state=waiting("ContainerCreating")), (event("Pulling"), event("Pulled")), "container"),
    (pod(phase="Pending", state=waiting("ErrImagePull", "dial tcp: connection refused")), (), "pull-again"),
    (pod(phase="Pending", state=waiting("ContainerCreating")), (event("FailedMount", "timed out"),), "placed"),
    (pod(state=RUNNING, podIP="10.90.1.7"), (), "waiting"),
]


@pytest.mark.parametrize(("seen", "events", "stage"), STAGES)
def test_a_start_is_told_as_it_happens(seen: dict[str, Any], events: tuple[dict[str, Any], ...], stage: str) -> None:
    found = starts.look(seen, events)

    assert found.stage == stage
    assert found.failure is None
    for language in words.LANGUAGES:
        assert words.text(f"servers.stage-{stage}", language, **found.parameters)


def test_a_running_server_has_an_address() -> None:
    assert starts.look(pod(state=RUNNING, podIP="10.90.1.7")).address == "10.90.1.7"


@pytest.mark.parametrize(
    ("state", "code"),
    [
        (waiting("ErrImagePull", "failed to resolve reference: registry/astro:9: not found"), "server-image"),
        (waiting("ImagePullBackOff", "Back-off pulling image: pull access denied"), "server-image"),
        (waiting("InvalidImageName", "couldn't parse image name"), "server-image"),
        (waiting("CreateContainerConfigError", "container has runAsNonRoot"), "server-cluster"),
        (over(73), "server-home"),
        (over(137, "OOMKilled"), "server-memory"),
        (over(1, message="ModuleNotFoundError: no astrocloud_lab"), "server-exited"),
        (over(128, "StartError", message='exec: "python": not found'), "server-exited"),
    ],
)
def test_what_will_never_start_fails_at_once(state: dict[str, Any], code: str) -> None:
    failure = starts.look(pod(phase="Pending", state=state)).failure

    assert failure is not None
    assert failure.code == code
    for language in words.LANGUAGES:
        assert "{" not in failure.sentence(language)


def test_events_of_an_earlier_pod_of_the_name_are_left_out_and_the_others_in_order() -> None:
    mixed = [
        event("Pulled", at="2026-11-22T19:00:03Z"),
        event("Failed", uid="0-0-0"),
        event("Pulling", at="2026-11-22T19:00:02Z"),
    ]

    assert [each["reason"] for each in starts.own_events(pod(), mixed)] == ["Pulling", "Pulled"]


# What is refused

QUOTA = (
    'pods "default-0a1b2c" is forbidden: exceeded quota: astrocloud, requested: limits.memory=2Gi,pods=1, '
    "used: limits.memory=4Gi,pods=3, limited: limits.memory=5Gi,pods=3"
)
SECURITY = (
    'pods "x" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true (pod or container "x" must '
    "set securityContext.runAsNonRoot=true)"
)


@pytest.mark.parametrize(
    ("status", "message", "code", "told"),
    [
        (403, QUOTA, "server-quota", "memory: 4 GiB + 2 GiB > 5 GiB; pods: 3 + 1 > 3"),
        (403, SECURITY, "server-policy", "runAsNonRoot != true"),
        (
            403,
            'pods "x" is forbidden: unable to create new content in namespace astro-ada because it is being terminated',
            "server-namespace-ending",
            "astro-ada",
        ),
        (
            422,
            "pods \"x\" is forbidden: ValidatingAdmissionPolicy 'images' with binding 'images' denied request: not on "
            "the list",
            "server-policy",
            "not on the list",
        ),
        (500, "etcdserver: request timed out", "server-cluster", "etcdserver"),
        (0, "the cluster's API does not answer: ClientConnectorError", "server-cluster", "does not answer"),
    ],
)
def test_a_refusal_is_a_sentence(status: int, message: str, code: str, told: str) -> None:
    error = refusal(status, message, namespace="astro-ada")

    assert error.code == code
    for language in words.LANGUAGES:
        assert told in error.sentence(language)


# How much room there is


@pytest.mark.parametrize(
    ("text", "number"),
    [("512Mi", 512 * 2**20), ("1e3", 1000), ("100m", 0.1), ("2", 2), (3, 3), ("1.5Gi", 1.5 * GIB), ("?", 0), ("1Q", 0)],
)
def test_quantities_are_numbers(text: str | int, number: float) -> None:
    assert quantity(text) == number


def node(name: str, *, memory: str = "8Gi", labels: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "labels": labels or {}},
        "spec": spec,
        "status": {
            "allocatable": {"memory": memory, "cpu": "2", "pods": "110"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


def taking(node_name: str, memory: str, phase: str = "Running") -> dict[str, Any]:
    requests = {"requests": {"memory": memory, "cpu": "500m"}}
    return {"spec": {"nodeName": node_name, "containers": [{"resources": requests}]}, "status": {"phase": phase}}


def test_room_is_what_pods_leave_on_nodes_that_suit() -> None:
    gpu = {"key": "gpu", "value": "yes", "effect": "NoSchedule"}
    nodes = [
        node("one"),
        node("cordoned", unschedulable=True),
        node("tainted", taints=[gpu]),
        node("elsewhere", labels={"disk": "slow"}),
    ]
    for each in nodes[:3]:
        each["metadata"]["labels"] = {"disk": "fast"}
    pods = [taking("one", "3Gi"), taking("one", "4Gi", phase="Succeeded")]

    plain = free_room(nodes, pods, {"nodeSelector": {"disk": "fast"}})
    tolerant = free_room(
        nodes, pods, {"nodeSelector": {"disk": "fast"}, "tolerations": [{"key": "gpu", "operator": "Exists"}]}
    )

    assert plain == [Room(memory_bytes=5 * GIB, cpus=1.5)]
    assert tolerant == [Room(memory_bytes=5 * GIB, cpus=1.5), Room(memory_bytes=8 * GIB, cpus=2)]


def test_there_is_no_room_on_a_node_that_a_server_must_avoid() -> None:
    placed = dataclasses.replace(plan(), placement=Placement(avoid=("two", "three")))
    spec = objects.pod(ground(), placed)["spec"]
    nodes = [node(name, labels=spec.get("nodeSelector")) for name in ("one", "two", "three")]

    assert free_room(nodes, [taking("one", "3Gi")], spec) == [Room(memory_bytes=5 * GIB, cpus=1.5)]


# What a pod asks for


def asking(memory: str, cpu: str, **more: Any) -> dict[str, Any]:
    return {"resources": {"requests": {"memory": memory, "cpu": cpu}}, **more}


@pytest.mark.parametrize(
    ("spec", "gib", "cpus"),
    [
        ({"containers": [asking("1Gi", "1"), asking("2Gi", "500m")]}, 3, 1.5),
        ({"containers": [asking("1Gi", "1")], "initContainers": [asking("4Gi", "100m"), asking("2Gi", "2")]}, 4, 2),
        (
            {
                "containers": [asking("1Gi", "1")],
                "initContainers": [asking("1Gi", "1", restartPolicy="Always"), asking("3Gi", "100m")],
            },
            4,
            2,
        ),
        ({"containers": [asking("1Gi", "1")], "overhead": {"memory": "1Gi", "cpu": "250m"}}, 2, 1.25),
        ({}, 0, 0),
    ],
)
def test_what_a_pod_asks_for_is_counted_as_the_scheduler_does(spec: dict[str, Any], gib: float, cpus: float) -> None:
    assert requested(spec) == Room(memory_bytes=gib * GIB, cpus=cpus)


# Which nodes are silent


def test_a_node_is_silent_when_its_lease_stays_as_it_was() -> None:
    class NoApi:
        pass

    watch = NodeWatch(api=NoApi(), tell=lambda _: None)  # type: ignore[arg-type]
    import time

    long_ago = time.monotonic() - SILENT_S - 1
    watch.note({"lost": "19:00", "well": "19:00"}, now=long_ago)
    watch.note({"lost": "19:00", "well": "19:10"}, now=time.monotonic())

    assert watch.silent("lost")
    assert not watch.silent("well")
    assert not watch.silent("never heard of")


CLUSTER = {
    "release": "sky",
    "namespace": "astro",
    "public_url": "http://localhost",
    "proxy": "http://localhost",
    "proxy_api": "http://localhost",
    "hub": "http://localhost",
    "services": {},
    "database": {"host": "localhost"},
    "servers": {"storage_namespace": "astro-storage"},
}


def test_what_was_there_before_a_mount_has_lost_it() -> None:
    watch = StorageWatch(api=cast("ClusterApi", None), cluster=Cluster.model_validate(CLUSTER))

    def mounts(node: str, *, ready: bool, since: str) -> dict[str, Any]:
        return {
            "metadata": {"name": f"storage-{node}"},
            "spec": {"nodeName": node},
            "status": {
                "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
                "containerStatuses": [{"name": "mount", "state": {"running": {"startedAt": since}}}],
            },
        }

    watch.note([mounts("one", ready=True, since="2026-11-22T10:00:00Z"), mounts("two", ready=False, since="")])
    assert (watch.unwell, watch.nowhere) == (("two",), False)
    assert not watch.cut_off("one", "2026-11-22T10:00:05Z")
    assert not watch.cut_off("two", "2026-11-22T10:00:05Z")

    watch.note([mounts("one", ready=False, since="2026-11-22T11:00:00Z"), mounts("two", ready=False, since="")])
    assert watch.nowhere
    assert watch.cut_off("one", "2026-11-22T10:00:05Z")
    assert not watch.cut_off("one", "")
