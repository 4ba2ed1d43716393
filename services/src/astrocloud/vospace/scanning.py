"""The walk through the whole tree: counts anew what notebooks changed, and sweeps what a killed service left behind."""

import asyncio
import errno
import fcntl
import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog

from astrocloud.vospace.errors import Fault
from astrocloud.vospace.identity import Identity
from astrocloud.vospace.marks import Marks, acting_again
from astrocloud.vospace.models import NodePath, is_hidden
from astrocloud.vospace.posix import DEEPEST, TooDeepError
from astrocloud.vospace.removing import empty_and_remove
from astrocloud.vospace.storage import Tree, lock_name, measure

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LOCKABLE = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
LEFT_BEHIND_S: Final = 60.0
"""Younger hidden files are left to whoever makes them, in seconds."""

_log = structlog.get_logger()


def measure_top(tree: Tree, top: NodePath, *, uploads: frozenset[bytes] | None = None) -> tuple[int, int]:
    """Return the bytes and files below `top`, itself not counted, and hidden ones as `storage.measure` says."""
    with tree.place(top) as place:
        try:
            size, files = measure(place.folder, place.name, uploads=uploads)
        except FileNotFoundError:
            return 0, 0
        except OSError as err:
            raise tree.refusal(err, top) from err
    return size, files - 1


def tops(tree: Path) -> list[NodePath]:
    """Return the folders that have a quota each."""
    found = []
    for top in ("home", "project"):
        with suppress(FileNotFoundError), os.scandir(tree / top) as entries:
            found += [
                NodePath((top.encode(), os.fsencode(entry.name)))
                for entry in entries
                if entry.is_dir(follow_symlinks=False)
            ]
    return sorted(found)


Look = Callable[[int, bytes, os.stat_result], None]
"""Is shown what a walk passes: the open folder, the name and the status of each file."""


def look_at_nothing(_folder: int, _name: bytes, _status: os.stat_result) -> None:
    """Look at nothing."""


def sweep(
    folder: int,
    *,
    older_than_s: float,
    marks: Marks | None = None,
    look: Look = look_at_nothing,
    keep: frozenset[bytes] = frozenset(),
    resumable: Callable[[], frozenset[bytes]] = frozenset,
    depth: int = 0,
) -> int:
    """Remove below the open folder `folder` every hidden file whose upload died, once it is so old; return how many.

    Names in `keep` stay: these uploads can be resumed. So do those that `resumable` tells by the time that a file's
    lock was got: an upload may have begun since `keep` was asked for. Any other that lives holds a lock on its file. A
    hidden folder is half of a removal or of a copy: nobody was told that either is done, and either may be made undone.
    A copy under way holds a lock on a file beside it. Only what one of the `marks` says to be work of ours goes, and
    only as far as whoever began that work may remove it: anybody can make up such a name for others' folders.
    """
    marks = marks or Marks(b"")
    count = 0
    if depth > DEEPEST:
        return count  # no upload or removal of ours works so far down
    for name in map(os.fsencode, os.listdir(folder)):
        with suppress(FileNotFoundError, PermissionError, NotADirectoryError, TooDeepError):
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                inner = os.open(name, _FOLDER, dir_fd=folder)
                try:
                    if not is_hidden(name):
                        count += sweep(
                            inner,
                            older_than_s=older_than_s,
                            marks=marks,
                            look=look,
                            keep=keep,
                            resumable=resumable,
                            depth=depth + 1,
                        )
                    elif _is_abandoned(folder, name, inner, older_than_s):
                        count += _remove_unfinished(folder, name, marks.whose(inner, name))
                finally:
                    os.close(inner)
            elif is_hidden(name) and name not in keep and stat.S_ISREG(status.st_mode):
                count += _remove_dead(folder, name, older_than_s, resumable)
            else:
                look(folder, name, status)
    return count


def _remove_unfinished(folder: int, name: bytes, who: Identity | None) -> int:
    """Remove the hidden folder `name` as `who` left it; return how many went."""
    try:
        if who is None:
            os.rmdir(name, dir_fd=folder)  # an empty one hides nothing
        else:
            with acting_again(who):
                empty_and_remove(folder, name)
    except OSError as err:
        if err.errno not in {errno.ENOTEMPTY, errno.EACCES, errno.EPERM}:
            raise
        return 0
    return 1


def _remove_dead(folder: int, name: bytes, older_than_s: float, resumable: Callable[[], frozenset[bytes]]) -> int:
    """Remove the hidden file `name` when nobody works on it any more; return how many went."""
    try:
        inner = os.open(name, _LOCKABLE, dir_fd=folder)  # not waiting, should it have become a pipe
    except OSError as err:
        if err.errno not in {errno.ETXTBSY, errno.ENXIO, errno.ELOOP, errno.EISDIR}:
            raise
        return 0  # none of ours: it runs, or became something else
    try:
        if not stat.S_ISREG(os.fstat(inner).st_mode):
            return 0
        if not _is_dead(inner, older_than_s) or name in resumable():
            return 0
        os.unlink(name, dir_fd=folder)
        return 1
    finally:
        os.close(inner)


def _is_abandoned(folder: int, name: bytes, inner: int, older_than_s: float) -> bool:
    """Tell whether nobody works on the hidden folder `name`, open as `inner`, any more."""
    if _is_young(inner, older_than_s):
        return False
    try:
        beside = os.open(lock_name(name), _LOCKABLE, dir_fd=folder)
    except OSError:
        return True  # half of a removal: if that goes on it does the same work
    try:
        return _is_free(beside)
    finally:
        os.close(beside)


def _is_dead(descriptor: int, older_than_s: float) -> bool:
    return not _is_young(descriptor, older_than_s) and _is_free(descriptor)


def _is_young(descriptor: int, older_than_s: float) -> bool:
    # Between making something hidden and locking it there is a moment.
    return time.time() - os.fstat(descriptor).st_ctime < older_than_s


def _is_free(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class Scanner:
    """Sweeps and recounts, at the start and then from time to time.

    Parameters
    ----------
    root
        The tree's folder.
    marks
        Whose unfinished work hidden folders are.
    look
        Is shown every file on the way.
    recount
        Counts one folder anew; returns whether nothing was counted meanwhile.
    resumable
        Forgets uploads that ran out, and returns the names of the files of all others.
    pause_s
        How long it rests between two walks, in seconds.
    """

    def __init__(
        self,
        *,
        root: Path,
        marks: Marks,
        look: Look,
        recount: Callable[[NodePath], bool],
        resumable: Callable[[], frozenset[bytes]],
        pause_s: float,
    ) -> None:
        self._root = root
        self._marks = marks
        self._look = look
        self._recount = recount
        self._resumable = resumable
        self._pause_s = pause_s

    async def keep_scanning(self) -> None:
        """Walk for ever."""
        while True:
            await self.scan()
            await asyncio.sleep(self._pause_s)

    async def scan(self) -> None:
        """Walk through every home and project folder once."""
        swept = 0
        for top in await asyncio.to_thread(tops, self._root):
            try:
                swept += await asyncio.to_thread(self._sweep_top, top)
                await self._count(top)
            except (Fault, OSError) as err:  # nested too deep, or a bad disk, of one person: all others are counted
                _log.warning("vospace-scan-failed", top=str(top), error=str(err))
        if swept:
            _log.info("vospace-swept", files=swept)

    async def _count(self, top: NodePath) -> None:
        for _attempt in range(3):
            if await asyncio.to_thread(self._recount, top):
                return

    def _sweep_top(self, top: NodePath) -> int:
        try:
            descriptor = os.open(self._root / os.fsdecode(top.parts[0]) / os.fsdecode(top.parts[1]), _FOLDER)
        except OSError:
            return 0
        try:
            keep = self._resumable()
            return sweep(
                descriptor,
                older_than_s=LEFT_BEHIND_S,
                marks=self._marks,
                look=self._look,
                keep=keep,
                resumable=self._resumable,
            )
        finally:
            os.close(descriptor)
