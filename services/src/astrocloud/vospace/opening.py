"""Opening a file to send its bytes: the descriptor that passed the permission check is the one that is sent."""

import hashlib
import os
import stat
import time
from dataclasses import dataclass, replace
from typing import Final

from astrocloud.vospace import attributes, posix
from astrocloud.vospace.errors import Fault
from astrocloud.vospace.models import TYPE, NodePath
from astrocloud.vospace.reading import content_type
from astrocloud.vospace.storage import Tree, refusal
from astrocloud.vospace.uploads import etag

SUM_AT_ONCE_BYTES: Final = 16 << 20
"""Files up to this size are summed when somebody asks for them and no sum is known."""
CONTENT_BYTES: Final = 1 << 16
"""Files up to this size are read where they are opened."""
SETTLED_S: Final = 2.0
"""A file that changed so recently may change again within one tick of the file system's clock, in seconds."""


@dataclass(frozen=True)
class OpenFile:
    """A file that may be read, open."""

    path: NodePath
    descriptor: int
    status: os.stat_result
    content_type: str
    md5: str | None
    """The sum of its bytes in hexadecimal, where it is known."""
    content: bytes | None = None
    """All its bytes, where they are few."""

    @property
    def etag(self) -> str:
        """Its strong entity tag."""
        return etag(self.status)

    def close(self) -> None:
        """Close it."""
        os.close(self.descriptor)


def sum_if_settled(file: OpenFile) -> OpenFile:
    """Return `file` with its MD5 where that can be had at once, and keep it with the file.

    For small files that a notebook wrote; called as the platform, for a reader need not be able to write. A file that
    changed just now is left alone: its time would not tell whether it changes again.
    """
    status = file.status
    if file.md5 is not None or status.st_size > SUM_AT_ONCE_BYTES or time.time() - status.st_mtime < SETTLED_S:
        return file
    running = hashlib.md5(usedforsecurity=False)
    position = 0
    while data := os.pread(file.descriptor, 1 << 20, position):
        running.update(data)
        position += len(data)
    after = os.fstat(file.descriptor)
    if (after.st_size, after.st_mtime_ns) != (status.st_size, status.st_mtime_ns) or position != status.st_size:
        return file
    attributes.write_md5(posix.proc_path(file.descriptor), status, running.hexdigest())
    return replace(file, md5=running.hexdigest())


def _content(descriptor: int, status: os.stat_result) -> bytes | None:
    """Return what is in a small file: to read it here costs less than to let the loop hand it to the kernel."""
    if not 0 < status.st_size <= CONTENT_BYTES:
        return None
    content = os.pread(descriptor, status.st_size, 0)
    return content if len(content) == status.st_size else None


def open_file(tree: Tree, path: NodePath) -> OpenFile:
    """Return the file that `path` leads to, open for reading; called inside `identity.acting_as`.

    Raises
    ------
    Fault
        ``NodeNotFound``, ``PermissionDenied``, ``LinkFound`` (out of the tree), ``TypeNotSupported`` for a folder, and
        for devices and pipes, which are never opened.
    """
    path = tree.follow(path)
    with tree.node(path) as place:
        try:
            return open_place(place, path)
        except Fault as fault:
            if fault.code != "vospace-type-not-supported" or _can_list(place):
                raise
            raise tree.hides(path, fault) from None


def _can_list(place: int) -> bool:
    """Whether `place` is of a folder that this thread's identity may list."""
    try:
        os.close(os.open(posix.proc_path(place), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def open_place(place: int, path: NodePath) -> OpenFile:
    """Return the file `path`, which the descriptor `place` names, open for reading. Raises as `open_file` does."""
    status = os.fstat(place)
    if not stat.S_ISREG(status.st_mode):
        what = "a folder; ask for a view of it (zip, tar)" if stat.S_ISDIR(status.st_mode) else "no regular file"
        raise Fault("vospace-type-not-supported", uri=str(path), type=what)
    try:
        descriptor = os.open(posix.proc_path(place), os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as err:
        raise refusal(err, path) from err
    try:
        status = os.fstat(descriptor)
        inside = posix.proc_path(descriptor)
        kind = attributes.read_kept(inside).properties.get(TYPE) or content_type(path.shown_name)
        return OpenFile(
            path, descriptor, status, kind, attributes.read_md5(inside, status), _content(descriptor, status)
        )
    except BaseException:
        os.close(descriptor)
        raise
