"""The control plane: etcd, the API and its controllers, DNS, the registry and the maker of volumes."""

import subprocess
import sys
import urllib.request
from typing import Any

import yaml

from tests.kube.cluster import pki
from tests.kube.cluster.layout import (
    API_URL,
    CACHE,
    CONTROL,
    DNS_PORT,
    DNS_SERVICE,
    DOMAIN,
    KUBECONFIG,
    REGISTRY,
    REPOSITORY,
    SERVICES,
    VOLUMES,
)
from tests.kube.cluster.machines import ClusterError, daemon, log_file, pid_of, run, wait_until
from tests.kube.cluster.programs import program

STORAGE_CLASS = "shared"
PROVISIONER = "astrocloud.test/shared"


def kubectl(*arguments: str, given: str | None = None) -> str:
    """Return what ``kubectl`` prints, as the cluster's administrator. Raises `ClusterError` when it fails."""
    return run(program("kubectl"), "--kubeconfig", KUBECONFIG, *arguments, given=given)


def start() -> None:
    """Start the registry and the API, as far as they do not run; returns before they are ready."""
    _start_registry()
    address, cert, key = CONTROL.address, pki.certificate, pki.key
    etcd = f"https://{address}:2379"
    daemon(
        CONTROL,
        "etcd",
        program("etcd"),
        f"--data-dir={CONTROL.folder / 'etcd'}",
        f"--listen-client-urls={etcd}",
        f"--advertise-client-urls={etcd}",
        "--listen-peer-urls=http://127.0.0.1:2380",
        f"--cert-file={cert('etcd')}",
        f"--key-file={key('etcd')}",
        f"--trusted-ca-file={cert('ca')}",
        "--client-cert-auth",
        # Nothing here outlives the machine, so nothing waits for the disk.
        "--unsafe-no-fsync",
        "--name=control",
        "--log-level=warn",
    )
    daemon(
        CONTROL,
        "kube-apiserver",
        program("kube-apiserver"),
        f"--advertise-address={address}",
        f"--bind-address={address}",
        f"--etcd-servers={etcd}",
        f"--etcd-cafile={cert('ca')}",
        f"--etcd-certfile={cert('apiserver-client')}",
        f"--etcd-keyfile={key('apiserver-client')}",
        f"--client-ca-file={cert('ca')}",
        f"--tls-cert-file={cert('apiserver')}",
        f"--tls-private-key-file={key('apiserver')}",
        f"--kubelet-certificate-authority={cert('ca')}",
        f"--kubelet-client-certificate={cert('apiserver-client')}",
        f"--kubelet-client-key={key('apiserver-client')}",
        # By address, so that no node's name has to be in this machine's hosts file.
        "--kubelet-preferred-address-types=InternalIP",
        f"--service-cluster-ip-range={SERVICES}",
        f"--service-account-issuer={API_URL}",
        f"--service-account-key-file={cert('service-accounts')}",
        f"--service-account-signing-key-file={key('service-accounts')}",
        f"--requestheader-client-ca-file={cert('ca')}",
        "--requestheader-allowed-names=aggregator",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-username-headers=X-Remote-User",
        f"--proxy-client-cert-file={cert('aggregator')}",
        f"--proxy-client-key-file={key('aggregator')}",
        # The API has routes to pods but redirects no services: webhooks go to a pod's own address.
        "--enable-aggregator-routing=true",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        "--profiling=false",
    )


def start_controllers() -> None:
    """Start what gives up when there is no API yet: its controllers, the scheduler and DNS."""
    for name, arguments in {
        "kube-controller-manager": (
            f"--root-ca-file={pki.certificate('ca')}",
            f"--service-account-private-key-file={pki.key('service-accounts')}",
            "--use-service-account-credentials=true",
            "--allocate-node-cidrs=false",
        ),
        "kube-scheduler": (),
    }.items():
        config = pki.kubeconfig(name)
        daemon(
            CONTROL,
            name,
            program(name),
            f"--kubeconfig={config}",
            f"--authentication-kubeconfig={config}",
            f"--authorization-kubeconfig={config}",
            f"--bind-address={CONTROL.address}",
            "--leader-elect=false",
            "--profiling=false",
            *arguments,
        )
    _start_dns()


def wait_for_api() -> None:
    """Return when the API answers that it is ready."""

    def ready() -> bool:
        if pid_of(CONTROL, "kube-apiserver") is None:
            raise ClusterError(f"the API ended at its start; see {log_file(CONTROL, 'kube-apiserver')}")
        command = [str(program("kubectl")), "--kubeconfig", str(KUBECONFIG), "get", "--raw=/readyz"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    wait_until("the API to be ready", ready, within_s=90, hint=str(log_file(CONTROL, "kube-apiserver")))


def add_ons() -> None:
    """Put into the cluster what a cluster has from the start: DNS, a storage class, rights of the parts here."""
    kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", given=yaml.safe_dump_all(_manifests()))
    VOLUMES.mkdir(exist_ok=True)
    # Not the repository as the working folder: a daemon must not keep a checkout from being removed.
    daemon(
        CONTROL,
        "provisioner",
        sys.executable,
        "-m",
        "tests.kube.cluster.provisioner",
        environment={"PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"},
    )


def _start_registry() -> None:
    folder = CACHE / "registry"
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "version": "0.1",
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(folder)}, "delete": {"enabled": True}},
        "http": {"addr": REGISTRY},
    }
    file = CONTROL.folder / "registry.yaml"
    file.write_text(yaml.safe_dump(settings))
    daemon(CONTROL, "registry", "docker-registry", "serve", file)


def _start_dns() -> None:
    file = CONTROL.folder / "Corefile"
    # Names outside the cluster do not exist: nothing in a test may depend on one.
    file.write_text(
        f"""\
.:{DNS_PORT} {{
    bind {CONTROL.address}
    errors
    kubernetes {DOMAIN} in-addr.arpa {{
        kubeconfig {pki.kubeconfig("coredns")}
        ttl 5
    }}
    cache 5
    loadbalance
}}
"""
    )
    daemon(CONTROL, "coredns", program("coredns"), "-conf", file)


def _manifests() -> list[dict[str, Any]]:
    ports = [("dns", "UDP"), ("dns-tcp", "TCP")]
    dns = {"name": "kube-dns", "namespace": "kube-system"}
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": dns | {"labels": {"k8s-app": "kube-dns"}},
            "spec": {
                "clusterIP": DNS_SERVICE,
                "ports": [{"name": name, "port": 53, "protocol": protocol} for name, protocol in ports],
            },
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": dns | {"labels": {"kubernetes.io/service-name": "kube-dns"}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [CONTROL.address], "conditions": {"ready": True}}],
            "ports": [{"name": name, "port": DNS_PORT, "protocol": protocol} for name, protocol in ports],
        },
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {
                "name": STORAGE_CLASS,
                "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
            },
            "provisioner": PROVISIONER,
            "reclaimPolicy": "Delete",
            "volumeBindingMode": "Immediate",
            "allowVolumeExpansion": True,
        },
        *_rights(
            "system:coredns",
            [("", ["endpoints", "services", "pods", "namespaces"]), ("discovery.k8s.io", ["endpointslices"])],
            ["list", "watch"],
        ),
        *_rights("system:provisioner", [("", ["persistentvolumeclaims"])], ["list", "watch"]),
        *_rights(
            "system:provisioner",
            [("", ["persistentvolumes"])],
            ["list", "watch", "create", "delete"],
            name="system:provisioner-volumes",
        ),
    ]


def _rights(
    user: str, resources: list[tuple[str, list[str]]], verbs: list[str], *, name: str = ""
) -> list[dict[str, Any]]:
    group = "rbac.authorization.k8s.io"
    metadata = {"name": name or user}
    rules = [{"apiGroups": [of], "resources": kinds, "verbs": verbs} for of, kinds in resources]
    role = {"apiVersion": f"{group}/v1", "kind": "ClusterRole", "metadata": metadata, "rules": rules}
    return [
        role,
        {
            "apiVersion": f"{group}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": metadata["name"]},
            "subjects": [{"apiGroup": group, "kind": "User", "name": user}],
        },
    ]


def registry_answers() -> bool:
    """Return whether the registry takes requests."""
    try:
        urllib.request.urlopen(f"http://{REGISTRY}/v2/", timeout=5).close()
    except OSError:
        return False
    return True
