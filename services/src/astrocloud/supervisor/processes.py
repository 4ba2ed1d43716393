"""Child processes: started in a known state, found again, ended without leaving any."""

import asyncio
import ctypes
import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from astrocloud.core.logs import shorten

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_libc = ctypes.CDLL(None, use_errno=True)


def become_subreaper() -> None:
    """Make orphans among this process's descendants its own children (``prctl(2)``), so that it can end them."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _end_with_parent() -> None:
    """Ask the kernel to end this child when the supervisor dies, however it dies."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


@dataclass(frozen=True)
class Stat:
    """What ``/proc/PID/stat`` says of a process (``proc(5)``)."""

    parent: int
    session: int
    state: str
    started_ticks: int
    """Start time after boot, in clock ticks: with the pid it names one process for ever."""


def stat_of(pid: int) -> Stat | None:
    """Return the state of process `pid`, or `None` if there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command's name may hold anything, so count the fields after its closing bracket.
    fields = text.rpartition(")")[2].split()
    return Stat(parent=int(fields[1]), session=int(fields[3]), state=fields[0], started_ticks=int(fields[19]))


def descendants(root: int) -> list[int]:
    """Return the process ids of all living descendants of `root`, parents before children."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (stat := stat_of(int(entry))) is not None and stat.state != "Z":
            children.setdefault(stat.parent, []).append(int(entry))
    found: list[int] = []
    queue = [root]
    while queue:
        below = children.get(queue.pop(0), [])
        found += below
        queue += below
    return found


class Part:
    """One part of the platform: a process that is started again when it ends unasked.

    Parameters
    ----------
    name
        The part's name, also of its log.
    command
        The program and its arguments; never a secret.
    environment
        Its whole environment.
    log
        The file its output is appended to.
    descriptors
        Open descriptors that it gets besides, under the same numbers.
    """

    def __init__(
        self,
        *,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        descriptors: Sequence[int] = (),
    ) -> None:
        self.name = name
        self._descriptors = descriptors
        self._command = command
        self._environment = environment
        self._log = log
        self._process: asyncio.subprocess.Process | None = None
        self.starting = False

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def start(self) -> None:
        """Start it; its output goes to its log."""
        self.starting = True
        try:
            with self._open_log() as log:
                self._process = await asyncio.create_subprocess_exec(
                    *self._command,
                    env=dict(self._environment),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # Ctrl-C in the terminal reaches the supervisor alone
                    preexec_fn=_end_with_parent,
                    pass_fds=self._descriptors,
                )
        finally:
            self.starting = False

    async def wait(self) -> int:
        """Return its exit code when it has ended."""
        assert self._process is not None
        return await self._process.wait()

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it still runs."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    def last_lines(self, count: int = 15) -> str:
        """Return the end of its log."""
        try:
            with self._log.open("rb") as log:
                log.seek(max(0, self._log.stat().st_size - 8192))
                return "\n".join(log.read().decode(errors="replace").splitlines()[-count:])
        except OSError:
            return ""

    def shorten_log(self) -> None:
        """Keep its log from growing without end while it runs."""
        shorten(self._log)

    def _open_log(self) -> IO[bytes]:
        """Open the log for appending; one larger than 10 MB is kept as ``.1`` and begun anew."""
        if self._log.exists() and self._log.stat().st_size > 10_000_000:
            self._log.replace(self._log.with_suffix(self._log.suffix + ".1"))
        descriptor = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        return os.fdopen(descriptor, "ab")


async def end_all(pids: Sequence[int], *, patience_s: float) -> None:
    """End processes: SIGTERM, and SIGKILL for those still there after `patience_s` seconds."""
    known = {pid: stat.started_ticks for pid in pids if (stat := stat_of(pid)) is not None}
    deadline = time.monotonic() + patience_s
    number = signal.SIGTERM
    while True:
        alive = [p for p, ticks in known.items() if (s := stat_of(p)) and s.state != "Z" and s.started_ticks == ticks]
        if not alive:
            return
        if number is signal.SIGTERM or time.monotonic() > deadline:
            for pid in alive:
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    continue
            number = signal.SIGKILL
        await asyncio.sleep(0.02)


def reap_orphans(own: set[int]) -> None:
    """Collect the exit of adopted children, which nobody else waits for; `own` are waited for elsewhere.

    So is every child in this process's own session: parts have sessions of their own, and with them whatever they leave
    behind, but a program that is run here and waited for has ours.
    """
    session = os.getsid(0)
    try:
        listed = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii").split()
    except OSError:
        return
    for pid in map(int, listed):
        stat = stat_of(pid)
        if pid not in own and stat is not None and stat.session != session:
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                continue
