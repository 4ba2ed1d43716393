"""The cgroup that a node's pods run in, in each hierarchy that this machine has."""

import os
import time
from pathlib import Path
from typing import Final

_ROOT: Final = Path("/sys/fs/cgroup")


def hierarchies() -> list[Path]:
    """Return the mount points of this machine's hierarchies: many with cgroup v1, one with v2."""
    if (_ROOT / "cgroup.controllers").exists():
        return [_ROOT]
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    return [Path(where) for _what, where, kind, *_ in mounts if kind == "cgroup"]


def create(name: str) -> None:
    """Make the cgroup in every hierarchy; nothing where it is."""
    for hierarchy in hierarchies():
        group = hierarchy / name
        group.mkdir(exist_ok=True)
        if (hierarchy / "cpuset.cpus").exists():
            # A new cpuset is empty in v1, and nothing can be put into an empty one.
            for setting in ("cpuset.cpus", "cpuset.mems"):
                (group / setting).write_text((hierarchy / setting).read_text())
        if (hierarchy / "cgroup.controllers").exists():
            controllers = (hierarchy / "cgroup.controllers").read_text().split()
            wanted = " ".join(f"+{controller}" for controller in controllers)
            for parent in (hierarchy, group):
                (parent / "cgroup.subtree_control").write_text(wanted)


def remove(name: str) -> None:
    """Remove the cgroup and all below it; its processes have been ended before. Waits for the last to be gone."""
    for hierarchy in hierarchies():
        for folder, _inner, _files in os.walk(hierarchy / name, topdown=False):
            _remove_one(Path(folder))


def _remove_one(group: Path) -> None:
    deadline = time.monotonic() + 10
    while group.exists():
        try:
            group.rmdir()
        except OSError:
            # Busy for a moment after its last process.
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
