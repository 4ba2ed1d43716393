"""The chart on a running cluster. The platform's parts do not read the cluster's settings yet: no sign-in here."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kube.cluster.programs import program
from tests.kube.conftest import Cluster

pytestmark = [pytest.mark.kube, pytest.mark.timeout(1800)]

CHART = Path(__file__).parents[2] / "helm" / "astrocloud"


def named(reference: str) -> dict[str, str]:
    repository, _, digest = reference.partition("@")
    return {"repository": repository, "digest": digest}


@pytest.fixture(scope="module")
def values(cluster: Cluster, built_images: dict[str, str]) -> dict[str, Any]:
    tested = {"repository": cluster.image.rpartition(":")[0], "tag": cluster.image.rpartition(":")[2]}
    return {
        "hub": {"image": named(built_images["hub"])},
        "proxy": {"image": named(built_images["proxy"])},
        "services": {"image": named(built_images["services"])},
        "environments": {"astro": {"image": tested}},
        # There is no PostgreSQL image here to begin with.
        "database": {"kind": "external", "external": {"host": "postgresql.example.org"}},
        "storage": {"tree": {"claim": {"size": "1Gi"}}},
    }


@pytest.fixture(scope="module")
def namespace(cluster: Cluster) -> Iterator[str]:
    name = "test-installation"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    made = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
    cluster.kubectl("create", "-f", "-", given=made)
    yield name
    cluster.kubectl("delete", "namespace", name, "--timeout=60s")


def helm(cluster: Cluster, namespace: str, *arguments: str, given: Any = None) -> str:
    command = [str(program("helm")), "--kubeconfig", str(cluster.kubeconfig), "--namespace", namespace, *arguments]
    text = None if given is None else json.dumps(given)
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def release(cluster: Cluster, namespace: str, values: dict[str, Any]) -> Iterator[str]:
    helm(cluster, namespace, "install", "sky", str(CHART), "--values", "-", "--timeout", "180s", given=values)
    yield "sky-astrocloud"
    helm(cluster, namespace, "uninstall", "sky", "--ignore-not-found")


def keys(cluster: Cluster, namespace: str, release: str) -> dict[str, str]:
    data: dict[str, str] = cluster.get("secret", "-n", namespace, f"{release}-secrets")["data"]
    return data


def test_the_proxy_runs_and_the_images_are_fetched(cluster: Cluster, namespace: str, release: str) -> None:
    for workload in (f"deployment/{release}-proxy", f"daemonset/{release}-prepuller"):
        cluster.kubectl("rollout", "status", "-n", namespace, "--timeout=180s", workload)


def test_what_a_part_runs_is_told_by_its_digest(
    cluster: Cluster, namespace: str, release: str, values: dict[str, Any]
) -> None:
    cluster.kubectl("rollout", "status", "-n", namespace, "--timeout=180s", f"deployment/{release}-proxy")
    pods = cluster.get("pods", "-n", namespace, "-l", "app.kubernetes.io/component=proxy")["items"]

    running = [status["imageID"] for found in pods for status in found["status"]["containerStatuses"]]

    assert [image.rpartition("@")[2] for image in running] == [values["proxy"]["image"]["digest"]]


def test_the_tree_is_claimed(cluster: Cluster, namespace: str, release: str) -> None:
    claim = f"pvc/{release}-tree"
    cluster.kubectl("wait", "-n", namespace, "--for=jsonpath={.status.phase}=Bound", "--timeout=60s", claim)


def test_the_keys_are_made_once_and_kept(
    cluster: Cluster, namespace: str, release: str, values: dict[str, Any]
) -> None:
    listed = (CHART / "files" / "secrets.txt").read_text(encoding="utf-8").splitlines()
    made = keys(cluster, namespace, release)
    assert sorted(made) == sorted(line for line in listed if line and not line.startswith("#"))
    assert len(set(made.values())) == len(made)

    # As if this version needed one that the earlier did not know.
    drop = json.dumps([{"op": "remove", "path": "/data/hub-crypt"}])
    cluster.kubectl("patch", "secret", "-n", namespace, f"{release}-secrets", "--type=json", "-p", drop)
    helm(cluster, namespace, "upgrade", "sky", str(CHART), "--values", "-", "--timeout", "180s", given=values)

    after = keys(cluster, namespace, release)
    assert after.keys() == made.keys()
    assert {name for name in made if after[name] != made[name]} == {"hub-crypt"}


def test_no_key_is_in_what_helm_keeps(cluster: Cluster, namespace: str, release: str) -> None:
    kept = helm(cluster, namespace, "get", "manifest", "sky") + helm(cluster, namespace, "get", "values", "sky", "-a")
    kept += helm(cluster, namespace, "get", "hooks", "sky")

    for name, value in keys(cluster, namespace, release).items():
        assert value not in kept, name


def test_the_job_s_rights_end_with_it(cluster: Cluster, namespace: str, release: str) -> None:
    left = cluster.get("role,rolebinding,serviceaccount,job", "-n", namespace)["items"]

    assert [found["kind"] for found in left if found["metadata"]["name"] == f"{release}-secrets"] == []


def test_uninstalling_leaves_files_and_keys(
    cluster: Cluster, namespace: str, release: str, values: dict[str, Any]
) -> None:
    before = keys(cluster, namespace, release)

    helm(cluster, namespace, "uninstall", "sky", "--wait")

    assert keys(cluster, namespace, release) == before
    claim = cluster.get("pvc", "-n", namespace, f"{release}-tree")
    assert claim["status"]["phase"] == "Bound"
    assert cluster.get("deployments", "-n", namespace)["items"] == []
