"""A node: containerd, kubelet and kube-proxy on one of the cluster's machines."""

import json
from pathlib import Path
from typing import Any

import yaml

from tests.kube.cluster import cgroups, pki
from tests.kube.cluster.layout import DNS_SERVICE, DOMAIN, PAUSE_IMAGE, PODS, REGISTRY, Host
from tests.kube.cluster.machines import daemon, first_process, inside, is_on, log_file, power_on, run, wait_until
from tests.kube.cluster.programs import program

# Paths as the node sees them: it has its own /run and /var/lib.
_SOCKET = "/run/containerd/containerd.sock"
_NETWORK = "/var/lib/cni/net.d"
_NAMES = "/var/lib/kubelet-resolv.conf"


def start_runtime(node: Host) -> None:
    """Switch the node on and start its container runtime, as far as they do not run."""
    if not is_on(node):
        # What a node that lost its power left behind would count against the pods of the next.
        cgroups.remove(node.cgroup)
    cgroups.create(node.cgroup)
    power_on(node)
    library = node.folder / "var-lib"
    network = library / Path(_NETWORK).relative_to("/var/lib") / "10-pods.conflist"
    network.parent.mkdir(parents=True, exist_ok=True)
    network.write_text(json.dumps(_pod_network(node), indent=2))
    (library / Path(_NAMES).name).write_text("")
    settings = node.folder / "containerd.toml"
    settings.write_text(_containerd_settings(node))
    daemon(node, "containerd", program("containerd"), "--config", settings)


def start_kubelet(node: Host) -> None:
    """Start the node's kubelet and service proxy, as far as they do not run."""
    socket = Path(f"/proc/{first_process(node)}/root{_SOCKET}")
    # The kubelet gives up when there is no runtime yet.
    wait_until(f"containerd on {node.name}", socket.is_socket, within_s=30, hint=str(log_file(node, "containerd")))
    settings = node.folder / "kubelet.yaml"
    settings.write_text(yaml.safe_dump(_kubelet_settings(node)))
    daemon(
        node,
        "kubelet",
        program("kubelet"),
        f"--config={settings}",
        f"--kubeconfig={pki.kubeconfig(node.name)}",
        f"--hostname-override={node.name}",
        f"--node-ip={node.address}",
        f"--node-labels=topology.kubernetes.io/region={node.region},topology.kubernetes.io/zone={node.zone}",
    )
    daemon(
        node,
        "kube-proxy",
        program("kube-proxy"),
        f"--kubeconfig={pki.kubeconfig('kube-proxy')}",
        f"--hostname-override={node.name}",
        f"--cluster-cidr={PODS}",
        "--proxy-mode=iptables",
        # The limits of connection tracking are the whole machine's, not this cluster's to change.
        "--conntrack-max-per-core=0",
    )


def containers(node: Host, *arguments: str) -> str:
    """Return what ``ctr`` prints about the node's pods and images."""
    return run(*inside(node, program("ctr"), "--namespace", "k8s.io", *arguments))


def fetch_pause(node: Host) -> None:
    """Have a node hold the sandbox's image, as nodes of distributions do; nothing when it does."""
    if PAUSE_IMAGE not in containers(node, "images", "list", "--quiet").split():
        containers(node, "images", "pull", "--plain-http", PAUSE_IMAGE)


def _pod_network(node: Host) -> dict[str, Any]:
    return {
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": True,
                # Every machine has routes to all pods, so they keep their own addresses.
                "ipMasq": False,
                "hairpinMode": True,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": node.pods}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                    # Forgotten when the node is switched off, as the pods that had them are.
                    "dataDir": "/run/cni-addresses",
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }


def _containerd_settings(node: Host) -> str:
    hosts = node.folder / "registries" / REGISTRY / "hosts.toml"
    hosts.parent.mkdir(parents=True, exist_ok=True)
    hosts.write_text(f'server = "http://{REGISTRY}"\n[host."http://{REGISTRY}"]\ncapabilities = ["pull", "resolve"]\n')
    return f"""\
version = 3
[plugins.'io.containerd.cri.v1.images']
snapshotter = "overlayfs"
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = "{PAUSE_IMAGE}"
[plugins.'io.containerd.cri.v1.images'.registry]
config_path = "{hosts.parents[1]}"
[plugins.'io.containerd.cri.v1.runtime']
# Lowering a process's score takes a right that this machine may not have.
restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ["/usr/lib/cni"]
conf_dir = "{_NETWORK}"
[plugins.'io.containerd.cri.v1.runtime'.containerd]
default_runtime_name = "runc"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
SystemdCgroup = false
"""


def _kubelet_settings(node: Host) -> dict[str, Any]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": node.address,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(pki.certificate("ca"))},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(pki.certificate(node.name)),
        "tlsPrivateKeyFile": str(pki.key(node.name)),
        "containerRuntimeEndpoint": f"unix://{_SOCKET}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{node.cgroup}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "clusterDNS": [DNS_SERVICE],
        "clusterDomain": DOMAIN,
        "resolvConf": _NAMES,
        "volumePluginDir": "/var/lib/kubelet-plugins",
        "serializeImagePulls": False,
        "maxPods": 200,
        # Three nodes share one disk and one memory, which are not theirs to judge: only the last of it counts.
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
    }
