"""A cluster for the tests: the one made here, or the one that KUBECONFIG names."""

import json
import os
import secrets
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.kube.cluster import images, machines
from tests.kube.cluster.__main__ import down, up
from tests.kube.cluster.layout import HOSTS, KUBECONFIG, REGISTRY
from tests.kube.cluster.programs import program

TEST_IMAGE = f"{REGISTRY}/astrocloud/test:1"


def say(line: str) -> None:
    print(line, flush=True)


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A running cluster, and the registry that its nodes take images from."""

    kubeconfig: Path
    registry: str
    image: str
    """An image there with a shell and Python."""
    own: bool
    """Whether it is the one made here, whose nodes can be switched off."""

    def try_kubectl(self, *arguments: str, given: Any = None) -> subprocess.CompletedProcess[str]:
        text = None if given is None else json.dumps(given)
        command = [str(program("kubectl")), "--kubeconfig", str(self.kubeconfig), *arguments]
        return subprocess.run(command, input=text, capture_output=True, text=True, check=False)

    def kubectl(self, *arguments: str, given: Any = None) -> str:
        done = self.try_kubectl(*arguments, given=given)
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def get(self, *arguments: str) -> Any:
        return json.loads(self.kubectl("get", *arguments, "-o", "json"))


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    named = os.environ.get("KUBECONFIG")
    if named:
        registry = os.environ.get("ASTROCLOUD_REGISTRY", "")
        image = os.environ.get("ASTROCLOUD_TEST_IMAGE", "docker.io/library/python:3.11-slim-bookworm")
        yield Cluster(kubeconfig=Path(named), registry=registry, image=image, own=False)
        return
    if os.geteuid() != 0:
        pytest.skip("a cluster of one's own takes root; or name one by KUBECONFIG")
    was_on = all(machines.is_on(host) for host in HOSTS)
    up()
    images.ensure_bases(say=say)
    if not images.in_registry(TEST_IMAGE):
        images.push(images.PYTHON_IMAGE, TEST_IMAGE)
    yield Cluster(kubeconfig=KUBECONFIG, registry=REGISTRY, image=TEST_IMAGE, own=True)
    if not was_on:
        down()


@pytest.fixture(scope="session")
def built_images(cluster: Cluster) -> dict[str, str]:
    """The platform's own images, by name, each named by its digest in the cluster's registry."""
    if not cluster.own:
        pytest.skip("images are pushed to the registry of a cluster of our own")
    return images.make("hub", "services", "proxy", prefix=f"{cluster.registry}/astrocloud/", tag="test", say=say)


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace of the test's own, in which Pod Security is as strict as for people."""
    name = f"test-{secrets.token_hex(4)}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    metadata = {"name": name, "labels": labels}
    cluster.kubectl("create", "-f", "-", given={"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    cluster.kubectl("wait", "-n", name, "--for=create", "--timeout=30s", "serviceaccount/default")
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


def pod(
    cluster: Cluster,
    name: str,
    script: str = "sleep infinity",
    *,
    node: str = "",
    memory: str = "64Mi",
    claim: str = "",
) -> dict[str, Any]:
    """Return a pod that Pod Security takes at its strictest: a script in the test's image, a claim at /data."""
    container: dict[str, Any] = {
        "name": "main",
        "image": cluster.image,
        # exec: it is the script's program that the kernel ends, and that a stop reaches.
        "command": ["sh", "-c", script],
        "resources": {"limits": {"memory": memory, "cpu": "500m"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 0,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 20001, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
    }
    if node:
        spec["nodeSelector"] = {"kubernetes.io/hostname": node}
    if claim:
        spec["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]
        container["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": spec,
    }
