"""How much of a home or a project folder is used, and how much may be: counted with every write, and again by a scan.

Writes through VOSpace are counted exactly. What notebooks write and remove is found by the scan (`scanning`).
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Engine,
    Float,
    LargeBinary,
    Table,
    case,
    insert,
    select,
    update,
)

from astrocloud.core.database import metadata
from astrocloud.vospace.errors import Fault
from astrocloud.vospace.models import NodePath
from astrocloud.vospace.reading import Usage

usage_table: Final = Table(
    "vospace_usage",
    metadata,
    Column("top", LargeBinary(512), primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("files", BigInteger, nullable=False),
    Column("counted_at", Float, nullable=False),
    Column("changes", BigInteger, nullable=False),
)

_COUNT: Final = (usage_table.c.size, usage_table.c.files, usage_table.c.changes, usage_table.c.counted_at)
HELD_OFF_S: Final = 900.0
"""How long changes keep a folder from being counted exactly before at least what is there is counted, in seconds."""


@dataclass(frozen=True)
class Limits:
    """How much one folder may hold; 0: any."""

    size_bytes: int
    files: int


class SqlQuotas:
    """Quotas with their counts in the services' database.

    Parameters
    ----------
    engine
        The database.
    homes
        What each person's home may hold.
    projects
        What each group's folder may hold.
    measure
        Returns the bytes and files below a folder; if asked to, with hidden files of which `promised` does not tell.
    promised
        Returns the bytes and files that uploads under way will have there, and that no count can see yet.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        homes: Limits,
        projects: Limits,
        measure: Callable[[NodePath, bool], tuple[int, int]],
        promised: Callable[[NodePath], tuple[int, int]],
    ) -> None:
        self._engine = engine
        self._homes = homes
        self._projects = projects
        self._measure = measure
        self._promised = promised
        self._busy: Counter[bytes] = Counter()
        self._lock = threading.Lock()
        # SQLite has one writer at a time and lets the others sleep and look again; here each comes as soon as it can.
        self._turn = threading.Lock() if engine.dialect.name == "sqlite" else nullcontext()

    @contextmanager
    def busy(self, top: NodePath) -> Iterator[None]:
        """Keep what is below `top` from being counted anew while it changes and is not yet counted for itself."""
        self.enter(top)
        try:
            yield
        finally:
            self.leave(top)

    def enter(self, top: NodePath) -> None:
        """Begin what `leave` ends; see `busy`."""
        with self._lock:
            self._busy[_key(top)] += 1

    def leave(self, top: NodePath) -> None:
        """End what `enter` began."""
        with self._lock:
            self._busy[_key(top)] -= 1

    def limits(self, top: NodePath) -> Limits:
        """Return what `top` may hold."""
        return self._homes if top.parts[0] == b"home" else self._projects

    def charge(self, top: NodePath, *, size: int, files: int, done: bool = False) -> None:
        """Count `size` more bytes and `files` more files below `top`; negative ones give back.

        Parameters
        ----------
        done
            Whether it has happened already, so that a first count of what is there sees it.

        Raises
        ------
        Fault
            ``QuotaExceeded``, and nothing is counted.
        """
        if not size and not files:
            return
        while not self._add(top, size=size, files=files):
            if self._count_once(top) and done:
                return

    def _add(self, top: NodePath, *, size: int, files: int) -> bool:
        """Do what `charge` does; return whether it is done, which it is not as long as `top` was never counted."""
        limits, key, table = self.limits(top), _key(top), usage_table.c
        new_size, new_files = table.size + size, table.files + files
        fits = [table.top == key]
        if size > 0 and limits.size_bytes:
            fits.append(new_size <= limits.size_bytes)
        if files > 0 and limits.files:
            fits.append(new_files <= limits.files)
        values = {"size": _not_negative(new_size), "files": _not_negative(new_files), "changes": table.changes + 1}
        with self._turn, self._engine.begin() as connection:
            if connection.execute(update(usage_table).where(*fits).values(**values)).rowcount:
                return True
            row = connection.execute(select(table.size, table.files).where(table.top == key)).first()
        if row is None:
            return False
        for grows, after, limit, what in (
            (size > 0, row[0] + size, limits.size_bytes, "bytes"),
            (files > 0, row[1] + files, limits.files, "files"),
        ):
            if grows and limit and after > limit:
                raise Fault("vospace-quota", top=str(top), wanted=after, limit=limit, what=what)
        return self._add(top, size=size, files=files)  # something went at this very moment

    def usage(self, top: NodePath) -> Usage | None:
        """Return what is used below `top`, or `None` where there is no limit."""
        limits = self.limits(top)
        if not limits.size_bytes:
            return None
        with self._engine.begin() as connection:
            row = connection.execute(select(usage_table.c.size).where(usage_table.c.top == _key(top))).first()
        return Usage(limits.size_bytes, row[0] if row is not None else 0)

    def recount(self, top: NodePath) -> bool:
        """Count what is below `top` from the file system, unless it changes meanwhile; return whether it could be.

        What changes for too long is counted for what is there at least.
        """
        key = _key(top)
        busy = bool(self._busy[key])
        with self._engine.begin() as connection:
            before = connection.execute(select(*_COUNT).where(usage_table.c.top == key)).first()
        overdue = before is not None and time.time() - before.counted_at > HELD_OFF_S
        if busy and not overdue:
            return False
        size, files = self._measure(top, True)
        more_size, more_files = self._promised(top)
        size, files = size + more_size, files + more_files
        with self._engine.begin() as connection:
            after = connection.execute(select(*_COUNT).where(usage_table.c.top == key).with_for_update()).first()
            if after is None:
                self._insert(connection, key, size, files)
                return True
            exact = before is not None and after.changes == before.changes and not busy and not self._busy[key]
            values = {"size": size, "files": files, "counted_at": time.time()}
            if not exact:
                if not overdue:
                    return False
                # Whoever keeps something changing for ever does not keep what is there from being counted.
                values = {"size": max(size, after.size), "files": max(files, after.files)}
            connection.execute(update(usage_table).where(usage_table.c.top == key).values(**values))
        return exact

    def _count_once(self, top: NodePath) -> bool:
        """Count what is below `top` if it never was; return whether it was counted now."""
        key = _key(top)
        with self._engine.begin() as connection:
            if connection.execute(select(usage_table.c.top).where(usage_table.c.top == key)).first() is not None:
                return False
        size, files = self._measure(top, False)
        with self._engine.begin() as connection:
            if connection.execute(select(usage_table.c.top).where(usage_table.c.top == key)).first() is not None:
                return False
            self._insert(connection, key, size, files)
        return True

    def _insert(self, connection: Connection, key: bytes, size: int, files: int) -> None:
        values = {"top": key, "size": size, "files": files, "counted_at": time.time(), "changes": 0}
        connection.execute(insert(usage_table).values(**values))


def _not_negative(number: ColumnElement[int]) -> ColumnElement[int]:
    return case((number > 0, number), else_=0)


def _key(top: NodePath) -> bytes:
    return b"/".join(top.parts)
