"""Shares: ``ispublic``, ``groupread`` and their like, written as the permissions that the file system enforces."""

import errno
import operator
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate

from astrocloud.vospace import acl, posix
from astrocloud.vospace.errors import Fault
from astrocloud.vospace.models import NodePath
from astrocloud.vospace.storage import Tree


@dataclass(frozen=True)
class Rights:
    """What is to be shared from now on; `None` leaves that kind as it is."""

    public: bool | None = None
    """Whether everybody may read."""
    group_read: frozenset[int] | None = None
    group_write: frozenset[int] | None = None
    user_read: frozenset[int] | None = None
    user_write: frozenset[int] | None = None

    def __bool__(self) -> bool:
        return any(
            kind is not None
            for kind in (self.public, self.group_read, self.group_write, self.user_read, self.user_write)
        )


def apply(tree: Tree, path: NodePath, rights: Rights) -> None:
    """Give the node at `path` exactly the shares `rights`, and what they need of the folders above it.

    Must run as the node's owner. What is made later inside a shared folder is shared in the same way.

    Raises
    ------
    Fault
        ``PermissionDenied`` for anybody but the owner, ``OperationNotSupported`` where the file system keeps no lists.
    """
    with tree.node(path) as descriptor:
        status = os.fstat(descriptor)
        if stat.S_ISLNK(status.st_mode):
            raise Fault("vospace-operation-not-supported", what="sharing a link; share what it leads to")
        place = posix.proc_path(descriptor)
        try:
            changed = _changed(_current(place, status), status, rights)
            write(place, changed)
            if stat.S_ISDIR(status.st_mode):
                _write_default(place, changed)
        except OSError as err:
            raise tree.refusal(err, path) from err
    if rights.public:
        changed = acl.Acl(0, 0, acl.PASS)
    elif any((rights.group_read, rights.group_write, rights.user_read, rights.user_write)):
        gids = (rights.group_read or frozenset()) | (rights.group_write or frozenset())
        uids = (rights.user_read or frozenset()) | (rights.user_write or frozenset())
        changed = acl.Acl(0, 0, 0, dict.fromkeys(uids, acl.PASS), dict.fromkeys(gids, acl.PASS))
    else:
        return
    way = [NodePath(path.parts[:depth]) for depth in range(2, len(path.parts))]
    closed = list(accumulate((not _lets_pass(tree, folder) for folder in way), operator.or_))
    for folder, was_closed in reversed(list(zip(way, closed, strict=True))):  # the outermost opens last
        _open_passage(tree, folder, path.parts[len(folder.parts)], changed, closed=was_closed)


def _lets_pass(tree: Tree, path: NodePath) -> bool:
    """Whether everybody passes through the folder `path`."""
    with tree.node(path) as descriptor:
        return bool(os.fstat(descriptor).st_mode & acl.PASS)


def _current(place: str, status: os.stat_result) -> acl.Acl:
    value = acl.read(place) if status.st_mode & stat.S_IRWXG else None
    return acl.Acl.parse(value) if value is not None else acl.Acl.of_mode(status.st_mode)


def _changed(now: acl.Acl, status: os.stat_result, rights: Rights) -> acl.Acl:
    runs = acl.PASS if stat.S_ISDIR(status.st_mode) or now.owner & acl.PASS else 0
    other = None if rights.public is None else ((acl.READ | runs) if rights.public else 0)
    return now.granting(
        owning=status.st_gid,
        groups=_merged(now.effective_groups(status.st_gid), rights.group_read, rights.group_write, runs),
        users=_merged(now.effective_users(), rights.user_read, rights.user_write, runs),
        other=other,
    )


def _merged(
    now: Mapping[int, int], read: frozenset[int] | None, write_: frozenset[int] | None, runs: int
) -> dict[int, int] | None:
    if read is None and write_ is None:
        return None
    readers = read if read is not None else {number for number, bits in now.items() if bits & acl.READ}
    writers = write_ if write_ is not None else {number for number, bits in now.items() if bits & acl.WRITE}
    return {
        number: (acl.READ if number in readers else 0) | (acl.WRITE if number in writers else 0) | runs
        for number in {*readers, *writers}
    }


def write(place: str, rights: acl.Acl) -> None:
    """Let `rights` be the permissions of the file at `place`; without named entries they are just its mode."""
    try:
        os.setxattr(place, acl.ACCESS, rights.encode())
    except OSError as err:
        if err.errno != errno.EOPNOTSUPP:
            raise
        if rights.users or rights.groups:
            raise Fault(
                "vospace-operation-not-supported", what="sharing with named groups on this file system"
            ) from err
        os.chmod(place, rights.mode())


def _write_default(place: str, rights: acl.Acl) -> None:
    if rights.users or rights.groups:
        inner = acl.Acl(7, rights.group, rights.other, rights.users, rights.groups)
        os.setxattr(place, acl.DEFAULT, inner.encode())
        return
    with suppress(OSError):
        os.removexattr(place, acl.DEFAULT)


def _open_passage(tree: Tree, path: NodePath, through: bytes, extra: acl.Acl, *, closed: bool) -> None:
    """Let those in `extra` pass through the folder `path` on their way to its child `through`.

    Whoever could not pass until now, because this folder or one around it was `closed`, could not use what the other
    children's own bits say, nor those of this folder. They are taken away first, so that opening the way to one child
    opens no other, and shows none.
    """
    with tree.node(path) as descriptor:
        status = os.fstat(descriptor)
        place = posix.proc_path(descriptor)
        now = _current(place, status)
        users = {**now.effective_users()}
        groups = {**now.effective_groups(status.st_gid)}
        for held, more in ((users, extra.users), (groups, extra.groups)):
            for number, bits in more.items():
                held[number] = held.get(number, 0) | bits
        other = (now.other & acl.PASS if closed else now.other) | extra.other
        opened = now.granting(owning=status.st_gid, users=users, groups=groups, other=other)
        if not closed and opened == now.granting(owning=status.st_gid):
            return
        try:
            if closed:
                _close_children(descriptor, but=through)
            write(place, opened)
        except PermissionError:
            return  # somebody else's folder: they decide who passes


def _close_children(place: int, *, but: bytes) -> None:
    folder = os.open(posix.proc_path(place), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in map(os.fsencode, os.listdir(folder)):
            if name == but:
                continue
            with suppress(FileNotFoundError, PermissionError):
                status = os.stat(name, dir_fd=folder, follow_symlinks=False)
                if stat.S_ISLNK(status.st_mode) or not status.st_mode & 0o007:
                    continue
                child = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
                try:
                    held = _current(posix.proc_path(child), status)
                    write(posix.proc_path(child), held.granting(owning=status.st_gid, other=0))
                finally:
                    os.close(child)
    finally:
        os.close(folder)
