"""The trash: what is deleted on the page is moved aside, on the same file system, and kept for a set time.

A person's is ``.trash`` in their home, a project's ``.trash/NAME`` in its folder, each for that person alone; so what
is in it counts for the same quota as before, and nobody sees in it what they could not see before. Where a thing came
from is kept in the database; without that it can still be restored, to the top of the home or project.
"""

import asyncio
import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import structlog
from sqlalchemy import Column, Engine, Float, LargeBinary, Table, delete, insert, select

from astrocloud.core.database import metadata
from astrocloud.vospace import acl, posix
from astrocloud.vospace.domain import Nodes
from astrocloud.vospace.errors import Fault
from astrocloud.vospace.models import CONTAINER, NodePath, NodeRequest, Person, is_hidden
from astrocloud.vospace.myfiles.entries import free_name, kind_of

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
)
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
        place = self._nodes.move(person, path, free_name(self._nodes, person, folder / path.name))
        with self._engine.begin() as connection:
            key = _key(place)
            connection.execute(delete(_table).where(_table.c.place == key))
            connection.execute(insert(_table).values(place=key, origin=_key(path), deleted_at=time.time()))
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
        origin = self._origin(place)
        self._make_again(person, origin.parent)
        target = self._nodes.move(person, place, free_name(self._nodes, person, origin))
        self._forget(place)
        return target

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
                names = [name for name in map(os.fsencode, os.listdir(open_folder)) if not is_hidden(name)]
                there = {}
                for name in names:
                    with suppress(FileNotFoundError):
                        there[name] = os.stat(name, dir_fd=open_folder, follow_symlinks=False)
        except Fault:
            return
        known = self._rows(folder)
        for name, status in there.items():
            place = folder / name
            origin, at = known.get(_key(place), (None, status.st_ctime))
            yield Thrown(place, origin or _without_trash(place), at, status)

    def _rows(self, folder: NodePath) -> dict[bytes, tuple[NodePath, float]]:
        begins = _key(folder) + b"/"
        query = select(_table).where(_table.c.place >= begins, _table.c.place < begins + b"\xff" * 8)
        with self._engine.begin() as connection:
            return {row[0]: (_path(row[1]), row[2]) for row in connection.execute(query)}

    def _origin(self, place: NodePath) -> NodePath:
        with self._engine.begin() as connection:
            row = connection.execute(select(_table.c.origin).where(_table.c.place == _key(place))).first()
        return _path(row[0]) if row is not None else _without_trash(place)

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
            _make_private(folder, NAME)
        return home / NAME

    def _project_trash(self, person: Person, project: NodePath, own: bytes) -> NodePath:
        # Made by the platform, and sticky: members cannot put anything in the place of each other's.
        self._nodes.tree.open()
        with self._nodes.tree.folder(project) as folder:
            _make(folder, NAME, 0o3770 if self._as_root else 0o2770)
            shared = os.open(NAME, _FOLDER, dir_fd=folder)
            try:
                if self._as_root:
                    os.fchown(shared, 0, os.fstat(folder).st_gid)
                    os.fchmod(shared, 0o3770)
                if _make(shared, own, 0o700) and self._as_root:
                    inner = os.open(own, _FOLDER, dir_fd=shared)
                    try:
                        os.fchown(inner, person.identity.uid, person.identity.gid)
                        os.fchmod(inner, 0o700)
                    finally:
                        os.close(inner)
            except OSError as err:
                raise self._nodes.tree.refusal(err, project / NAME) from err
            finally:
                os.close(shared)
        return project / NAME / own

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
                known = self._rows(folder)
                for name in self._names(folder):
                    place = folder / name
                    at = known[_key(place)][1] if _key(place) in known else self._changed_at(place)
                    if at < before:
                        self._nodes.purge(place)
                        self._forget(place)
                        count += 1
        return count

    def _tops(self) -> list[NodePath]:
        return [NodePath((outer, name)) for outer in (b"home", b"project") for name in self._names(NodePath((outer,)))]

    def _names(self, folder: NodePath) -> list[bytes]:
        try:
            with self._nodes.tree.folder(folder) as descriptor:
                return [name for name in map(os.fsencode, os.listdir(descriptor)) if not is_hidden(name)]
        except Fault:
            return []

    def _changed_at(self, place: NodePath) -> float:
        try:
            with self._nodes.tree.node(place) as descriptor:
                return os.fstat(descriptor).st_ctime
        except Fault:
            return time.time()


def _make(folder: int, name: bytes, mode: int) -> bool:
    """Make the folder `name`, if need be; return whether it was made."""
    try:
        os.mkdir(name, mode, dir_fd=folder)
    except FileExistsError:
        return False
    return True


def _make_private(folder: int, name: bytes) -> None:
    """Make the folder `name` for its owner alone, whatever the folder around it lets people do."""
    try:
        _make(folder, name, 0o700)
        inner = os.open(name, _FOLDER, dir_fd=folder)
        try:
            if stat.S_IMODE(os.fstat(inner).st_mode) & 0o077:
                with suppress(OSError):
                    os.removexattr(posix.proc_path(inner), acl.ACCESS)
                os.fchmod(inner, 0o700)
        finally:
            os.close(inner)
    except OSError as err:
        raise Fault("vospace-permission-denied", uri=name.decode()) from err


def _key(path: NodePath) -> bytes:
    return b"/".join(path.parts)


def _path(key: bytes) -> NodePath:
    return NodePath(tuple(key.split(b"/")))


def _without_trash(place: NodePath) -> NodePath:
    """Return where a thing of unknown origin goes: to the top of its home or project."""
    return NodePath((*place.parts[:2], place.name))
