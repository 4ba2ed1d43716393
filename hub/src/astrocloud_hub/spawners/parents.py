"""The processes that servers are forked from: one an environment, the hub's children, ending with it.

The other side is `astrocloud_lab.forked.parent`. A parent is asked on one end of a socket pair that has no name, so
that only this process can; it exits when the hub is gone, and the next hub starts another. Servers are not its
children.
"""

import asyncio
import json
import os
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import structlog

from astrocloud.environments.models import BuiltEnvironment
from astrocloud_hub.spawners import view
from astrocloud_hub.spawners.sandbox import Programs, argv_of_parent

_log = structlog.get_logger()
_READY: Final = b"ready"
_REQUEST: Final = b"server"
_START_WITHIN_S: Final = 120.0
"""How long a parent may take to import everything."""
_REST_S: Final = 60.0
"""How long no parent is started for an environment after one has failed."""
_LINE_BYTES: Final = 4096
"""How long a line of a child may be; a person may have a hand in it."""
MODULE: Final = "astrocloud_lab.forked.parent"

ENVIRONMENT: Final = {
    # In its own, private /tmp; unmistakable, because children look for it and put their own in its place.
    "HOME": "/tmp/home-of-the-parent",  # noqa: S108
    "USER": "name-of-the-parent",
    "LOGNAME": "name-of-the-parent",
    "LANG": "C.UTF-8",
    "ASTROCLOUD_SHARED_NETWORK": "1",
    # Threads do not survive a fork; kernels get their number back.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}


class NotForkedError(Exception):
    """A server cannot be forked; the text says why.

    Parameters
    ----------
    reason
        Why.
    by_parent
        Whether the parent process failed, so that it should be asked for nothing more.
    """

    def __init__(self, reason: str, *, by_parent: bool = False) -> None:
        super().__init__(reason)
        self.by_parent = by_parent


Fingerprint = tuple[tuple[str, int, int], ...]


def fingerprint(built: BuiltEnvironment) -> Fingerprint:
    """Return what changes when something is installed in an environment, or its Python is replaced."""
    site = sorted(built.path.glob("lib/python*/site-packages"))
    found = []
    for path in (*site, built.path / ".ready", built.path / "pyvenv.cfg", (built.path / "bin" / "python").resolve()):
        with suppress(OSError):
            stat = path.stat()
            found.append((str(path), stat.st_mtime_ns, stat.st_ino))
    return tuple(found)


@dataclass(kw_only=True)
class Parent:
    """One process that servers of an environment are forked from."""

    process: "subprocess.Popen[bytes]"
    control: socket.socket
    made_from: Fingerprint
    started: float = field(default_factory=time.monotonic)
    told_ready: bool = False

    @classmethod
    def start(cls, built: BuiltEnvironment, programs: Programs, log: Path) -> "Parent":
        """Start one. Raises `OSError`."""
        binds = (*view.system_binds(), *view.environment_binds(built.path, built.base_prefix))
        command = argv_of_parent((str(built.python), "-m", MODULE), binds, view.system_symlinks(), programs)
        made_from = fingerprint(built)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            ours.setblocking(False)
            with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as out:
                process = subprocess.Popen(
                    command,
                    env={**ENVIRONMENT, "PATH": f"{built.path}/bin:/usr/local/bin:/usr/bin:/bin"},
                    stdin=theirs.fileno(),
                    stdout=out,
                    stderr=out,
                    start_new_session=True,
                    cwd="/",
                )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return cls(process=process, control=ours, made_from=made_from)

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self.process.poll() is None

    @property
    def ready(self) -> bool:
        """Whether it has imported everything, and takes requests."""
        if not self.told_ready:
            with suppress(OSError):
                self.told_ready = self.control.recv(64) == _READY
        return self.told_ready and self.alive

    @property
    def overdue(self) -> bool:
        """Whether it has had enough time to be ready."""
        return not self.told_ready and time.monotonic() - self.started > _START_WITHIN_S

    def ask(self, request: dict[str, Any], descriptors: Sequence[int]) -> socket.socket:
        """Ask for a server; return the socket on which a line tells what came of it.

        Parameters
        ----------
        request
            What the server needs, secrets among it: it goes to the server's process alone, in memory.
        descriptors
            Process 1 of the sandbox (a pidfd), the log, the pipe to process 1, and ``cgroup.procs`` files.

        Raises
        ------
        OSError
            If it is gone, or does not take the request.
        """
        ours, theirs = socket.socketpair()
        try:
            ours.setblocking(False)
            with os.fdopen(os.memfd_create("server-request"), "w+b") as memory:
                memory.write(json.dumps(request).encode("utf-8", "surrogateescape"))
                memory.flush()
                socket.send_fds(self.control, [_REQUEST], [theirs.fileno(), memory.fileno(), *descriptors])
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return ours

    def end(self) -> None:
        """End it at once; servers that were forked from it go on."""
        self.control.close()
        if self.alive:
            self.process.kill()  # bwrap
            self.process.wait(5)


class Parents:
    """All parents of one hub, by environment."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._parents: dict[Path, Parent] = {}
        self._resting: dict[Path, float] = {}

    def get(self, built: BuiltEnvironment, programs: Programs) -> Parent:
        """Return the parent of an environment, if it is ready; else see to it that there will be one.

        Raises
        ------
        NotForkedError
            With the reason why there is none at the moment.
        """
        parent = self._parents.get(built.path)
        if parent is not None and not parent.alive:
            self.drop(built.path, f"it ended with {parent.process.returncode}")
            parent = None
        if parent is not None and parent.made_from != fingerprint(built):
            self.drop(built.path, "the environment has changed")
            parent = None
        if parent is not None and not parent.ready and parent.overdue:
            self.drop(built.path, "it was not ready in time")
            parent = None
        if parent is None:
            self._start(built, programs)
            raise NotForkedError("there is no parent process yet")
        if not parent.ready:
            raise NotForkedError("the parent process is not ready yet")
        return parent

    def _start(self, built: BuiltEnvironment, programs: Programs) -> None:
        if time.monotonic() < self._resting.get(built.path, 0.0):
            return
        try:
            self._parents[built.path] = Parent.start(built, programs, self._logs / f"parent-{built.environment}.log")
        except OSError as err:
            self._resting[built.path] = time.monotonic() + _REST_S
            _log.warning("server-parent-not-started", environment=built.environment, reason=str(err))
        else:
            _log.info("server-parent-started", environment=built.environment)

    def drop(self, path: Path, reason: str, *, rest: bool = False) -> None:
        """End the parent of an environment; another one is started when it is asked for, with `rest` after a while."""
        parent = self._parents.pop(path, None)
        if parent is None:
            return
        _log.warning("server-parent-ended", environment=path.name, reason=reason)
        # One that never was ready would only fail again.
        if rest or not (parent.ready or parent.told_ready):
            self._resting[path] = time.monotonic() + _REST_S
        with suppress(OSError, subprocess.TimeoutExpired):
            parent.end()


async def outcome(answer: socket.socket, *, within_s: float) -> None:
    """Return when the child tells that it is a server.

    Its lines are JSON: ``{"stage": "person"}`` when it has given up all rights, then ``{"pid": …}`` or
    ``{"error": …}``. After the first of them it is in the person's hands, and what it does says nothing of its parent.

    Raises
    ------
    NotForkedError
        When it tells something else, or nothing within `within_s` seconds, or ends.
    """
    persons = False
    try:
        async with asyncio.timeout(within_s):
            async for line in _lines(answer):
                told = json.loads(line)
                if not isinstance(told, dict):
                    raise ValueError("no JSON object")
                persons = persons or told.get("stage") == "person"
                if "error" in told:
                    raise NotForkedError(str(told["error"])[:500], by_parent=not persons)
                if "pid" in told:
                    return
    except TimeoutError:
        raise NotForkedError(f"no answer within {within_s} s", by_parent=not persons) from None
    except (OSError, ValueError, RecursionError) as err:
        raise NotForkedError(f"no answer that can be read: {type(err).__name__}", by_parent=not persons) from err
    raise NotForkedError("the child ended while starting")


async def _lines(answer: socket.socket) -> AsyncIterator[bytes]:
    """Yield the lines that come, none of them long. Raises `ValueError` for one that is, `OSError`."""
    received = b""
    while piece := await asyncio.get_running_loop().sock_recv(answer, _LINE_BYTES):
        *lines, received = (received + piece).split(b"\n")
        for line in lines:
            yield line
        if len(received) > _LINE_BYTES:
            raise ValueError("a line is too long")
