"""Receiving the bytes of a file: into a hidden file beside it, then in its place in one step.

Until `Upload.commit` returns nothing has changed for anybody else; after it the bytes survive a power failure.
"""

import errno
import fcntl
import os
import stat
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from astrocloud.vospace import acl, attributes, posix
from astrocloud.vospace.errors import Fault
from astrocloud.vospace.identity import Identity, acting_as
from astrocloud.vospace.models import NodePath
from astrocloud.vospace.storage import Tree, hidden_name, new_mode, refusal, sync_folder

ANNOUNCED_FROM_BYTES = 1 << 20
"""From this announced length on, the room on the disk is taken before the first byte."""


@dataclass(frozen=True)
class Replaced:
    """The file that an upload is to take the place of."""

    status: os.stat_result

    @property
    def etag(self) -> str:
        """Its entity tag."""
        return etag(self.status)


def etag(status: os.stat_result) -> str:
    """Return the strong entity tag of a file's bytes: another file or a later change never has the same."""
    return f'"{status.st_ino:x}-{status.st_size:x}-{status.st_mtime_ns:x}"'


class Upload:
    """One file on its way in.

    Made by `begin`; every method is for a worker thread.
    """

    def __init__(
        self, *, tree: Tree, path: NodePath, identity: Identity, folder: int, hidden: bytes, descriptor: int
    ) -> None:
        self._tree = tree
        self.path = path
        self._identity = identity
        self._folder = folder
        self.hidden = hidden
        self.descriptor = descriptor
        self.replaced: Replaced | None = None
        self.size = 0
        self._closed = False

    @property
    def created(self) -> bool:
        """Whether nothing was there when the upload began."""
        return self.replaced is None

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append `data`. Raises `Fault` when the disk is full."""
        view = memoryview(data)
        try:
            while view:
                written = os.write(self.descriptor, view)
                self.size += written
                view = view[written:]
        except OSError as err:
            raise refusal(err, self.path) from err

    def write_all(self, buffers: Sequence[bytes]) -> None:
        """Append what is in `buffers`, in one call where the kernel takes it. Raises `Fault` when the disk is full."""
        total = sum(map(len, buffers))
        try:
            written = os.writev(self.descriptor, buffers) if total else 0
        except OSError as err:
            raise refusal(err, self.path) from err
        self.size += written
        if written < total:
            self.write(memoryview(b"".join(buffers))[written:])

    def reserve(self, length: int) -> None:
        """Take room for `length` bytes on the disk now. Raises `Fault` when it is not there."""
        try:
            os.posix_fallocate(self.descriptor, 0, length)
        except OSError as err:
            if err.errno in {errno.EOPNOTSUPP, errno.EINVAL}:
                return
            raise refusal(err, self.path) from err

    def commit(self, *, md5: str | None, must_be_new: bool = False, must_match: str | None = None) -> os.stat_result:
        """Put the file in its place; return its status.

        Parameters
        ----------
        md5
            The sum of the bytes, in hexadecimal, where it was computed.
        must_be_new
            Refuse when anything has the name by now.
        must_match
            Refuse unless the file that has the name still has this entity tag.

        Raises
        ------
        Fault
            ``PreconditionFailed``, ``ContainerNotFound`` (the folder went meanwhile), ``PermissionDenied``.
        """
        os.ftruncate(self.descriptor, self.size)
        self._keep_what_the_old_one_had()
        # Exact, where the kernel's own stamp is coarse: a write within the same tick has another time.
        now = time.time_ns()
        os.utime(self.descriptor, ns=(now, now))
        if md5 is not None:
            attributes.write_md5(posix.proc_path(self.descriptor), os.fstat(self.descriptor), md5)
        os.fsync(self.descriptor)
        name = self.path.name
        with acting_as(self._identity):
            try:
                if must_match is not None and self._tag_now() != must_match:
                    raise Fault("vospace-precondition", uri=str(self.path))
                if must_be_new:
                    posix.rename_new(self.hidden, self._folder, name, self._folder)
                else:
                    os.rename(self.hidden, name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
            except FileExistsError as err:
                raise Fault("vospace-precondition", uri=str(self.path)) from err
            except FileNotFoundError as err:
                raise Fault("vospace-container-not-found", uri=str(self.path.parent)) from err
            except OSError as err:
                raise refusal(err, self.path) from err
        sync_folder(self._folder)
        status = os.fstat(self.descriptor)
        self.close()
        return status

    def abandon(self) -> None:
        """Leave no trace."""
        with suppress(OSError):
            os.unlink(self.hidden, dir_fd=self._folder)
        self.close()

    def close(self) -> None:
        """Let go of the file, leaving it where it is."""
        if not self._closed:
            self._closed = True
            os.close(self.descriptor)
            os.close(self._folder)

    def _tag_now(self) -> str | None:
        try:
            return etag(os.stat(self.path.name, dir_fd=self._folder, follow_symlinks=False))
        except FileNotFoundError:
            return None

    def _keep_what_the_old_one_had(self) -> None:
        """Give the new file the owner, the permissions and the properties of the one it replaces."""
        if self.replaced is None:
            return
        old = self.replaced.status
        place = posix.proc_path(self._folder, self.path.name)
        new = posix.proc_path(self.descriptor)
        try:
            with suppress(PermissionError):
                os.fchown(self.descriptor, old.st_uid, old.st_gid)
            with suppress(PermissionError):
                os.fchmod(self.descriptor, stat.S_IMODE(old.st_mode) & 0o777)
            with suppress(PermissionError):
                value = acl.read(place)
                if value is not None:
                    os.setxattr(new, acl.ACCESS, value)
                attributes.write_kept(new, attributes.read_kept(place))
        except FileNotFoundError:
            return  # it went meanwhile


def begin(tree: Tree, path: NodePath, identity: Identity, *, length: int | None) -> Upload:
    """Open an upload to `path`; called inside `acting_as`.

    Parameters
    ----------
    length
        The announced number of bytes, if any: a disk without so much room says so at once.

    Raises
    ------
    Fault
        ``ContainerNotFound``, ``LinkFound`` (the name is a link's), ``DuplicateNode`` (a folder's),
        ``PermissionDenied``, ``TypeNotSupported`` (a device's or a pipe's).
    """
    with tree.place(path) as place:
        replaced = _replaced(tree, path, place.folder)
        if replaced is None:
            path.check_new_name()
        hidden = hidden_name(place.name)
        mode = new_mode(place.folder)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            descriptor = os.open(hidden, flags, 0o600 if mode is not None else 0o666, dir_fd=place.folder)
        except OSError as err:
            raise tree.creation_refusal(err, path) from err
        upload = Upload(
            tree=tree,
            path=path,
            identity=identity,
            folder=os.dup(place.folder),
            hidden=hidden,
            descriptor=descriptor,
        )
        try:
            upload.replaced = replaced
            # Held as long as the upload lives: whoever can take the lock knows that it died.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if mode is not None:
                os.fchmod(descriptor, mode & 0o666)
            if length is not None and length >= ANNOUNCED_FROM_BYTES:
                upload.reserve(length)
        except BaseException:
            upload.abandon()
            raise
        return upload


def _replaced(tree: Tree, path: NodePath, folder: int) -> Replaced | None:
    """Return what has the name now; refuse what an upload cannot take the place of."""
    try:
        descriptor = os.open(path.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return None
    except OSError as err:
        raise tree.refusal(err, path) from err
    try:
        status = os.fstat(descriptor)
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFLNK:
            raise Fault("vospace-link-found", uri=str(path))
        if kind == stat.S_IFDIR:
            raise Fault("vospace-duplicate-node", uri=str(path))
        if kind != stat.S_IFREG:
            raise Fault("vospace-type-not-supported", uri=str(path), type="a device, pipe or socket")
        try:
            # May this person change the bytes? The kernel knows; nothing is written.
            os.close(os.open(posix.proc_path(descriptor), os.O_WRONLY | os.O_CLOEXEC))
        except OSError as err:
            raise refusal(err, path) from err
    finally:
        os.close(descriptor)
    return Replaced(status)


def reopen(tree: Tree, path: NodePath, identity: Identity, hidden: bytes) -> Upload:
    """Open the upload that `begin` left in the file `hidden`; called inside `acting_as`.

    Raises
    ------
    Fault
        ``NodeNotFound`` when its file went; what `begin` raises for what became of the place meanwhile.
    """
    with tree.place(path) as place:
        replaced = _replaced(tree, path, place.folder)
        try:
            descriptor = os.open(hidden, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place.folder)
        except OSError as err:
            raise tree.refusal(err, path) from err
        upload = Upload(
            tree=tree, path=path, identity=identity, folder=os.dup(place.folder), hidden=hidden, descriptor=descriptor
        )
        upload.replaced = replaced
        return upload
