"""People's servers as pods, where a cluster can do what one machine cannot."""

import json
import os
import re
import time
import urllib.request
from contextlib import ExitStack
from typing import Any

import pytest

from tests.hub.harness import until
from tests.kube.cluster import machines, node
from tests.kube.cluster.layout import CONTROL, NODES
from tests.kube.people import PodPlatform

pytestmark = [
    pytest.mark.kube,
    pytest.mark.own_nodes("pods call a hub at this machine's address on the bridge"),
    pytest.mark.timeout(600),
]


@pytest.fixture(autouse=True)
def _people(platform: PodPlatform) -> None:
    for name in ("ada", "ben"):
        if platform.api("GET", f"/users/{name}").status == 404:
            platform.sign_in(name)
        if platform.server(name).get("ready"):
            platform.stop_server(name)


def write_stub(platform: PodPlatform, user: str, **wanted: Any) -> None:
    """Tell the stub server what to do at its next start."""
    home = platform.tree / "home" / user
    (home / "stub.json").write_text(json.dumps(wanted), encoding="utf-8")
    (home / "stub.json").chmod(0o644)


# What a server can and cannot do


def test_a_namespace_holds_what_was_reviewed(platform: PodPlatform) -> None:
    platform.start_server("ada")

    found = {
        kind: {each["metadata"]["name"] for each in platform.cluster.get(kind, "-n", f"{platform.prefix}ada")["items"]}
        for kind in ("resourcequota", "limitrange", "networkpolicy", "pvc")
    }
    (claim,) = found.pop("pvc")
    assert claim.startswith("tree-")
    assert found == {
        "resourcequota": {"astrocloud"},
        "limitrange": {"astrocloud"},
        "networkpolicy": {"deny-all", "server"},
    }
    labels = platform.cluster.get("namespace", f"{platform.prefix}ada")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_the_image_s_digest_is_what_runs_and_what_is_told(platform: PodPlatform) -> None:
    state = platform.start_server("ada")["state"]

    assert "@sha256:" in platform.pod("ada")["spec"]["containers"][0]["image"]
    assert state["image"].endswith(platform.images["stub"].partition("@")[2])
    assert state["node"] == platform.pod("ada")["spec"]["nodeName"]


ESCAPES = {
    "another home": "print(open('/home/ben/x').read())",
    "a home beside its own": "import os; os.listdir('/home/ada/../ben')",
    "an account's token": "print(open('/var/run/secrets/kubernetes.io/serviceaccount/token').read())",
    "the node's files": "print(open('/proc/1/root/var/lib/kubelet/config.yaml').read())",
    "root": "import os; os.setuid(0)",
    "a mount": "import ctypes, os; r = ctypes.CDLL(None, use_errno=True).mount(b'x', b'/mnt', b'tmpfs', 0, None); "
    "assert r == 0, os.strerror(ctypes.get_errno())",
    "a device": "import os; os.mknod('/tmp/disk', 0o60600, os.makedev(254, 0))",
    "the program's files": "open('/usr/bin/x', 'w')",
    "its own names": "open('/etc/passwd', 'a')",
    "the archive": "open('/archive/x', 'w')",
    "the cluster's API": "import ssl, urllib.request; print(urllib.request.urlopen("
    "'https://10.96.0.1/api/v1/namespaces', context=ssl._create_unverified_context(), timeout=5).status)",
    "the kubelet": "import ssl, urllib.request, os; print(urllib.request.urlopen("
    "'https://10.89.0.11:10250/pods', context=ssl._create_unverified_context(), timeout=5).status)",
}


NOTHING_THERE = r"FileNotFoundError|No such file"
NOT_ALLOWED = r"PermissionError|Operation not permitted|Permission denied|Read-only file system"
NOBODY_TO_IT = r"HTTP Error 40[13]"
"""No policy is enforced on the tests' cluster, so a server reaches it, and has no name there that is known."""

REFUSED = {
    "another home": NOTHING_THERE,
    "a home beside its own": NOTHING_THERE,
    "an account's token": NOTHING_THERE,
    "the node's files": rf"{NOTHING_THERE}|{NOT_ALLOWED}",
    "the cluster's API": NOBODY_TO_IT,
    "the kubelet": NOBODY_TO_IT,
}
"""How it fails; by `NOT_ALLOWED` where nothing else is said."""


@pytest.mark.parametrize("what", ESCAPES)
def test_a_server_does_not_get(what: str, platform: PodPlatform) -> None:
    if not platform.server("ada").get("ready"):
        platform.start_server("ada")
    for user in ("ada", "ben"):
        home = platform.tree / "home" / user
        home.mkdir(exist_ok=True)
    (platform.tree / "home" / "ben" / "x").write_text("ben's", encoding="utf-8")

    told = platform.run("ada", ESCAPES[what])

    assert told.startswith("!"), told
    assert re.search(REFUSED.get(what, NOT_ALLOWED), told), told


def test_a_link_out_of_the_home_leads_nowhere(platform: PodPlatform) -> None:
    platform.start_server("ada")
    platform.run("ada", "import os; os.path.islink('/home/ada/out') or os.symlink('/../../../etc', '/home/ada/out')")

    # It is followed inside the pod, where /etc is the image's.
    assert platform.run("ada", "print(open('/home/ada/out/passwd').read().count(':x:'))") == "3"


def test_a_privileged_pod_or_one_of_the_node_s_paths_is_refused(platform: PodPlatform) -> None:
    platform.start_server("ada")
    made = platform.pod("ada")
    spec = {"containers": [{"name": "x", "image": "x", "securityContext": {"privileged": True}}]}
    spec["volumes"] = [{"name": "x", "hostPath": {"path": "/"}}]  # type: ignore[list-item]
    given = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": spec}

    refused = platform.cluster.try_kubectl("create", "-n", made["metadata"]["namespace"], "-f", "-", given=given)

    assert 'violates PodSecurity "restricted' in refused.stderr


# Why it ended


def test_a_pod_deleted_behind_the_hub_is_known_at_once(platform: PodPlatform) -> None:
    platform.start_server("ada")
    name = platform.pod("ada")["metadata"]["name"]
    began = time.monotonic()

    platform.kubectl("ada", "delete", "pod", name, "--wait=false")

    assert platform.ended("ada")["reason"] == "deleted"
    assert time.monotonic() - began < 30


def test_an_eviction_is_the_reason(platform: PodPlatform) -> None:
    platform.start_server("ada")
    node = platform.pod("ada")["spec"]["nodeName"]
    made = platform.pod("ada")["metadata"]
    path = f"/api/v1/namespaces/{made['namespace']}/pods/{made['name']}/eviction"
    about = {"name": made["name"], "namespace": made["namespace"]}

    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": about}
    platform.cluster.kubectl("create", "--raw", path, "-f", "-", given=body)

    end = platform.ended("ada")
    assert (end["reason"], end["node"]) == ("drained", node)


def test_the_reason_outlives_the_pod(platform: PodPlatform) -> None:
    platform.start_server("ada")
    with pytest.raises((OSError, AssertionError)):
        platform.run("ada", "x = [bytearray(2**24) for _ in range(64)]")

    assert platform.ended("ada")["reason"] == "out-of-memory"
    until(lambda: not platform.pods("ada"), seconds=30, what="the pod is gone")
    assert platform.server("ada")["state"]["last_end"]["reason"] == "out-of-memory"


# Why it does not start


def test_no_room_is_said_within_ten_seconds_with_what_would_fit(platform: PodPlatform) -> None:
    end, seconds = platform.refused("ada", resources="huge")

    assert end["code"] == "server-no-room"
    assert seconds <= 10
    assert "Sizes that would fit now: small, large." in platform.hub_log()
    assert not [pod for pod in platform.pods("ada") if "deletionTimestamp" not in pod["metadata"]]


def test_an_image_that_is_not_there_fails_fast(platform: PodPlatform) -> None:
    end, seconds = platform.refused("ada", environment="void")

    assert end["code"] == "server-image"
    assert seconds < 20


def test_fetching_an_image_is_told_while_it_goes_on(platform: PodPlatform) -> None:
    """No node has it, and the registry takes its time."""
    token = platform.secrets.get("service-operator").get_secret_value()
    asked = urllib.request.Request(
        f"{platform.runtime.hub_api_url}/users/ben/server/progress", headers={"Authorization": f"token {token}"}
    )
    told = []
    with ExitStack() as registry:
        registry.enter_context(machines.frozen(CONTROL, "registry"))
        platform.api("POST", "/users/ben/server", body={"user_options": {"environment": "unfetched"}})
        with urllib.request.urlopen(asked, timeout=60) as lines:
            for line in lines:
                if not line.startswith(b"data: "):
                    continue
                told.append(json.loads(line.removeprefix(b"data: ")))
                if "Fetching the environment to the node" in told[-1]["message"]:
                    registry.close()

    assert told[-1].get("ready") is True, told
    assert [event["progress"] for event in told] == sorted(event["progress"] for event in told)
    assert any("Fetching the environment to the node node" in event["message"] for event in told), told


def test_a_quota_is_told_as_a_sentence(platform: PodPlatform) -> None:
    platform.start_server("ada")
    platform.stop_server("ada")
    patch = json.dumps({"spec": {"hard": {"pods": "0"}}})
    platform.kubectl("ada", "patch", "resourcequota", "astrocloud", "--type=merge", "-p", patch)
    try:
        end, seconds = platform.refused("ada")
    finally:
        patch = json.dumps({"spec": {"hard": {"pods": "5"}}})
        platform.kubectl("ada", "patch", "resourcequota", "astrocloud", "--type=merge", "-p", patch)

    assert end["code"] == "server-quota"
    assert "pods: 0 + 1 > 0" in platform.hub_log()
    assert seconds < 5


def test_a_home_that_cannot_be_written_is_told(platform: PodPlatform) -> None:
    platform.start_server("ben")
    platform.stop_server("ben")
    home = platform.tree / "home" / "ben"
    home.chmod(0o500)
    try:
        end, _ = platform.refused("ben")
    finally:
        home.chmod(0o700)

    assert end["code"] == "server-home"


def test_a_project_folder_that_is_no_group_s_is_told(platform: PodPlatform) -> None:
    platform.start_server("ada")
    platform.stop_server("ada")
    folder = platform.tree / "project" / "survey"
    owner = folder.stat()
    # As Kubernetes makes one that is missing, after what makes folders has looked.
    leave = platform.tree / "leave-folders"
    leave.touch()
    os.chown(folder, 0, 0)
    try:
        end, _ = platform.refused("ada")
    finally:
        leave.unlink()
        os.chown(folder, owner.st_uid, owner.st_gid)

    assert end["code"] == "server-home"
    assert "cannot write to /project/survey" in platform.hub_log()


def test_a_server_that_crashes_while_starting_shows_its_last_words(platform: PodPlatform) -> None:
    platform.start_server("ben")
    platform.stop_server("ben")
    write_stub(platform, "ben", exit=3, words="no such module: sky")
    try:
        end, _ = platform.refused("ben")
    finally:
        (platform.tree / "home" / "ben" / "stub.json").unlink()

    assert end["code"] == "server-exited"
    assert "no such module: sky" in platform.hub_log()


def test_a_namespace_that_is_somebody_else_s_is_left_alone(platform: PodPlatform) -> None:
    platform.services.add("eve", 200009)
    platform.sign_in("eve")
    platform.cluster.kubectl("create", "namespace", f"{platform.prefix}eve")

    end, _ = platform.refused("eve")

    assert end["code"] == "server-namespace"


def test_a_namespace_that_was_deleted_is_made_anew(platform: PodPlatform) -> None:
    platform.start_server("ben")
    platform.stop_server("ben")
    platform.cluster.kubectl("delete", "namespace", f"{platform.prefix}ben", "--timeout=60s")

    platform.start_server("ben")

    assert platform.pod("ben")["status"]["phase"] == "Running"


# A hub that was away


def test_a_pod_deleted_while_the_hub_was_away_is_known_after(platform: PodPlatform) -> None:
    platform.start_server("ada")
    platform.kill_hub()
    platform.kubectl("ada", "delete", "pod", "--all", "--grace-period=0", "--force")

    platform.start_hub()

    began = time.monotonic()
    assert platform.ended("ada")["reason"] == "deleted"
    assert time.monotonic() - began < 30


def test_a_start_that_a_killed_hub_had_begun_is_found_or_ended(platform: PodPlatform) -> None:
    platform.start_server("ada")
    platform.stop_server("ada")
    write_stub(platform, "ada", sleep=4)
    platform.api("POST", "/users/ada/server", body={"user_options": {}})
    until(lambda: platform.pods("ada"), what="the pod is there")
    platform.kill_hub()
    (platform.tree / "home" / "ada" / "stub.json").unlink()

    platform.start_hub()

    def settled() -> bool:
        running = [pod for pod in platform.pods("ada") if "deletionTimestamp" not in pod["metadata"]]
        return bool(platform.server("ada").get("ready")) == bool(running)

    until(settled, seconds=45, what="the hub and the cluster agree")


# A node that goes


def test_a_node_that_stops_is_known_within_thirty_seconds(platform: PodPlatform) -> None:
    platform.start_server("ada")
    lost = next(host for host in NODES if host.name == platform.pod("ada")["spec"]["nodeName"])
    began = time.monotonic()
    machines.power_off(lost)
    try:
        end = platform.ended("ada", seconds=60)
        known_s = time.monotonic() - began
        platform.cluster.kubectl("cordon", lost.name)
        platform.start_server("ada")
        elsewhere = platform.pod("ada")["spec"]["nodeName"]
    finally:
        platform.cluster.kubectl("uncordon", lost.name)
        node.start_runtime(lost)
        node.start_kubelet(lost)
    platform.cluster.kubectl("wait", "--for=condition=Ready", "--timeout=120s", f"node/{lost.name}")

    assert (end["reason"], end["node"]) == ("node-lost", lost.name)
    assert known_s <= 30
    assert elsewhere != lost.name
