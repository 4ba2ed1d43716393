"""Work on many files over HTTP: begun, watched, ended; what is in the trash; uploads that are not whole."""

import asyncio
import json
import stat
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from aiohttp import web

from astrocloud.core import words
from astrocloud.core.errors import RequestError
from astrocloud.core.uws.jobs import Jobs, Turn
from astrocloud.core.uws.models import COMPLETED, ERROR, EXECUTING, Job, Result
from astrocloud.core.uws.store import JobStore
from astrocloud.core.web import language_of
from astrocloud.vospace.api import Door, answering
from astrocloud.vospace.errors import Fault
from astrocloud.vospace.models import Person
from astrocloud.vospace.myfiles.answers import API, answer, document_of, only, path_in, text_in
from astrocloud.vospace.myfiles.picks import picked
from astrocloud.vospace.myfiles.trash import Thrown, Trash
from astrocloud.vospace.myfiles.views import Views
from astrocloud.vospace.myfiles.works import CONFLICTS, KINDS, Task, Works
from astrocloud.vospace.partial import Partial, Partials
from astrocloud.vospace.resuming import Resuming

AT_ONCE_S: Final = 0.8
"""How long the answer waits for work that is quick, in seconds."""
PHASES: Final = {COMPLETED: "done", ERROR: "failed", "ABORTED": "stopped", EXECUTING: "running"}
_KEPT = 500


class WorkApi:
    """Work over HTTP.

    Parameters
    ----------
    door
        Who asks.
    works
        Does it.
    views
        Where positions in a list are looked up.
    trash
        The trash.
    store
        Keeps the jobs.
    partials, resuming
        Uploads that are not whole.
    """

    def __init__(
        self,
        *,
        door: Door,
        works: Works,
        views: Views,
        trash: Trash,
        store: JobStore,
        partials: Partials,
        resuming: Resuming,
    ) -> None:
        self._door = door
        self._works = works
        self._views = views
        self._trash = trash
        self._partials = partials
        self._resuming = resuming
        self._tasks: dict[str, Task] = {}
        self.jobs = Jobs(store=store, name="vospace/my-files", work=self._work, progress=self._progress)

    def routes(self) -> Sequence[web.AbstractRouteDef]:
        """Return the routes."""
        one = f"{API}/work/{{job}}"
        return [
            web.post(f"{API}/work", answering(self._begin)),
            web.get(one, answering(self._look)),
            web.delete(one, answering(self._end)),
            web.get(f"{API}/trash", answering(self._contents)),
            web.get(f"{API}/uploads", answering(self._uploads)),
        ]

    async def _begin(self, request: web.Request) -> web.StreamResponse:
        """Begin work: ``do``, on ``paths`` or positions of a ``view``, to ``target``, with ``conflict``."""
        person = await self._door.person(request, write=True)
        document = await document_of(request)
        kind = only(text_in(document, "do"), KINDS[:-1], name="do")
        target = path_in(text_in(document, "target")) if kind in {"copy", "move"} else None
        conflict = only(text_in(document, "conflict", default="keep"), CONFLICTS, name="conflict")
        items = await self._door.run(picked, self._views, person, document)
        return await self.begin(request, person, Task(kind, items, target, conflict))

    async def begin(self, request: web.Request, person: Person, task: Task) -> web.StreamResponse:
        """Begin `task` as a job and answer how far it is after a moment."""
        if person.name is None:
            raise RequestError("not-signed-in")
        task.language = language_of(request)
        job = await self.jobs.create(owner=person.name, parameters={"do": task.kind, "items": str(len(task.items))})
        self._tasks[job.id] = task
        ended = [key for key, each in self._tasks.items() if each.ended]
        for key in ended[: max(0, len(self._tasks) - _KEPT)]:  # what has not begun yet is not told only, but needed
            del self._tasks[key]
        job = await self.jobs.run(job)
        for _phase in range(2):  # queued, executing
            job = await self.jobs.wait(job, seconds=AT_ONCE_S)
        return answer(self._told(request, job), status=201)

    def _progress(self, job_id: str) -> str | None:
        task = self._tasks.get(job_id)
        return json.dumps(task.document()) if task is not None else None

    async def _work(self, job: Job, _turn: Turn) -> Sequence[Result]:
        task = self._tasks[job.id]
        try:
            person = await self._door.named(job.owner)
            await self._door.run(self._works.run, person, task)
        except asyncio.CancelledError:
            task.stop.set()
            raise
        finally:
            task.ended = True
        return [Result("done", str(task.done)), Result("failed", str(task.failed))]

    def _told(self, request: web.Request, job: Job) -> dict[str, Any]:
        task = self._tasks.get(job.id)
        error = job.error.message if job.error else ""
        if job.phase == ERROR and task is None:  # nobody does it any more
            error = words.text("files.work-interrupted", language_of(request))
        told = {
            "id": job.id,
            "phase": PHASES.get(job.phase, "running"),
            "error": error,
        }
        if task is not None:
            return {**told, **task.document()}
        if job.progress is not None:  # another process does it, or did
            return {**told, **json.loads(job.progress)}
        results = {result.id: result.href for result in job.results}
        return {**told, "do": job.parameters.get("do", ""), **{name: int(value) for name, value in results.items()}}

    async def _job(self, request: web.Request, *, write: bool) -> Job:
        person = await self._door.person(request, write=write)
        return await self.jobs.get(request.match_info["job"], person.name)

    async def _look(self, request: web.Request) -> web.StreamResponse:
        """Say how far a piece of work is."""
        return answer(self._told(request, await self._job(request, write=False)))

    async def _end(self, request: web.Request) -> web.StreamResponse:
        """Break a piece of work off."""
        job = await self._job(request, write=True)
        task = self._tasks.get(job.id)
        if task is not None:
            task.stop.set()
            task.ended = True
        return answer(self._told(request, await self.jobs.abort(job)))

    async def _contents(self, request: web.Request) -> web.StreamResponse:
        """Return what is in the trash."""
        person = await self._door.person(request, write=False)
        found = await self._door.run(self._trash.contents, person)
        return answer({"days": self._trash.days, "entries": [self._thrown(each) for each in found]})

    def _thrown(self, thrown: Thrown) -> dict[str, Any]:
        mode = thrown.status.st_mode
        kind = "folder" if stat.S_ISDIR(mode) else "link" if stat.S_ISLNK(mode) else "file"
        return {
            "name": thrown.place.shown_name,
            "path": str(thrown.place),
            "kind": kind,
            "size": thrown.status.st_size if kind == "file" else None,
            "origin": str(thrown.origin),
            "deleted": _time(thrown.deleted_at),
            "until": _time(thrown.deleted_at + self._trash.days * 86400),
        }

    async def _uploads(self, request: web.Request) -> web.StreamResponse:
        """Tell the uploads that somebody began and that are not whole."""
        person = await self._door.person(request, write=False)

        def work() -> list[dict[str, Any]]:
            partials = self._partials.of_owner(person.name) if person.name is not None else []
            return [told for partial in partials if (told := self._partial(person, partial)) is not None]

        return answer({"uploads": await self._door.run(work)})

    def _partial(self, person: Person, partial: Partial) -> dict[str, Any] | None:
        try:
            offset = self._resuming.offset(person, partial)
        except Fault:
            return None
        address = f"{self._door.settings.base_url}/uploads/{partial.id}"
        return {
            "url": address,
            "path": str(partial.path),
            "name": partial.path.shown_name,
            "size": partial.length,
            "offset": offset,
            "replaces": partial.replaces,
            "until": _time(partial.expires_at),
        }


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, tz=UTC).isoformat(timespec="seconds")
