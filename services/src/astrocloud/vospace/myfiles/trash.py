"""The trash: what is deleted on the page is moved aside, on the same file system, and kept for a set time.

A person's is ``.trash`` in their home, a project's ``.trash/NAME`` in its folder, each for that person alone; so what
is in it counts for the same quota as before, and nobody sees in it what they could not see before. Where a thing came
from is kept in the database; without that it can still be restored, to the top of the home or project, and it is never
swept: the platform only removes what it moved there itself.
"""

import asyncio
import errno
import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import structlog
from sqlalchemy import Column, Engine, Float, LargeBinary, String, Table, delete, insert, select

from astrocloud.core.database import metadata
from astrocloud.vospace import acl, posix
from astrocloud.vospace.births import is_marked, mark_of
from astrocloud.vospace.domain import Nodes
from astrocloud.vospace.errors import Fault
from astrocloud.vospace.models import CONTAINER, NodePath, NodeRequest, Person, is_hidden
from astrocloud.vospace.myfiles.entries import bring_beside, kind_of
from astrocloud.vospace.removing import empty_and_remove
from astrocloud.vospace.storage import hidden_name, refusal, sync_folder

NAME: Final = b".trash"
SWEEP_S: Final = 3600.0
"""How often what was kept long enough is looked for, in seconds."""

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_table: Final = Table(
    "vospace_trash",
    metadata,
    Column("place", LargeBinary(8192), primary_key=True),
    Column("origin", LargeBinary(8192), nullable=False),
    Column("deleted_at", Float(53), nullable=False),
    # The mark of the thing. Without the device, whose number changes with a reboot: a trash is on one file system.
    Column("inode", String(20), nullable=True),
)
_PROJECT_MODE: Final = 0o2750
"""Members cannot make anything in it: what has another's name would keep that one from having a trash."""
_OLD_PROJECT_MODE: Final = 0o3770
_UNUSABLE: Final = frozenset({errno.ENOTDIR, errno.ELOOP, errno.EACCES, errno.EPERM})
_log = structlog.get_logger()


@dataclass(frozen=True)
class Thrown:
    """One thing in the trash."""

    place: NodePath
    """Where it is now."""
    origin: NodePath
    """Where it was."""
    deleted_at: float
    status: os.stat_result


@dataclass(frozen=True)
class _Row:
    """What is known of one thing in the trash."""

    origin: NodePath
    deleted_at: float
    inode: str | None

    def is_of(self, folder: int, name: bytes) -> bool:
        """Whether it is about what has `name` in the open `folder`, not about another that had it before."""
        return is_marked(self.inode, folder, name)


class Trash:
    """People's trash; every method but `keep_sweeping` is for a worker thread.

    Parameters
    ----------
    nodes
        The rules.
    engine
        The database.
    as_root
        Whether folders can be given to people.
    days
        How long things are kept; 0: what is deleted is gone.
    """

    def __init__(self, *, nodes: Nodes, engine: Engine, as_root: bool, days: int) -> None:
        self._nodes = nodes
        self._engine = engine
        self._as_root = as_root
        self.days = days

    def put(self, person: Person, path: NodePath) -> NodePath | None:
        """Move `path` to the trash; return where it is then, or `None` when it was deleted for good.

        What is in the trash already, and anything where there is no trash, is deleted for good.

        Raises
        ------
        Fault
            As `Nodes.move`.
        """
        if not self.days or NAME in path.parts:
            self._nodes.delete(person, path)
            self._forget(path)
            return None
        if path.top == path or len(path.parts) < 2:
            raise Fault("vospace-permission-denied", uri=str(path))
        folder = self._folder_for(person, path)
        place = self._moved(person, path, folder / path.name)
        with self._nodes.acting(person, place, acl.READ), self._nodes.tree.node(place) as descriptor:
            inode = mark_of(descriptor)
        with self._engine.begin() as connection:
            key = _key(place)
            connection.execute(delete(_table).where(_table.c.place == key))
            row = {"place": key, "origin": _key(path), "deleted_at": time.time(), "inode": inode}
            connection.execute(insert(_table).values(row))
        return place

    def restore(self, person: Person, place: NodePath) -> NodePath:
        """Put back what is at `place`; return where it is then: beside what has its name by now.

        Folders that it was in and that are gone are made again.

        Raises
        ------
        Fault
            ``NodeNotFound`` when it is not in this person's trash, and what `Nodes.move` raises.
        """
        if place.parent not in self.folders(person):
            raise Fault("vospace-node-not-found", uri=str(place))
        origin = self._origin(person, place)
        self._make_again(person, origin.parent)
        target = self._moved(person, place, origin)
        self._forget(place)
        return target

    def _moved(self, person: Person, path: NodePath, target: NodePath) -> NodePath:
        """Move `path` to `target` or beside it, never into a folder that got that name meanwhile."""
        return bring_beside(self._nodes, person, target, lambda free: self._nodes.move(person, path, free, into=False))

    def contents(self, person: Person) -> list[Thrown]:
        """Return what is in the trash of `person`, what was deleted last in front."""
        found = [thrown for folder in self.folders(person) for thrown in self._in(person, folder)]
        return sorted(found, key=lambda each: each.deleted_at, reverse=True)

    def folders(self, person: Person) -> list[NodePath]:
        """Return the folders that the trash of `person` is in, whether or not they are there."""
        if person.name is None:
            return []
        own = person.name.encode()
        projects = [NodePath((b"project", group.encode(), NAME, own)) for group in sorted(person.groups)]
        return [NodePath((b"home", own, NAME)), *projects]

    def _in(self, person: Person, folder: NodePath) -> Iterator[Thrown]:
        try:
            with (
                self._nodes.acting(person, folder, acl.READ | acl.PASS),
                self._nodes.tree.folder(folder) as open_folder,
            ):
                if self._as_root and os.fstat(open_folder).st_uid != person.identity.uid:
                    return
                names = [name for name in map(os.fsencode, os.listdir(open_folder)) if not is_hidden(name)]
                there, known = {}, self._rows(folder)
                for name in names:
                    with suppress(FileNotFoundError):
                        status = os.stat(name, dir_fd=open_folder, follow_symlinks=False)
                        row = known.get(_key(folder / name))
                        there[name] = status, row if row is not None and row.is_of(open_folder, name) else None
        except Fault:
            return
        for name, (status, row) in there.items():
            place = folder / name
            if row is not None:
                yield Thrown(place, row.origin, row.deleted_at, status)
            else:
                yield Thrown(place, _without_trash(place), status.st_ctime, status)

    def _rows(self, folder: NodePath) -> dict[bytes, _Row]:
        begins = _key(folder) + b"/"
        query = select(_table).where(_table.c.place >= begins, _table.c.place < begins + b"\xff" * 8)
        with self._engine.begin() as connection:
            return {row.place: _Row(_path(row.origin), row.deleted_at, row.inode) for row in connection.execute(query)}

    def _origin(self, person: Person, place: NodePath) -> NodePath:
        row = self._rows(place.parent).get(_key(place))
        with self._nodes.acting(person, place, acl.READ), self._nodes.tree.node(place) as descriptor:
            known = row is not None and is_marked(row.inode, descriptor)
        return row.origin if row is not None and known else _without_trash(place)

    def _forget(self, place: NodePath) -> None:
        with self._engine.begin() as connection:
            connection.execute(delete(_table).where(_table.c.place == _key(place)))

    def _make_again(self, person: Person, folder: NodePath) -> None:
        for depth in range(3, len(folder.parts) + 1):
            part = NodePath(folder.parts[:depth])
            if kind_of(self._nodes, person, part) is None:
                self._nodes.create(person, NodeRequest(part, CONTAINER))

    def _folder_for(self, person: Person, path: NodePath) -> NodePath:
        """Return the trash that `path` goes to, made if need be: its own home's or project's, else the person's own."""
        own = (person.name or "").encode()
        home = NodePath((b"home", own))
        group = path.parts[1] if path.parts[0] == b"project" else b""
        if group and group.decode("utf-8", "replace") in person.groups:
            return self._project_trash(person, NodePath((b"project", group)), own)
        with self._nodes.acting(person, home, acl.WRITE), self._nodes.tree.folder(home) as folder:
            _make_private(folder, home / NAME, person.identity.uid if self._as_root else None)
        return home / NAME

    def _project_trash(self, person: Person, project: NodePath, own: bytes) -> NodePath:
        identity = person.identity
        self._nodes.tree.open()
        with self._nodes.tree.folder(project) as folder:
            shared = self._made(folder, project / NAME, (0, os.fstat(folder).st_gid), _PROJECT_MODE)
            try:
                os.close(self._made(shared, project / NAME / own, (identity.uid, identity.gid), 0o700))
            finally:
                os.close(shared)
        return project / NAME / own

    def _made(self, folder: int, path: NodePath, owner: tuple[int, int], mode: int) -> int:
        """Return a descriptor of `path` in the open folder `folder`, made as the platform where it is missing.

        Members may write around it. So it is made under a name of its own, given away while it is open, and looked at
        again under its name like one that was there before, which is never given to anybody.

        Raises
        ------
        Fault
            ``files-trash-unusable`` for anything else that has the name.
        """
        try:
            try:
                inner = os.open(path.name, _FOLDER, dir_fd=folder)
            except FileNotFoundError:
                self._make(folder, path.name, owner, mode)
                inner = os.open(path.name, _FOLDER, dir_fd=folder)
        except OSError as err:
            raise _refusal(err, path) from err
        try:
            if self._as_root and mode == _PROJECT_MODE and is_private(inner, owner[0], _OLD_PROJECT_MODE):
                os.fchmod(inner, mode)  # as it was made at first
            if self._as_root and not is_private(inner, owner[0], mode):
                raise Fault("files-trash-unusable", path=str(path))
        except BaseException:
            os.close(inner)
            raise
        return inner

    def _make(self, folder: int, name: bytes, owner: tuple[int, int], mode: int) -> None:
        hidden = hidden_name(name)
        os.mkdir(hidden, 0o700, dir_fd=folder)
        try:
            inner = os.open(hidden, _FOLDER, dir_fd=folder)
            try:
                # Still ours? Members may rename in a project.
                if os.fstat(inner).st_uid != os.geteuid() or posix.names_in(inner):
                    raise PermissionError(errno.EPERM, "another folder has the name")
                for kind in (acl.ACCESS, acl.DEFAULT):  # what the project's own list gave it
                    with suppress(OSError):
                        os.removexattr(posix.proc_path(inner), kind)
                if self._as_root:
                    os.fchown(inner, *owner)
                os.fchmod(inner, mode if self._as_root else mode & 0o2777)
            finally:
                os.close(inner)
            with suppress(FileExistsError):  # somebody was faster
                posix.rename_new(hidden, folder, name, folder)
        finally:
            with suppress(OSError):
                os.rmdir(hidden, dir_fd=folder)

    # Sweeping

    async def keep_sweeping(self) -> None:
        """Remove what was kept long enough, for ever."""
        while True:
            if self.days:
                count = await asyncio.to_thread(self.sweep, time.time() - self.days * 86400)
                if count:
                    _log.info("trash-swept", things=count)
            await asyncio.sleep(SWEEP_S)

    def sweep(self, before: float, *, tops: Callable[[], Sequence[NodePath]] | None = None) -> int:
        """Remove, as the platform, what was deleted before the moment `before`; return how many things went."""
        count = 0
        self._nodes.tree.open()
        for top in (tops or self._tops)():
            folders = [top / NAME]
            if top.parts[0] == b"project":
                folders = [top / NAME / name for name in self._names(top / NAME)]
            for folder in folders:
                try:
                    count += self._sweep(folder, before)
                except (Fault, OSError) as err:  # the others' go all the same
                    _log.warning("trash-not-swept", folder=str(folder), error=type(err).__name__)
        return count

    def _sweep(self, folder: NodePath, before: float) -> int:
        """Remove from the trash `folder` what was put there before `before`; nothing that the platform did not put."""
        rows = self._rows(folder)
        if not rows:
            return 0
        count = 0
        with self._nodes.tree.folder(folder) as descriptor:
            if self._as_root and not self._is_ours(folder, descriptor):
                _log.warning("trash-unusable", folder=str(folder))
                return 0
            for key, row in rows.items():
                place = _path(key)
                try:
                    if row.is_of(descriptor, place.name) and row.deleted_at < before:
                        self._purge(descriptor, place, row)
                        count += 1
                        self._forget(place)
                except FileNotFoundError:
                    self._forget(place)
                except (Fault, OSError) as err:
                    _log.warning("trash-not-swept", place=str(place), error=type(err).__name__)
        return count

    def _is_ours(self, folder: NodePath, descriptor: int) -> bool:
        """Whether the open `folder` is a trash as it is made here."""
        if folder.parts[0] == b"home":
            with self._nodes.tree.node(folder.parent) as home:
                return is_private(descriptor, os.fstat(home).st_uid, 0o700)
        with self._nodes.tree.folder(folder.parent) as shared:
            around = is_private(shared, 0, _PROJECT_MODE) or is_private(shared, 0, _OLD_PROJECT_MODE)
        return around and is_private(descriptor, os.fstat(descriptor).st_uid, 0o700)

    def _purge(self, folder: int, place: NodePath, row: _Row) -> None:
        """Remove what `row` is about from the open `folder`. Raises `OSError` when that is not there."""
        hidden = hidden_name(place.name)
        with self._nodes.account.busy(place):
            # Out of sight first: what is looked at then is what is removed.
            with suppress(NotADirectoryError), self._nodes.tree.marks.marked(folder, place.name, hidden):
                pass
            os.rename(place.name, hidden, src_dir_fd=folder, dst_dir_fd=folder)
            try:
                status = os.stat(hidden, dir_fd=folder, follow_symlinks=False)
                if not row.is_of(folder, hidden):
                    raise FileExistsError(errno.EEXIST, "another thing has the name")
                if stat.S_ISDIR(status.st_mode):
                    size, files = empty_and_remove(folder, hidden)
                else:
                    os.unlink(hidden, dir_fd=folder)
                    size, files = (status.st_size if stat.S_ISREG(status.st_mode) else 0), 1
            except OSError:
                with suppress(OSError):
                    posix.rename_new(hidden, folder, place.name, folder)
                raise
            sync_folder(folder)  # before it is forgotten: nothing would purge it a second time
            self._nodes.account.refund(place, size=size, files=files)

    def _tops(self) -> list[NodePath]:
        return [NodePath((outer, name)) for outer in (b"home", b"project") for name in self._names(NodePath((outer,)))]

    def _names(self, folder: NodePath) -> list[bytes]:
        try:
            with self._nodes.tree.folder(folder) as descriptor:
                return [name for name in posix.names_in(descriptor) if not is_hidden(name)]
        except (Fault, OSError):
            return []


def is_private(folder: int, uid: int, mode: int) -> bool:
    """Whether the open folder belongs to `uid` and has exactly `mode`, with no access control list besides."""
    status = os.fstat(folder)
    place = posix.proc_path(folder)
    if status.st_uid != uid or stat.S_IMODE(status.st_mode) != mode or acl.read(place, default=True) is not None:
        return False
    # Without bits for the group the kernel does not look at the list.
    return not status.st_mode & stat.S_IRWXG or acl.read(place) is None


def _refusal(err: OSError, path: NodePath) -> Fault:
    return Fault("files-trash-unusable", path=str(path)) if err.errno in _UNUSABLE else refusal(err, path)


def _make_private(folder: int, path: NodePath, uid: int | None) -> None:
    """Make the folder `path` for its owner `uid` alone, whatever the folder around it lets people do."""
    try:
        with suppress(FileExistsError):
            os.mkdir(path.name, 0o700, dir_fd=folder)
        inner = os.open(path.name, _FOLDER, dir_fd=folder)
        try:
            status = os.fstat(inner)
            if uid is not None and status.st_uid != uid:
                raise PermissionError(errno.EPERM, "somebody else's")
            for kind in (acl.ACCESS, acl.DEFAULT):
                with suppress(OSError):
                    os.removexattr(posix.proc_path(inner), kind)
            if stat.S_IMODE(status.st_mode) != 0o700:
                os.fchmod(inner, 0o700)
        finally:
            os.close(inner)
    except OSError as err:
        raise _refusal(err, path) from err


def _key(path: NodePath) -> bytes:
    return b"/".join(path.parts)


def _path(key: bytes) -> NodePath:
    return NodePath(tuple(key.split(b"/")))


def _without_trash(place: NodePath) -> NodePath:
    """Return where a thing of unknown origin goes: to the top of its home or project."""
    return NodePath((*place.parts[:2], place.name))
