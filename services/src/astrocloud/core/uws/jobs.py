"""Running jobs: their way through the phases, waiting for them, aborting and destroying them.

Several processes may do the jobs of one list. Each job that runs is one worker's, which shows that it lives by beats;
when these stop, another worker begins the job again or, where that may not be, ends it with the reason.
"""

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import structlog
from sqlalchemy.exc import OperationalError

from astrocloud.core.errors import RequestError
from astrocloud.core.places import Places
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
from astrocloud.core.uws.store import Hold, JobStore

WAIT_LIMIT_S: Final = 60
"""The longest that one request waits for a job, in seconds."""
LONGEST_S: Final = 10 * 365 * 86400
"""The longest that a job may be given to execute, in seconds."""
REAP_S: Final = 60
"""How often jobs whose time has come are looked for, in seconds."""
BEAT_S: Final = 2.0
"""How often a worker shows that it lives, and looks for jobs whose workers do not, in seconds."""
LOST_S: Final = 15.0
"""How long a worker shows no life before its jobs are taken, in seconds."""
MOST_ATTEMPTS: Final = 5
"""How many times a job is begun: one that ends its worker must not end all of them in turn, for ever."""
_KEEP_S: Final = 60
_LOOK_S: Final = 0.5
"""How often a job that another process does is looked at by who waits for it, in seconds."""

_log = structlog.get_logger()


class Taken(Exception):  # noqa: N818 - not an error: somebody decided so
    """The job is no longer this worker's to do: it was ended, or another one has it."""


class Turn:
    """One attempt at a job, for whoever does the work.

    Parameters
    ----------
    job
        The job as it was when the attempt began.
    keep
        Keeps a mark; returns whether the job is still this worker's to do.
    """

    def __init__(self, job: Job, keep: Callable[[str], Coroutine[Any, Any, bool]]) -> None:
        self.first = job.attempts <= 1
        """Whether nobody tried before, so that what is there was not left by this job."""
        self.mark = job.mark
        """What was kept by an attempt before."""
        self._keep = keep
        self._loop = asyncio.get_running_loop()

    def keep(self, mark: str) -> None:
        """Keep what an attempt after this one has to know; for a worker thread. Raises `Taken`."""
        if not asyncio.run_coroutine_threadsafe(self._kept(mark), self._loop).result():
            raise Taken

    async def _kept(self, mark: str) -> bool:
        return await self._keep(mark)


Work = Callable[[Job, Turn], Awaitable[Sequence[Result]]]
"""Does a job and returns its results; raises `JobFailure`. Cancelled when the job is ended."""


@dataclass
class _Sight:
    """A job of another worker, and since when it was seen without a sign of life."""

    held: Hold
    since_s: float


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
    again
        Whether a job whose worker is lost can be begun anew; else it ends in the phase ``ERROR``.
    progress
        What to tell other processes of how far a job is; `None`: nothing.
    at_once
        How many execute at the same time; others are queued.
    each
        How many of one owner execute at the same time; those of nobody are one's.
    kept
        How many jobs one owner has; the oldest that do not run are forgotten for new ones.
    lifetime_s
        How long a job is kept unless its owner says otherwise, in seconds.
    longest_lifetime_s
        How long its owner may keep it, in seconds.
    beat_s, lost_s
        How often this worker beats, and after how long without a beat another one is lost, in seconds.
    """

    def __init__(
        self,
        *,
        store: JobStore,
        name: str,
        work: Work,
        again: bool = False,
        progress: Callable[[str], str | None] = lambda _job_id: None,
        at_once: int = 8,
        each: int = 2,
        kept: int = 1000,
        lifetime_s: int = 86400,
        longest_lifetime_s: int = 30 * 86400,
        beat_s: float = BEAT_S,
        lost_s: float = LOST_S,
    ) -> None:
        self.name = name
        self._store = store
        self._work = work
        self._again = again
        self._progress = progress
        self._places = Places(at_once=at_once, each=each)
        self._kept = kept
        self._lifetime = timedelta(seconds=lifetime_s)
        self._longest = timedelta(seconds=longest_lifetime_s)
        self._beat_s = beat_s
        self._lost_s = lost_s
        self._worker = secrets.token_hex(16)
        self._running: dict[str, asyncio.Task[None]] = {}
        self._seen: dict[str, _Sight] = {}
        self._changed: dict[str, asyncio.Event] = {}
        self._waiting: Counter[str] = Counter()
        self._ending = False

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
        await asyncio.to_thread(self._store.add, job, keep=self._kept)
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
        if not await asyncio.to_thread(self._store.take, job.id, self._worker):
            return await self.get(job.id, job.owner)
        queued = replace(job, phase=QUEUED, attempts=1)
        self._begin(queued)
        self._tell(job.id)
        return queued

    def _begin(self, job: Job) -> None:
        task = asyncio.create_task(self._do(job))
        self._running[job.id] = task
        task.add_done_callback(lambda _task: self._running.pop(job.id, None))

    async def complete(self, job: Job, outcome: Sequence[Result] | JobFailure) -> Job:
        """End a `job` that was done by other means than `run`, within its own request."""
        done = _ended(job, outcome)
        await self._advance(done, expecting=ACTIVE)
        return done

    async def _do(self, job: Job) -> None:
        try:
            async with self._places.taken_by(job.owner):
                job = replace(job, phase=EXECUTING, started_at=datetime.now(tz=UTC))
                if await self._advance(job, expecting=frozenset({QUEUED}), mine=True):
                    ended = await self._end_of(job)
                    ended = replace(ended, progress=self._progress(job.id))
                    await self._advance(ended, expecting=RUNNING, mine=True)
        except Taken:
            _log.info("job-taken", job=job.id, list=self.name)
        except OperationalError as err:
            _log.warning("job-untold", job=job.id, list=self.name, reason=str(err.orig).strip().splitlines()[0])

    async def _end_of(self, job: Job) -> Job:
        """Do the work and return the job as it ended."""

        async def keep(mark: str) -> bool:
            return await asyncio.to_thread(self._store.mark, job.id, self._worker, mark)

        try:
            async with asyncio.timeout(job.duration_s or None):
                return _ended(job, await self._work(job, Turn(job, keep)))
        except JobFailure as failure:
            return _ended(job, failure)
        except TimeoutError:
            error = JobError(f"the job was ended after the {job.duration_s} s that it was given")
            return replace(job, phase=ABORTED, ended_at=datetime.now(tz=UTC), error=error)
        except (asyncio.CancelledError, Taken):
            raise
        except OperationalError:
            if not self._again:
                raise
            # The database is away: nobody can be told, and in a while the job is begun again.
            raise Taken from None
        except Exception:  # noqa: BLE001 - a job's own failure is told in the job
            _log.exception("job-failed", job=job.id, list=self.name)
            error = JobError("something went wrong on our side", transient=True, detail="InternalFault")
            return _ended(job, JobFailure(error))

    async def abort(self, job: Job) -> Job:
        """End `job` before its time, and return it; by then nothing more is done for it, in whichever process."""
        ended = replace(job, phase=ABORTED, ended_at=datetime.now(tz=UTC))
        if not await self._advance(ended, expecting=ACTIVE):
            return await self.get(job.id, job.owner)
        task = self._running.get(job.id)
        if task is not None:
            await self._cancel(task)
        elif job.phase in RUNNING:
            await self._until_let_go(job.id)
        return ended

    async def _cancel(self, task: asyncio.Task[None]) -> None:
        task.cancel()
        await asyncio.wait([task])

    async def _until_let_go(self, job_id: str) -> None:
        """Return when the worker of a job that was ended here has noticed, or has had the time to."""
        with suppress(TimeoutError):
            async with asyncio.timeout(3 * self._beat_s):
                while await asyncio.to_thread(self._store.worker_of, job_id) is not None:  # noqa: ASYNC110 - told by the database alone
                    await asyncio.sleep(min(_LOOK_S, self._beat_s))

    async def destroy(self, job: Job) -> None:
        """End `job` if it runs, and forget it."""
        await self.abort(job)
        await asyncio.to_thread(self._store.remove, job.id)
        self._tell(job.id)

    async def set_destruction(self, job: Job, moment: datetime) -> Job:
        """Let `job` be forgotten at `moment`, or as late as is allowed, and return it."""
        return await self._set(replace(job, destruction_at=min(moment, datetime.now(tz=UTC) + self._longest)))

    async def set_duration(self, job: Job, duration_s: int) -> Job:
        """Let `job` execute so long at most, or as long as is allowed, and return it."""
        return await self._set(replace(job, duration_s=min(duration_s, LONGEST_S)))

    async def set_run_id(self, job: Job, run_id: str) -> Job:
        """Name `job` as its owner likes, and return it."""
        return await self._set(replace(job, run_id=run_id[:64]))

    async def _set(self, job: Job) -> Job:
        await asyncio.to_thread(self._store.set, job)
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
        until = time.monotonic() + (min(seconds, WAIT_LIMIT_S) if seconds >= 0 else WAIT_LIMIT_S)
        self._waiting[job.id] += 1
        try:
            return await self._wait(job, until)
        finally:
            self._waiting[job.id] -= 1
            if not self._waiting[job.id]:  # else whoever asks and never again leaves something behind
                del self._waiting[job.id]
                self._changed.pop(job.id, None)

    async def _wait(self, job: Job, until: float) -> Job:
        while True:
            event = self._changed.setdefault(job.id, asyncio.Event())
            found = await self.get(job.id, job.owner)  # it may have changed before the event was there
            left = until - time.monotonic()
            if found.phase != job.phase:
                self._tell(job.id)
            if found.phase != job.phase or left <= 0:
                return found
            with suppress(TimeoutError):
                # What another process does with it is not told here.
                async with asyncio.timeout(left if job.id in self._running else min(left, _LOOK_S)):
                    await event.wait()

    async def _advance(self, job: Job, *, expecting: frozenset[str], mine: bool = False) -> bool:
        worker = self._worker if mine else None
        kept = await asyncio.to_thread(self._store.advance, job, expecting=expecting, worker=worker)
        if kept:
            self._tell(job.id)
        return kept

    def _tell(self, job_id: str) -> None:
        event = self._changed.pop(job_id, None)
        if event is not None:
            event.set()

    async def keep(self) -> None:
        """Show that this worker lives, take up what lost ones did, and destroy jobs whose time has come, for ever."""
        reaped_s = looked_s = float("-inf")
        try:
            while True:
                if self._running:
                    await self._beat()
                now_s = time.monotonic()
                if now_s - looked_s > 2 * self._beat_s:
                    # Nobody's beats were seen meanwhile: the database was away, or this process was.
                    self._seen.clear()
                if not self._ending:
                    await self._look()
                looked_s = time.monotonic()
                if now_s - reaped_s >= REAP_S:
                    await self._reap()
                    reaped_s = now_s
                await asyncio.sleep(self._beat_s)
        except asyncio.CancelledError:
            await self._let_go()
            raise

    async def _beat(self) -> None:
        told = {job_id: text for job_id in self._running if (text := self._progress(job_id)) is not None}
        before = [*self._running]
        mine = await asyncio.to_thread(self._store.beat, self._worker, before, told)
        for job_id in before:
            task = self._running.get(job_id)
            if job_id not in mine and task is not None:
                await self._cancel(task)
                await asyncio.to_thread(self._store.let_go, job_id, self._worker)
                self._tell(job_id)

    async def _look(self) -> None:
        """Take the jobs of workers that have shown no life for too long, by this process's own clock.

        It may be this one: what it did while the database was away, and could not tell, it begins again.
        """
        others = await asyncio.to_thread(self._store.besides, self.name, [*self._running])
        now_s = time.monotonic()
        seen = {job_id: sight for job_id, sight in self._seen.items() if others.get(job_id) == sight.held}
        for job_id, held in others.items():
            sight = seen.setdefault(job_id, _Sight(held, now_s))
            if held.worker is None or now_s - sight.since_s >= self._lost_s:
                del seen[job_id]
                await self._take_over(job_id, held)
        self._seen = seen

    async def _take_over(self, job_id: str, held: Hold) -> None:
        job = await asyncio.to_thread(self._store.take_over, job_id, held, self._worker)
        if job is None:
            return  # another one was quicker
        if self._again and job.attempts <= MOST_ATTEMPTS:
            _log.warning("job-taken-up", job=job_id, list=self.name, attempt=job.attempts)
            self._begin(job)
            return
        _log.warning("job-interrupted", job=job_id, list=self.name, attempt=job.attempts)
        sentence = "the service ended while the job ran, and the job is of a kind that is not begun again"
        if self._again:
            sentence = f"the job was begun {MOST_ATTEMPTS} times, and each time the service ended while it ran"
        error = JobError(sentence, transient=True, detail="InternalFault")
        await self._advance(_ended(job, JobFailure(error)), expecting=RUNNING, mine=True)

    async def _reap(self) -> None:
        for job_id in await asyncio.to_thread(self._store.remove_due, datetime.now(tz=UTC)):
            task = self._running.get(job_id)
            if task is not None:
                task.cancel()
            self._tell(job_id)

    async def drain(self) -> None:
        """Take up nothing more, and return when nothing runs here."""
        self._ending = True
        while self._running:
            await asyncio.wait([*self._running.values()])

    async def _let_go(self) -> None:
        """End what runs here, and leave it to others."""
        for job_id, task in [*self._running.items()]:
            await self._cancel(task)
            await asyncio.to_thread(self._store.let_go, job_id, self._worker)


def _ended(job: Job, outcome: Sequence[Result] | JobFailure) -> Job:
    now = datetime.now(tz=UTC)
    done = replace(job, started_at=job.started_at or now, ended_at=now)
    if isinstance(outcome, JobFailure):
        return replace(done, phase=ERROR, error=outcome.error, results=outcome.results)
    return replace(done, phase=COMPLETED, results=tuple(outcome))
