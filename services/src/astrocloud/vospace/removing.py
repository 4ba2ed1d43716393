"""Emptying folders: whether all in one may be removed, and removing it."""

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from astrocloud.vospace import posix
from astrocloud.vospace.identity import current
from astrocloud.vospace.models import is_hidden

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW

Only = Callable[[os.stat_result], bool]
"""Whether the file or link with a status is to be removed."""


@dataclass
class Removed:
    """What has gone so far."""

    size: int = 0
    files: int = 0

    def add(self, status: os.stat_result) -> None:
        """Count something that had `status`."""
        self.size += status.st_size if stat.S_ISREG(status.st_mode) else 0
        self.files += 1


def check_removable(folder: int, name: bytes, depth: int = 0) -> None:
    """Raise `PermissionError` unless everything below the folder `name` may be removed by this thread's identity."""
    posix.check_depth(depth)
    uid = os.stat(name, dir_fd=folder, follow_symlinks=False).st_uid
    descriptor = os.open(name, _FOLDER | os.O_CLOEXEC, dir_fd=folder)
    try:
        with os.scandir(descriptor) as entries:
            inner = [os.fsencode(entry.name) for entry in entries if entry.is_dir(follow_symlinks=False)]
            # An empty folder needs no right inside; any other needs one to write.
        if (inner or _has_entries(descriptor)) and not _may_write(descriptor):
            raise PermissionError(errno.EACCES, f"owned by {uid}")
        _check_sticky(descriptor)
        for child in inner:
            check_removable(descriptor, child, depth + 1)
    finally:
        os.close(descriptor)


def _check_sticky(descriptor: int) -> None:
    """Raise `PermissionError` for others' names in a folder in which nobody may remove these."""
    status, me = os.fstat(descriptor), current().uid
    if not status.st_mode & stat.S_ISVTX or me in {0, status.st_uid}:
        return
    with os.scandir(descriptor) as entries:
        for entry in entries:
            if entry.stat(follow_symlinks=False).st_uid != me:
                raise PermissionError(errno.EPERM, "another's in a sticky folder")


def _has_entries(descriptor: int) -> bool:
    with os.scandir(descriptor) as entries:
        return next(entries, None) is not None


def _may_write(descriptor: int) -> bool:
    """Whether this thread's file system identity may change the folder: asked of the kernel, by opening a file."""
    # access() asks for the real user; faccessat2 with AT_EACCESS for the effective one; neither is the fsuid.
    try:
        probe = os.open(posix.proc_path(descriptor), os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    except PermissionError:
        return False
    except OSError as err:
        if err.errno not in {errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOSPC, errno.EDQUOT}:
            raise
        # No such files here, and removing itself will tell; or no room for one, which is only said to who may write.
        return True
    os.close(probe)
    return True


def check_among(only: Only | None, status: os.stat_result) -> None:
    """Raise `OSError` (``EBUSY``) for what has `status` and is not among `only`."""
    if only is not None and not only(status):
        raise OSError(errno.EBUSY, "it changed meanwhile")


def check_all_among(only: Only, folder: int, name: bytes, depth: int = 0) -> None:
    """Raise `OSError` (``EBUSY``) for anything below the folder `name` that is not among `only`."""
    posix.check_depth(depth)
    descriptor = os.open(name, _FOLDER | os.O_CLOEXEC, dir_fd=folder)
    try:
        for child in map(os.fsencode, os.listdir(descriptor)):
            status = os.stat(child, dir_fd=descriptor, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                check_all_among(only, descriptor, child, depth + 1)
            elif not is_hidden(child):
                check_among(only, status)
    finally:
        os.close(descriptor)


def empty_and_remove(
    folder: int, name: bytes, depth: int = 0, *, removed: Removed | None = None, only: Only | None = None
) -> tuple[int, int]:
    """Remove the folder `name` with all in it; return the bytes and files that went. Raises `OSError`.

    Two may remove one folder at the same time, on two nodes: what the other one took is no error.

    Parameters
    ----------
    removed, only
        As of `Tree.remove`. Hidden files, of uploads that then find no folder any more, are not asked about.
    """
    posix.check_depth(depth)
    removed = removed if removed is not None else Removed()
    try:
        descriptor = os.open(name, _FOLDER | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return removed.size, removed.files
    try:
        status = os.fstat(descriptor)
        with os.scandir(descriptor) as entries:
            batch = [(os.fsencode(entry.name), entry.is_dir(follow_symlinks=False)) for entry in entries]
        for child, is_folder in batch:
            if is_folder:
                empty_and_remove(descriptor, child, depth + 1, removed=removed, only=only)
                continue
            with suppress(FileNotFoundError):
                inner = os.stat(child, dir_fd=descriptor, follow_symlinks=False)
                if not is_hidden(child):
                    check_among(only, inner)
                os.unlink(child, dir_fd=descriptor)
                if not is_hidden(child):
                    removed.add(inner)
    finally:
        os.close(descriptor)
    with suppress(FileNotFoundError):
        os.rmdir(name, dir_fd=folder)
        removed.add(status)
    return removed.size, removed.files
