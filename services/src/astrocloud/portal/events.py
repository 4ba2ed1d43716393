"""What was the matter with the platform, since when and until when: seen by looking, and kept for two weeks."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal, cast

import structlog
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    Index,
    Integer,
    String,
    Table,
    delete,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.exc import SQLAlchemyError

from astrocloud.core.database import metadata
from astrocloud.core.errors import PlatformError
from astrocloud.portal.turns import take_turn, turn_column
from astrocloud.portal.views import NOT_WELL

Kind = Literal["part", "node"]
KINDS: Final[tuple[Kind, ...]] = ("part", "node")
"""What can have trouble: a part of the platform, or a node of its cluster."""

NODE_STATES: Final = ("silent", "mount")
"""What can be the matter with a node; each has the text ``portal.event-node-STATE``."""

LOOK_EVERY_S: Final = 15
KEPT_S: Final = 14 * 86400
SHOWN: Final = 200
_AGAIN_S: Final = 4.0
"""Longer than the health of the parts is believed: what is bad for a moment only is no event."""

_SAME_S: Final = 5
"""Clocks of nodes and of who looks differ by a little: what is as close as this is one event."""

events = Table(
    "portal_events",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("subject", String(253), nullable=False),
    Column("state", String(32), nullable=False),
    # Seconds since 1970; no end while it lasts.
    Column("began_at", BigInteger, nullable=False),
    Column("ended_at", BigInteger, nullable=True),
    Index("ix_portal_events_ended_at", "ended_at"),
)

looks = Table("portal_looks", metadata, turn_column())

_log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """Something that is not as it should be now."""

    kind: Kind
    subject: str
    """The part as `Health` calls it, or the node's name."""
    state: str
    """One of `NOT_WELL` for a part, of `NODE_STATES` for a node."""
    since: datetime | None = None
    """Since when, where that is known better than by who looks."""
    until: datetime | None = None
    """Until when, if it is over: it may have been between two looks."""

    @property
    def key(self) -> tuple[str, str, str]:
        """What makes it the same as before."""
        return self.kind, self.subject, self.state


@dataclass(frozen=True, kw_only=True)
class Event:
    """Trouble that began, and ended or not."""

    kind: Kind
    subject: str
    state: str
    began_at: datetime
    ended_at: datetime | None


class Events:
    """Events in the services' database; the processes of a platform take turns to look.

    Parameters
    ----------
    engine
        The database.
    parts
        Returns part -> state.
    nodes
        Returns the trouble with nodes, or `None` where nobody can tell: then it is as it was before.
    again_s
        After how many seconds trouble is looked at once more before it is believed.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        parts: Callable[[], Awaitable[Mapping[str, str]]],
        nodes: Callable[[], Awaitable[Sequence[Trouble] | None]],
        again_s: float = _AGAIN_S,
    ) -> None:
        self._engine = engine
        self._parts = parts
        self._nodes = nodes
        self._again_s = again_s

    async def run(self) -> None:
        """Look at every turn that no other process has, for ever."""
        while True:
            # Not at once: when the platform starts, its parts come one after the other.
            turn = int(time.time()) // LOOK_EVERY_S + 1
            await asyncio.sleep(turn * LOOK_EVERY_S - time.time())
            try:
                if await asyncio.to_thread(take_turn, self._engine, looks, turn):
                    await self.look()
            except (SQLAlchemyError, OSError) as err:
                # Without the database nothing can be kept; that it was away is in the log.
                _log.warning("events-not-kept", error=type(err).__name__)

    async def look(self) -> None:
        """Look once, and keep what has begun and what has ended."""
        found = await self._troubles_of_parts()
        if found:
            await asyncio.sleep(self._again_s)
            again = await self._troubles_of_parts()
            found = {subject: state for subject, state in again.items() if subject in found}
        try:
            nodes = await self._nodes()
        except PlatformError:
            nodes = None
        troubles = [Trouble(kind="part", subject=subject, state=state) for subject, state in found.items()]
        known: set[Kind] = {"part"} if nodes is None else {"part", "node"}
        await asyncio.to_thread(self._keep, [*troubles, *(nodes or ())], known)

    async def _troubles_of_parts(self) -> dict[str, str]:
        return {subject: state for subject, state in (await self._parts()).items() if state in NOT_WELL}

    def recent(self) -> Sequence[Event]:
        """Return what lasts still, then what began last; blocks."""
        newest = (events.c.ended_at.is_not(None), events.c.began_at.desc(), events.c.id.desc())
        with self._engine.connect() as connection:
            rows = connection.execute(select(events).order_by(*newest).limit(SHOWN)).all()
        return [
            Event(
                kind=cast("Kind", row.kind),
                subject=row.subject,
                state=row.state,
                began_at=datetime.fromtimestamp(row.began_at, UTC),
                ended_at=None if row.ended_at is None else datetime.fromtimestamp(row.ended_at, UTC),
            )
            for row in rows
            if row.kind in KINDS
        ]

    def _keep(self, troubles: Sequence[Trouble], known: set[Kind]) -> None:
        """Keep that `troubles` are all there are now, of the kinds that are `known`."""
        now = int(time.time())
        present = {trouble.key: trouble for trouble in troubles if trouble.until is None}
        with self._engine.begin() as connection:
            open_ = connection.execute(select(events).where(events.c.ended_at.is_(None), events.c.kind.in_(known)))
            lasting = {(row.kind, row.subject, row.state): row.id for row in open_}
            for key in lasting.keys() - present.keys():
                connection.execute(update(events).where(events.c.id == lasting[key]).values(ended_at=now))
                _log.info("event-ended", kind=key[0], subject=key[1], state=key[2])
            for key in sorted(present.keys() - lasting.keys()):
                since = present[key].since
                began = now if since is None else min(now, int(since.timestamp()))
                values = {"kind": key[0], "subject": key[1][:253], "state": key[2], "began_at": began}
                connection.execute(insert(events).values(**values))
                _log.warning("event-began", **values)
            for trouble in troubles:
                if trouble.until is not None and trouble.until.timestamp() > now - KEPT_S:
                    _keep_over(connection, trouble)
            connection.execute(delete(events).where(events.c.ended_at < now - KEPT_S))


def _keep_over(connection: Connection, trouble: Trouble) -> None:
    """Keep something that is over, unless that is known: told of before, or seen while it lasted."""
    assert trouble.until is not None
    ended = int(trouble.until.timestamp())
    began = min(ended, int((trouble.since or trouble.until).timestamp()))
    kind, subject, state = trouble.key
    known = select(events.c.id).where(
        events.c.kind == kind,
        events.c.subject == subject,
        events.c.state == state,
        events.c.began_at <= ended + _SAME_S,
        or_(events.c.ended_at.is_(None), events.c.ended_at >= began - _SAME_S),
    )
    if connection.execute(known).first() is None:
        values = {"kind": kind, "subject": subject, "state": state, "began_at": began, "ended_at": ended}
        connection.execute(insert(events).values(**values))
        _log.warning("event-over", **values)
