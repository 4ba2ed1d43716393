"""The chart's own database guards its volume."""

import os
import signal
from typing import Any

import pytest

from tests.kube.conftest import Cluster, pod
from tests.kube.processes import first_process

pytestmark = [pytest.mark.kube, pytest.mark.timeout(600)]


def database(cluster: Cluster, image: str, name: str, node: str) -> dict[str, Any]:
    made = pod(cluster, name, node=node, claim="data", memory="512Mi")
    script = "echo secret > /tmp/password; exec start-database"
    container = made["spec"]["containers"][0]
    container |= {"image": image, "command": ["sh", "-c", script]}
    container["env"] = [
        {"name": "PGDATA", "value": "/data/pgdata"},
        {"name": "DATABASE_PASSWORD_FILE", "value": "/tmp/password"},
    ]
    container["readinessProbe"] = {"exec": {"command": ["pg_isready", "-q", "-h", "127.0.0.1"]}, "periodSeconds": 1}
    container["volumeMounts"].append({"name": "run", "mountPath": "/var/run/postgresql"})
    made["spec"]["volumes"].append({"name": "run", "emptyDir": {}})
    made["spec"]["securityContext"] |= {"runAsUser": 999, "runAsGroup": 999, "fsGroup": 999}
    return made


def nodes(cluster: Cluster) -> list[str]:
    return [node["metadata"]["name"] for node in cluster.get("nodes")["items"]]


@pytest.fixture
def claimed(cluster: Cluster, namespace: str) -> None:
    """A volume for databases in the namespace."""
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    cluster.kubectl("create", "-n", namespace, "-f", "-", given=claim)


@pytest.mark.own_nodes("a container's process is killed")
@pytest.mark.usefixtures("claimed")
def test_one_that_was_killed_comes_back_in_its_container(
    cluster: Cluster, namespace: str, built_images: dict[str, str]
) -> None:
    """As when a node loses its power: what it left behind names a process that is there again, its own."""
    made = database(cluster, built_images["database"], "only", nodes(cluster)[0])
    made["spec"]["restartPolicy"] = "Always"
    cluster.kubectl("create", "-n", namespace, "-f", "-", given=made)
    cluster.kubectl("wait", "-n", namespace, "--for=condition=Ready", "--timeout=120s", "pod/only")
    process = first_process(cluster.get("pod", "-n", namespace, "only")["metadata"]["uid"])
    assert process is not None

    os.kill(process, signal.SIGKILL)

    restarted = "jsonpath={.status.containerStatuses[0].restartCount}=1"
    cluster.kubectl("wait", "-n", namespace, f"--for={restarted}", "--timeout=60s", "pod/only")
    cluster.kubectl("wait", "-n", namespace, "--for=condition=Ready", "--timeout=60s", "pod/only")


@pytest.mark.usefixtures("claimed")
def test_two_never_run_on_one_volume(cluster: Cluster, namespace: str, built_images: dict[str, str]) -> None:
    here, *_, there = nodes(cluster) * 2
    first, second = (
        database(cluster, built_images["database"], name, node) for name, node in (("first", here), ("second", there))
    )
    cluster.kubectl("create", "-n", namespace, "-f", "-", given=first)
    cluster.kubectl("wait", "-n", namespace, "--for=condition=Ready", "--timeout=120s", "pod/first")

    cluster.kubectl("create", "-n", namespace, "-f", "-", given=second)
    cluster.kubectl("wait", "-n", namespace, "--for=jsonpath={.status.phase}=Failed", "--timeout=120s", "pod/second")

    assert "another database runs on this volume" in cluster.kubectl("logs", "-n", namespace, "second")
    ask = ("psql", "-h", "/var/run/postgresql", "-U", "postgres", "-tAc", "SELECT 6 * 7")
    assert cluster.kubectl("exec", "-n", namespace, "first", "--", *ask).strip() == "42"

    # The lock ends with its holder, however that ended.
    cluster.kubectl("delete", "-n", namespace, "pod", "first", "second", "--grace-period=0", "--force")
    again = database(cluster, built_images["database"], "again", there)
    cluster.kubectl("create", "-n", namespace, "-f", "-", given=again)
    cluster.kubectl("wait", "-n", namespace, "--for=condition=Ready", "--timeout=120s", "pod/again")
