"""The cluster is a real one: what the platform relies on works across its nodes."""

import pytest

from tests.kube.cluster import machines, node
from tests.kube.cluster.__main__ import up
from tests.kube.cluster.control import kubectl
from tests.kube.cluster.layout import CONTROL, NODES
from tests.kube.conftest import Cluster, pod

pytestmark = [pytest.mark.kube, pytest.mark.timeout(600)]


@pytest.fixture
def names(cluster: Cluster) -> list[str]:
    """The nodes of the cluster."""
    return [node["metadata"]["name"] for node in cluster.get("nodes")["items"]]


def apply(cluster: Cluster, namespace: str, *objects: dict[str, object]) -> None:
    for made in objects:
        cluster.kubectl("create", "-n", namespace, "-f", "-", given=made)


def wait_ready(cluster: Cluster, namespace: str, *names: str) -> None:
    pods = [f"pod/{name}" for name in names]
    cluster.kubectl("wait", "-n", namespace, "--for=condition=Ready", "--timeout=120s", *pods)


@pytest.mark.own_nodes("how many there are and where is our own cluster's")
def test_three_nodes_are_ready_in_two_regions(cluster: Cluster) -> None:
    nodes = cluster.get("nodes")["items"]

    ready = {
        found["metadata"]["name"]: found["metadata"]["labels"]["topology.kubernetes.io/region"]
        for found in nodes
        if {"type": "Ready", "status": "True"}.items()
        <= next(c for c in found["status"]["conditions"] if c["type"] == "Ready").items()
    }
    assert len(ready) >= 3
    assert len(set(ready.values())) == 2


def test_pods_on_every_node_reach_each_other_by_name(cluster: Cluster, namespace: str, names: list[str]) -> None:
    serve = "cd /tmp && hostname > index.html && exec python3 -m http.server 8000"
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {"selector": {"app": "server"}, "ports": [{"port": 80, "targetPort": 8000}]},
    }
    apply(cluster, namespace, service, pod(cluster, "server", serve, node=names[0]))
    apply(cluster, namespace, *(pod(cluster, f"client-{name}", node=name) for name in names))
    wait_ready(cluster, namespace, "server", *(f"client-{name}" for name in names))

    ask = f"""
import time, urllib.request
for attempt in range(100):
    try:
        print(urllib.request.urlopen("http://web.{namespace}.svc.cluster.local/", timeout=5).read().decode())
        break
    except OSError:
        time.sleep(0.1)
"""
    answers = [
        cluster.kubectl("exec", "-n", namespace, f"client-{name}", "--", "python3", "-c", ask).strip() for name in names
    ]

    assert answers == ["server"] * len(names)


def test_what_a_pod_prints_can_be_read(cluster: Cluster, namespace: str) -> None:
    apply(cluster, namespace, pod(cluster, "teller", "echo from $(hostname)"))
    cluster.kubectl("wait", "-n", namespace, "--for=jsonpath={.status.phase}=Succeeded", "--timeout=120s", "pod/teller")

    assert cluster.kubectl("logs", "-n", namespace, "teller") == "from teller\n"


def test_a_pod_beyond_its_memory_is_ended_and_says_so(cluster: Cluster, namespace: str) -> None:
    apply(cluster, namespace, pod(cluster, "greedy", "exec python3 -c 'x = bytearray(10**9)'", memory="32Mi"))
    cluster.kubectl("wait", "-n", namespace, "--for=jsonpath={.status.phase}=Failed", "--timeout=120s", "pod/greedy")

    ended = cluster.get("pod", "-n", namespace, "greedy")["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (ended["reason"], ended["exitCode"]) == ("OOMKilled", 137)


def test_a_privileged_pod_is_refused_where_people_work(cluster: Cluster, namespace: str) -> None:
    wanted = pod(cluster, "privileged")
    wanted["spec"]["containers"][0]["securityContext"] = {"privileged": True}

    refused = cluster.try_kubectl("create", "-n", namespace, "-f", "-", given=wanted)

    assert refused.returncode != 0
    assert 'violates PodSecurity "restricted' in refused.stderr


def test_a_claim_is_one_folder_on_all_nodes(cluster: Cluster, namespace: str, names: list[str]) -> None:
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "tree"},
        "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    apply(cluster, namespace, claim)
    apply(cluster, namespace, *(pod(cluster, f"at-{name}", node=name, claim="tree") for name in names))
    wait_ready(cluster, namespace, *(f"at-{name}" for name in names))

    for name in names:
        write = f"echo {name} >> /data/who"
        cluster.kubectl("exec", "-n", namespace, f"at-{name}", "--", "sh", "-c", write)

    seen = [cluster.kubectl("exec", "-n", namespace, f"at-{name}", "--", "cat", "/data/who") for name in names]
    assert seen == ["\n".join(names) + "\n"] * len(names)


@pytest.mark.own_nodes("what makes volumes is a part of our own cluster")
def test_a_volume_goes_with_its_claim(cluster: Cluster, namespace: str) -> None:
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "short"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
    }
    apply(cluster, namespace, claim)
    cluster.kubectl("wait", "-n", namespace, "--for=jsonpath={.status.phase}=Bound", "--timeout=60s", "pvc/short")
    volume = cluster.get("pvc", "-n", namespace, "short")["spec"]["volumeName"]

    cluster.kubectl("delete", "-n", namespace, "pvc", "short")

    cluster.kubectl("wait", "--for=delete", "--timeout=60s", f"pv/{volume}")


@pytest.mark.own_nodes("the cluster is told to start")
@pytest.mark.usefixtures("cluster")
def test_up_again_changes_nothing() -> None:
    parts = [(host, record.name) for host in (CONTROL, *NODES) for record in (host.folder / "pids").glob("*")]
    before = {(host.name, name): machines.pid_of(host, name) for host, name in parts}
    assert all(before.values()), before

    up()

    assert {(host.name, name): machines.pid_of(host, name) for host, name in parts} == before


@pytest.mark.own_nodes("a node is switched off")
def test_a_node_that_lost_its_power_comes_back(cluster: Cluster, namespace: str) -> None:
    lost = NODES[2]
    apply(cluster, namespace, pod(cluster, "before", node=lost.name))
    wait_ready(cluster, namespace, "before")
    machines.power_off(lost)

    node.start_runtime(lost)
    node.start_kubelet(lost)

    apply(cluster, namespace, pod(cluster, "after", node=lost.name))
    wait_ready(cluster, namespace, "after")
    kubectl("wait", "--for=condition=Ready", "--timeout=60s", f"node/{lost.name}")
