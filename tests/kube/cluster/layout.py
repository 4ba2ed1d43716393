"""Where the cluster keeps things, and its names and addresses."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).resolve().parents[3]
TOOLS: Final = Path(__file__).parent / "tools"

CACHE: Final = Path(os.environ.get("ASTROCLOUD_KUBE_CACHE") or REPOSITORY / ".cache" / "kube")
"""What is worth keeping between clusters: programs, base images, what was pushed to the registry."""

STATE: Final = Path("/var/cache/astrocloud-cluster")
"""What belongs to the running cluster and goes with it. One fixed place, because the addresses are fixed too: there is
one such cluster on a machine, and any checkout can end it. Not below /var/lib, /var/log or /run, which every node
replaces with its own."""

BRIDGE: Final = "astro-br0"
BRIDGE_ADDRESS: Final = "10.89.0.1"
PREFIX_LENGTH: Final = 24
PREFIX_LENGTH_6: Final = 64
PODS: Final = "10.90.0.0/16"
SERVICES: Final = "10.96.0.0/16"
API_SERVICE: Final = "10.96.0.1"
DNS_SERVICE: Final = "10.96.0.10"
DNS_PORT: Final = 10053
DOMAIN: Final = "cluster.local"
REGISTRY_PORT: Final = 5000


@dataclass(frozen=True, kw_only=True)
class Host:
    """One of the cluster's machines.

    Parameters
    ----------
    name
        Its host name, and the node's name.
    address
        Its address on the bridge, its only one: of IPv4, or of IPv6 for a machine that has nothing to do with pods.
    pods
        The subnet of its pods; empty for the control plane, which runs none.
    region, zone
        Its well-known topology labels.
    """

    name: str
    address: str
    pods: str = ""
    region: str = ""
    zone: str = ""

    @property
    def folder(self) -> Path:
        """What belongs to this machine and goes with the cluster."""
        return STATE / self.name

    @property
    def cgroup(self) -> str:
        """The cgroup that the node's pods run in, the same in every hierarchy."""
        return f"astrocloud-{self.name}"

    @property
    def interface(self) -> str:
        """The host's end of the pair that joins this machine to the bridge; 15 characters at most."""
        return f"astro-{self.name}"[:15]


CONTROL: Final = Host(name="control", address="10.89.0.2")
NODES: Final = (
    Host(name="node1", address="10.89.0.11", pods="10.90.1.0/24", region="beijing", zone="beijing-a"),
    Host(name="node2", address="10.89.0.12", pods="10.90.2.0/24", region="beijing", zone="beijing-b"),
    Host(name="node3", address="10.89.0.13", pods="10.90.3.0/24", region="guizhou", zone="guizhou-a"),
)
HOSTS: Final = (CONTROL, *NODES)

API_URL: Final = f"https://{CONTROL.address}:6443"
REGISTRY: Final = f"{CONTROL.address}:{REGISTRY_PORT}"
"""The registry's name, in image references too."""
PAUSE_IMAGE: Final = f"{REGISTRY}/astrocloud/pause:1"

KUBECONFIG: Final = STATE / "admin.kubeconfig"
PKI: Final = STATE / "pki"
VOLUMES: Final = STATE / "volumes"
"""The bytes of every claim. All nodes see this folder, so any claim can be mounted on many."""
