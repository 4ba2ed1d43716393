"""What is known of uploads that can be resumed: kept in the database, so that they outlive the service."""

from dataclasses import dataclass
from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Engine,
    Float,
    Integer,
    LargeBinary,
    Row,
    String,
    Table,
    delete,
    insert,
    select,
    update,
)

from astrocloud.core.database import metadata
from astrocloud.vospace.models import NodePath

_table: Final = Table(
    "vospace_uploads",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("owner", String(64), nullable=False),
    Column("path", LargeBinary(8192), nullable=False),
    Column("hidden", LargeBinary(255), nullable=False),
    Column("length", BigInteger, nullable=False),
    Column("charged", BigInteger, nullable=False),
    Column("new_files", Integer, nullable=False),
    Column("replaces", Boolean, nullable=False),
    Column("expires_at", Float(53), nullable=False),
)


@dataclass(frozen=True, kw_only=True)
class Partial:
    """An upload that is not whole yet."""

    id: str
    owner: str
    path: NodePath
    hidden: bytes
    """The name of its file, in the folder of `path`; empty once it is in its place."""
    length: int
    """How many bytes it will have."""
    charged: int
    """How many bytes were counted for the quota."""
    new_files: int
    """How many files were."""
    replaces: bool
    """Whether it may take the place of a file."""
    expires_at: float

    @property
    def placed(self) -> bool:
        """Whether all of it came and is in its place; kept for a while for who did not hear the answer."""
        return not self.hidden


class Partials:
    """Keeps them; every method is for a worker thread.

    Parameters
    ----------
    engine
        The database.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def add(self, partial: Partial) -> None:
        """Keep `partial`."""
        values = {**vars(partial), "path": b"/".join(partial.path.parts)}
        with self._engine.begin() as connection:
            connection.execute(insert(_table).values(**values))

    def get(self, upload_id: str) -> Partial | None:
        """Return the upload, or `None`."""
        with self._engine.begin() as connection:
            row = connection.execute(select(_table).where(_table.c.id == upload_id)).first()
        return _partial(row) if row is not None else None

    def of_owner(self, owner: str) -> list[Partial]:
        """Return the uploads of `owner`, the one that can be resumed longest in front."""
        mine = (_table.c.owner == owner, _table.c.hidden != b"")
        query = select(_table).where(*mine).order_by(_table.c.expires_at.desc()).limit(1000)
        with self._engine.begin() as connection:
            return [_partial(row) for row in connection.execute(query)]

    def finish(self, upload_id: str, *, expires_at: float) -> bool:
        """Keep of the upload only that it is in its place, until `expires_at`; return whether it was not before."""
        unfinished = update(_table).where(_table.c.id == upload_id, _table.c.hidden != b"")
        with self._engine.begin() as connection:
            done = connection.execute(unfinished.values(hidden=b"", charged=0, new_files=0, expires_at=expires_at))
            return bool(done.rowcount)

    def remove(self, upload_id: str) -> bool:
        """Forget the upload; return whether it was still known."""
        with self._engine.begin() as connection:
            return bool(connection.execute(delete(_table).where(_table.c.id == upload_id)).rowcount)

    def promised(self, top: NodePath) -> tuple[int, int]:
        """Return the bytes and files that were counted below `top` for uploads that are not whole."""
        begins = b"/".join(top.parts) + b"/"
        columns = (_table.c.path, _table.c.charged, _table.c.new_files)
        with self._engine.begin() as connection:
            rows = [row for row in connection.execute(select(*columns)) if row[0].startswith(begins)]
        return sum(row[1] for row in rows), sum(row[2] for row in rows)

    def expired(self, now: float) -> list[Partial]:
        """Return the uploads that nobody may resume any more."""
        with self._engine.begin() as connection:
            rows = connection.execute(select(_table).where(_table.c.expires_at <= now)).all()
        return [_partial(row) for row in rows]

    def hidden_names(self) -> frozenset[bytes]:
        """Return the names of the files of all uploads that can be resumed."""
        with self._engine.begin() as connection:
            return frozenset(row[0] for row in connection.execute(select(_table.c.hidden)) if row[0])


def _partial(row: Row[tuple[object, ...]]) -> Partial:
    values = dict(row._mapping)
    values["path"] = NodePath(tuple(values["path"].split(b"/")))
    return Partial(**values)
