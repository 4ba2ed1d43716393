"""``/transfers`` and ``/synctrans``: transfers as jobs, and their short forms (VOSpace 2.1, sections 6.4 and 3.6)."""

from collections.abc import Sequence
from typing import Final

from aiohttp import web

from astrocloud.core.uws.api import JobsApi
from astrocloud.core.uws.jobs import Jobs, Turn
from astrocloud.core.uws.models import Job, JobError, JobFailure, Result
from astrocloud.core.uws.store import JobStore
from astrocloud.core.web import read_fields
from astrocloud.vospace import parsing, writing
from astrocloud.vospace.api import PREFIX, Door, answering, body_of, xml
from astrocloud.vospace.errors import Fault, invalid_argument
from astrocloud.vospace.models import Protocol, Transfer
from astrocloud.vospace.transfers import Transfers

TRANSFER_LIMIT_BYTES: Final = 1 << 16
"""The largest transfer document: it is kept with its job."""
_READING: Final = frozenset({"pullFromVoSpace", "pushFromVoSpace"})
"""Directions that change nothing here."""
_DETAILS: Final = "transferDetails"
_TRANSFERS: Final = f"{PREFIX}/transfers"
_SYNC: Final = f"{PREFIX}/synctrans"


def job_failure(fault: Fault) -> JobFailure:
    """Return what ends a job because of `fault`: ``/error`` answers its name alone, as clients compare it."""
    return JobFailure(JobError(f"{fault.name}: {fault.sentence('en')}", detail=fault.name))


class TransfersApi:
    """Transfers over HTTP.

    Parameters
    ----------
    door
        Who asks.
    transfers
        The rules.
    store
        Keeps the jobs.
    origin
        The origin of the addresses that are told.
    """

    def __init__(self, *, door: Door, transfers: Transfers, store: JobStore, origin: str) -> None:
        self._door = door
        self._transfers = transfers
        self.jobs = Jobs(store=store, name="vospace/transfers", work=self._work, again=True, at_once=16)
        # With basic authentication the client `vos` 3.7 puts "/auth" into an address that has "/vospace/" in it.
        prefixes = (_TRANSFERS, f"{PREFIX}/auth/transfers")
        self._api = JobsApi(prefixes=prefixes, base_url=origin, jobs=self.jobs, service=self)

    def routes(self) -> Sequence[web.AbstractRouteDef]:
        """Return the routes."""
        return [
            *self._api.routes(answering),
            web.get(_SYNC, answering(self._sync_by_parameters)),
            web.post(_SYNC, answering(self._sync)),
        ]

    # What the job list asks

    async def owner(self, request: web.Request) -> str | None:
        """Return who asks; what a token that may only read began, it may go on with as well."""
        person = await self._door.person(request, write=False)
        if request.method not in {"GET", "HEAD"} and not await self._only_reads(request, person.name):
            person = await self._door.person(request, write=True)
        return person.name

    async def _only_reads(self, request: web.Request, name: str | None) -> bool:
        job_id = request.match_info.get("job")
        return job_id is not None and self._asked(await self.jobs.get(job_id, name)).direction in _READING

    async def create(self, request: web.Request) -> Job:
        """Return a job for the transfer in the body."""
        return await self._create(request, await self._owner_of_new(request))

    async def _owner_of_new(self, request: web.Request) -> str | None:
        # To fetch a file is no change, whatever the method: a token that may only read may negotiate that.
        return (await self._door.person(request, write=False)).name

    async def _create(self, request: web.Request, owner: str | None) -> Job:
        body = await body_of(request, limit_bytes=TRANSFER_LIMIT_BYTES)
        asked = parsing.transfer(body, self._door.settings.authority)
        await self._check_scope(request, asked)
        document = writing.transfer(asked, self._door.settings.authority)
        parameters = {"TARGET": self._door.settings.authority.uri(asked.target), "DIRECTION": asked.direction}
        return await self.jobs.create(
            owner=owner, parameters=parameters, info=document, run_id=request.query.get("RUNID")
        )

    async def _check_scope(self, request: web.Request, asked: Transfer) -> None:
        if asked.direction not in _READING:
            await self._door.person(request, write=True)

    async def result(self, request: web.Request, job: Job, name: str) -> web.StreamResponse | None:
        """Return the transfer with its addresses; without any when the job failed (section 6.4.4)."""
        if name != _DETAILS:
            return None
        asked = self._asked(job)
        # An address to put to is worth a token that may write.
        await self._check_scope(request, asked)
        if job.error is not None or asked.direction not in {"pullFromVoSpace", "pushToVoSpace"}:
            answer = Transfer(asked.target, asked.direction, asked.view, asked.view_parameters, (), asked.keep_bytes)
            return xml(writing.transfer(answer, self._door.settings.authority))
        person = await self._door.named(job.owner)
        details = await self._transfers.negotiate(person, asked)
        return xml(writing.transfer(details, self._door.settings.authority))

    def _asked(self, job: Job) -> Transfer:
        return parsing.transfer((job.info or "").encode(), self._door.settings.authority)

    async def _work(self, job: Job, turn: Turn) -> Sequence[Result]:
        person = await self._door.named(job.owner)
        asked = self._asked(job)
        try:
            end = await self._transfers.perform(person, asked, turn)
        except Fault as fault:
            raise job_failure(fault) from fault
        results = [Result(_DETAILS, f"{self._api.url(job)}/results/{_DETAILS}")]
        if asked.direction.startswith("vos:"):
            results.append(Result("destination", self._door.settings.authority.uri(end)))
        return results

    # The short forms

    async def _sync(self, request: web.Request) -> web.StreamResponse:
        """Negotiate a transfer and lead to its addresses."""
        if request.content_type in {"application/x-www-form-urlencoded", "multipart/form-data"}:
            return await self._by_parameters(request, await read_fields(request))
        owner = await self._owner_of_new(request)
        job = await self._create(request, owner)
        person = await self._door.named(owner)
        try:
            await self._transfers.negotiate(person, self._asked(job))
        except Fault as fault:
            await self.jobs.complete(job, job_failure(fault))
        else:
            await self.jobs.complete(job, [Result(_DETAILS, f"{self._api.url(job)}/results/{_DETAILS}")])
        return web.Response(status=303, headers={"Location": f"{self._api.url(job)}/results/{_DETAILS}"})

    async def _sync_by_parameters(self, request: web.Request) -> web.StreamResponse:
        """Negotiate a transfer that parameters describe."""
        return await self._by_parameters(request, list(request.query.items()))

    async def _by_parameters(self, request: web.Request, fields: list[tuple[str, str]]) -> web.StreamResponse:
        """Answer a transfer that is described by parameters: the document itself, or a way to the bytes."""
        given: dict[str, list[str]] = {}
        for name, value in fields:
            given.setdefault(name.upper(), []).append(value)
        asked = self._described(given)
        if not given.get("TARGET") or not given.get("DIRECTION"):
            raise invalid_argument("the parameters TARGET and DIRECTION are needed")
        await self._check_scope(request, asked)
        person = await self._door.person(request, write=False)
        details = await self._transfers.negotiate(person, asked)
        wish = given.get("REQUEST", [""])[0].lower()
        if wish == "redirect":
            return web.Response(status=303, headers={"Location": str(details.protocols[0].endpoint)})
        if wish:
            raise invalid_argument(f"REQUEST is {wish[:40]!r}; allowed: redirect, or nothing for the document")
        return xml(writing.transfer(details, self._door.settings.authority))

    def _described(self, given: dict[str, list[str]]) -> Transfer:
        authority = self._door.settings.authority

        def first(name: str) -> str:
            return given.get(name, [""])[0].strip()

        methods = tuple(given.get("SECURITYMETHOD", ()))
        return Transfer(
            target=authority.parse(first("TARGET")),
            direction=parsing.check_direction(first("DIRECTION"), authority),
            view=first("VIEW") or None,
            protocols=tuple(Protocol(uri.strip(), None, methods) for uri in given.get("PROTOCOL", ())),
        )
