"""Receiving the bytes of a file: into a hidden file beside it, then in its place in one step.

Until `Upload.commit` returns nothing has changed for anybody else; after it the bytes survive a power failure.
"""

import errno
import fcntl
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass

from astrocloud.vospace import acl, attributes, posix
from astrocloud.vospace.errors import Fault
from astrocloud.vospace.identity import Identity, acting_as, as_platform, can_switch
from astrocloud.vospace.models import IS_LOCKED, NodePath
from astrocloud.vospace.storage import Tree, hidden_name, new_mode, refusal, sync_folder

ANNOUNCED_FROM_BYTES = 1 << 20
"""From this announced length on, the room on the disk is taken before the first byte."""


_places = tuple(threading.Lock() for _ in range(256))
"""Which of them is held while a name gets another file follows from the name and its folder."""


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


@dataclass(frozen=True)
class Expected:
    """What must have the name when an upload is put there (RFC 9110, section 13.1)."""

    must_be_new: bool = False
    """Nothing."""
    must_match: str | None = None
    """The file with this entity tag."""
    unmodified_since_s: int | None = None
    """A file that was not modified after this moment, in seconds since the epoch."""

    def holds(self, found: Replaced | None) -> bool:
        """Whether `found`, or nothing, is what is expected."""
        if found is None:
            return self.must_match is None and self.unmodified_since_s is None
        since = self.unmodified_since_s
        return (
            not self.must_be_new
            and self.must_match in {None, found.etag}
            and (since is None or int(found.status.st_mtime) <= since)
        )


ANYTHING = Expected()


@contextmanager
def alone(folder: int, name: bytes) -> Iterator[None]:
    """Let nothing else in this process give `name` in the open `folder` to another file inside the block."""
    status = os.fstat(folder)
    with _places[hash((status.st_dev, status.st_ino, name)) % len(_places)]:
        yield


def _no_account(_replaced: os.stat_result | None) -> None:
    """Count nothing."""


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
        self.lent = False
        """Whether the platform made the hidden file: the person may write the old one, but make none in its folder."""
        self.size = 0
        self._closed = False

    @property
    def created(self) -> bool:
        """Whether nothing was there when the upload began; once it is in its place, whether nothing was there then."""
        return self.replaced is None

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append `data`. Raises `Fault` when the disk is full."""
        view = memoryview(data)
        with self._having_room():
            while view:
                written = os.write(self.descriptor, view)
                self.size += written
                view = view[written:]

    def write_all(self, buffers: Sequence[bytes]) -> None:
        """Append what is in `buffers`, in one call where the kernel takes it. Raises `Fault` when the disk is full."""
        total = sum(map(len, buffers))
        with self._having_room():
            written = os.writev(self.descriptor, buffers) if total else 0
        self.size += written
        if written < total:
            self.write(memoryview(b"".join(buffers))[written:])

    def reserve(self, length: int) -> None:
        """Take room for `length` bytes on the disk now. Raises `Fault` when it is not there."""
        with self._having_room():
            try:
                os.posix_fallocate(self.descriptor, 0, length)
            except OSError as err:
                if err.errno not in {errno.EOPNOTSUPP, errno.EINVAL}:
                    raise

    @contextmanager
    def _having_room(self) -> Iterator[None]:
        """Let the block write as the person: what a disk keeps back for root is not for them."""
        try:
            with acting_as(self._identity):
                yield
        except OSError as err:
            raise refusal(err, self.path) from err

    def commit(
        self,
        *,
        md5: str | None,
        expected: Expected = ANYTHING,
        account: Callable[[os.stat_result | None], None] = _no_account,
    ) -> os.stat_result:
        """Put the file in its place; return its status.

        Uploads to the same name, in this process, come one after the other here: what one expects, and what it counts,
        is what the other left.

        Parameters
        ----------
        md5
            The sum of the bytes, in hexadecimal, where it was computed.
        expected
            What must have the name by now.
        account
            Told of the file that goes, if any, before it does; what it raises keeps it there.

        Raises
        ------
        Fault
            ``PreconditionFailed``, ``ContainerNotFound`` (the folder went meanwhile), ``PermissionDenied``, and what
            `begin` raises for what has the name by now.
        """
        os.ftruncate(self.descriptor, self.size)
        if self.size >= ANNOUNCED_FROM_BYTES:
            os.fsync(self.descriptor)  # most of it, before others have to wait for this
        with alone(self._folder, self.path.name):
            status = self._put_in_place(md5, expected, account)
        self.close()
        return status

    def _put_in_place(
        self, md5: str | None, expected: Expected, account: Callable[[os.stat_result | None], None]
    ) -> os.stat_result:
        with acting_as(self._identity):
            # Not as it was when the bytes began to come: it may have been replaced, or shared with others, since.
            self.replaced = _replaced(self._tree, self.path, self._folder)
        if not expected.holds(self.replaced):
            raise Fault("vospace-precondition", uri=str(self.path))
        self._check_unlocked()
        account(self.replaced.status if self.replaced is not None else None)
        if self.replaced is None:
            if self.lent:  # only what was there might be replaced
                raise Fault("vospace-permission-denied", uri=str(self.path))
            with acting_as(self._identity):  # as the owner, which is enough where root is nobody in particular (NFS)
                _make_new(self.descriptor, self._folder)
        else:
            self._keep_what_the_old_one_had(self.replaced.status)
        # Exact, where the kernel's own stamp is coarse: a write within the same tick has another time.
        now = time.time_ns()
        os.utime(self.descriptor, ns=(now, now))
        if md5 is not None:
            attributes.write_md5(posix.proc_path(self.descriptor), os.fstat(self.descriptor), md5)
        os.fsync(self.descriptor)
        name = self.path.name
        if self.lent:
            self._exchange()
            return os.fstat(self.descriptor)
        with acting_as(self._identity):
            try:
                if expected.must_be_new:
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
        return os.fstat(self.descriptor)

    def _check_unlocked(self) -> None:
        """Refuse what somebody locked while the bytes came: the file that goes, or the folder."""
        places = [(posix.proc_path(self._folder), self.path.parent)]
        if self.replaced is not None:
            places.append((posix.proc_path(self._folder, self.path.name), self.path))
        for place, path in places:
            with suppress(FileNotFoundError):
                if attributes.read_kept(place).properties.get(IS_LOCKED) == "true":
                    raise Fault("vospace-node-locked", uri=str(path))

    def _exchange(self) -> None:
        """Put the file in the place of just the one that the person may write, as the platform."""
        assert self.replaced is not None
        try:
            posix.exchange(self._folder, self.hidden, self.path.name)
        except OSError as err:
            raise Fault("vospace-permission-denied", uri=str(self.path)) from err
        old = os.stat(self.hidden, dir_fd=self._folder, follow_symlinks=False)
        if etag(old) != self.replaced.etag:  # the number of a file that went may be another's by now
            posix.exchange(self._folder, self.hidden, self.path.name)  # another one got the name at this moment
            raise Fault("vospace-permission-denied", uri=str(self.path))
        os.unlink(self.hidden, dir_fd=self._folder)
        sync_folder(self._folder)

    def abandon(self) -> None:
        """Leave no trace."""
        with suppress(OSError), as_platform() if self.lent else nullcontext():
            os.unlink(self.hidden, dir_fd=self._folder)
        self.close()

    def close(self) -> None:
        """Let go of the file, leaving it where it is."""
        if not self._closed:
            self._closed = True
            os.close(self.descriptor)
            os.close(self._folder)

    def _keep_what_the_old_one_had(self, old: os.stat_result) -> None:
        """Give the new file the owner, the permissions and the properties of the one it replaces."""
        place = posix.proc_path(self._folder, self.path.name)
        new = posix.proc_path(self.descriptor)
        try:
            with suppress(PermissionError):
                os.fchown(self.descriptor, old.st_uid, old.st_gid)
            value = acl.read(place)
            with suppress(PermissionError):
                if value is None and acl.read(new) is not None:
                    os.removexattr(new, acl.ACCESS)  # what the folder gives to new files
                os.fchmod(self.descriptor, stat.S_IMODE(old.st_mode) & 0o777)
            with suppress(PermissionError):
                if value is not None:
                    os.setxattr(new, acl.ACCESS, value)
                attributes.write_kept(new, attributes.read_kept(place))
        except FileNotFoundError:
            return  # it went meanwhile


def begin(tree: Tree, path: NodePath, identity: Identity) -> Upload:
    """Open an upload to `path`; called inside `acting_as`.

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
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        lent = False
        try:
            # Until it is in its place nobody else reads or changes it: the file that it replaces may be private.
            descriptor = os.open(hidden, flags, 0o600, dir_fd=place.folder)
        except OSError as err:
            if replaced is None or err.errno != errno.EACCES or not can_switch():
                raise tree.creation_refusal(err, path) from err
            # The file alone is shared: its folder is not theirs to make anything in.
            with as_platform():
                descriptor, lent = os.open(hidden, flags, 0o600, dir_fd=place.folder), True
        upload = Upload(
            tree=tree,
            path=path,
            identity=identity,
            folder=os.dup(place.folder),
            hidden=hidden,
            descriptor=descriptor,
        )
        try:
            upload.replaced, upload.lent = replaced, lent
            # Held as long as the upload lives: whoever can take the lock knows that it died.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            upload.abandon()
            raise
        return upload


def _make_new(file: int, folder: int) -> None:
    """Give the open `file` the permissions that a new one has in the open folder `folder`."""
    place = posix.proc_path(file)
    default = acl.read(posix.proc_path(folder), default=True)
    given = acl.Acl.parse(default) if default is not None else None
    if given is not None and (given.users or given.groups):
        os.setxattr(place, acl.ACCESS, given.of_a_file().encode())
        return
    if acl.read(place) is not None:  # what the folder gave before that was taken from it
        os.removexattr(place, acl.ACCESS)
    mode = given.of_a_file().mode() if given is not None else new_mode(folder)
    os.fchmod(file, (0o700 if mode is None else mode) & 0o666)


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
            raise tree.hides(path, Fault("vospace-link-found", uri=str(path)))
        if kind == stat.S_IFDIR:
            raise tree.hides(path, Fault("vospace-duplicate-node", uri=str(path)))
        if kind != stat.S_IFREG:
            what = "a device, pipe or socket"
            raise tree.hides(path, Fault("vospace-type-not-supported", uri=str(path), type=what))
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
        # Not waiting, and nothing but what was made for it: its owner may have put anything in its place.
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        lent = False
        try:
            descriptor = os.open(hidden, flags, dir_fd=place.folder)
        except OSError as err:
            if replaced is None or err.errno != errno.EACCES or not can_switch():
                raise tree.refusal(err, path) from err
            with as_platform():
                descriptor, lent = os.open(hidden, flags, dir_fd=place.folder), True
        status = os.fstat(descriptor)
        owner = identity.uid if can_switch() and not lent else os.geteuid()
        if not stat.S_ISREG(status.st_mode) or status.st_uid != owner or status.st_nlink != 1:
            os.close(descriptor)
            raise Fault("vospace-node-not-found", uri=str(path))
        upload = Upload(
            tree=tree, path=path, identity=identity, folder=os.dup(place.folder), hidden=hidden, descriptor=descriptor
        )
        upload.replaced, upload.lent = replaced, lent
        return upload
