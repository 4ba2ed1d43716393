"""What the hub tells of the nodes of its cluster, for the page of events."""

import time
from datetime import datetime
from typing import Any, cast

import pytest

from astrocloud.core.cluster import Cluster
from astrocloud_hub.spawners.kube.api import ClusterApi
from astrocloud_hub.spawners.kube.fleet import Fleet
from astrocloud_hub.spawners.kube.models import Quota
from astrocloud_hub.spawners.kube.nodes import SILENT_S
from tests.hub.harness import Platform
from tests.hub.test_pod_reading import CLUSTER

QUOTA = Quota(pods=5, memory_bytes=2**34, cpus=8, largest_memory_bytes=2**33)


def mounting(node: str, *, ready: bool, since: str) -> dict[str, Any]:
    condition = {"type": "Ready", "status": "True" if ready else "False", "lastTransitionTime": since}
    return {
        "metadata": {"name": f"storage-{node}"},
        "spec": {"nodeName": node},
        "status": {"conditions": [condition], "containerStatuses": [{"name": "mount", "state": {}}]},
    }


@pytest.fixture
def fleet() -> Fleet:
    return Fleet(api=cast("ClusterApi", None), cluster=Cluster.model_validate(CLUSTER), quota=QUOTA)


def test_nodes_without_the_tree_are_told_with_the_time(fleet: Fleet) -> None:
    fleet.storage.note(
        [
            mounting("node1", ready=True, since="2026-11-23T07:00:00Z"),
            mounting("node2", ready=False, since="2026-11-23T07:12:00Z"),
        ]
    )

    assert fleet.troubles()["nodes"] == [{"node": "node2", "state": "mount", "since": "2026-11-23T07:12:00Z"}]


def test_a_mount_that_was_made_anew_between_two_looks_is_told(fleet: Fleet) -> None:
    def mounted(node: str, started: str, ended_before: str = "") -> dict[str, Any]:
        pod = mounting(node, ready=True, since=started)
        (status,) = pod["status"]["containerStatuses"]
        status["state"] = {"running": {"startedAt": started}}
        status["lastState"] = {"terminated": {"finishedAt": ended_before}} if ended_before else {}
        return pod

    before, ended, after = (f"2026-11-23T07:{minute}:00Z" for minute in ("00", "12", "13"))
    fleet.storage.note([mounted("node1", before), mounted("node2", before)])
    assert fleet.troubles()["nodes"] == []

    for _ in range(2):
        fleet.storage.note([mounted("node1", before), mounted("node2", after, ended)])

    assert fleet.troubles()["nodes"] == [{"node": "node2", "state": "mount", "since": ended, "until": after}]


def test_a_silent_node_is_told_with_when_it_was_last_heard_of(fleet: Fleet) -> None:
    long_ago = time.monotonic() - SILENT_S - 60
    fleet.nodes.note({"node1": "1", "node2": "1"}, now=long_ago)
    fleet.nodes.note({"node1": "2", "node2": "1"}, now=time.monotonic())

    (told,) = fleet.troubles()["nodes"]

    assert (told["node"], told["state"]) == ("node2", "silent")
    silent_s = time.time() - datetime.fromisoformat(told["since"]).timestamp()
    assert SILENT_S + 59 < silent_s < SILENT_S + 120


def test_nothing_is_sure_before_anybody_has_looked(fleet: Fleet) -> None:
    assert fleet.troubles() == {"known": False, "nodes": []}


def test_on_one_machine_there_are_no_nodes_and_only_who_may_asks(platform: Platform) -> None:
    portal = platform.secrets.get("service-portal").get_secret_value()
    told = platform.api("GET", "/astrocloud/nodes", token=portal)
    assert (told.status, told.json()) == (200, {"known": True, "nodes": []})

    passport = platform.secrets.get("service-passport").get_secret_value()
    for token in (passport, "nobody's"):
        assert platform.api("GET", "/astrocloud/nodes", token=token).status == 403
