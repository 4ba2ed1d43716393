"""A job, its phases and its results (UWS 1.1, section 2.1)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

PENDING: Final = "PENDING"
QUEUED: Final = "QUEUED"
EXECUTING: Final = "EXECUTING"
COMPLETED: Final = "COMPLETED"
ERROR: Final = "ERROR"
ABORTED: Final = "ABORTED"

PHASES: Final = (PENDING, QUEUED, EXECUTING, COMPLETED, ERROR, ABORTED, "UNKNOWN", "HELD", "SUSPENDED", "ARCHIVED")
"""Phases of the standard; the last four are never reached here."""
ACTIVE: Final = frozenset({PENDING, QUEUED, EXECUTING})
"""Phases that a job leaves by itself or when told to: those that ``WAIT`` waits in."""
RUNNING: Final = frozenset({QUEUED, EXECUTING})


@dataclass(frozen=True)
class Result:
    """One result of a job."""

    id: str
    """Its name, unique in the job."""
    href: str
    """Where it is; some services put a small value there instead (``final:3``)."""
    mime_type: str | None = None
    size: int | None = None


@dataclass(frozen=True)
class JobError:
    """Why a job failed."""

    message: str
    """One sentence."""
    transient: bool = False
    """Whether the same may work later."""
    detail: str = ""
    """What ``/error`` answers."""


@dataclass(frozen=True)
class Job:
    """One job."""

    id: str
    list: str
    """The job list it is in, unique on the platform: ``vospace/transfers``."""
    owner: str | None
    """The username; `None` for somebody who is not signed in, whose jobs are known by their ids alone."""
    phase: str
    created_at: datetime
    destruction_at: datetime
    run_id: str | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    duration_s: int = 0
    """How long it may execute, in seconds; 0: as long as it needs."""
    parameters: Mapping[str, str] = field(default_factory=dict)
    info: str | None = None
    """An XML document of the service's own, told as ``jobInfo``."""
    results: tuple[Result, ...] = ()
    error: JobError | None = None
    attempts: int = 0
    """How many times it was begun."""
    mark: str | None = None
    """What whoever began it before left for whoever begins it again."""
    progress: str | None = None
    """How far it is, in the service's own words."""


class JobFailure(Exception):  # noqa: N818 - told, not raised to the caller
    """Ends a job in the phase ``ERROR``.

    Parameters
    ----------
    error
        What is told.
    results
        Results there are all the same.
    """

    def __init__(self, error: JobError, results: tuple[Result, ...] = ()) -> None:
        super().__init__(error.message)
        self.error = error
        self.results = results
