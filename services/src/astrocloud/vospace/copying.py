"""Copying a node with all below it: beside its place under a hidden name, then into it in one step."""

import errno
import os
import stat
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Final

from astrocloud.vospace import acl, attributes, marks, posix
from astrocloud.vospace.births import mark_of
from astrocloud.vospace.errors import Fault
from astrocloud.vospace.identity import Identity
from astrocloud.vospace.marks import Marks
from astrocloud.vospace.models import NodePath, is_hidden
from astrocloud.vospace.removing import empty_and_remove
from astrocloud.vospace.storage import (
    Tree,
    hidden_name,
    lock,
    new_mode,
    refusal,
    sync_folder,
    working_on,
)

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_STEP: Final = 1 << 26
"""How much is asked of the kernel at once, in bytes."""

Tell = Callable[[int, int], None]
"""Is told how many more bytes, and how many more files, have been copied; what it raises ends the copy."""


def say_nothing(_size: int, _files: int) -> None:
    """Tell nobody."""


Appear = Callable[[NodePath, str], None]
"""Is told where something is about to appear, and its mark (`births`); what it raises keeps it from that."""


def note_nothing(_path: NodePath, _mark: str) -> None:
    """Note nothing."""


class Taken:
    """What has been copied to be moved: nothing else of it may be removed afterwards."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[int, int]] = {}

    def note(self, status: os.stat_result) -> None:
        """Remember the file or link with `status`."""
        self._seen[status.st_ino] = status.st_size, status.st_mtime_ns

    def __call__(self, status: os.stat_result) -> bool:
        """Whether the file or link with `status` is there as it was copied."""
        return self._seen.get(status.st_ino) == (status.st_size, status.st_mtime_ns)

    def note_alike(self, folder: int, name: bytes, other_folder: int, other: bytes, depth: int = 0) -> None:
        """Remember what is at `name` in the open `folder`, and below, as far as there is a copy just like it."""
        posix.check_depth(depth)
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        with suppress(FileNotFoundError, NotADirectoryError):
            there = os.stat(other, dir_fd=other_folder, follow_symlinks=False)
            if stat.S_IFMT(there.st_mode) != stat.S_IFMT(status.st_mode):
                return
            if stat.S_ISLNK(status.st_mode):
                if os.readlink(name, dir_fd=folder) == os.readlink(other, dir_fd=other_folder):
                    self.note(status)
            elif not stat.S_ISDIR(status.st_mode):
                if (there.st_size, there.st_mtime_ns) == (status.st_size, status.st_mtime_ns):
                    self.note(status)
            else:
                with ExitStack() as both:
                    one = os.open(name, _FOLDER, dir_fd=folder)
                    both.callback(os.close, one)
                    two = os.open(other, _FOLDER, dir_fd=other_folder)
                    both.callback(os.close, two)
                    for child in posix.names_in(one):
                        self.note_alike(one, child, two, child, depth + 1)


def copy(
    tree: Tree,
    source: NodePath,
    target: NodePath,
    *,
    identity: Identity,
    tell: Tell = say_nothing,
    appear: Appear = note_nothing,
    taken: Taken | None = None,
) -> None:
    """Make `target` a copy of `source`; called inside `identity.acting_as`.

    Nobody sees the copy before all of it is there. Links are copied as links; devices and pipes are left out.

    Parameters
    ----------
    taken
        Given when the source is to go afterwards: the copy has its permissions and attributes, all that was copied is
        noted, and what only a rename could move is refused.

    Raises
    ------
    Fault
        ``DuplicateNode``, ``PermissionDenied``, ``NodeNotFound``, ``ContainerNotFound``; for what is `taken`,
        ``PermissionDenied`` also for others' nodes, and ``TypeNotSupported`` for devices and pipes.
    """
    with tree.place(source) as old, tree.place(target) as new:
        try:
            os.stat(new.name, dir_fd=new.folder, follow_symlinks=False)
        except FileNotFoundError:
            pass
        except OSError as err:
            raise tree.refusal(err, target) from err
        else:
            raise tree.creation_refusal(FileExistsError(errno.EEXIST, ""), target)
        hidden = hidden_name(new.name)
        with ExitStack() as work:
            try:
                if stat.S_ISDIR(os.stat(old.name, dir_fd=old.folder, follow_symlinks=False).st_mode):
                    work.enter_context(working_on(new.folder, hidden))
                work.callback(_discard, new.folder, hidden)
                _copy(old.folder, old.name, new.folder, hidden, tell, taken=taken, marks=tree.marks)
            except PermissionError as err:
                raise Fault("vospace-permission-denied", uri=f"{source} -> {target}") from err
            except FileNotFoundError as err:
                raise tree.refusal(err, source) from err
            except OSError as err:
                raise refusal(err, target) from err
            appear(target, mark_of(new.folder, hidden))
            try:
                posix.rename_new(hidden, new.folder, new.name, new.folder)
            except OSError as err:
                raise tree.creation_refusal(err, target) from err
            tree.marks.take_at(new.folder, new.name)
        sync_folder(new.folder)


def _discard(folder: int, hidden: bytes) -> None:
    with suppress(OSError):
        if stat.S_ISDIR(os.stat(hidden, dir_fd=folder, follow_symlinks=False).st_mode):
            empty_and_remove(folder, hidden)
        else:
            os.unlink(hidden, dir_fd=folder)


def _copy(
    folder: int,
    name: bytes,
    new_folder: int,
    new_name: bytes,
    tell: Tell,
    *,
    taken: Taken | None,
    marks: Marks | None = None,
    depth: int = 0,
) -> None:
    posix.check_depth(depth)
    descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        status = os.fstat(descriptor)
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFLNK:
            os.symlink(os.readlink(b"", dir_fd=descriptor), new_name, dir_fd=new_folder)
        elif kind == stat.S_IFREG:
            _copy_file(descriptor, new_folder, new_name, tell, taken)
        elif kind == stat.S_IFDIR:
            _copy_folder(descriptor, new_folder, new_name, tell, taken=taken, marks=marks, depth=depth)
        elif taken is not None:
            what = "a device, pipe or socket, which cannot be moved to another file system"
            raise Fault("vospace-type-not-supported", uri=NodePath((name,)).shown_name, type=what)
        if taken is not None:
            owner = os.stat(new_name, dir_fd=new_folder, follow_symlinks=False).st_uid
            if owner != status.st_uid:
                raise Fault("vospace-not-yours-to-move", name=NodePath((name,)).shown_name)
            if kind == stat.S_IFLNK:
                taken.note(status)
    finally:
        os.close(descriptor)
    tell(0, 1)


def _copy_folder(
    place: int,
    new_folder: int,
    new_name: bytes,
    tell: Tell,
    *,
    taken: Taken | None,
    marks: Marks | None,
    depth: int,
) -> None:
    # What is moved is as private on its way as it was and will be.
    mode = new_mode(new_folder) if taken is None else 0o700
    os.mkdir(new_name, 0o700 if mode is not None else 0o777, dir_fd=new_folder)
    inner = os.open(new_name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=new_folder)
    try:
        if marks is not None:
            marks.put(inner, new_name)
        if mode is not None:
            os.fchmod(inner, mode | (os.fstat(inner).st_mode & stat.S_ISGID))
        folder = os.open(posix.proc_path(place), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for child in map(os.fsencode, os.listdir(folder)):
                if not is_hidden(child):
                    _copy(folder, child, inner, child, tell, taken=taken, depth=depth + 1)
        finally:
            os.close(folder)
        if taken is None:
            _copy_kept(place, inner)
        else:
            _keep_all(place, inner)
        os.fsync(inner)
    finally:
        os.close(inner)


def _copy_file(place: int, new_folder: int, new_name: bytes, tell: Tell, taken: Taken | None) -> None:
    old = os.open(posix.proc_path(place), os.O_RDONLY | os.O_CLOEXEC)
    try:
        mode = new_mode(new_folder) if taken is None else 0o600
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        new = os.open(new_name, flags, 0o600 if mode is not None else 0o666, dir_fd=new_folder)
        try:
            if is_hidden(new_name):
                lock(new)
            before = os.fstat(old)
            if mode is not None:
                os.fchmod(new, (mode & 0o666) | (before.st_mode & 0o100))
            _copy_bytes(old, new, tell)
            _copy_kept(place, new)
            after = os.fstat(old)
            os.utime(new, ns=(before.st_atime_ns, before.st_mtime_ns))
            md5 = attributes.read_md5(posix.proc_path(place), before)
            if md5 and (after.st_mtime_ns, after.st_size) == (before.st_mtime_ns, before.st_size):
                attributes.write_md5(posix.proc_path(new), os.fstat(new), md5)
            if taken is not None:
                _keep_all(place, new)
                taken.note(before)
            os.fsync(new)
        finally:
            os.close(new)
    finally:
        os.close(old)


def _copy_bytes(old: int, new: int, tell: Tell) -> None:
    """Copy all bytes inside the kernel; file systems that can share blocks do."""
    try:
        while done := os.copy_file_range(old, new, _STEP):
            tell(done, 0)
    except OSError as err:
        if err.errno not in {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}:
            raise
        while done := os.sendfile(new, old, None, _STEP):
            tell(done, 0)


def _copy_kept(place: int, new: int) -> None:
    kept = attributes.read_kept(posix.proc_path(place))
    if kept.kind or kept.properties:
        attributes.write_kept(posix.proc_path(new), kept)


def _keep_all(place: int, new: int) -> None:
    """Give what `new` is open on the group, the permissions, the lists and the attributes of what `place` names."""
    old_place, new_place = posix.proc_path(place), posix.proc_path(new)
    status = os.fstat(place)
    for name in os.listxattr(old_place):
        if name.startswith("user.") and name not in {attributes.MD5, marks.NAME}:
            os.setxattr(new, name, os.getxattr(old_place, name))
    with suppress(PermissionError):
        os.fchown(new, -1, status.st_gid)
    folder = stat.S_ISDIR(status.st_mode)
    for kind in (acl.ACCESS, acl.DEFAULT) if folder else (acl.ACCESS,):
        value = acl.read(old_place, default=kind == acl.DEFAULT)
        if value is not None:
            os.setxattr(new, kind, value)
        elif acl.read(new_place, default=kind == acl.DEFAULT) is not None:
            os.removexattr(new, kind)
    setgid = os.fstat(new).st_mode & stat.S_ISGID if folder else 0
    os.fchmod(new, stat.S_IMODE(status.st_mode) & 0o1777 | setgid)
    if folder:
        os.utime(new, ns=(status.st_atime_ns, status.st_mtime_ns))
