"""The file tree: resolving names, listing, creating, removing and moving.

Everything here is synchronous and runs inside `identity.acting_as`, so that the kernel decides what the person may. No
name is ever checked as a string: each is resolved below the tree's own descriptor without passing a symbolic link.
"""

import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from astrocloud.vospace import acl, posix
from astrocloud.vospace.errors import Fault
from astrocloud.vospace.identity import Identity, as_platform, can_switch
from astrocloud.vospace.marks import Marks
from astrocloud.vospace.models import NodePath, is_hidden
from astrocloud.vospace.removing import Only, Removed, check_all_among, check_among, check_removable, empty_and_remove

LINK_HOPS: Final = 20
"""How many links one after the other are followed to a file's bytes."""

_LOOK: Final = os.O_PATH | os.O_NOFOLLOW
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


@dataclass(frozen=True)
class Place:
    """A name in an open folder, whether or not something has it."""

    folder: int
    """Descriptor of the folder."""
    name: bytes
    path: NodePath


class Tree:
    """The files below one folder.

    Parameters
    ----------
    root
        The folder; opened at first use and held, so that nothing outside of it can ever be reached.
    key
        Signs what is unfinished; see `marks`.
    """

    def __init__(self, root: Path, *, key: bytes = b"") -> None:
        self._root = root
        self.marks = Marks(key)
        self._descriptor: int | None = None

    def __repr__(self) -> str:
        return f"Tree({str(self._root)!r})"

    @property
    def root(self) -> Path:
        """The folder that all is below."""
        return self._root

    @property
    def descriptor(self) -> int:
        """The root, open as a place only."""
        if self._descriptor is None:
            self._descriptor = os.open(self._root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        return self._descriptor

    def open(self) -> None:
        """Open the root, if it is not open yet; done by the platform itself, before it acts as anybody."""
        _ = self.descriptor

    def close(self) -> None:
        """Let go of the root."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    @contextmanager
    def node(self, path: NodePath) -> Iterator[int]:
        """Give a descriptor of what `path` names, opened as a place only: nothing of it is read, a link is not passed.

        Raises
        ------
        Fault
            ``NodeNotFound``, ``LinkFound`` (a folder on the way is a link), ``PermissionDenied``.
        """
        try:
            descriptor = posix.open_beneath(self.descriptor, path.parts, _LOOK)
        except OSError as err:
            raise self.refusal(err, path) from err
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    @contextmanager
    def folder(self, path: NodePath) -> Iterator[int]:
        """Give a descriptor of the folder `path` for listing. Raises as `node` does."""
        try:
            descriptor = posix.open_beneath(self.descriptor, path.parts, _FOLDER)
        except OSError as err:
            raise self.refusal(err, path) from err
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    @contextmanager
    def place(self, path: NodePath) -> Iterator[Place]:
        """Give the place where `path` is or is to be: its folder, open, and its name.

        Raises
        ------
        Fault
            ``ContainerNotFound``, ``LinkFound``, ``PermissionDenied``; ``PermissionDenied`` for the root, which has no
            place.
        """
        if not path.parts:
            raise Fault("vospace-permission-denied", uri=str(path))
        try:
            descriptor = posix.open_beneath(
                self.descriptor, path.parent.parts, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW
            )
        except OSError as err:
            raise self.refusal(err, path.parent, container=True) from err
        try:
            yield Place(descriptor, path.name, path)
        finally:
            os.close(descriptor)

    def refusal(self, err: OSError, path: NodePath, *, container: bool = False) -> Fault:
        """Return the fault that stands for `err` at `path`.

        Where the reader may not list the folder in which something is missing, "missing" and "forbidden" are the same
        answer; names of people and groups are told to nobody who cannot see them anyway.
        """
        code = err.errno
        if code == errno.ELOOP:
            return self.hides(path, Fault("vospace-link-found", uri=str(path)))
        if code in {errno.ENOENT, errno.ENOTDIR}:
            if not self.tells(path):
                return Fault("vospace-permission-denied", uri=str(path))
            # A final link in the place of a folder is told apart from a file in that place.
            if code == errno.ENOTDIR and self._is_link(path):
                return Fault("vospace-link-found", uri=str(path))
            return Fault("vospace-container-not-found" if container else "vospace-node-not-found", uri=str(path))
        return refusal(err, path)

    def _is_link(self, path: NodePath) -> bool:
        try:
            descriptor = posix.open_beneath(self.descriptor, path.parts, _LOOK)
        except OSError:
            return False
        try:
            return stat.S_ISLNK(os.fstat(descriptor).st_mode)
        finally:
            os.close(descriptor)

    def hides(self, path: NodePath, kind: Fault) -> Fault:
        """Return `kind`, which tells of what is at `path`, to those who may list its folder; others may not do it."""
        return kind if self.tells(path) else Fault("vospace-permission-denied", uri=str(path))

    def tells(self, path: NodePath) -> bool:
        """Whether this thread's identity may know what is at `path`, or that nothing is: by listing its folder."""
        for depth in range(len(path.parts) - 1, -1, -1):
            try:
                descriptor = posix.open_beneath(self.descriptor, path.parts[:depth], _FOLDER)
            except OSError as err:
                # Also what is a file or a link is told only to those who may list the folder that it is in.
                if err.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
                    continue
                return False
            os.close(descriptor)
            return not (depth == 1 and path.parts[0] in {b"home", b"project"})
        return True

    def follow(self, path: NodePath) -> NodePath:
        """Return where `path` leads through links, for reading bytes; a path without links is returned as it is.

        Links are followed here and not by the kernel: an absolute one means a path in the tree, as people's notebooks
        see it.

        Raises
        ------
        Fault
            ``LinkFound`` when one leads out of the tree, or there are too many.
        """
        for _hop in range(LINK_HOPS):
            link = self._first_link(path)
            if link is None:
                return path
            position, target = link
            before, rest = path.parts[:position], path.parts[position + 1 :]
            try:
                path = NodePath((*_joined(() if target.startswith(b"/") else before, target, path).parts, *rest))
            except Fault as fault:
                raise self.hides(path, fault) from None
        raise self.hides(path, Fault("vospace-link-found", uri=str(path)))

    def _first_link(self, path: NodePath) -> tuple[int, bytes] | None:
        """Return the position and the target of the first link on the way of `path`."""
        try:
            descriptor = posix.open_beneath(self.descriptor, path.parts, _LOOK)
        except OSError as err:
            if err.errno not in {errno.ELOOP, errno.ENOTDIR}:
                raise self.refusal(err, path) from err
        else:
            try:
                if not stat.S_ISLNK(os.fstat(descriptor).st_mode):
                    return None
            finally:
                os.close(descriptor)
        for position in range(len(path.parts)):
            try:
                descriptor = posix.open_beneath(self.descriptor, path.parts[: position + 1], _LOOK)
            except OSError as err:
                raise self.refusal(err, path) from err
            try:
                if stat.S_ISLNK(os.fstat(descriptor).st_mode):
                    return position, os.readlink(b"", dir_fd=descriptor)
            finally:
                os.close(descriptor)
        return None

    # Changing

    def make_folder(self, path: NodePath) -> None:
        """Make the folder `path`, with what the folder around it lets people do."""
        with self.place(path) as place:
            mode = new_mode(place.folder)
            try:
                os.mkdir(place.name, 0o700 if mode is not None else 0o777, dir_fd=place.folder)
                if mode is not None:
                    inner = os.open(place.name, _FOLDER | os.O_CLOEXEC, dir_fd=place.folder)
                    try:
                        # What mkdir inherited (setgid) is kept.
                        os.fchmod(inner, mode | (os.fstat(inner).st_mode & stat.S_ISGID))
                    finally:
                        os.close(inner)
                sync_folder(place.folder)
            except OSError as err:
                raise self.creation_refusal(err, path) from err

    def make_link(self, path: NodePath, target: bytes) -> None:
        """Make the symbolic link `path` to `target`, which is not looked at."""
        with self.place(path) as place:
            try:
                os.symlink(target, place.name, dir_fd=place.folder)
                sync_folder(place.folder)
            except OSError as err:
                raise self.creation_refusal(err, path) from err

    def make_file(self, path: NodePath) -> None:
        """Make the empty file `path`."""
        with self.place(path) as place:
            mode = new_mode(place.folder)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            try:
                descriptor = os.open(place.name, flags, 0o600 if mode is not None else 0o666, dir_fd=place.folder)
                try:
                    if mode is not None:
                        os.fchmod(descriptor, mode & 0o666)
                finally:
                    os.close(descriptor)
                sync_folder(place.folder)
            except OSError as err:
                raise self.creation_refusal(err, path) from err

    def creation_refusal(self, err: OSError, path: NodePath) -> Fault:
        """Return the fault that stands for `err` when something new was to be at `path`."""
        if err.errno == errno.EEXIST:
            # Whether a name is taken is only told to those who could see it.
            known = self.tells(path)
            return Fault("vospace-duplicate-node" if known else "vospace-permission-denied", uri=str(path))
        return self.refusal(err, path, container=True)

    def check_creatable(self, path: NodePath, who: Identity) -> None:
        """Refuse what making something new at `path` would be refused for; nothing is made.

        Raises
        ------
        Fault
            ``ContainerNotFound``, ``LinkFound``, ``DuplicateNode``, ``PermissionDenied``.
        """
        with self.place(path) as place:
            try:
                if posix.exists(place.folder, place.name):
                    raise self.creation_refusal(FileExistsError(errno.EEXIST, ""), path)
                status, proc = os.fstat(place.folder), posix.proc_path(place.folder)
                value = acl.read(proc) if status.st_mode & stat.S_IRWXG else None
            except OSError as err:
                raise self.refusal(err, path, container=True) from err
            if not acl.permits(status, value, who, acl.WRITE | acl.PASS):
                raise Fault("vospace-permission-denied", uri=str(path))

    def remove(self, path: NodePath, removed: Removed | None = None, *, only: Only | None = None) -> tuple[int, int]:
        """Remove `path` and all below it, or nothing at all; return the bytes and the files that went.

        A folder is first taken out of sight in one step and then emptied, so that nobody sees half of it.

        Parameters
        ----------
        removed
            Counts what went; also when this fails, because somebody changed the folder meanwhile.
        only
            Tells of every file and link whether it is to go; one that is not lets it fail, and stays.

        Raises
        ------
        Fault
            ``NodeNotFound``, ``PermissionDenied`` (also when something inside may not be removed), ``NodeBusy`` for
            what is not among `only`.
        """
        removed = removed if removed is not None else Removed()
        with self.place(path) as place:
            try:
                status = os.stat(place.name, dir_fd=place.folder, follow_symlinks=False)
                if not stat.S_ISDIR(status.st_mode):
                    check_among(only, status)
                    os.unlink(place.name, dir_fd=place.folder)
                    removed.add(status)
                    sync_folder(place.folder)
                    return removed.size, removed.files
                check_removable(place.folder, place.name)
                hidden = hidden_name(place.name)
                with self.marks.marked(place.folder, place.name, hidden):
                    os.rename(place.name, hidden, src_dir_fd=place.folder, dst_dir_fd=place.folder)
                sync_folder(place.folder)
            except OSError as err:
                raise self.refusal(err, path) from err
            try:
                if only is not None:
                    check_all_among(only, place.folder, hidden)
                empty_and_remove(place.folder, hidden, removed=removed, only=only)
                return removed.size, removed.files
            except OSError as err:
                # Somebody put a thing there that may not be removed: what is left comes back.
                with suppress(OSError):
                    posix.rename_new(hidden, place.folder, place.name, place.folder)
                raise self.refusal(err, path) from err

    def remove_file(self, place: Place, check: Callable[[os.stat_result], None]) -> os.stat_result:
        """Remove the file or link at `place`, of which `check` is told what it is; return that.

        Raises
        ------
        Fault
            ``NodeNotFound``, ``PermissionDenied``, ``TypeNotSupported`` for a folder, and what `check` raises.
        """
        try:
            status = os.stat(place.name, dir_fd=place.folder, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                what = "a folder; delete it at /nodes"
                raise self.hides(place.path, Fault("vospace-type-not-supported", uri=str(place.path), type=what))
            check(status)
            os.unlink(place.name, dir_fd=place.folder)
            sync_folder(place.folder)
        except OSError as err:
            raise self.refusal(err, place.path) from err
        return status

    def remove_one(self, path: NodePath) -> tuple[int, int]:
        """Remove what is at `path`, a folder only when it is empty; return the bytes and the files that went.

        It is the caller who makes that last: many are removed one after the other.

        Raises
        ------
        Fault
            ``NodeNotFound``, ``PermissionDenied``, ``DuplicateNode`` for a folder that is not empty.
        """
        with self.place(path) as place:
            try:
                status = os.stat(place.name, dir_fd=place.folder, follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    os.rmdir(place.name, dir_fd=place.folder)
                    return 0, 1
                os.unlink(place.name, dir_fd=place.folder)
            except OSError as err:
                raise self.refusal(err, path) from err
        return (status.st_size if stat.S_ISREG(status.st_mode) else 0), 1

    def rename(self, source: NodePath, target: NodePath) -> None:
        """Give what is at `source` the place `target`, where nothing may be.

        Raises
        ------
        Fault
            ``DuplicateNode``, ``InvalidArgument`` (into itself), ``PermissionDenied``, and those of the two places.
        OSError
            ``EXDEV`` when the two are on different file systems.
        """
        with self.place(source) as old, self.place(target) as new:
            try:
                os.stat(old.name, dir_fd=old.folder, follow_symlinks=False)
            except OSError as err:
                raise self.refusal(err, source) from err
            try:
                posix.rename_new(old.name, old.folder, new.name, new.folder)
            except FileExistsError as err:
                raise self.creation_refusal(err, target) from err
            except OSError as err:
                if err.errno == errno.EXDEV:
                    raise
                if err.errno == errno.EINVAL:
                    reason = f"{source} cannot be moved into itself ({target})"
                    raise Fault("vospace-invalid-argument", reason=reason) from err
                raise self.refusal(err, source) from err
            sync_folder(new.folder)
            sync_folder(old.folder)


def refusal(err: OSError, path: NodePath) -> Fault:
    """Return the fault that stands for `err` at `path`, whatever the reader may know."""
    if isinstance(err, posix.TooDeepError):
        return Fault("vospace-too-deep", uri=str(path), limit=posix.DEEPEST)
    match err.errno:
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return Fault("vospace-permission-denied", uri=str(path))
        case errno.ENOENT | errno.ENOTDIR:
            return Fault("vospace-node-not-found", uri=str(path))
        case errno.EEXIST | errno.ENOTEMPTY | errno.EISDIR:
            return Fault("vospace-duplicate-node", uri=str(path))
        case errno.ENOSPC | errno.EDQUOT:
            return Fault("vospace-disk-full", uri=str(path))
        case errno.EFBIG:
            return Fault("vospace-too-large", reason=f"{path} would be larger than the file system takes")
        case errno.ENAMETOOLONG:
            return Fault("vospace-invalid-uri", uri=str(path), reason="a name is too long for the file system")
        case errno.ELOOP | errno.EMLINK:
            return Fault("vospace-link-found", uri=str(path))
        case errno.EBUSY | errno.ETXTBSY:
            return Fault("vospace-node-busy", uri=str(path))
        case _:
            raise err


def _joined(before: tuple[bytes, ...], target: bytes, path: NodePath) -> NodePath:
    """Return `target`, a link's text, as a path that begins at `before`."""
    parts = list(before)
    if b":" in target.split(b"/", 1)[0]:  # a URI, not a path
        raise Fault("vospace-link-found", uri=str(path))
    for part in target.split(b"/"):
        if part in {b"", b"."}:
            continue
        if part != b"..":
            parts.append(part)
        elif parts:
            parts.pop()
    if len(parts) > 128:
        raise Fault("vospace-link-found", uri=str(path))
    return NodePath(tuple(parts))


def hidden_name(name: bytes) -> bytes:
    """Return a name that only this service uses, and clients never see: ``.NAME.astrocloud-…``.

    A distributed file system that places files by a hash of their names takes it for NAME's (GlusterFS).
    """
    return b"." + name[:220] + b".astrocloud-" + secrets.token_hex(8).encode()


def lock(descriptor: int) -> None:
    """Mark the hidden file that `descriptor` is open on for writing as being worked on, as long as it is open."""
    # Only a sweep holds it otherwise, and then does the same work.
    with suppress(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def lock_name(hidden: bytes) -> bytes:
    """Return the name of the file beside the hidden folder `hidden` that is locked while somebody works on that.

    Between the nodes of a network file system only locks of files hold, and only when they are open for writing.
    """
    return b".lock" + hidden


@contextmanager
def working_on(folder: int, hidden: bytes) -> Iterator[None]:
    """Mark the hidden folder `hidden`, which is still to be made in `folder`, as being worked on inside the block."""
    name = lock_name(hidden)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(name, flags, 0o600, dir_fd=folder)
    try:
        lock(descriptor)
        yield
    finally:
        with suppress(OSError):
            os.unlink(name, dir_fd=folder)
        os.close(descriptor)


def new_mode(folder: int) -> int | None:
    """Return the mode for a new folder inside `folder`, or `None` when that has a default access control list.

    What is new may be read and written by whom the folder may be.
    """
    with suppress(OSError):
        os.getxattr(posix.proc_path(folder), "system.posix_acl_default")
        return None
    return 0o700 | stat.S_IMODE(os.fstat(folder).st_mode) & 0o777


def sync_folder(folder: int) -> None:
    """Let the names in `folder` (a place descriptor or a readable one) survive a power failure."""
    # A place descriptor cannot be synced, and its folder may not be readable to the person.
    try:
        descriptor = os.open(posix.proc_path(folder), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        if not can_switch():
            return
        with as_platform():
            descriptor = os.open(posix.proc_path(folder), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def measure(folder: int, name: bytes, depth: int = 0, *, uploads: frozenset[bytes] | None = None) -> tuple[int, int]:
    """Return the bytes and the files of what is at `name`, all below it included.

    Parameters
    ----------
    uploads
        Hidden names that are counted elsewhere: all others are counted, whoever made them. By default none is.
    """
    posix.check_depth(depth)
    status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    if not stat.S_ISDIR(status.st_mode):
        return (status.st_size if stat.S_ISREG(status.st_mode) else 0), 1
    size, count = 0, 1
    descriptor = os.open(name, _FOLDER | os.O_CLOEXEC, dir_fd=folder)
    try:
        with os.scandir(descriptor) as entries:
            batch = [os.fsencode(entry.name) for entry in entries]
        for child in batch:
            if is_hidden(child) and (uploads is None or child in uploads):
                continue
            with suppress(FileNotFoundError, NotADirectoryError):  # it went meanwhile, or became something else
                inner_size, inner_count = measure(descriptor, child, depth + 1, uploads=uploads)
                size, count = size + inner_size, count + inner_count
    finally:
        os.close(descriptor)
    return size, count
