"""Holding a server to its memory, processes and processors: control groups where they can be written, else rlimits.

Control groups hold all processes of a server together and count the kills for want of memory. Version 2 needs a
delegated (or root's) subtree; version 1 needs root. What is there is probed by making a group, not by reading about it.
"""

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Protocol

from astrocloud_hub.spawners.models import Limits

MOUNT: Final = Path("/sys/fs/cgroup")
_CPU_PERIOD_US: Final = 100_000

Kind = Literal["cgroup2", "cgroup1", "rlimit"]


@dataclass(frozen=True, kw_only=True)
class ControlGroup:
    """The control groups that one server's processes are in: one folder in version 2, one a controller in version 1."""

    folders: tuple[Path, ...]
    """The folders; the first one is that of the memory controller."""

    @property
    def procs(self) -> tuple[str, ...]:
        """The files to which a process writes 0 to join."""
        return tuple(str(folder / "cgroup.procs") for folder in self.folders)

    def processes(self) -> list[int]:
        """Return the process ids in it."""
        try:
            return [int(line) for line in (self.folders[0] / "cgroup.procs").read_text().split()]
        except (OSError, ValueError):
            return []

    def oom_kills(self) -> int:
        """Return how many of its processes were killed because the group was out of memory."""
        for name in ("memory.events", "memory.oom_control"):
            try:
                lines = (self.folders[0] / name).read_text().splitlines()
            except OSError:
                continue
            for line in lines:
                key, _, value = line.partition(" ")
                if key == "oom_kill":
                    return int(value)
        return 0

    def memory_bytes(self) -> int:
        """Return how much memory its processes use together, 0 if that cannot be told."""
        for name in ("memory.current", "memory.usage_in_bytes"):
            with suppress(OSError, ValueError):
                return int((self.folders[0] / name).read_text())
        return 0

    def share_processors(self, cpus: float) -> None:
        """Let its processes use as much as `cpus` processors from now on, where that is limited at all."""
        quota = round(cpus * _CPU_PERIOD_US)
        for folder in self.folders:
            for name, value in (("cpu.max", f"{quota} {_CPU_PERIOD_US}"), ("cpu.cfs_quota_us", str(quota))):
                # A group that is gone needs no limit; never make a file where there is none.
                with suppress(OSError):
                    if (folder / name).exists():
                        _write(folder / name, value)

    def remove(self, *, patience_s: float = 2.0) -> None:
        """Remove it; its processes are gone, or will be in a moment."""
        deadline = time.monotonic() + patience_s
        for folder in self.folders:
            while folder.exists():
                try:
                    folder.rmdir()
                except OSError:
                    if time.monotonic() > deadline:
                        break
                    time.sleep(0.01)


class Controller(Protocol):
    """A way to hold servers to their limits."""

    @property
    def kind(self) -> Kind:
        """What it is."""
        ...

    def make(self, name: str, limits: Limits) -> ControlGroup | None:
        """Return the control groups of a server about to start, `None` where rlimits must do. Raises `OSError`."""


class Rlimits:
    """No control groups: rlimits, for each process and for the person's processes."""

    kind: Kind = "rlimit"

    def make(self, name: str, limits: Limits) -> ControlGroup | None:
        """Return nothing: rlimits are set by the command itself."""
        return None


@dataclass(frozen=True, kw_only=True)
class Cgroup2:
    """Control groups of version 2 below `base`."""

    base: Path
    kind: Kind = "cgroup2"

    def make(self, name: str, limits: Limits) -> ControlGroup:
        """Return the fresh group `name`."""
        group = ControlGroup(folders=(_fresh(self.base, name),))
        folder = group.folders[0]
        _write(folder / "memory.max", limits.memory_bytes)
        with suppress(OSError):  # no swap accounting on this kernel: then there is none to use, or the host allows it
            _write(folder / "memory.swap.max", 0)
        _write(folder / "pids.max", limits.processes)
        if (folder / "cpu.max").exists():
            _write(folder / "cpu.max", f"{round(limits.cpus * _CPU_PERIOD_US)} {_CPU_PERIOD_US}")
        return group


@dataclass(frozen=True, kw_only=True)
class Cgroup1:
    """Control groups of version 1 below one base a controller."""

    memory: Path
    pids: Path
    cpu: Path | None = None
    kind: Kind = "cgroup1"

    def make(self, name: str, limits: Limits) -> ControlGroup:
        """Return the fresh groups `name`."""
        memory = _fresh(self.memory, name)
        _write(memory / "memory.limit_in_bytes", limits.memory_bytes)
        with suppress(OSError):  # only with swap accounting
            _write(memory / "memory.memsw.limit_in_bytes", limits.memory_bytes)
        folders = [memory]
        if self.pids != self.memory:
            folders.append(_fresh(self.pids, name))
        _write(folders[-1] / "pids.max", limits.processes)
        if self.cpu is not None:
            cpu = _fresh(self.cpu, name)
            _write(cpu / "cpu.cfs_period_us", _CPU_PERIOD_US)
            _write(cpu / "cpu.cfs_quota_us", round(limits.cpus * _CPU_PERIOD_US))
            folders.append(cpu)
        return ControlGroup(folders=tuple(folders))


def probe(*, mount: Path = MOUNT, own: str | None = None) -> Controller:
    """Return the best way to limit servers that works on this machine.

    Parameters
    ----------
    mount
        Where the control groups are mounted.
    own
        The text of ``/proc/self/cgroup``; read when it is `None`.
    """
    if own is None:
        try:
            own = Path("/proc/self/cgroup").read_text(encoding="utf-8")
        except OSError:
            return Rlimits()
    places = _own_places(own)
    if (mount / "cgroup.controllers").exists():
        for base in _candidates(mount, places.get("", "/")):
            if _usable_v2(base / "astrocloud"):
                return Cgroup2(base=base / "astrocloud")
        return Rlimits()
    bases = {name: _usable_v1(mount / name, places.get(name, "/")) for name in ("memory", "pids", "cpu")}
    memory, pids = bases["memory"], bases["pids"]
    if memory is not None and pids is not None:
        return Cgroup1(memory=memory, pids=pids, cpu=bases["cpu"])
    return Rlimits()


def _own_places(text: str) -> dict[str, str]:
    """Return controller -> path of this process's group; the controller of version 2 is the empty string."""
    places: dict[str, str] = {}
    for line in text.splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        for controller in controllers.split(","):
            places[controller] = path
    return places


def _candidates(mount: Path, own: str) -> list[Path]:
    """Return the folders to try: our own group, its parents, and the mount itself (in a container, all there is)."""
    here = mount / own.lstrip("/")
    inside = [folder for folder in (here, *here.parents) if folder.is_relative_to(mount) and folder.is_dir()]
    return inside or [mount]


def _usable_v2(base: Path) -> bool:
    """Tell whether groups with memory and process limits can be made in `base`, making it and switching them on."""
    try:
        for folder in (base.parent, base):
            if folder == base:
                base.mkdir(exist_ok=True)
            switched = (folder / "cgroup.subtree_control").read_text(encoding="ascii").split()
            there = (folder / "cgroup.controllers").read_text(encoding="ascii").split()
            for controller in ("memory", "pids", "cpu"):
                if controller in there and controller not in switched:
                    # Refused (EBUSY) where processes sit in the group itself: then a parent may do.
                    _write(folder / "cgroup.subtree_control", f"+{controller}")
        test = _fresh(base, f"probe-{os.getpid()}")
        good = (test / "memory.max").exists() and (test / "pids.max").exists()
        test.rmdir()
    except OSError:
        with suppress(OSError):
            base.rmdir()
        return False
    return good


def _usable_v1(mount: Path, own: str) -> Path | None:
    for folder in _candidates(mount, own):
        base = folder / "astrocloud"
        try:
            base.mkdir(exist_ok=True)
            _fresh(base, f"probe-{os.getpid()}").rmdir()
        except OSError:
            continue
        return base
    return None


def _fresh(base: Path, name: str) -> Path:
    """Return the new folder `name` in `base`; a leftover of that name gets out of the way."""
    folder = base / name
    for attempt in range(100):
        try:
            folder.mkdir()
        except FileExistsError:
            folder = base / f"{name}.{attempt}"
        else:
            return folder
    msg = f"too many leftovers of {name} in {base}"
    raise OSError(msg)


def _write(file: Path, value: object) -> None:
    file.write_text(str(value), encoding="ascii")
