"""``/uploads``: resumable uploads by the protocol tus 1.0.0 (extensions: creation, termination, expiration)."""

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Sequence
from email.utils import formatdate
from functools import wraps
from typing import Final, ParamSpec

from aiohttp import ClientPayloadError, StreamReader, web
from aiohttp.http_exceptions import HttpProcessingError

from astrocloud.vospace.api import PREFIX, Door, Handler, answering, whole
from astrocloud.vospace.digests import check_encoding
from astrocloud.vospace.errors import Fault, invalid_argument
from astrocloud.vospace.partial import Partial
from astrocloud.vospace.resuming import Resuming

VERSION: Final = "1.0.0"
_UPLOADS: Final = f"{PREFIX}/uploads"
_PIECE_BYTES: Final = 1 << 20
IDLE_S: Final = 60.0
"""How long a client may send nothing of a part that it sends, in seconds."""
_P = ParamSpec("_P")


class UploadsApi:
    """Resumable uploads over HTTP.

    Parameters
    ----------
    door
        Who asks.
    resuming
        The rules.
    """

    def __init__(self, *, door: Door, resuming: Resuming) -> None:
        self._door = door
        self._resuming = resuming

    def routes(self) -> Sequence[web.AbstractRouteDef]:
        """Return the routes."""
        one = f"{_UPLOADS}/{{upload}}"
        return [
            web.options(_UPLOADS, self._options),
            web.post(_UPLOADS, answering(_speaking(self._create))),
            web.head(one, answering(_speaking(self._head))),
            web.patch(one, answering(_speaking(self._patch))),
            web.delete(one, answering(_speaking(self._delete))),
        ]

    async def _options(self, _request: web.Request) -> web.StreamResponse:
        """Say which resumable uploads are understood."""
        limit = self._door.settings.upload_limit_bytes
        headers = {"Tus-Version": VERSION, "Tus-Extension": "creation,termination,expiration"}
        if limit:
            headers["Tus-Max-Size"] = str(limit)
        return web.Response(status=204, headers={"Tus-Resumable": VERSION, **headers})

    async def _create(self, request: web.Request) -> web.StreamResponse:
        """Begin an upload: ``Upload-Metadata`` names the node (``uri``), and whether it may ``replace`` one."""
        person = await self._door.person(request, write=True)
        length = whole(request.headers.get("Upload-Length", ""), name="Upload-Length")
        limit = self._door.settings.upload_limit_bytes
        if limit and length > limit:
            raise Fault("vospace-too-large", reason=f"the file would have {length} bytes; a file may have {limit}")
        given = _metadata(request.headers.get("Upload-Metadata", ""))
        path = self._door.settings.authority.parse(given.get("uri", ""))
        partial: Partial = await self._door.run(
            self._resuming.begin, person, path, length=length, replaces=given.get("replace", "true") != "false"
        )
        headers = {"Location": f"{self._door.settings.base_url}/uploads/{partial.id}", **_until(partial)}
        return web.Response(status=201, headers=headers)

    async def _head(self, request: web.Request) -> web.StreamResponse:
        """Say how much of an upload has come."""
        person = await self._door.person(request, write=True)
        partial = await self._door.run(self._resuming.get, person, request.match_info["upload"])
        offset = await self._door.run(self._resuming.offset, person, partial)
        headers = {"Upload-Offset": str(offset), "Upload-Length": str(partial.length), **_until(partial)}
        return web.Response(status=200, headers=headers)

    async def _patch(self, request: web.Request) -> web.StreamResponse:
        """Go on with an upload. What arrived before a connection broke stays."""
        if request.content_type != "application/offset+octet-stream":
            return web.Response(status=415)
        check_encoding(request.headers)
        person = await self._door.person(request, write=True)
        partial = await self._door.run(self._resuming.get, person, request.match_info["upload"])
        offset = whole(request.headers.get("Upload-Offset", ""), name="Upload-Offset")
        if partial.placed:
            more = offset != partial.length or request.body_exists
            headers = {"Upload-Offset": str(partial.length), **_until(partial)}
            return web.Response(status=409 if more else 204, headers=headers)
        upload = await self._door.run(self._resuming.open, person, partial)
        try:
            if offset != upload.size:
                return web.Response(status=409, headers={"Upload-Offset": str(upload.size)})
            piece = bytearray()
            try:
                async for chunk in _while_they_come(request.content):
                    piece += chunk
                    if len(piece) >= _PIECE_BYTES:
                        await self._to_its_end(self._resuming.append, partial, upload, piece)
                        piece = bytearray()
            except (
                HttpProcessingError,
                ClientPayloadError,
                web.RequestPayloadError,
                ConnectionError,
                TimeoutError,
            ) as err:
                await self._to_its_end(self._resuming.append, partial, upload, piece)
                raise Fault(
                    "vospace-incomplete", uri=str(partial.path), received=upload.size, expected=partial.length
                ) from err
            await self._to_its_end(self._resuming.append, partial, upload, piece)
            await self._to_its_end(self._resuming.finish, partial, upload)
            return web.Response(status=204, headers={"Upload-Offset": str(upload.size), **_until(partial)})
        finally:
            await self._door.run(upload.close)

    async def _to_its_end(self, function: Callable[_P, object], *args: _P.args, **kwargs: _P.kwargs) -> None:
        """Run `function` in a worker thread; whatever ends the request waits for it.

        A thread that still writes would write into whatever gets the descriptor's number next.
        """
        work = asyncio.ensure_future(self._door.run(function, *args, **kwargs))
        try:
            await asyncio.shield(work)
        finally:
            await asyncio.wait([work])
            if not work.cancelled():
                work.exception()

    async def _delete(self, request: web.Request) -> web.StreamResponse:
        """Break an upload off."""
        person = await self._door.person(request, write=True)
        partial = await self._door.run(self._resuming.get, person, request.match_info["upload"])
        await self._door.run(self._resuming.cancel, person, partial)
        return web.Response(status=204)


async def _while_they_come(content: StreamReader) -> AsyncIterator[bytes]:
    """Yield the bytes of a body. Raises `TimeoutError` when no more come, as from a client that went without a word.

    It holds the upload, which nobody can go on with meanwhile.
    """
    while True:
        async with asyncio.timeout(IDLE_S):
            chunk = await content.readany()
        if not chunk:
            return
        yield chunk


def _speaking(handler: Handler) -> Handler:
    """Return `handler` for clients that speak the version that is spoken here; others get 412."""

    @wraps(handler)
    async def answer(request: web.Request) -> web.StreamResponse:
        if request.headers.get("Tus-Resumable") != VERSION:
            return web.Response(status=412, headers={"Tus-Version": VERSION, "Tus-Resumable": VERSION})
        response = await handler(request)
        response.headers["Tus-Resumable"] = VERSION
        return response

    return answer


def _until(partial: Partial) -> dict[str, str]:
    return {"Upload-Expires": formatdate(partial.expires_at, usegmt=True)}


def _metadata(header: str) -> dict[str, str]:
    """Return the pairs of ``Upload-Metadata``: a name and a value in base64, by commas."""
    found = {}
    for pair in header.split(","):
        name, _, value = pair.strip().partition(" ")
        try:
            found[name] = base64.b64decode(value, validate=True).decode()
        except ValueError:  # no base64, or no text: either is one
            raise invalid_argument(f"Upload-Metadata: the value of {name[:40]!r} is no text in base64") from None
    return found
