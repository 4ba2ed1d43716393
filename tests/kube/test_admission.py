"""What the cluster itself refuses the hub, whose rights hold everywhere."""

from typing import Any

import pytest

from tests.kube.cluster.layout import VOLUMES
from tests.kube.installation import Installation

pytestmark = [pytest.mark.kube, pytest.mark.timeout(1800)]


def labels(installation: Installation, **more: str) -> dict[str, str]:
    return {
        "astrocloud.org/release": installation.release,
        "astrocloud.org/release-namespace": installation.namespace,
        **more,
    }


def refusal(installation: Installation, *arguments: str, given: Any = None) -> str:
    """Return what the cluster would answer the hub's account; empty when it would take it. Nothing is changed."""
    account = f"--as=system:serviceaccount:{installation.namespace}:{installation.name}-hub"
    done = installation.kube.try_kubectl(*arguments, account, "--dry-run=server", given=given)
    return done.stderr if done.returncode else ""


def namespace(installation: Installation, name: str, level: str) -> dict[str, Any]:
    strict = {"pod-security.kubernetes.io/enforce": level}
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": labels(installation, **strict)},
    }


@pytest.mark.parametrize(
    ("name", "level", "taken"),
    [("astro-nobody", "restricted", True), ("astro-nobody", "privileged", False), ("kube-nobody", "restricted", False)],
)
def test_namespaces_are_people_s(name: str, level: str, taken: bool, installation: Installation) -> None:
    made = namespace(installation, name, level)

    told = refusal(installation, "create", "-f", "-", given=made)

    assert (told == "") is taken, told
    assert taken or "keeps its prefix, its labels" in told


def test_a_namespace_of_somebody_else_stays_as_it_is(installation: Installation) -> None:
    told = refusal(installation, "patch", "namespace", "kube-system", "-p", '{"metadata": {"labels": {"a": "b"}}}')

    assert "namespaces that it made for people" in told


@pytest.mark.parametrize("where", ["kube-system", "default", "the platform's own"])
def test_no_pod_is_made_or_ended_where_people_are_not(where: str, installation: Installation) -> None:
    place = installation.namespace if where == "the platform's own" else where
    container = {"name": "x", "image": "x"}
    made = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": {"containers": [container]}}

    told = [refusal(installation, "create", "-n", place, "-f", "-", given=made)]
    if where == "the platform's own":
        part = installation.pods("database")[0]["metadata"]["name"]
        told.append(refusal(installation, "delete", "pod", "-n", place, part, "--wait=false"))

    assert all("namespaces that it made for people" in each for each in told), told


@pytest.mark.parametrize(
    ("path", "person", "taken"),
    [
        (f"{VOLUMES}/x", "astro-nobody", True),
        ("/", "astro-nobody", False),
        ("/etc", "astro-nobody", False),
        (f"{VOLUMES}-other/x", "astro-nobody", False),
        (f"{VOLUMES}/x", "kube-system", False),
    ],
)
def test_volumes_are_the_tree_s(path: str, person: str, taken: bool, installation: Installation) -> None:
    made = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": "astro-nobody-tree", "labels": labels(installation)},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteMany"],
            "claimRef": {"namespace": person, "name": "tree"},
            "hostPath": {"path": path},
        },
    }

    told = refusal(installation, "create", "-f", "-", given=made)

    assert (told == "") is taken, told


def test_the_cluster_understands_every_rule(installation: Installation) -> None:
    name = f"{installation.namespace}-{installation.name}-hub"

    for what in ("servers", "namespaces", "volumes"):
        status = installation.kube.get("validatingadmissionpolicy", f"{name}-{what}")["status"]
        assert "expressionWarnings" not in status.get("typeChecking", {}), status
