"""The cluster's machines: namespaces held by a first process, and the daemons inside them.

A machine's first process is the only parent of everything in it, so ending that one ends all: the kernel kills the
rest of a process namespace with its first process, and drops mounts, interfaces and rules with their namespaces.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.kube.cluster import cgroups
from tests.kube.cluster.layout import (
    BRIDGE,
    BRIDGE_ADDRESS,
    CONTROL,
    HOSTS,
    NODES,
    PREFIX_LENGTH,
    PREFIX_LENGTH_6,
    SERVICES,
    Host,
)
from tests.kube.cluster.programs import BIN, program

PATH = f"{BIN}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class ClusterError(Exception):
    """The cluster cannot do what was asked; the text says why and where to look."""


def wait_until(what: str, condition: Callable[[], bool], *, within_s: float, hint: str = "") -> None:
    """Return when `condition` holds. Raises `ClusterError` naming `what` when it does not in time."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            raise ClusterError(f"waited {within_s:g} s for {what}{f'; see {hint}' if hint else ''}")
        time.sleep(0.05)


def run(*command: str | Path, given: str | None = None) -> str:
    """Return what a command prints. Raises `ClusterError` with its last lines when it fails."""
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        said = "\n".join((done.stderr or done.stdout).splitlines()[-5:])
        raise ClusterError(f"{' '.join(map(str, command))} failed ({done.returncode}): {said}")
    return done.stdout


# Processes: a record says which process it was, because process ids are used again.


def _started_at(pid: int) -> str:
    """Return what tells this process from a later one with its id; empty when it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in {"Z", "X"} else fields[19]


def _record(host: Host, name: str) -> Path:
    return host.folder / "pids" / name


def pid_of(host: Host, name: str) -> int | None:
    """Return the id of a process started with `spawn`, or `None` when it has ended."""
    try:
        pid, started = _record(host, name).read_text().split()
    except (OSError, ValueError):
        return None
    return int(pid) if _started_at(int(pid)) == started else None


def spawn(host: Host, name: str, command: list[str], *, environment: dict[str, str] | None = None) -> None:
    """Start a process that outlives this one, logging to the machine's folder; nothing when it already runs."""
    if pid_of(host, name) is not None:
        return
    record = _record(host, name)
    record.parent.mkdir(parents=True, exist_ok=True)
    log = log_file(host, name)
    log.parent.mkdir(parents=True, exist_ok=True)
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
        (os.POSIX_SPAWN_DUP2, 1, 2),
        *((os.POSIX_SPAWN_CLOSE, descriptor) for descriptor in _inherited()),
    ]
    clean = {"PATH": PATH, "HOME": "/root", "LANG": "C.UTF-8"} | (environment or {})
    pid = os.posix_spawnp(command[0], command, clean, file_actions=actions, setsid=True)
    record.write_text(f"{pid} {_started_at(pid)}")


def _inherited() -> list[int]:
    """Return what whoever started this one left open to it: a lock that is held by it would outlive who holds it."""
    found = []
    for descriptor in (int(name) for name in os.listdir("/proc/self/fd")):
        # The one by which the folder was read is gone.
        with suppress(OSError):
            if descriptor > 2 and os.get_inheritable(descriptor):
                found.append(descriptor)
    return found


def log_file(host: Host, name: str) -> Path:
    """Return the log of a process."""
    return host.folder / "logs" / f"{name}.log"


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _gone(pid: int) -> bool:
    # Ours to reap when this same process started it, as in a test.
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    return not _started_at(pid)


def _kill(pids: Iterable[int], number: signal.Signals = signal.SIGKILL) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


# Machines


def first_process(host: Host) -> int:
    """Return the id, outside, of a machine's first process. Raises `ClusterError` when the machine is off."""
    keeper = pid_of(host, "init")
    children = _children(keeper) if keeper is not None else []
    if not children:
        raise ClusterError(f"{host.name} is not running; run: make cluster")
    return children[0]


def is_on(host: Host) -> bool:
    """Return whether a machine is on."""
    keeper = pid_of(host, "init")
    return keeper is not None and bool(_children(keeper))


def inside(host: Host, *command: str | Path) -> list[str]:
    """Return the command line that runs `command` in a machine."""
    target = str(first_process(host))
    enter = ["nsenter", "--target", target, "--mount", "--net", "--pid", "--uts", "--ipc", "--wd=/", "--"]
    return [*enter, *map(str, command)]


def power_on(host: Host) -> None:
    """Start a machine's first process and join it to the bridge; nothing when it is on."""
    if is_on(host):
        return
    if pid_of(host, "init") is not None:
        power_off(host)
    pause = str(program("pause"))
    # `private`: no mount of the machine's shows outside. `kill-child`: the first process ends with its keeper.
    namespaces = ["--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "--mount-proc"]
    spawn(host, "init", ["unshare", *namespaces, "--propagation", "private", "--wd=/", pause])
    keeper = pid_of(host, "init") or 0

    def runs_pause() -> bool:
        return any(Path(f"/proc/{pid}/exe").resolve().name == "pause" for pid in _children(keeper))

    wait_until(f"{host.name} to start", runs_pause, within_s=10, hint=str(log_file(host, "init")))
    _own_folders(host)
    _own_network(host)


def power_off(host: Host) -> None:
    """End a machine as a pulled plug would, with everything in it; its files stay, as on a disk."""
    keeper = pid_of(host, "init")
    names = [record.name for record in (host.folder / "pids").glob("*")]
    known = {pid for name in names if (pid := pid_of(host, name)) is not None}
    if keeper is not None:
        known |= set(_children(keeper))
        _kill([keeper])
        wait_until(f"{host.name} to end", lambda: all(_gone(pid) for pid in known), within_s=30)
    shutil.rmtree(host.folder / "pids", ignore_errors=True)
    cgroups.remove(host.cgroup)


def daemon(host: Host, name: str, *command: str | Path, environment: dict[str, str] | None = None) -> None:
    """Start a daemon in a machine; nothing when it already runs."""
    spawn(host, name, inside(host, *command), environment=environment)


def stop_daemon(host: Host, name: str, *, number: signal.Signals = signal.SIGTERM) -> None:
    """End one daemon of a machine, leaving the rest."""
    pid = pid_of(host, name)
    if pid is None:
        return
    _kill(_children(pid) or [pid], number)
    wait_until(f"{name} on {host.name} to end", lambda: _gone(pid), within_s=30)


@contextmanager
def frozen(host: Host, name: str) -> Iterator[None]:
    """Stop a daemon of a machine where it is; it goes on afterwards. Whoever asks it meanwhile waits."""
    keeper = pid_of(host, name)
    assert keeper is not None, f"{name} does not run on {host.name}"
    daemons = _children(keeper)
    try:
        _kill(daemons, signal.SIGSTOP)
        yield
    finally:
        # nsenter stops with its child, and has to be told as well.
        _kill([*daemons, keeper], signal.SIGCONT)


def _own_folders(host: Host) -> None:
    """Give a machine its own /run, /var/lib and /var/log, so that programs keep their usual paths there."""
    library, logs = host.folder / "var-lib", host.folder / "var-log"
    for folder in (library, logs):
        folder.mkdir(parents=True, exist_ok=True)
    script = f"""
        mount -t tmpfs -o mode=755 tmpfs /run
        mount --bind {library} /var/lib
        mount --bind {logs} /var/log
        mount --make-rshared /
        hostname {host.name}
    """
    run(*inside(host, "sh", "-e", "-c", script))


def _own_network(host: Host) -> None:
    init = first_process(host)
    outside = [
        f"link add {host.interface} type veth peer name eth0 netns {init}",
        f"link set {host.interface} master {BRIDGE} up",
    ]
    run("ip", "-batch", "-", given="\n".join(outside))
    within = ["link set lo up", "link set eth0 up", *_addresses(host)]
    run(*inside(host, "ip", "-batch", "-"), given="\n".join(within))
    if host.pods:
        run(*inside(host, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"))


def _addresses(host: Host) -> list[str]:
    """Return what ``ip`` is told for a machine's address and its ways to pods and services."""
    if ":" in host.address:
        # Nobody else has the address: no wait until that is known.
        return [f"addr add {host.address}/{PREFIX_LENGTH_6} dev eth0 nodad"]
    routes = [f"route add {node.pods} via {node.address}" for node in NODES if node != host]
    # A node's own service traffic is redirected after routing, so it needs some route; other machines go by a node.
    routes.append(f"route add {SERVICES} via {BRIDGE_ADDRESS if host.pods else NODES[0].address}")
    return [f"addr add {host.address}/{PREFIX_LENGTH} dev eth0", *routes]


def bridge_up() -> None:
    """Make the bridge and this machine's routes to pods and services, as far as they are not there."""
    if not Path(f"/sys/class/net/{BRIDGE}").exists():
        run("ip", "link", "add", BRIDGE, "type", "bridge")
    commands = [
        f"addr replace {BRIDGE_ADDRESS}/{PREFIX_LENGTH} dev {BRIDGE}",
        f"link set {BRIDGE} up",
        *[f"route replace {node.pods} via {node.address} dev {BRIDGE}" for node in NODES],
        f"route replace {SERVICES} via {NODES[0].address} dev {BRIDGE}",
    ]
    run("ip", "-batch", "-", given="\n".join(commands))


def bridge_down() -> None:
    """Remove the bridge, and with it the routes."""
    for interface in [*(host.interface for host in HOSTS), BRIDGE]:
        place = Path(f"/sys/class/net/{interface}")
        if not place.exists():
            continue
        try:
            run("ip", "link", "delete", interface)
        except ClusterError:
            # The kernel takes one away by itself, a moment after the last process of its machine.
            if place.exists():
                raise


def all_off() -> None:
    """End all machines, pods before the control plane."""
    for host in (*NODES, CONTROL):
        power_off(host)
