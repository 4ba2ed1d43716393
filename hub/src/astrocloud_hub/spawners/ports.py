"""Ports on the loopback address that people's servers share: who really listens on one."""

import asyncio
import os
import socket
from pathlib import Path
from typing import Final

_LISTEN: Final = "0A"


def free_port() -> int:
    """Return a port on 127.0.0.1 that nobody has at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def accepts(port: int) -> bool:
    """Tell whether something on 127.0.0.1 accepts connections at `port`."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


def listener(port: int) -> tuple[int, int] | None:
    """Return user id and inode of the socket that listens at `port` on 127.0.0.1 or all addresses, `None` if none."""
    ends = f":{port:04X}"
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == _LISTEN and fields[1].endswith(ends):
                return int(fields[7]), int(fields[9])
    return None


def holds(pids: list[int], inode: int) -> bool:
    """Tell whether one of the processes `pids` has the socket `inode` open."""
    wanted = f"socket:[{inode}]"
    for pid in pids:
        try:
            for entry in os.scandir(f"/proc/{pid}/fd"):
                if os.readlink(entry.path) == wanted:
                    return True
        except OSError:
            continue
    return False


def descendants(pid: int) -> list[int]:
    """Return the process ids of `pid` and everything below it."""
    found = [pid]
    for each in found:
        try:
            for task in os.scandir(f"/proc/{each}/task"):
                found += [int(child) for child in Path(task.path, "children").read_text(encoding="ascii").split()]
        except OSError:
            continue
    return found
