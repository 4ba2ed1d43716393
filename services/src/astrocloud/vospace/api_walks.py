"""``/async-delete`` and ``/async-setprops``: work on a folder and all in it, as jobs (OpenCADC's practice)."""

import threading
from collections.abc import Callable, Sequence
from typing import Final

from aiohttp import web

from astrocloud.core.uws.api import JobsApi
from astrocloud.core.uws.jobs import Jobs, Turn
from astrocloud.core.uws.models import Job, JobError, JobFailure, Result
from astrocloud.core.uws.store import JobStore
from astrocloud.core.web import read_fields
from astrocloud.vospace import parsing, walking
from astrocloud.vospace.api import PREFIX, Door, answering, body_of
from astrocloud.vospace.api_transfers import job_failure
from astrocloud.vospace.domain import Nodes
from astrocloud.vospace.errors import Fault, invalid_argument
from astrocloud.vospace.models import Person

DELETE: Final = "async-delete"
SET: Final = "async-setprops"


class WalksApi:
    """One of the two over HTTP.

    Parameters
    ----------
    name
        `DELETE` or `SET`.
    door
        Who asks.
    nodes
        The rules.
    store
        Keeps the jobs.
    origin
        The origin of the addresses that are told.
    """

    def __init__(self, *, name: str, door: Door, nodes: Nodes, store: JobStore, origin: str) -> None:
        self._name = name
        self._door = door
        self._nodes = nodes
        self.jobs = Jobs(store=store, name=f"vospace/{name}", work=self._work, again=True)
        self._api = JobsApi(prefixes=(f"{PREFIX}/{name}",), base_url=origin, jobs=self.jobs, service=self)

    def routes(self) -> Sequence[web.AbstractRouteDef]:
        """Return the routes."""
        return self._api.routes(answering)

    async def owner(self, request: web.Request) -> str | None:
        """Return who asks."""
        person = await self._door.person(request, write=request.method not in {"GET", "HEAD"})
        return person.name

    async def create(self, request: web.Request) -> Job:
        """Return a job for the target (of a form) or the node (of a document) in the body."""
        owner = await self.owner(request)
        authority = self._door.settings.authority
        if self._name == SET:
            body = await body_of(request)
            wanted = parsing.node(body, authority)
            parameters = {"target": authority.uri(wanted.path), "node": parsing.unicode(body)}
            return await self.jobs.create(owner=owner, parameters=parameters)
        form = await read_fields(request)
        target = next((value for name, value in form if name.lower() == "target"), None)
        if target is None:
            raise invalid_argument("the form field target, a node URI, is needed")
        path = authority.parse(target)
        return await self.jobs.create(owner=owner, parameters={"target": authority.uri(path)})

    async def result(self, _request: web.Request, _job: Job, _name: str) -> web.StreamResponse | None:
        """Return nothing: the counts stand in the job's document."""
        return None

    async def _work(self, job: Job, turn: Turn) -> Sequence[Result]:
        person = await self._door.named(job.owner)
        stop = threading.Event()
        walk = self._walk(job, person)
        try:
            count = await self._door.run_job(lambda: walk(stop), end=stop.set)
        except Fault as fault:
            if turn.first or self._name != DELETE or fault.code != "vospace-node-not-found":
                raise job_failure(fault) from fault
            count = walking.Count()  # an attempt before this one removed all
        results: tuple[Result, ...] = (Result("successcount", f"final:{count.done}"),)
        if count.failed:
            # Only then: the client `vos` 3.7 takes any value, 0 as well, for a failure.
            results += (Result("errorcount", f"final:{count.failed}"),)
        if count.failed and not count.done:
            raise JobFailure(JobError("PermissionDenied: nothing could be changed", detail="PermissionDenied"), results)
        return results

    def _walk(self, job: Job, person: Person) -> Callable[[threading.Event], walking.Count]:
        authority = self._door.settings.authority
        if self._name == SET:
            wanted = parsing.node(job.parameters["node"].encode(), authority)
            return lambda stop: walking.set_all(self._nodes, person, wanted, stop)
        path = authority.parse(job.parameters["target"])
        return lambda stop: walking.delete_all(self._nodes, person, path, stop)
