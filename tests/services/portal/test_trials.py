"""Trial sessions on a schedule: one process a turn, and the outcome is told."""

import asyncio
from datetime import UTC, datetime

from sqlalchemy import Engine

from astrocloud.operations.canary import Trial
from astrocloud.portal.trials import Trials

FOREVER_S = 10**9


class Tried:
    """Trials that end as told."""

    def __init__(self, failed: str | None = None) -> None:
        self.count = 0
        self.failed = failed

    async def __call__(self) -> Trial:
        self.count += 1
        return Trial(at=datetime.now(UTC), seconds={"sign-in": 0.25}, failed=self.failed, reason="because")


async def ready() -> bool:
    return True


async def run_until_tried(trials: Trials) -> None:
    task = asyncio.create_task(trials.run())
    async with asyncio.timeout(10):
        while await trials.state() == "waiting":
            await asyncio.sleep(0.01)
    task.cancel()


async def test_the_outcome_is_kept_and_told(engine: Engine):
    trials = Trials(engine=engine, every_s=FOREVER_S, try_out=Tried(), ready=ready)
    assert await trials.state() == "waiting"
    await run_until_tried(trials)
    assert await trials.state() == "ok"
    last = trials.last()
    assert last is not None
    assert last.seconds == {"sign-in": 0.25}


async def test_a_failure_is_told_with_its_step(engine: Engine):
    trials = Trials(engine=engine, every_s=FOREVER_S, try_out=Tried("start"), ready=ready)
    await run_until_tried(trials)
    assert await trials.state() == "failed"
    last = trials.last()
    assert last is not None
    assert (last.failed, last.reason) == ("start", "because")


async def test_of_several_processes_one_does_each_turn(engine: Engine):
    tried = Tried()
    several = [Trials(engine=engine, every_s=FOREVER_S, try_out=tried, ready=ready) for _ in range(4)]
    tasks = [asyncio.create_task(each.run()) for each in several]
    async with asyncio.timeout(10):
        while [await each.state() for each in several] != ["ok"] * 4:
            await asyncio.sleep(0.01)
    for task in tasks:
        task.cancel()
    assert tried.count == 1


async def test_nothing_is_tried_before_the_platform_has_started(engine: Engine):
    tried, started = Tried(), asyncio.Event()

    async def asked() -> bool:
        started.set()
        return False

    task = asyncio.create_task(Trials(engine=engine, every_s=FOREVER_S, try_out=tried, ready=asked).run())
    await started.wait()
    task.cancel()
    assert tried.count == 0
