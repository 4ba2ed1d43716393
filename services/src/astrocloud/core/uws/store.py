"""Jobs in the services' database."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import (
    Column,
    Engine,
    Float,
    Index,
    Integer,
    Row,
    String,
    Table,
    Text,
    Update,
    delete,
    insert,
    select,
    update,
)

from astrocloud.core.database import metadata
from astrocloud.core.uws.models import PENDING, QUEUED, RUNNING, Job, JobError, Result

jobs_table: Final = Table(
    "uws_jobs",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("list", String(64), nullable=False),
    Column("owner", String(64)),
    Column("run_id", String(64)),
    Column("phase", String(16), nullable=False),
    Column("created_at", Float(53), nullable=False),
    Column("destruction_at", Float(53), nullable=False),
    Column("started_at", Float(53)),
    Column("ended_at", Float(53)),
    Column("duration_s", Integer, nullable=False),
    Column("parameters", Text, nullable=False),
    Column("info", Text),
    Column("results", Text, nullable=False),
    Column("error", Text),
    Column("worker", String(64)),
    Column("beat", Integer, nullable=False, server_default="0"),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("mark", Text),
    Column("progress", Text),
    Index("ix_uws_jobs_list_phase", "list", "phase"),
    Index("ix_uws_jobs_list_owner", "list", "owner", "created_at"),
    Index("ix_uws_jobs_destruction", "destruction_at"),
)


@dataclass(frozen=True)
class Hold:
    """Who does a job, and the last sign that they live."""

    worker: str | None
    """`None`: nobody, who did it let it go."""
    beat: int


class JobStore:
    """Keeps jobs; every method is for a worker thread.

    Parameters
    ----------
    engine
        The database.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def add(self, job: Job, *, keep: int) -> None:
        """Keep the new `job`, and of its owner's in the same list only the `keep` newest besides those that run."""
        of_owner = (
            select(jobs_table.c.id)
            .where(
                jobs_table.c.list == job.list,
                jobs_table.c.owner == job.owner if job.owner is not None else jobs_table.c.owner.is_(None),
                jobs_table.c.phase.not_in(RUNNING),
            )
            .order_by(jobs_table.c.created_at.desc())
            .offset(keep)
            .limit(100)
        )
        with self._engine.begin() as connection:
            connection.execute(insert(jobs_table).values(**_columns(job)))
            old = connection.scalars(of_owner).all()
            if old:
                connection.execute(delete(jobs_table).where(jobs_table.c.id.in_(old)))

    def get(self, list_name: str, job_id: str) -> Job | None:
        """Return the job, or `None`."""
        query = select(jobs_table).where(jobs_table.c.id == job_id, jobs_table.c.list == list_name)
        with self._engine.begin() as connection:
            row = connection.execute(query).first()
        return _job(row) if row is not None else None

    def set(self, job: Job) -> bool:
        """Keep what the owner of `job` may set, if its phase is still what it was; return whether it was."""
        change = update(jobs_table).where(jobs_table.c.id == job.id, jobs_table.c.phase == job.phase)
        values = {name: _columns(job)[name] for name in ("destruction_at", "duration_s", "run_id")}
        return self._changed(change.values(**values))

    def advance(self, job: Job, *, expecting: frozenset[str], worker: str | None = None) -> bool:
        """Keep how far `job` is, if its phase is still one of `expecting`; return whether it was.

        Parameters
        ----------
        worker
            Only while this is the worker that does it; `None`: whoever does.
        """
        change = update(jobs_table).where(jobs_table.c.id == job.id, jobs_table.c.phase.in_(expecting))
        if worker is not None:
            change = change.where(jobs_table.c.worker == worker)
        values = {name: _columns(job)[name] for name in ("phase", "started_at", "ended_at", "results", "error")}
        if job.progress is not None:
            values["progress"] = job.progress
        return self._changed(change.values(**values))

    def take(self, job_id: str, worker: str) -> bool:
        """Queue the pending job as one that `worker` does; return whether it was pending."""
        change = update(jobs_table).where(jobs_table.c.id == job_id, jobs_table.c.phase == PENDING)
        return self._changed(change.values(phase=QUEUED, worker=worker, beat=0, attempts=1))

    def beat(self, worker: str, ids: Collection[str], progress: Mapping[str, str]) -> frozenset[str]:
        """Show that `worker` does the jobs `ids`; return those that it is still to do.

        Parameters
        ----------
        progress
            The id of a job -> what is told of how far it is.
        """
        mine = (jobs_table.c.worker == worker) & jobs_table.c.phase.in_(RUNNING) & jobs_table.c.id.in_(ids)
        with self._engine.begin() as connection:
            connection.execute(update(jobs_table).where(mine).values(beat=jobs_table.c.beat + 1))
            for job_id, text in progress.items():
                connection.execute(update(jobs_table).where(mine, jobs_table.c.id == job_id).values(progress=text))
            return frozenset(row[0] for row in connection.execute(select(jobs_table.c.id).where(mine)))

    def mark(self, job_id: str, worker: str, mark: str) -> bool:
        """Keep what whoever takes the job up has to know; return whether it is still `worker`'s to do."""
        mine = (jobs_table.c.id == job_id) & (jobs_table.c.worker == worker) & jobs_table.c.phase.in_(RUNNING)
        return self._changed(update(jobs_table).where(mine).values(mark=mark))

    def let_go(self, job_id: str, worker: str) -> None:
        """Leave the job, which `worker` does no more, to whoever looks first."""
        mine = (jobs_table.c.id == job_id) & (jobs_table.c.worker == worker)
        self._changed(update(jobs_table).where(mine).values(worker=None))

    def besides(self, list_name: str, ids: Collection[str]) -> Mapping[str, Hold]:
        """Return who does the jobs of the list that are queued or executing, besides `ids`."""
        query = select(jobs_table.c.id, jobs_table.c.worker, jobs_table.c.beat).where(
            jobs_table.c.list == list_name,
            jobs_table.c.phase.in_(RUNNING),
            jobs_table.c.id.not_in(ids),
        )
        with self._engine.begin() as connection:
            return {row.id: Hold(row.worker, row.beat) for row in connection.execute(query)}

    def take_over(self, job_id: str, held: Hold, worker: str) -> Job | None:
        """Queue the job as one that `worker` does, if it is still held as it was `held`; return it then."""
        same = (jobs_table.c.id == job_id) & jobs_table.c.phase.in_(RUNNING) & (jobs_table.c.beat == held.beat)
        holder = jobs_table.c.worker.is_(None) if held.worker is None else jobs_table.c.worker == held.worker
        values = {"phase": QUEUED, "worker": worker, "beat": 0, "attempts": jobs_table.c.attempts + 1}
        with self._engine.begin() as connection:
            if not connection.execute(update(jobs_table).where(same, holder).values(**values)).rowcount:
                return None
            row = connection.execute(select(jobs_table).where(jobs_table.c.id == job_id)).one()
        return _job(row)

    def worker_of(self, job_id: str) -> str | None:
        """Return who does the job or did it last, `None` when nobody does."""
        query = select(jobs_table.c.worker).where(jobs_table.c.id == job_id)
        with self._engine.begin() as connection:
            return connection.execute(query).scalar_one_or_none()

    def _changed(self, change: Update) -> bool:
        with self._engine.begin() as connection:
            return bool(connection.execute(change).rowcount)

    def remove(self, job_id: str) -> None:
        """Forget the job."""
        with self._engine.begin() as connection:
            connection.execute(delete(jobs_table).where(jobs_table.c.id == job_id))

    def remove_due(self, now: datetime) -> Sequence[str]:
        """Forget every job whose time has come; return their ids."""
        with self._engine.begin() as connection:
            due = jobs_table.c.destruction_at <= now.timestamp()
            ids = [row[0] for row in connection.execute(select(jobs_table.c.id).where(due))]
            if ids:
                connection.execute(delete(jobs_table).where(due))
        return ids

    def of_owner(
        self,
        list_name: str,
        owner: str,
        *,
        phases: frozenset[str] = frozenset(),
        after: datetime | None = None,
        last: int | None = None,
    ) -> Sequence[Job]:
        """Return the jobs of `owner`, the newest first.

        Parameters
        ----------
        phases
            Only these phases; empty: all.
        after
            Only jobs made after this time.
        last
            Only so many, the newest.
        """
        query = select(jobs_table).where(jobs_table.c.list == list_name, jobs_table.c.owner == owner)
        if phases:
            query = query.where(jobs_table.c.phase.in_(phases))
        if after is not None:
            query = query.where(jobs_table.c.created_at > after.timestamp())
        query = query.order_by(jobs_table.c.created_at.desc(), jobs_table.c.id)
        with self._engine.begin() as connection:
            return [_job(row) for row in connection.execute(query.limit(last) if last is not None else query)]


def _columns(job: Job) -> Mapping[str, Any]:
    return {
        "id": job.id,
        "list": job.list,
        "owner": job.owner,
        "run_id": job.run_id,
        "phase": job.phase,
        "created_at": job.created_at.timestamp(),
        "destruction_at": job.destruction_at.timestamp(),
        "started_at": job.started_at.timestamp() if job.started_at else None,
        "ended_at": job.ended_at.timestamp() if job.ended_at else None,
        "duration_s": job.duration_s,
        "parameters": json.dumps(dict(job.parameters)),
        "info": job.info,
        "results": json.dumps([asdict(result) for result in job.results]),
        "error": json.dumps(asdict(job.error)) if job.error else None,
    }


def _job(row: Row[Any]) -> Job:
    def moment(value: float | None) -> datetime | None:
        return datetime.fromtimestamp(value, tz=UTC) if value is not None else None

    created, destruction = moment(row.created_at), moment(row.destruction_at)
    assert created is not None
    assert destruction is not None
    return Job(
        id=row.id,
        list=row.list,
        owner=row.owner,
        phase=row.phase,
        created_at=created,
        destruction_at=destruction,
        run_id=row.run_id,
        started_at=moment(row.started_at),
        ended_at=moment(row.ended_at),
        duration_s=row.duration_s,
        parameters=json.loads(row.parameters),
        info=row.info,
        results=tuple(Result(**result) for result in json.loads(row.results)),
        error=JobError(**json.loads(row.error)) if row.error else None,
        attempts=row.attempts,
        mark=row.mark,
        progress=row.progress,
    )
