"""A GlusterFS volume with three replicas on three machines of their own, for the tests: by IPv4, or by IPv6 alone."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.kube.cluster.layout import NODES, PREFIX_LENGTH_6, REPOSITORY, Host
from tests.kube.cluster.machines import (
    ClusterError,
    daemon,
    first_process,
    inside,
    power_off,
    power_on,
    run,
    wait_until,
)

SERVERS: Final = tuple(Host(name=f"brick{number}", address=f"10.89.0.{20 + number}") for number in (1, 2, 3))
NETWORK_6: Final = "fd00:89::"
"""Addresses that only these tests have, and nobody routes."""
SERVERS_6: Final = tuple(Host(name=f"brick{number}-6", address=f"{NETWORK_6}{20 + number}") for number in (1, 2, 3))
"""Machines without any IPv4 address."""
_BRICKS: Final = "/var/lib/bricks"


def need_packages() -> None:
    """Install Debian's GlusterFS where it is missing. Raises `ClusterError`."""
    need = REPOSITORY / "tools" / "need"
    done = subprocess.run([need, "command -v glusterd glusterfs", "glusterfs-server", "glusterfs-client"], check=False)
    if done.returncode:
        raise ClusterError("GlusterFS is not installed; run as root: apt-get install glusterfs-server")


@dataclass(frozen=True)
class Volume:
    """A volume, each file of it on every one of its servers."""

    name: str
    servers: tuple[Host, ...] = SERVERS

    @property
    def addresses(self) -> list[str]:
        """Where it is served."""
        return [server.address for server in self.servers]

    def command(self, *arguments: str) -> str:
        """Return what ``gluster`` prints on the first server that is on."""
        return run(*inside(self.servers[0], "gluster", "--mode=script", *arguments))

    def brick(self, server: Host) -> Path:
        """Return where a server's own copy is, as this machine sees it."""
        return server.folder / "var-lib" / "bricks" / self.name

    def kill_brick(self, server: Host) -> None:
        """End the process that serves a server's copy, as a crash would."""
        pid = self._brick_process(server)
        assert pid, f"no brick runs on {server.name}"
        run(*inside(server, "kill", "-9", pid))
        wait_until("the brick to end", lambda: self._brick_process(server) != pid, within_s=10)

    def freeze(self) -> None:
        """Stop all bricks where they are: whoever uses the volume waits."""
        self._signal("-STOP")

    def thaw(self) -> None:
        """Let them go on."""
        self._signal("-CONT")

    def _signal(self, name: str) -> None:
        for server in self.servers:
            run(*inside(server, "kill", name, self._brick_process(server)))

    def start_bricks(self) -> None:
        """Start the bricks that do not run; they are healed from then on."""
        self.command("volume", "start", self.name, "force")
        wait_until("all bricks", lambda: all(map(self._brick_process, self.servers)), within_s=30)

    def _brick_process(self, server: Host) -> str:
        found = subprocess.run(
            inside(server, "pgrep", "-f", f"glusterfsd .*{_BRICKS}/{self.name}"),
            capture_output=True,
            text=True,
            check=False,
        )
        return found.stdout.split()[0] if found.stdout.split() else ""

    def to_heal(self) -> int | None:
        """Return how much is still to be copied to a brick that was away; `None` while one does not answer."""
        with suppress(ClusterError):
            told = re.findall(r"Number of entries: (\S+)", self.command("volume", "heal", self.name, "info"))
            if len(told) == len(self.servers) and all(number.isdigit() for number in told):
                return sum(map(int, told))
        return None

    def wait_until_healed(self, *, within_s: float = 120) -> None:
        """Return when all bricks hold the same."""

        def healed() -> bool:
            with suppress(ClusterError):  # what heals may not have found all bricks yet; it begins by itself then
                self.command("volume", "heal", self.name)
            return self.to_heal() == 0

        wait_until("the volume to heal", healed, within_s=within_s)

    @contextmanager
    def mounted_in(self, host: Host, at: str) -> Iterator[str]:
        """Mount the volume in a machine."""
        servers = [f"--volfile-server={address}" for address in self.addresses]
        run(*inside(host, "mkdir", "-p", at, "/var/log/glusterfs"))
        run(*inside(host, "glusterfs", "--process-name=fuse", "--acl", *servers, f"--volfile-id={self.name}", at))
        try:
            wait_until(f"the mount on {host.name}", lambda: self._is_mounted(host, at), within_s=20)
            yield at
        finally:
            run(*inside(host, "umount", "--lazy", at))

    @staticmethod
    def _is_mounted(host: Host, at: str) -> bool:
        mounts = Path(f"/proc/{first_process(host)}/mountinfo").read_text()
        return any(line.split()[4] == at and "fuse.glusterfs" in line for line in mounts.splitlines())


@contextmanager
def volume(name: str, *, ipv6: bool = False) -> Iterator[Volume]:
    """Serve a new volume; its servers and their bytes go with it.

    With `ipv6` its servers have no other addresses, and the cluster's nodes have such ones, too, for as long.
    """
    need_packages()
    made = Volume(name, SERVERS_6 if ipv6 else SERVERS)
    with ExitStack() as stack:
        if ipv6:
            stack.enter_context(nodes_with_ipv6())
        for server in made.servers:
            stack.callback(_remove, server)
            power_on(server)
            _start_glusterd(server, ipv6=ipv6)
        _create(made)
        yield made


@contextmanager
def nodes_with_ipv6() -> Iterator[None]:
    """Give the nodes one more address each, in the servers' network."""
    addresses = {node: f"{NETWORK_6}{node.address.rpartition('.')[2]}/{PREFIX_LENGTH_6}" for node in NODES}
    try:
        for node, address in addresses.items():
            run(*inside(node, "ip", "addr", "replace", address, "dev", "eth0", "nodad"))
        yield
    finally:
        for node, address in addresses.items():
            # A node that was off meanwhile came back without it.
            with suppress(ClusterError):
                run(*inside(node, "ip", "addr", "del", address, "dev", "eth0"))


def _start_glusterd(server: Host, *, ipv6: bool) -> None:
    run(*inside(server, "mkdir", "-p", "/var/lib/glusterd", "/var/log/glusterfs", "/run/gluster", _BRICKS))
    options = []
    if ipv6:
        own = server.folder / "glusterd.vol"
        usual = Path("/etc/glusterfs/glusterd.vol").read_text()
        own.write_text(usual.replace("end-volume", "    option transport.address-family inet6\nend-volume"))
        options = [f"--volfile={own}"]
    daemon(server, "glusterd", "/usr/sbin/glusterd", "--no-daemon", "--log-file=-", *options)


def _create(made: Volume) -> None:
    first, *others = made.servers
    wait_until("glusterd", lambda: all(map(_answers, made.servers)), within_s=60)
    for server in others:
        wait_until(f"{server.name} to join", lambda server=server: _joins(first, server), within_s=90)  # type: ignore[misc]
    wait_until("all to know each other", lambda: _connected(first) == len(others), within_s=30)
    bricks = [f"{server.address}:{_BRICKS}/{made.name}" for server in made.servers]
    made.command("volume", "create", made.name, "replica", str(len(bricks)), *bricks, "force")
    # So that a test need not wait for 42 s until a brick that is gone counts as gone.
    made.command("volume", "set", made.name, "network.ping-timeout", "5")
    made.command("volume", "start", made.name)


def _remove(server: Host) -> None:
    power_off(server)
    run("rm", "-rf", "--one-file-system", str(server.folder))


def _answers(server: Host) -> bool:
    with suppress(ClusterError):
        return bool(run(*inside(server, "gluster", "peer", "status")))
    return False


def _joins(first: Host, other: Host) -> bool:
    with suppress(ClusterError):
        told = run(*inside(first, "gluster", "peer", "probe", other.address))
        # A first try may have been noted, and not answered in time.
        return "success" in told or "already in peer list" in told
    return False


def _connected(server: Host) -> int:
    return run(*inside(server, "gluster", "peer", "status")).count("Peer in Cluster (Connected)")
