"""What every HTTP interface of the service does first: who asks, which path, and how a refusal is answered."""

import asyncio
import base64
import re
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from functools import wraps
from typing import Any, Final, ParamSpec, TypeVar

import structlog
from aiohttp import web

from astrocloud.core import auth
from astrocloud.core.errors import RequestError
from astrocloud.core.web import PRINCIPAL, REQUEST_ID, language_of, logged_path, wants_page
from astrocloud.core.words import HTML_LANGUAGE
from astrocloud.vospace.errors import Fault
from astrocloud.vospace.homes import Homes
from astrocloud.vospace.models import NOBODY, NodePath, Person
from astrocloud.vospace.parsing import DOCUMENT_LIMIT_BYTES
from astrocloud.vospace.people import People
from astrocloud.vospace.settings import Settings

PREFIX: Final = "/services/vospace"
READ: Final = "custom:vospace:read"
WRITE: Final = "custom:vospace:write"

XML: Final = "text/xml"
ANYTHING: Final = r"[\s\S]*"
"""A route's pattern for a path of any names; a dot would not match a line break."""

_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/=-]{1,512}\Z")
_P = ParamSpec("_P")
_T = TypeVar("_T")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_log = structlog.get_logger()


class Door:
    """What the handlers share.

    Parameters
    ----------
    people
        Who people are to the file system.
    homes
        Makes a person's folders where they are missing.
    executor
        Threads for whatever touches the file system.
    jobs_executor
        Threads for what may last, and must keep no request waiting.
    settings
        Addresses and limits.
    """

    def __init__(
        self, *, people: People, homes: Homes, executor: Executor, jobs_executor: Executor, settings: Settings
    ) -> None:
        self._people = people
        self._homes = homes
        self._executor = executor
        self._jobs_executor = jobs_executor
        self.settings = settings

    async def run(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Return what `function` returns, run in a worker thread."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, lambda: function(*args, **kwargs))

    async def run_job(self, function: Callable[[], _T], *, end: Callable[[], None]) -> _T:
        """Return what `function` returns, run in a thread for jobs.

        Whoever cancels this is told so by `end`, and this ends when the thread has: nothing happens afterwards.
        """
        work = asyncio.get_running_loop().run_in_executor(self._jobs_executor, function)
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            end()
            await asyncio.wait([work])
            if not work.cancelled():
                work.exception()
            raise

    async def person(self, request: web.Request, *, write: bool) -> Person:
        """Return who sends `request`, or nobody in particular.

        Raises
        ------
        RequestError
            ``not-signed-in`` for credentials that are not accepted, ``forbidden`` for a token without the scope,
            ``csrf`` for a change by cookie that does not come from our page.
        """
        request = with_bearer(request)
        offered = "Authorization" in request.headers
        principal = await auth.current(request)
        if principal is None:
            if offered:
                raise RequestError("not-signed-in")
            return NOBODY
        if principal.by_cookie:
            principal = await auth.require(request)  # which looks whether a change comes from our page
        allowed = principal.by_cookie or principal.has(WRITE) or (not write and principal.has(READ))
        if not allowed or principal.kind != "user":
            raise RequestError("forbidden", user=principal.name, needs=f"the scope {WRITE if write else READ}")
        return await self.named(principal.name)

    async def named(self, name: str | None) -> Person:
        """Return the person `name` with the folders that are theirs; `None` is nobody in particular."""
        if name is None:
            return NOBODY
        person = await self._people.person(name)
        if person is None:
            raise RequestError("not-signed-in")
        await self.make_folders(person)
        return person

    async def make_folders(self, person: Person) -> None:
        """Make a person's folders where they are missing. Raises `Fault` when something is in their place."""
        if not self._homes.are_there(person):
            await self.run(self._homes.ensure, person)


def with_bearer(request: web.Request) -> web.Request:
    """Return `request` with its credentials as a bearer token, where it has them in an older form.

    ``X-CADC-DelegationToken``, and a password of HTTP Basic (as from a ``.netrc``), are tokens of the hub.
    """
    header = request.headers.get("Authorization", "")
    token = ""
    scheme, _, value = header.partition(" ")
    if scheme.lower() == "basic":
        try:
            token = base64.b64decode(value.strip(), validate=True).decode("utf-8").partition(":")[2]
        except ValueError:  # no base64, or no text: either is one
            token = ""
    elif not header:
        token = request.headers.get("X-CADC-DelegationToken", "").strip()
        token = token[7:].strip() if token.lower().startswith("bearer ") else token
    if not _TOKEN.match(token):
        return request
    headers = request.headers.copy()
    headers["Authorization"] = f"Bearer {token}"
    return request.clone(headers=headers)


def path_of(request: web.Request, below: str) -> NodePath:
    """Return the path that `request` names below the address `below`, from the bytes as they were sent.

    Raises
    ------
    Fault
        ``InvalidURI``.
    """
    raw = request.rel_url.raw_path
    return NodePath.from_url(raw[len(below) :])


async def body_of(request: web.Request, *, limit_bytes: int = DOCUMENT_LIMIT_BYTES) -> bytes:
    """Return the document that `request` carries. Raises `Fault` (``RequestEntityTooLarge``) when it is too large."""
    if (request.content_length or 0) > limit_bytes:
        raise _too_large(limit_bytes)
    found = bytearray()
    async for chunk in request.content.iter_chunked(1 << 16):
        found += chunk
        if len(found) > limit_bytes:
            raise _too_large(limit_bytes)
    return bytes(found)


def _too_large(limit_bytes: int) -> Fault:
    # Made where it is raised: one that is also a name there would hold the frame, and what has come, for long.
    return Fault("vospace-too-large", reason=f"a document of this kind may have {limit_bytes} bytes")


def xml(text: str, *, status: int = 200) -> web.Response:
    """Return an XML answer."""
    return web.Response(text=text, status=status, content_type=XML, charset="utf-8")


def fault_response(request: web.Request, fault: Fault) -> web.Response:
    """Return `fault` as the standard's plain text (its name first), or as a problem document for who asks for JSON."""
    language = language_of(request)
    headers = {"Content-Language": HTML_LANGUAGE[language], "Vary": "Accept, Accept-Language, Cookie"}
    if fault.status == 413:
        headers["Connection"] = "close"
    if "json" in request.headers.get("Accept", ""):
        problem = {**fault.problem(language), "fault": fault.name}
        return web.json_response(problem, status=fault.status, headers=headers, content_type="application/problem+json")
    return web.Response(text=fault.text(language), status=fault.status, headers=headers)


def answering(handler: Handler) -> Handler:
    """Return `handler` with its faults answered as the standard says."""

    @wraps(handler)  # its docstring is what the documentation tells of the route
    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except Fault as fault:
            signed_out = fault.code == "vospace-permission-denied" and request.get(PRINCIPAL) is None
            if signed_out and wants_page(request) and request.method in {"GET", "HEAD"}:
                await auth.require(request)  # sends a browser to sign in
            response = fault_response(request, fault)
            if not request.content.at_eof():
                # The rest of a body that nobody wants is not waited for.
                response.force_close()
            return response
        except (RequestError, web.HTTPException, ConnectionResetError):
            raise
        except Exception:  # its name is the standard's, its cause is for the log
            if request.writer.output_size:  # half of an answer is on its way
                raise
            _log.exception("request-failed", path=logged_path(request))
            return fault_response(request, Fault("vospace-unexpected", request_id=request[REQUEST_ID]))

    return answer


def whole(value: Any, *, name: str, least: int = 0) -> int:
    """Return a whole number in a query parameter. Raises `Fault` (``InvalidArgument``) for anything else."""
    text = str(value)
    if not text.isascii() or not text.isdecimal() or len(text) > 12 or int(text) < least:
        reason = f"{name} is {text[:40]!r}; allowed: a whole number from {least}"
        raise Fault("vospace-invalid-argument", reason=reason)
    return int(text)
