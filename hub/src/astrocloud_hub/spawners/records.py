"""Processes that outlive the hub: found again by process id and start time, in one file a server.

``run/servers/USER.SERVER.json`` is written before the server runs and removed after its end, so that a hub killed at
any moment, or the command that ends the platform, finds every server. A process id alone would not do: it is reused.
"""

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from astrocloud.core.runtime import write_json

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]*\.[a-z0-9-]*\Z")


@cache
def boot_id() -> str:
    """Return what tells one start of the machine from the next."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def start_time(pid: int) -> int | None:
    """Return when process `pid` started, in clock ticks since boot, or `None` if there is none (or only its zombie)."""
    try:
        # The program's name is in parentheses and may hold anything, so count from the last one.
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in {b"Z", b"X"} else int(fields[19])


@dataclass(frozen=True, kw_only=True)
class Process:
    """One process, unmistakably."""

    pid: int
    started: int
    """Its start time in clock ticks since boot."""

    @classmethod
    def find(cls, pid: int) -> "Process | None":
        """Return the process that has the id `pid` now."""
        started = start_time(pid)
        return None if started is None else cls(pid=pid, started=started)

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return start_time(self.pid) == self.started

    def signal(self, number: int) -> bool:
        """Send it a signal; tell whether it was there."""
        if not self.alive:
            return False
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)
            return True
        return False


@dataclass(frozen=True, kw_only=True)
class ServerRecord:
    """What must be known to find a running server again, and to end it."""

    user: str
    server: str
    """The server's name, empty for the default one."""
    port: int
    boot: str
    """`boot_id` when it started."""
    outer: Process | None = None
    """The process that the platform started (bwrap): ends last, with the server's exit code."""
    init: Process | None = None
    """Process 1 of the sandbox: when it ends, all of the server ends."""
    walls: bool = True
    """Whether it is in a sandbox."""
    control_groups: tuple[str, ...] = ()
    """The folders of its control groups."""

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self.boot == boot_id() and self.outer is not None and self.outer.alive

    def signal(self, number: int) -> bool:
        """Send a signal to process 1 of the sandbox, or to the first process where there is none."""
        target = self.init or self.outer
        return self.boot == boot_id() and target is not None and target.signal(number)

    def kill_rest(self) -> None:
        """Kill what is left of it: everything in its control groups; without walls, its process group."""
        if self.boot != boot_id():
            return
        for folder in self.control_groups[:1]:
            with suppress(OSError, ValueError):
                for pid in (Path(folder) / "cgroup.procs").read_text(encoding="ascii").split():
                    with suppress(ProcessLookupError):
                        os.kill(int(pid), signal.SIGKILL)
        if not self.walls and self.outer is not None and self.outer.alive:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.outer.pid, signal.SIGKILL)


class Records:
    """The records of one platform.

    Parameters
    ----------
    folder
        ``run/servers`` of the data folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def key(self, user: str, server: str) -> str:
        """Return the name of a server's files. Raises `ValueError` for names that could lead elsewhere."""
        key = f"{user}.{server}"
        if len(key) > 200 or not _NAME.match(key):
            msg = f"no file can be named after {user[:64]!r} and {server[:64]!r}"
            raise ValueError(msg)
        return key

    def folder(self, user: str, server: str) -> Path:
        """Return the folder of a server's small files, made if it is missing."""
        folder = self._folder / self.key(user, server)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder

    def write(self, record: ServerRecord) -> None:
        """Keep `record`."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        target = record.init or record.outer
        document = {
            # The two that the platform's supervisor reads: the process to end.
            "pid": target.pid if target else 0,
            "started_ticks": target.started if target else 0,
            **asdict(record),
        }
        write_json(self._folder / f"{self.key(record.user, record.server)}.json", document)

    def read(self, user: str, server: str) -> ServerRecord | None:
        """Return the record of a server, or `None`."""
        return _parse(self._folder / f"{self.key(user, server)}.json")

    def remove(self, user: str, server: str) -> None:
        """Forget a server."""
        with suppress(FileNotFoundError):
            (self._folder / f"{self.key(user, server)}.json").unlink()

    def __iter__(self) -> Iterator[ServerRecord]:
        for path in sorted(self._folder.glob("[a-z0-9]*.json")):
            record = _parse(path)
            if record is not None:
                yield record


def _parse(path: Path) -> ServerRecord | None:
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        del document["pid"], document["started_ticks"]
        for name in ("outer", "init"):
            if document[name] is not None:
                document[name] = Process(**document[name])
        document["control_groups"] = tuple(document["control_groups"])
        return ServerRecord(**document)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def end_all(records: Records, *, grace_s: float) -> int:
    """End all servers, those that do not go within `grace_s` seconds by force; return how many there were."""
    running = [record for record in records if record.alive]
    for record in running:
        record.signal(signal.SIGTERM)
    _wait(running, grace_s)
    for record in running:
        if record.alive:
            record.signal(signal.SIGKILL)
        record.kill_rest()
    _wait(running, 5)
    for record in records:
        for folder in record.control_groups:
            with suppress(OSError):
                os.rmdir(folder)
        records.remove(record.user, record.server)
    return len(running)


def _wait(records: list[ServerRecord], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while any(record.alive for record in records) and time.monotonic() < deadline:
        time.sleep(0.02)
