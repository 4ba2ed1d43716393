"""Announcements in the database."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import BigInteger, Column, Engine, Index, Integer, String, Table, Text, delete, insert, select, update

from astrocloud.core.database import metadata
from astrocloud.portal.models import Announcement, Severity

if TYPE_CHECKING:
    from sqlalchemy import Row

announcements = Table(
    "portal_announcements",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("severity", String(16), nullable=False),
    Column("title_en", String(200), nullable=False),
    Column("title_zh", String(200), nullable=False),
    Column("text_en", Text, nullable=False),
    Column("text_zh", Text, nullable=False),
    # Seconds since 1970: SQLite has no type for a time with its zone.
    Column("starts_at", BigInteger, nullable=False),
    Column("ends_at", BigInteger, nullable=True),
    Column("author", String(64), nullable=False),
    Column("changed_at", BigInteger, nullable=False),
    Index("ix_portal_announcements_ends_at", "ends_at"),
)


class DatabaseAnnouncements:
    """Announcements in the services' database.

    Parameters
    ----------
    engine
        The database; methods block.
    """

    def __init__(self, *, engine: Engine) -> None:
        self._engine = engine

    def all(self) -> Sequence[Announcement]:
        """Return all announcements, the latest start first."""
        query = select(announcements).order_by(announcements.c.starts_at.desc(), announcements.c.id.desc())
        with self._engine.connect() as connection:
            return [_announcement(row) for row in connection.execute(query)]

    def get(self, number: int) -> Announcement | None:
        """Return the announcement `number`, or `None`."""
        with self._engine.connect() as connection:
            row = connection.execute(select(announcements).where(announcements.c.id == number)).first()
        return None if row is None else _announcement(row)

    def save(self, announcement: Announcement) -> Announcement:
        """Keep a new announcement (id 0) or a changed one; return it as kept. Raises `KeyError` when it is gone."""
        values = _values(announcement)
        with self._engine.begin() as connection:
            if announcement.id == 0:
                key = connection.execute(insert(announcements).values(**values)).inserted_primary_key
                number = int(key[0]) if key is not None else 0
            else:
                number = announcement.id
                if (
                    connection.execute(
                        update(announcements).where(announcements.c.id == number).values(**values)
                    ).rowcount
                    == 0
                ):
                    raise KeyError(number)
            row = connection.execute(select(announcements).where(announcements.c.id == number)).one()
        return _announcement(row)

    def remove(self, number: int) -> bool:
        """Remove the announcement `number`; whether it was there."""
        with self._engine.begin() as connection:
            return connection.execute(delete(announcements).where(announcements.c.id == number)).rowcount > 0


def _values(announcement: Announcement) -> dict[str, Any]:
    return {
        "severity": announcement.severity,
        "title_en": announcement.title_en,
        "title_zh": announcement.title_zh,
        "text_en": announcement.text_en,
        "text_zh": announcement.text_zh,
        "starts_at": int(announcement.starts_at.timestamp()),
        "ends_at": int(announcement.ends_at.timestamp()) if announcement.ends_at else None,
        "author": announcement.author[:64],
        "changed_at": int(datetime.now(UTC).timestamp()),
    }


def _announcement(row: "Row[Any]") -> Announcement:
    return Announcement(
        id=row.id,
        severity=cast("Severity", row.severity),
        title_en=row.title_en,
        title_zh=row.title_zh,
        text_en=row.text_en,
        text_zh=row.text_zh,
        starts_at=datetime.fromtimestamp(row.starts_at, UTC),
        ends_at=None if row.ends_at is None else datetime.fromtimestamp(row.ends_at, UTC),
        author=row.author,
    )
