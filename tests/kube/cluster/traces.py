"""What a cluster could leave on the machine, to compare before it and after it."""

import json
import subprocess
from dataclasses import dataclass, fields
from pathlib import Path

from tests.kube.cluster import cgroups
from tests.kube.cluster.layout import HOSTS, STATE
from tests.kube.cluster.programs import BIN

KERNEL_SETTINGS = (
    # The kubelet sets these, and they are the whole machine's.
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
    "net/ipv4/ip_forward",
    "net/netfilter/nf_conntrack_max",
    # This one the cluster itself sets: three nodes beside other programs take more than the usual 128.
    "fs/inotify/max_user_instances",
)
_INOTIFY_INSTANCES = 1024
_PATHS = (
    STATE,
    *(Path(p) for p in ("/var/lib/kubelet", "/var/lib/cni", "/var/lib/containerd", "/run/containerd", "/run/netns")),
    *(
        Path(p)
        for p in ("/var/log/pods", "/var/log/containers", "/run/flannel", "/etc/cni/net.d", "/run/cni-addresses")
    ),
)


def kernel_settings() -> dict[str, str]:
    """Return name -> value of the machine-wide settings that a cluster's programs change."""
    files = {name: Path("/proc/sys") / name for name in KERNEL_SETTINGS}
    return {name: file.read_text().strip() for name, file in files.items() if file.exists()}


def save_kernel_settings() -> None:
    """Write them down, once for each cluster, before its programs start."""
    file = STATE / "kernel-settings.json"
    if not file.exists():
        file.write_text(json.dumps(kernel_settings()))
    watching = Path("/proc/sys/fs/inotify/max_user_instances")
    if int(watching.read_text()) < _INOTIFY_INSTANCES:
        watching.write_text(str(_INOTIFY_INSTANCES))


def restore_kernel_settings() -> None:
    """Give back what `save_kernel_settings` wrote down."""
    file = STATE / "kernel-settings.json"
    if not file.exists():
        return
    now = kernel_settings()
    for name, value in json.loads(file.read_text()).items():
        if now.get(name) != value:
            (Path("/proc/sys") / name).write_text(value)


@dataclass(frozen=True, kw_only=True)
class Traces:
    """What is on the machine at one time."""

    processes: frozenset[str]
    mounts: frozenset[str]
    interfaces: frozenset[str]
    routes: frozenset[str]
    rules: frozenset[str]
    namespaces: frozenset[str]
    groups: frozenset[str]
    paths: frozenset[str]
    settings: frozenset[str]

    def new_since(self, before: "Traces") -> dict[str, list[str]]:
        """Return what is here and was not there `before`, by kind; empty when nothing is."""
        pairs = {f.name: getattr(self, f.name) - getattr(before, f.name) for f in fields(self)}
        return {name: sorted(new) for name, new in pairs.items() if new}


def look() -> Traces:
    """Return what is on the machine now."""
    ours = [p for p in Path("/proc").glob("[0-9]*") if _is_ours(p)]
    return Traces(
        processes=frozenset(_command(p) for p in ours),
        mounts=frozenset(line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()),
        interfaces=frozenset(line.split()[1] for line in _lines("ip", "-o", "link")),
        routes=frozenset(line.strip() for line in _lines("ip", "route")),
        rules=frozenset(line for line in _lines("iptables-save") if line.startswith(("-A", ":KUBE", ":CNI"))),
        namespaces=frozenset(str(p.readlink()) for q in ours for p in (q / "ns").glob("*") if _is_link(p)),
        groups=frozenset(str(g) for h in cgroups.hierarchies() for host in HOSTS for g in h.glob(f"{host.cgroup}*")),
        paths=frozenset(str(path) for path in _PATHS if path.exists()),
        settings=frozenset(f"{name} = {value}" for name, value in kernel_settings().items()),
    )


def _lines(*command: str) -> list[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()


def _command(process: Path) -> str:
    try:
        return (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def _is_link(path: Path) -> bool:
    try:
        path.readlink()
    except OSError:
        return False
    return True


def _is_ours(process: Path) -> bool:
    try:
        inside = any(host.cgroup in (process / "cgroup").read_text() for host in HOSTS)
    except OSError:
        return False
    command = _command(process)
    # The cluster's programs, and what put them into its machines; not a compiler that makes one.
    started = command.startswith((f"{BIN}/", "nsenter --target", "unshare --net"))
    return inside or started or str(STATE) in command or "tests.kube.cluster.provisioner" in command
