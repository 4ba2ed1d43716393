"""Trial sessions on a schedule: who does the next one, and how the last one went."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final

import structlog
from prometheus_client import Counter, Gauge
from sqlalchemy import BigInteger, Column, Engine, String, Table, Text, select, update

from astrocloud.core.database import metadata
from astrocloud.operations.canary import Trial
from astrocloud.portal.turns import take_turn, turn_column

_KEPT: Final = 200
"""How many trials are remembered."""

trials = Table(
    "portal_trials",
    metadata,
    turn_column(),
    # Seconds since 1970; empty while it runs.
    Column("ended_at", BigInteger, nullable=True),
    Column("failed", String(32), nullable=True),
    Column("reason", Text, nullable=False),
    Column("seconds", Text, nullable=False),
)

_log = structlog.get_logger()
_trials = Counter("astrocloud_canary_trials_total", "Trial sessions of this process.", ["outcome"])
_good = Gauge("astrocloud_canary_good", "Whether the last trial session went well: 1 or 0.")
_ended = Gauge("astrocloud_canary_ended_timestamp_seconds", "When the last trial session ended.")
_step_seconds = Gauge("astrocloud_canary_step_seconds", "Seconds of each step of the last trial session.", ["step"])


class Trials:
    """Trials in the services' database; the processes of a platform take turns.

    Parameters
    ----------
    engine
        The database.
    every_s
        Seconds between two trials.
    try_out
        Makes one.
    ready
        Whether the platform has started; no trial is made before.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        every_s: int,
        try_out: Callable[[], Awaitable[Trial]],
        ready: Callable[[], Awaitable[bool]],
    ) -> None:
        self._ready = ready
        self._engine = engine
        self._every_s = every_s
        self._try_out = try_out

    async def run(self) -> None:
        """Do every turn that no other process does, for ever."""
        started = False
        while True:
            if not started:
                started = await self._ready()
            if not started:
                await asyncio.sleep(2)
                continue
            turn = int(time.time()) // self._every_s
            if await asyncio.to_thread(self._take, turn):
                trial = await self._try_out()
                _tell(trial)
                await asyncio.to_thread(self._keep, turn, trial)
            await asyncio.sleep(max(1.0, (turn + 1) * self._every_s - time.time()))

    async def state(self) -> str:
        """Return ``ok``, ``failed``, or ``waiting`` where none has ended within three turns."""
        last = await asyncio.to_thread(self.last)
        if last is None or time.time() - last.at.timestamp() > 3 * self._every_s:
            return "waiting"
        return "ok" if last.failed is None else "failed"

    def last(self) -> Trial | None:
        """Return the last trial that has ended, its time being the end; blocks."""
        query = select(trials).where(trials.c.ended_at.is_not(None)).order_by(trials.c.turn.desc()).limit(1)
        with self._engine.connect() as connection:
            row = connection.execute(query).first()
        if row is None:
            return None
        ended = datetime.fromtimestamp(row.ended_at, UTC)
        return Trial(at=ended, seconds=json.loads(row.seconds), failed=row.failed, reason=row.reason)

    def _take(self, turn: int) -> bool:
        return take_turn(self._engine, trials, turn, kept=_KEPT, reason="", seconds="{}")

    def _keep(self, turn: int, trial: Trial) -> None:
        document = trial.document()
        values = {
            "ended_at": int(time.time()),
            "failed": trial.failed,
            "reason": trial.reason,
            "seconds": json.dumps(document["seconds"]),
        }
        with self._engine.begin() as connection:
            connection.execute(update(trials).where(trials.c.turn == turn).values(**values))


def _tell(trial: Trial) -> None:
    """Count and log how a trial went."""
    outcome = "good" if trial.failed is None else "failed"
    _trials.labels(outcome).inc()
    _good.set(trial.failed is None)
    _ended.set_to_current_time()
    for step, seconds in trial.seconds.items():
        _step_seconds.labels(step).set(seconds)
    if trial.failed is None:
        _log.info("canary-good", **trial.document())
    else:
        _log.error("canary-failed", **trial.document())
