"""Running jobs: their way through the phases, waiting for them, aborting and destroying them."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog

from astrocloud.core.errors import RequestError
from astrocloud.core.uws.models import (
    ABORTED,
    ACTIVE,
    COMPLETED,
    ERROR,
    EXECUTING,
    PENDING,
    QUEUED,
    RUNNING,
    Job,
    JobError,
    JobFailure,
    Result,
)
from astrocloud.core.uws.store import JobStore

WAIT_LIMIT_S: Final = 60
"""The longest that one request waits for a job, in seconds."""
REAP_S: Final = 60
"""How often jobs whose time has come are looked for, in seconds."""

Work = Callable[[Job], Awaitable[Sequence[Result]]]
"""Does a job and returns its results; raises `JobFailure`."""

_log = structlog.get_logger()


class Jobs:
    """One list of jobs.

    Parameters
    ----------
    store
        Where they are kept.
    name
        The list's name, unique on the platform.
    work
        Does a job.
    at_once
        How many execute at the same time; others are queued.
    lifetime_s
        How long a job is kept unless its owner says otherwise, in seconds.
    longest_lifetime_s
        How long its owner may keep it, in seconds.
    """

    def __init__(
        self,
        *,
        store: JobStore,
        name: str,
        work: Work,
        at_once: int = 4,
        lifetime_s: int = 86400,
        longest_lifetime_s: int = 30 * 86400,
    ) -> None:
        self.name = name
        self._store = store
        self._work = work
        self._places = asyncio.Semaphore(at_once)
        self._lifetime = timedelta(seconds=lifetime_s)
        self._longest = timedelta(seconds=longest_lifetime_s)
        self._running: dict[str, asyncio.Task[None]] = {}
        self._ours: set[str] = set()
        self._changed: dict[str, asyncio.Event] = {}

    async def create(
        self,
        *,
        owner: str | None,
        parameters: Mapping[str, str],
        info: str | None = None,
        run_id: str | None = None,
    ) -> Job:
        """Return a new job in the phase ``PENDING``."""
        now = datetime.now(tz=UTC)
        job = Job(
            id=secrets.token_hex(16),
            list=self.name,
            owner=owner,
            phase=PENDING,
            created_at=now,
            destruction_at=now + self._lifetime,
            run_id=run_id[:64] if run_id else None,
            parameters=parameters,
            info=info,
        )
        await asyncio.to_thread(self._store.add, job)
        return job

    async def get(self, job_id: str, owner: str | None) -> Job:
        """Return the job for `owner`.

        Raises
        ------
        RequestError
            ``job-unknown``; also for somebody else's job, whose existence is not told.
        """
        job = await asyncio.to_thread(self._store.get, self.name, job_id)
        if job is None or (job.owner is not None and job.owner != owner):
            raise RequestError("job-unknown", job=job_id[:64])
        return job

    async def of_owner(
        self, owner: str, *, phases: frozenset[str], after: datetime | None, last: int | None
    ) -> Sequence[Job]:
        """Return the jobs of `owner`, the newest first."""
        return await asyncio.to_thread(self._store.of_owner, self.name, owner, phases=phases, after=after, last=last)

    async def run(self, job: Job) -> Job:
        """Start `job`, and return it. A job that was started before is left as it is."""
        queued = replace(job, phase=QUEUED)
        self._ours.add(job.id)  # before anybody can see that it runs; see `keep`
        if not await self._put(queued, expecting=frozenset({PENDING})):
            if job.id not in self._running:
                self._ours.discard(job.id)
            return await self.get(job.id, job.owner)
        task = asyncio.create_task(self._do(queued))
        self._running[job.id] = task
        task.add_done_callback(lambda _task: self._forget(job.id))
        return queued

    def _forget(self, job_id: str) -> None:
        self._running.pop(job_id, None)
        self._ours.discard(job_id)

    async def complete(self, job: Job, outcome: Sequence[Result] | JobFailure) -> Job:
        """End a `job` that was done by other means than `run`, within its own request."""
        now = datetime.now(tz=UTC)
        done = replace(job, started_at=job.started_at or now, ended_at=now)
        if isinstance(outcome, JobFailure):
            done = replace(done, phase=ERROR, error=outcome.error, results=outcome.results)
        else:
            done = replace(done, phase=COMPLETED, results=tuple(outcome))
        await self._put(done, expecting=ACTIVE)
        return done

    async def _do(self, job: Job) -> None:
        async with self._places:
            job = replace(job, phase=EXECUTING, started_at=datetime.now(tz=UTC))
            if not await self._put(job, expecting=frozenset({QUEUED})):
                return
            outcome: Sequence[Result] | JobFailure
            try:
                async with asyncio.timeout(job.duration_s or None):
                    outcome = await self._work(job)
            except JobFailure as failure:
                outcome = failure
            except TimeoutError:
                sentence = f"the job was ended after the {job.duration_s} s that it was given"
                await self._put(
                    replace(job, phase=ABORTED, ended_at=datetime.now(tz=UTC), error=JobError(sentence)),
                    expecting=RUNNING,
                )
                return
            except asyncio.CancelledError:
                raise
            except Exception:  # noqa: BLE001 - a job's own failure is told in the job
                _log.exception("job-failed", job=job.id, list=self.name)
                outcome = JobFailure(
                    JobError("something went wrong on our side", transient=True, detail="InternalFault")
                )
            await self.complete(job, outcome)

    async def abort(self, job: Job) -> Job:
        """End `job` before its time, and return it."""
        ended = replace(job, phase=ABORTED, ended_at=datetime.now(tz=UTC))
        if await self._put(ended, expecting=ACTIVE):
            task = self._running.get(job.id)
            if task is not None:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
            return ended
        return await self.get(job.id, job.owner)

    async def destroy(self, job: Job) -> None:
        """End `job` if it runs, and forget it."""
        await self.abort(job)
        await asyncio.to_thread(self._store.remove, job.id)
        self._tell(job.id)

    async def set_destruction(self, job: Job, moment: datetime) -> Job:
        """Let `job` be forgotten at `moment`, or as late as is allowed, and return it."""
        return await self._set(replace(job, destruction_at=min(moment, datetime.now(tz=UTC) + self._longest)))

    async def set_duration(self, job: Job, duration_s: int) -> Job:
        """Let `job` execute so long at most, and return it."""
        return await self._set(replace(job, duration_s=duration_s))

    async def set_run_id(self, job: Job, run_id: str) -> Job:
        """Name `job` as its owner likes, and return it."""
        return await self._set(replace(job, run_id=run_id[:64]))

    async def _set(self, job: Job) -> Job:
        await self._put(job, expecting=frozenset({job.phase}))
        return await self.get(job.id, job.owner)

    async def wait(self, job: Job, *, seconds: float, phase: str | None = None) -> Job:
        """Return `job` as soon as its phase is another, or as it is after `seconds`.

        Parameters
        ----------
        phase
            Wait only while this is the phase; by default while the phase is what it is now.
        """
        if job.phase not in ACTIVE or (phase is not None and job.phase != phase):
            return job
        event = self._changed.setdefault(job.id, asyncio.Event())
        found = await self.get(job.id, job.owner)  # it may have changed before the event was there
        if found.phase == job.phase:
            with suppress(TimeoutError):
                async with asyncio.timeout(min(seconds, WAIT_LIMIT_S) if seconds >= 0 else WAIT_LIMIT_S):
                    await event.wait()
            found = await self.get(job.id, job.owner)
        return found

    async def _put(self, job: Job, *, expecting: frozenset[str]) -> bool:
        kept = await asyncio.to_thread(self._store.put, job, expecting=expecting)
        if kept:
            self._tell(job.id)
        return kept

    def _tell(self, job_id: str) -> None:
        event = self._changed.pop(job_id, None)
        if event is not None:
            event.set()

    async def keep(self) -> None:
        """End what an earlier process left running, then destroy jobs whose time has come, for ever."""
        error = JobError("the service was restarted while the job ran", transient=True, detail="InternalFault")
        # Jobs may have been started here since: what ran before that is neither of these.
        found = [
            job_id for job_id in await asyncio.to_thread(self._store.running, self.name) if job_id not in self._ours
        ]
        count = await asyncio.to_thread(self._store.fail, found, error, datetime.now(tz=UTC)) if found else 0
        if count:
            _log.warning("jobs-interrupted", list=self.name, jobs=count)
        while True:
            for job_id in await asyncio.to_thread(self._store.remove_due, datetime.now(tz=UTC)):
                task = self._running.get(job_id)
                if task is not None:
                    task.cancel()
                self._tell(job_id)
            await asyncio.sleep(REAP_S)
