"""A hub on this machine whose servers are pods of the test cluster, for tests."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.hub.harness import Platform, until
from tests.kube.cluster.layout import BRIDGE_ADDRESS, VOLUMES
from tests.kube.ground import Cluster

HERE = Path(__file__).parent
SIZES = """
  - {id: small, name: {en: Small, zh: 小}, memory: 256MiB, cpus: 1, processes: 64}
  - {id: large, name: {en: Large, zh: 大}, memory: 512MiB, cpus: 2, processes: 128}
  - {id: huge, name: {en: Huge, zh: 巨}, memory: 4TiB, cpus: 1, processes: 128}
"""


class PodPlatform(Platform):
    """Proxy, hub and fake services here, servers there."""

    settings_file = HERE / "hub_settings.py"

    def __init__(
        self,
        root: Path,
        *,
        cluster: Cluster,
        namespace: str,
        tree: Path,
        images: dict[str, str],
        settings: dict[str, str] | None = None,
        servers: dict[str, Any] | None = None,
        stub: bool = True,
    ) -> None:
        prefix = f"{namespace}-"
        described = {
            "release": "sky",
            "namespace": namespace,
            "public_url": "http://localhost",
            "proxy": "http://localhost",
            "proxy_api": "http://localhost",
            "hub": "http://localhost",
            "services": {"portal": "http://localhost"},
            "database": {"host": "localhost"},
            "servers": {
                "namespace_prefix": prefix,
                "tree_claim": "tree",
                "environments": {name: {"image": each} for name, each in images.items()},
                **(servers or {}),
            },
        }
        told = {"cluster": described, "tree": str(tree), "here": BRIDGE_ADDRESS, "servers": 3, "stub": stub}
        super().__init__(
            root,
            settings={"TEST_CLUSTER": json.dumps(told), "KUBECONFIG": str(cluster.kubeconfig), **(settings or {})},
        )
        self.forks = False
        self.cluster = cluster
        self.tree = tree
        self.images = images
        self.prefix = prefix
        for environment in images:
            self.add_environment(environment)

    def add_environment(self, name: str, sizes: str = SIZES) -> None:
        folder = self.data.root / "images" / name
        folder.mkdir(exist_ok=True)
        names = "name: {en: A, zh: 甲}\ndescription: {en: A., zh: 甲。}"
        text = f"id: {name}\n{names}\nsoftware: [pip]\nresources:{sizes}"
        (folder / "environment.yaml").write_text(text, encoding="utf-8")
        (folder / "requirements.txt").write_text("pip==26.0\n", encoding="utf-8")

    def pods(self, user: str) -> list[dict[str, Any]]:
        return list(self.cluster.get("pods", "-n", f"{self.prefix}{user}")["items"])

    def pod(self, user: str) -> dict[str, Any]:
        (found,) = [pod for pod in self.pods(user) if "deletionTimestamp" not in pod["metadata"]]
        return found

    def kubectl(self, user: str, *arguments: str, given: Any = None) -> str:
        return self.cluster.kubectl("-n", f"{self.prefix}{user}", *arguments, given=given)

    def ended(self, user: str, *, seconds: float = 30) -> dict[str, Any]:
        """Return the end of the user's server, once the hub knows of it."""
        until(lambda: self.server(user).get("stopped"), seconds=seconds, what="the end is known")
        return dict(self.server(user)["state"]["last_end"])

    def refused(self, user: str, **options: str) -> tuple[dict[str, Any], float]:
        """Ask for a server that will not start; return how it failed and after how many seconds."""
        began = time.monotonic()
        answer = self.api("POST", f"/users/{user}/server", body={"user_options": options})
        if answer.status in {201, 202}:
            until(lambda: not self.server(user).get("pending"), seconds=60, what="the start is over")
            return self.server(user)["state"]["last_end"], time.monotonic() - began
        return answer.json(), time.monotonic() - began

    def stop(self) -> None:
        super().stop()
        found = self.cluster.get("namespaces")["items"]
        names = [each["metadata"]["name"] for each in found if each["metadata"]["name"].startswith(self.prefix)]
        if names:
            self.cluster.kubectl("delete", "namespace", "--wait=false", *names)
        volumes = [
            each["metadata"]["name"]
            for each in self.cluster.get("pv")["items"]
            if each["spec"].get("claimRef", {}).get("namespace", "").startswith(self.prefix)
        ]
        if volumes:
            self.cluster.kubectl("delete", "pv", "--wait=false", "--ignore-not-found", *volumes)


@contextmanager
def file_tree(cluster: Cluster, namespace: str) -> Iterator[Path]:
    """Make the claim `tree` in a namespace of its own, and give where its bytes are on this machine."""
    cluster.kubectl(
        "create", "-f", "-", given={"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
    )
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "tree"},
        "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    cluster.kubectl("create", "-n", namespace, "-f", "-", given=claim)
    cluster.kubectl("wait", "-n", namespace, "--for=jsonpath={.status.phase}=Bound", "--timeout=60s", "pvc/tree")
    volume = cluster.get("pvc", "-n", namespace, "tree")["spec"]["volumeName"]
    tree = VOLUMES / volume
    tree.chmod(0o755)
    for top in ("home", "project", "archive", "course"):
        (tree / top).mkdir()
    try:
        yield tree
    finally:
        cluster.kubectl("delete", "namespace", namespace, "--wait=false")
