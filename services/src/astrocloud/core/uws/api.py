"""The addresses below a job list (UWS 1.1, section 2.2): a service says who asks and how its jobs are made."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Final, Protocol

from aiohttp import web

from astrocloud.core.errors import RequestError
from astrocloud.core.uws import documents
from astrocloud.core.uws.jobs import WAIT_LIMIT_S, Jobs
from astrocloud.core.uws.models import PENDING, PHASES, Job
from astrocloud.core.web import FORM_TYPE, read_fields

_ANSWER_WAIT_S: Final = 0.5
"""How long the answer to ``PHASE=RUN`` waits for a quick job, so that its client need not ask again, in seconds."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class JobListService(Protocol):
    """What a service says of its job list."""

    async def owner(self, request: web.Request) -> str | None:
        """Return who asks, or `None` for somebody who is not signed in; raises to refuse."""

    async def create(self, request: web.Request) -> Job:
        """Return the job that the request describes, made but not run."""

    async def result(self, request: web.Request, job: Job, name: str) -> web.StreamResponse | None:
        """Return the answer to one of the job's results, or `None` when there is none of that name."""


class JobsApi:
    """A job list over HTTP.

    Parameters
    ----------
    prefixes
        Paths at which it is; the first is told.
    base_url
        The origin of the addresses that are told.
    jobs
        The jobs.
    service
        Who asks, and how jobs are made.
    """

    def __init__(self, *, prefixes: Sequence[str], base_url: str, jobs: Jobs, service: JobListService) -> None:
        self._prefixes = prefixes
        self._url = f"{base_url}{prefixes[0]}"
        self._jobs = jobs
        self._service = service

    def url(self, job: Job) -> str:
        """Return the address of `job`."""
        return f"{self._url}/{job.id}"

    def routes(self, wrap: Callable[[Handler], Handler] = lambda handler: handler) -> Sequence[web.AbstractRouteDef]:
        """Return the routes, each handler wrapped by `wrap`."""
        found: list[web.AbstractRouteDef] = []
        for prefix in self._prefixes:
            one = f"{prefix}/{{job}}"
            found += [
                web.get(prefix, wrap(self._list)),
                web.post(prefix, wrap(self._create)),
                web.get(one, wrap(self._get)),
                web.post(one, wrap(self._post)),
                web.delete(one, wrap(self._delete)),
                web.get(f"{one}/phase", wrap(self._get_phase)),
                web.post(f"{one}/phase", wrap(self._post)),
                web.get(f"{one}/executionduration", wrap(self._get_duration)),
                web.post(f"{one}/executionduration", wrap(self._post)),
                web.get(f"{one}/destruction", wrap(self._get_destruction)),
                web.post(f"{one}/destruction", wrap(self._post)),
                web.get(f"{one}/error", wrap(self._get_error)),
                web.get(f"{one}/quote", wrap(self._get_quote)),
                web.get(f"{one}/owner", wrap(self._get_owner)),
                web.get(f"{one}/parameters", wrap(self._get_parameters)),
                web.get(f"{one}/results", wrap(self._get_results)),
                web.get(f"{one}/results/{{result}}", wrap(self._get_result)),
            ]
        return found

    async def _job(self, request: web.Request) -> Job:
        return await self._jobs.get(request.match_info["job"], await self._service.owner(request))

    async def _list(self, request: web.Request) -> web.StreamResponse:
        """Return one's jobs."""
        owner = await self._service.owner(request)
        phases = frozenset(phase.upper() for phase in request.query.getall("PHASE", []))
        if unknown := phases - {*PHASES}:
            raise RequestError("job-parameter", name="PHASE", value=sorted(unknown)[0][:40], allowed=", ".join(PHASES))
        after = _moment("AFTER", request.query["AFTER"]) if "AFTER" in request.query else None
        last = _number("LAST", request.query["LAST"], least=1) if "LAST" in request.query else None
        found: Sequence[Job] = []
        if owner is not None:
            found = await self._jobs.of_owner(owner, phases=phases, after=after, last=last)
        return _xml(documents.jobs(found, url=self._url))

    async def _create(self, request: web.Request) -> web.StreamResponse:
        """Make a job and lead to it; ``PHASE=RUN`` runs it, too."""
        job = await self._service.create(request)
        phase = request.query.get("PHASE", "")
        if request.content_type == FORM_TYPE:
            phase = next((value for name, value in await read_fields(request) if name.upper() == "PHASE"), phase)
        if phase.upper() == "RUN":
            await self._jobs.run(job)
        return self._see(job)

    def _see(self, job: Job) -> web.Response:
        return web.Response(status=303, headers={"Location": self.url(job)})

    async def _get(self, request: web.Request) -> web.StreamResponse:
        """Return a job; ``WAIT`` waits until it changes."""
        job = await self._job(request)
        if "WAIT" in request.query:
            seconds = _number("WAIT", request.query["WAIT"], least=-1)
            phase = request.query.get("PHASE", "").upper() or None
            job = await self._jobs.wait(job, seconds=seconds if seconds >= 0 else WAIT_LIMIT_S, phase=phase)
        return _xml(documents.job(job))

    async def _post(self, request: web.Request) -> web.StreamResponse:
        """Change a job: whatever of PHASE, ACTION, DESTRUCTION, EXECUTIONDURATION and RUNID the form holds."""
        job = await self._job(request)
        form = {name.upper(): value for name, value in await read_fields(request)}
        form.update({name.upper(): value for name, value in request.query.items()})
        if form.get("ACTION", "").upper() == "DELETE":
            await self._jobs.destroy(job)
            return web.Response(status=303, headers={"Location": self._url})
        if "DESTRUCTION" in form:
            moment = _moment("DESTRUCTION", form["DESTRUCTION"])
            if moment <= datetime.now(tz=UTC):
                await self._jobs.destroy(job)
                return web.Response(status=303, headers={"Location": self._url})
            job = await self._jobs.set_destruction(job, moment)
        if "EXECUTIONDURATION" in form and job.phase == PENDING:
            duration_s = _number("EXECUTIONDURATION", form["EXECUTIONDURATION"], least=0)
            job = await self._jobs.set_duration(job, duration_s)
        if "RUNID" in form:
            job = await self._jobs.set_run_id(job, form["RUNID"])
        if "PHASE" in form:
            match form["PHASE"].upper():
                case "RUN":
                    job = await self._jobs.run(job)
                    for _step in ("QUEUED", "EXECUTING"):
                        job = await self._jobs.wait(job, seconds=_ANSWER_WAIT_S)
                case "ABORT":
                    await self._jobs.abort(job)
                case other:
                    raise RequestError("job-parameter", name="PHASE", value=other[:40], allowed="RUN, ABORT")
        return self._see(job)

    async def _delete(self, request: web.Request) -> web.StreamResponse:
        """End a job and forget it."""
        await self._jobs.destroy(await self._job(request))
        return web.Response(status=303, headers={"Location": self._url})

    async def _get_phase(self, request: web.Request) -> web.StreamResponse:
        """Return the phase of a job."""
        return web.Response(text=(await self._job(request)).phase)

    async def _get_duration(self, request: web.Request) -> web.StreamResponse:
        """Return how long a job may run."""
        return web.Response(text=str((await self._job(request)).duration_s))

    async def _get_destruction(self, request: web.Request) -> web.StreamResponse:
        """Return when a job is forgotten."""
        return web.Response(text=documents.moment((await self._job(request)).destruction_at))

    async def _get_error(self, request: web.Request) -> web.StreamResponse:
        """Return why a job failed."""
        error = (await self._job(request)).error
        return web.Response(text=(error.detail or error.message) if error is not None else "")

    async def _get_quote(self, request: web.Request) -> web.StreamResponse:
        """Return when a job will be done; this is not foreseen."""
        await self._job(request)
        return web.Response(text="")

    async def _get_owner(self, request: web.Request) -> web.StreamResponse:
        """Return whose job it is."""
        return web.Response(text=(await self._job(request)).owner or "")

    async def _get_parameters(self, request: web.Request) -> web.StreamResponse:
        """Return what a job was asked for."""
        return _xml(documents.parameters(await self._job(request)))

    async def _get_results(self, request: web.Request) -> web.StreamResponse:
        """Return what a job gave."""
        return _xml(documents.results(await self._job(request)))

    async def _get_result(self, request: web.Request) -> web.StreamResponse:
        """Return one result of a job."""
        job = await self._job(request)
        answer = await self._service.result(request, job, request.match_info["result"])
        if answer is None:
            raise RequestError("not-found", path=request.path[:200])
        return answer


def _xml(text: str) -> web.Response:
    return web.Response(text=text, content_type="text/xml", charset="utf-8")


def _number(name: str, value: str, *, least: int) -> int:
    try:
        number = int(value) if len(value) <= 12 else least - 1
    except ValueError:
        number = least - 1
    if number < least:
        raise RequestError("job-parameter", name=name, value=value[:40], allowed=f"a whole number from {least}")
    return number


def _moment(name: str, value: str) -> datetime:
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        raise RequestError("job-parameter", name=name, value=value[:40], allowed="an ISO 8601 time, UTC") from None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
