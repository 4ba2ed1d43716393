"""What the parts of the spawner of pods pass between them."""

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any, Final

from astrocloud.core.cluster import Cluster
from astrocloud_hub.spawners.models import Limits, Person

Json = dict[str, Any]
"""One object of Kubernetes, as its API tells it."""

LABEL: Final = "astrocloud.org"
"""What the keys of our labels and annotations begin with."""

SERVER_PORT: Final = 8888
"""Where a server listens in its pod."""

CONTAINER: Final = "notebook"
"""The name of a pod's only container; KubeSpawner's."""

_PLAIN: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?\Z")


@dataclass(frozen=True, kw_only=True)
class PullSecret:
    """A sign-in to a registry, which people's namespaces get a copy of."""

    name: str
    """Its name in the platform's own namespace."""
    config: bytes = field(repr=False)
    """What Docker's ``config.json`` would hold."""

    @property
    def copy(self) -> str:
        """The name of the copy: another one for other contents, as a copy is only ever made, never read or changed."""
        return f"{self.name[:200]}-{hashlib.sha256(self.config).hexdigest()[:8]}"


@dataclass(frozen=True, kw_only=True)
class Ground:
    """The cluster, as far as people's servers need to know it."""

    cluster: Cluster
    tree: Json
    """Where the file tree is: its volume's source, such as ``{"nfs": {…}}``, and ``mountOptions`` if there are any."""
    quota: "Quota"
    archive: Json = field(default_factory=dict)
    """Where the archive is, in the same way; empty where it is a folder of the tree."""
    pull_secrets: tuple[PullSecret, ...] = ()
    """The sign-ins to registries that their images are fetched with."""

    @property
    def claim(self) -> str:
        """The name of the claim on the tree in a person's namespace: another one for other bytes.

        Neither a volume's source nor a claim's volume can be changed.
        """
        return _named_after("tree", self.tree)

    @property
    def archive_claim(self) -> str:
        """The name of the claim on the archive; empty where it is a folder of the tree."""
        return _named_after("archive", self.archive) if self.archive else ""

    @property
    def labels(self) -> dict[str, str]:
        """What everything of this release has that is made for people."""
        return {
            "app.kubernetes.io/part-of": "astrocloud",
            "app.kubernetes.io/managed-by": "astrocloud-hub",
            f"{LABEL}/release": self.cluster.release,
            f"{LABEL}/release-namespace": self.cluster.namespace,
        }

    @property
    def pod_labels(self) -> dict[str, str]:
        """What every person's server has, and no other pod."""
        return {**self.labels, "app.kubernetes.io/component": "server"}

    def namespace(self, username: str) -> str:
        """Return the name of a person's namespace."""
        return f"{self.cluster.servers.namespace_prefix}{username}"


@dataclass(frozen=True, kw_only=True)
class Quota:
    """What one person may use at once."""

    pods: int
    """How many servers, those that are ending included."""
    memory_bytes: int
    """How much memory, by the limits of the servers."""
    cpus: float
    """How many processors, by the limits of the servers."""
    largest_memory_bytes: int
    """How much memory one container may have."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where a server may or should run, besides what the release says of all."""

    node_selector: dict[str, str] = field(default_factory=dict)
    """Labels that its node must have."""
    region: str = ""
    """The region it should run in, if there is room: where its data is."""
    avoid: tuple[str, ...] = ()
    """Nodes that it must not run on: the file tree cannot be used there."""


@dataclass(frozen=True, kw_only=True)
class ServerPlan:
    """One server about to start."""

    person: Person
    server: str
    """Its name, empty for the default one."""
    pod: str
    """The name of its pod, used once."""
    environment: str
    """The id of its environment."""
    size: str
    """The id of its size."""
    image: str
    """The environment's image."""
    pull_policy: str
    """When a node asks the registry for it."""
    command: tuple[str, ...]
    variables: dict[str, str] = field(repr=False)
    """The server's environment, with secrets."""
    limits: Limits
    placement: Placement = Placement()
    tls: bool = False
    """Whether the server is called by TLS."""


def _named_after(what: str, source: Json) -> str:
    return f"{what}-" + hashlib.sha256(json.dumps(source, sort_keys=True).encode()).hexdigest()[:8]


def server_label(name: str) -> str:
    """Return what a server is called in labels and names: its own name where that can stand there."""
    if not name:
        return "default"
    if _PLAIN.match(name) and name != "default" and not name.startswith("x-"):
        return name
    return "x-" + hashlib.sha256(name.encode()).hexdigest()[:16]
