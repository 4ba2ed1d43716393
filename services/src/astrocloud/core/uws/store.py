"""Jobs in the services' database."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
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
    delete,
    insert,
    select,
    update,
)

from astrocloud.core.database import metadata
from astrocloud.core.uws.models import ERROR, RUNNING, Job, JobError, Result

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
    Index("ix_uws_jobs_list_owner", "list", "owner", "created_at"),
    Index("ix_uws_jobs_destruction", "destruction_at"),
)


class JobStore:
    """Keeps jobs; every method is for a worker thread.

    Parameters
    ----------
    engine
        The database.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def add(self, job: Job) -> None:
        """Keep the new `job`."""
        with self._engine.begin() as connection:
            connection.execute(insert(jobs_table).values(**_columns(job)))

    def get(self, list_name: str, job_id: str) -> Job | None:
        """Return the job, or `None`."""
        query = select(jobs_table).where(jobs_table.c.id == job_id, jobs_table.c.list == list_name)
        with self._engine.begin() as connection:
            row = connection.execute(query).first()
        return _job(row) if row is not None else None

    def put(self, job: Job, *, expecting: frozenset[str]) -> bool:
        """Keep what became of `job`, if its phase is still one of `expecting`; return whether it was."""
        change = (
            update(jobs_table)
            .where(jobs_table.c.id == job.id, jobs_table.c.phase.in_(expecting))
            .values(**_columns(job))
        )
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

    def running(self, list_name: str) -> Sequence[str]:
        """Return the ids of the jobs of the list that are queued or executing."""
        query = select(jobs_table.c.id).where(jobs_table.c.list == list_name, jobs_table.c.phase.in_(RUNNING))
        with self._engine.begin() as connection:
            return [row[0] for row in connection.execute(query)]

    def fail(self, ids: Sequence[str], error: JobError, now: datetime) -> int:
        """End those of the jobs that are queued or executing with `error`; return how many."""
        running = jobs_table.c.id.in_(ids) & jobs_table.c.phase.in_(RUNNING)
        values = {"phase": ERROR, "error": json.dumps(asdict(error)), "ended_at": now.timestamp()}
        with self._engine.begin() as connection:
            return int(connection.execute(update(jobs_table).where(running).values(**values)).rowcount)


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
    )
