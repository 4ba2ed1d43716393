"""What was shared with whom: an index of places to look at, so that "shared with me" need not walk through everything.

The index only says where to look. Whether a reader may see a place is asked of the kernel each time it is told, so an
entry that is out of date reveals nothing. Shares made here are noted at once; those made in a terminal (``setfacl``)
are found by a walk.
"""

import asyncio
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

from sqlalchemy import BigInteger, Column, Engine, LargeBinary, String, Table, and_, delete, insert, or_, select

from astrocloud.core.database import metadata
from astrocloud.vospace import acl, posix
from astrocloud.vospace.domain import Nodes
from astrocloud.vospace.errors import Fault
from astrocloud.vospace.models import DEPTH_LIMIT, NodePath, Person, is_hidden
from astrocloud.vospace.myfiles.entries import entry
from astrocloud.vospace.scanning import tops
from astrocloud.vospace.storage import Tree

TOLD_LIMIT: Final = 1000
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_table: Final = Table(
    "vospace_shares",
    metadata,
    Column("path", LargeBinary(8192), primary_key=True),
    Column("kind", String(1), primary_key=True),
    Column("number", BigInteger, primary_key=True),
)
_Subject = tuple[str, int]


class Shares:
    """The index; every method but `keep_looking` is for a worker thread.

    Parameters
    ----------
    nodes
        The rules.
    engine
        The database.
    pause_s
        How long the walk rests between two rounds, in seconds.
    """

    def __init__(self, *, nodes: Nodes, engine: Engine, pause_s: float) -> None:
        self._nodes = nodes
        self._engine = engine
        self._pause_s = pause_s

    def note(self, path: NodePath) -> None:
        """Look at `path` as the platform, and remember with whom it is shared by name."""
        self._nodes.tree.open()
        try:
            with self._nodes.tree.node(path) as descriptor:
                found = subjects(posix.proc_path(descriptor), os.fstat(descriptor))
        except (Fault, OSError):
            found = frozenset()
        self._put(path, found)

    def _put(self, path: NodePath, found: frozenset[_Subject]) -> None:
        key = b"/".join(path.parts)
        with self._engine.begin() as connection:
            connection.execute(delete(_table).where(_table.c.path == key))
            for kind, number in found:
                connection.execute(insert(_table).values(path=key, kind=kind, number=number))

    def with_person(self, person: Person) -> list[dict[str, Any]]:
        """Return what others share with `person` by name or by a group, as far as `person` can read it now."""
        identity = person.identity
        wanted = [and_(_table.c.kind == "u", _table.c.number == identity.uid)]
        wanted += [and_(_table.c.kind == "g", _table.c.number == gid) for gid in identity.groups]
        with self._engine.begin() as connection:
            keys = sorted({row[0] for row in connection.execute(select(_table.c.path).where(or_(*wanted)))})
        told: list[dict[str, Any]] = []
        last: NodePath | None = None
        for key in keys:
            path = NodePath(tuple(key.split(b"/")))
            if last is not None and path.inside(last):
                continue
            try:
                found = entry(self._nodes, person, path)
            except (Fault, OSError):
                continue
            if found["owner"] != person.name and len(told) < TOLD_LIMIT:
                told.append({**found, "folder": str(path.parent)})
                last = path
        return told

    async def keep_looking(self) -> None:
        """Walk through every home and project for shares made elsewhere, for ever."""
        while True:
            await asyncio.sleep(min(60.0, self._pause_s))
            for top in await asyncio.to_thread(tops, self._nodes.tree.root):
                await asyncio.to_thread(self.look, top)
            await asyncio.sleep(self._pause_s)

    def look(self, top: NodePath) -> None:
        """Walk through `top` and bring what the index knows below it up to date."""
        self._nodes.tree.open()
        found = dict(_walk(self._nodes.tree, top))
        begins = b"/".join(top.parts) + b"/"
        query = select(_table.c.path).where(_table.c.path >= begins, _table.c.path < begins[:-1] + b"0")
        with self._engine.begin() as connection:
            known = {row[0] for row in connection.execute(query)}
        for key in known - found.keys():
            self.note(NodePath(tuple(key.split(b"/"))))
        for key, held in found.items():
            self._put(NodePath(tuple(key.split(b"/"))), held)


def subjects(place: str, status: os.stat_result) -> frozenset[_Subject]:
    """Return who besides owner and owning group may read the file at `place` by name."""
    value = acl.read(place) if status.st_mode & stat.S_IRWXG and not stat.S_ISLNK(status.st_mode) else None
    if value is None:
        return frozenset()
    rights = acl.Acl.parse(value)
    users = {("u", number) for number, bits in rights.effective_users().items() if bits & acl.READ}
    mask = 7 if rights.mask is None else rights.mask
    groups = {("g", number) for number, bits in rights.groups.items() if bits & mask & acl.READ}
    return frozenset(users | groups)


def _walk(tree: Tree, top: NodePath) -> Iterator[tuple[bytes, frozenset[_Subject]]]:
    """Yield the places below `top` that are shared with somebody with whom the folder around them is not."""
    try:
        with tree.folder(top) as folder:
            yield from _walk_in(os.dup(folder), b"/".join(top.parts), frozenset())
    except Fault:
        return


def _walk_in(folder: int, key: bytes, around: frozenset[_Subject]) -> Iterator[tuple[bytes, frozenset[_Subject]]]:
    try:
        for name in posix.names_in(folder):
            if is_hidden(name):
                continue
            with suppress(OSError, ValueError):
                status = os.stat(name, dir_fd=folder, follow_symlinks=False)
                held = subjects(posix.proc_path(folder, name), status)
                if held - around:
                    yield key + b"/" + name, held - around
                # Somebody who nests folders without end is not followed: no path leads there anyway.
                if stat.S_ISDIR(status.st_mode) and key.count(b"/") < DEPTH_LIMIT:
                    yield from _walk_in(os.open(name, _FOLDER, dir_fd=folder), key + b"/" + name, around | held)
    finally:
        os.close(folder)
