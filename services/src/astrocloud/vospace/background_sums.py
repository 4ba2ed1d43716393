"""MD5 sums of large files that notebooks wrote, made in the background: one file at a time, half of the time.

Clients that synchronize compare sums; without one they send a file again that has not changed.
"""

import asyncio
import hashlib
import os
import stat
import threading
import time
from typing import Final

import structlog

from astrocloud.vospace import attributes, posix
from astrocloud.vospace.errors import Fault
from astrocloud.vospace.models import NodePath, is_hidden
from astrocloud.vospace.opening import SETTLED_S, SUM_AT_ONCE_BYTES
from astrocloud.vospace.storage import Tree

ROOM: Final = 10_000
"""How many files wait for their sums at most; others are found again by a later walk."""
_PAUSE_S: Final = 1.0
_PIECE_BYTES: Final = 1 << 20
_STRETCH_BYTES: Final = 64 << 20
"""After so many bytes it rests as long as they took."""

_log = structlog.get_logger()


class BackgroundSums:
    """Sums what is asked for, and what a walk through the tree finds.

    Parameters
    ----------
    tree
        The files.
    """

    def __init__(self, *, tree: Tree) -> None:
        self._tree = tree
        self._waiting: dict[NodePath, None] = {}
        self._lock = threading.Lock()
        self._end = threading.Event()

    def want(self, path: NodePath) -> None:
        """Let the file at `path` be summed soon; from any thread."""
        with self._lock:
            if len(self._waiting) < ROOM:
                self._waiting.setdefault(path)

    def look(self, folder: int, name: bytes, status: os.stat_result) -> None:
        """Let what has `name` in the open `folder` be summed, if it is a large file without a sum."""
        if not _is_for_us(status) or is_hidden(name):
            return
        if attributes.read_md5(posix.proc_path(folder, name), status) is not None:
            return
        place = os.fsencode(os.path.relpath(os.readlink(posix.proc_path(folder)), os.path.realpath(self._tree.root)))
        path = NodePath((*place.split(b"/"), name))
        if b".." not in path.parts:  # a walk that began elsewhere
            self.want(path)

    async def keep_summing(self) -> None:
        """Sum what waits, for ever."""
        self._end.clear()
        while True:
            with self._lock:
                path = next(iter(self._waiting), None)
            if path is None:
                await asyncio.sleep(_PAUSE_S)
                continue
            work = asyncio.ensure_future(asyncio.to_thread(self.sum, path))
            try:
                await asyncio.shield(work)
            except asyncio.CancelledError:
                self._end.set()
                await asyncio.wait([work])
                raise
            with self._lock:
                self._waiting.pop(path, None)

    def sum(self, path: NodePath) -> bool:
        """Sum the file at `path` and keep its sum with it; return whether it did not change meanwhile."""
        try:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
            descriptor = posix.open_beneath(self._tree.descriptor, path.parts, flags)
        except (OSError, Fault):
            return False  # it went
        try:
            before = os.fstat(descriptor)
            if not _is_for_us(before):
                return False
            md5 = self._digest(descriptor)
            after = os.fstat(descriptor)
            if md5 is None or (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
                return False
            attributes.write_md5(posix.proc_path(descriptor), before, md5)
        except OSError as err:
            _log.warning("file-not-summed", path=str(path), error=err.strerror)
            return False
        finally:
            os.close(descriptor)
        return True

    def _digest(self, descriptor: int) -> str | None:
        running = hashlib.md5(usedforsecurity=False)
        position, begun = 0, time.monotonic()
        while data := os.pread(descriptor, _PIECE_BYTES, position):
            running.update(data)
            before, position = position, position + len(data)
            if before // _STRETCH_BYTES != position // _STRETCH_BYTES:
                self._end.wait(time.monotonic() - begun)
                begun = time.monotonic()
            if self._end.is_set():
                return None
        return running.hexdigest()


def _is_for_us(status: os.stat_result) -> bool:
    """Whether a file is large and has settled: smaller ones are summed at once by who asks."""
    return (
        stat.S_ISREG(status.st_mode)
        and status.st_size > SUM_AT_ONCE_BYTES
        and time.time() - status.st_mtime >= SETTLED_S
    )
