"""The platform of the end-to-end tests on the test cluster: ``ASTROCLOUD_E2E=kube``.

`ClusterPlatform` is to a test what `tests.support.platform.Platform` is on one machine. The test cluster's nodes are
namespaces of this machine, so that the bytes of the file tree and the processes of the parts are within reach here too.
"""

import base64
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.kube.cluster import images
from tests.kube.cluster.layout import VOLUMES
from tests.kube.ground import Cluster
from tests.kube.installation import Installation, installed
from tests.kube.processes import first_process
from tests.support.platform import Addresses, Commands, wait_until

WANTED: Final = os.environ.get("ASTROCLOUD_E2E") == "kube"
SERVICES: Final = ("portal", "passport", "vospace")


@dataclass
class ClusterPlatform(Commands):
    """A platform that Helm installed, as the end-to-end tests use one."""

    installation: Installation
    data: Path
    """A folder with what of a platform's data there is on this machine: ``tree``."""
    scheme: str = "http"

    @property
    def url(self) -> str:
        """Its address."""
        return self.installation.url

    @property
    def addresses(self) -> Addresses:
        """Where its parts listen, as code in a person's server reaches them."""
        made = self.installation
        settings = made.kube.get("configmap", "-n", made.namespace, f"{made.name}-settings")["data"]["cluster.yaml"]
        told = yaml.safe_load(settings)
        return Addresses(hub_api=f"{told['hub']}/hub/api", proxy_api=told["proxy_api"], services=dict(told["services"]))

    def run(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run an ``astrocloud`` command where an operator does."""
        pod = ("-n", self.installation.namespace, f"deployment/{self.installation.name}-passport")
        kube = self.installation.kube
        return kube.run("exec", *(["-i"] if stdin else []), *pod, "--", "astrocloud", *arguments, given=stdin or None)

    def processes(self, part: str) -> list[int]:
        """Return the process ids of a part, the first of each of its containers; ``services`` are all of them."""
        pods = [pod for each in (SERVICES if part == "services" else (part,)) for pod in self.installation.pods(each)]

        def all_running() -> list[int] | None:
            found = [first_process(pod["metadata"]["uid"]) for pod in pods]
            return [pid for pid in found if pid] if pods and all(found) else None

        return wait_until(all_running, within_s=60, what=f"{part} to run")

    def part(self, name: str) -> int:
        """Return the process id of a part."""
        (found,) = self.processes(name)
        return found

    def _server(self, user: str) -> dict[str, Any]:
        pods = self.installation.kube.get("pods", "-n", self.installation.namespace_of(user))["items"]
        (found,) = [
            pod
            for pod in pods
            if "deletionTimestamp" not in pod["metadata"]
            and not pod["metadata"]["annotations"]["astrocloud.org/server-name"]
        ]
        return dict(found)

    def server_url(self, user: str) -> str:
        """Return where the server of `user` listens, past the proxy."""
        pod = self._server(user)
        (port,) = pod["spec"]["containers"][0]["ports"]
        return f"{port['name']}://{pod['status']['podIP']}:{port['containerPort']}"

    def server_process(self, user: str) -> int:
        """Return the first process of the server of `user`, as this machine numbers it."""
        found = first_process(self._server(user)["metadata"]["uid"])
        assert found, user
        return found

    def secrets(self) -> dict[str, str]:
        """Return the platform's own secrets by their names."""
        return {name: base64.b64decode(value).decode() for name, value in self.installation.keys().items()}

    def log(self, name: str) -> str:
        """Return what a part has printed; ``servers/NAME.`` is a person's server."""
        if name.startswith("servers/"):
            namespace = self.installation.namespace_of(name.removeprefix("servers/").partition(".")[0])
            names = self.installation.kube.kubectl("get", "pods", "-n", namespace, "-o", "name").split()
            return "".join(self._printed(namespace, pod) for pod in names)
        parts = SERVICES if name == "services" else (name,)
        pods = [f"pod/{pod['metadata']['name']}" for part in parts for pod in self.installation.pods(part)]
        return "".join(self._printed(self.installation.namespace, pod) for pod in pods)

    def _printed(self, namespace: str, pod: str) -> str:
        """Return what the containers of a pod have printed, those before a restart too."""
        kube = self.installation.kube
        before = kube.run("logs", "-n", namespace, pod, "--previous", "--tail=-1").stdout
        return before + kube.run("logs", "-n", namespace, pod, "--tail=-1").stdout

    def all_logs(self) -> dict[str, str]:
        """Return what each part has printed."""
        return {part: self.log(part) for part in ("hub", "proxy", "database", *SERVICES)}

    def logs(self) -> str:
        """Return the ends of its logs, for the message of a failed test."""
        return "\n".join(f"--- {part}\n{text[-4000:]}" for part, text in self.all_logs().items())


@contextmanager
def cluster_platform(folder: Path, cluster: Cluster) -> Iterator[ClusterPlatform]:
    """Install the platform with the environment Astronomy, more than one of each service, and take it away again."""
    assert cluster.own, "ASTROCLOUD_E2E=kube takes the cluster made here: unset KUBECONFIG"
    names = ("hub", "services", "proxy", "database", "astro")
    made = images.make(*names, prefix=f"{cluster.registry}/astrocloud/", tag="test", say=print)
    servers = {"namespacePrefix": f"e2e-{os.getpid()}-", "reserve": {"memory": 0.1, "cpus": 0.05}}
    config = {"servers": {"limit_per_person": 3, "start_timeout_s": 120}}
    with installed(cluster, made, config=config, servers=servers) as running:
        running.kubectl("rollout", "status", "--timeout=600s", f"daemonset/{running.name}-prepuller")
        claim = cluster.get("pvc", "-n", running.namespace, f"{running.name}-tree")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tree").symlink_to(VOLUMES / claim["spec"]["volumeName"])
        yield ClusterPlatform(installation=running, data=folder)


def skip_what_is_one_machine_s(items: list[pytest.Item], reasons: dict[str, str]) -> None:
    """Skip the tests that `reasons` names as ``FILE::TEST``, or whole files, each for its reason."""
    for item in items:
        name = f"{item.path.name}::{getattr(item, 'originalname', item.name)}"
        reason = reasons.get(name) or reasons.get(item.path.name)
        if reason:
            item.add_marker(pytest.mark.skip(reason=f"on one machine only: {reason}"))
