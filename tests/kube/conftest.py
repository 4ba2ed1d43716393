"""A cluster for the tests: the one made here, or the one that KUBECONFIG names."""

import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kube.cluster import images, machines
from tests.kube.cluster.__main__ import down, up
from tests.kube.cluster.layout import HOSTS, KUBECONFIG, REGISTRY
from tests.kube.ground import Cluster
from tests.kube.installation import Installation, installed
from tests.kube.people import PodPlatform, file_tree
from tests.kube.rendering import VALUE_FILES

TEST_IMAGE = f"{REGISTRY}/astrocloud/test:1"


def say(line: str) -> None:
    print(line, flush=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep apart what ends nodes or the whole cluster, and what is installed on it for many tests."""
    places = {"test_cluster_traces.py": 0, "test_cluster.py": 1, "test_servers.py": 3}
    items.sort(key=lambda item: places.get(item.path.name, 2))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave out what takes our own nodes where the cluster is another one."""
    for marker in item.iter_markers("own_nodes"):
        if os.environ.get("KUBECONFIG"):
            pytest.skip(f"takes the nodes that the tests make: {marker.args[0]}")


@pytest.fixture(params=VALUE_FILES, ids=lambda path: path.stem)
def values(request: pytest.FixtureRequest) -> Path:
    """Each file of values by which the chart is rendered."""
    path: Path = request.param
    return path


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


def made_images(cluster: Cluster, *names: str) -> dict[str, str]:
    """Return images of the platform by name, pushed to the cluster's registry and named by their digests there."""
    if not cluster.registry:
        pytest.skip("name a registry that the cluster's nodes take images from: ASTROCLOUD_REGISTRY")
    return images.make(*names, prefix=f"{cluster.registry}/astrocloud/", tag="test", say=say, here=cluster.own)


@pytest.fixture(scope="session")
def built_images(cluster: Cluster) -> dict[str, str]:
    """The platform's own images, by name, each named by its digest in the cluster's registry."""
    return made_images(cluster, "hub", "services", "proxy", "database")


@pytest.fixture(scope="session")
def astro(cluster: Cluster) -> str:
    """The image of the environment Astronomy in the cluster's registry, by its digest."""
    return made_images(cluster, "astro")["astro"]


@pytest.fixture(scope="session")
def glusterfs(cluster: Cluster) -> str:
    """The image of what mounts a GlusterFS volume, by its digest."""
    return made_images(cluster, "glusterfs")["glusterfs"]


@pytest.fixture(scope="session")
def installation(cluster: Cluster, built_images: dict[str, str]) -> Iterator[Installation]:
    """A platform installed by Helm, with every part running; who changes it puts it back."""
    tested = images.digest_of(cluster.image)
    given = built_images | {"astro": f"{cluster.image.rpartition(':')[0]}@{tested}"}
    with installed(cluster, given) as made:
        yield made


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


@pytest.fixture(scope="module")
def platform(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PodPlatform]:
    """A hub on this machine whose servers are pods, with the people ada and ben and the administrator chief."""
    assert cluster.own
    namespace = f"people-{secrets.token_hex(3)}"
    tested = f"{cluster.image.rpartition(':')[0]}@{images.digest_of(cluster.image)}"
    root = tmp_path_factory.mktemp("platform")
    (root / "layer").write_bytes(secrets.token_bytes(1000))
    unfetched = images.with_layer(images.PYTHON_IMAGE, f"{cluster.registry}/astrocloud/unfetched:1", root / "layer")
    with file_tree(cluster, namespace) as tree:
        missing = f"{cluster.registry}/astrocloud/nowhere:1"
        offered = {"stub": tested, "void": missing, "unfetched": unfetched}
        found = PodPlatform(root / "data", cluster=cluster, namespace=namespace, tree=tree, images=offered)
        found.services.add("ada", 200001, groups=[{"name": "survey", "gid": 400001}])
        found.services.add("ben", 200002)
        found.services.add("chief", 200003, admin=True)
        try:
            yield found.start()
        finally:
            found.stop()
