"""``/files``: the bytes of a node at its own path, and at pre-authorised addresses (``/files/preauth:…/PATH``)."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from astrocloud.core.web import BY_COOKIE
from astrocloud.vospace import archives, digests, ranges
from astrocloud.vospace.api import ANYTHING, PREFIX, Door, answering, path_of
from astrocloud.vospace.domain import Nodes
from astrocloud.vospace.errors import invalid_argument
from astrocloud.vospace.models import NodePath, Person
from astrocloud.vospace.opening import OpenFile
from astrocloud.vospace.packing import archive_response
from astrocloud.vospace.preauth import PREFIX as PREAUTH
from astrocloud.vospace.preauth import Signer, quoted
from astrocloud.vospace.receiving import Receiver
from astrocloud.vospace.sending import check_conditions, file_response
from astrocloud.vospace.uploads import ANNOUNCED_FROM_BYTES, Expected, Upload, etag

_FILES: Final = f"{PREFIX}/files"


@dataclass(frozen=True)
class Grant:
    """What a pre-authorised address lets its bearer do."""

    token: str
    """Its first segment, as it was signed."""
    view: str | None
    """The view that it is bound to."""


def _may_follow(request: web.Request) -> bool:
    """Whether the client may be led to another port: a person's click and a program, but no script of our pages.

    Browsers tell which it is, except where the platform has no HTTPS: there a cookie shows that it is a browser.
    """
    mode = request.headers.get("Sec-Fetch-Mode")
    return mode == "navigate" or (mode is None and "Cookie" not in request.headers)


async def _expect_later(_request: web.Request) -> None:
    """Say ``100 Continue`` only when the upload has been let in, not before the handler runs as is the default."""


class FilesApi:
    """Bytes over HTTP.

    Parameters
    ----------
    door
        Who asks.
    nodes
        The rules.
    signer
        Checks pre-authorised addresses.
    executor
        Worker threads.
    """

    def __init__(self, *, door: Door, nodes: Nodes, signer: Signer, executor: Executor) -> None:
        self._door = door
        self._nodes = nodes
        self._signer = signer
        self._executor = executor

    def routes(self) -> Sequence[web.AbstractRouteDef]:
        """Return the routes."""
        path = f"{_FILES}/{{path:{ANYTHING}}}"
        return [
            web.get(path, answering(self._get)),
            web.put(path, answering(self._put), expect_handler=_expect_later),
            web.delete(path, answering(self._delete)),
        ]

    async def _who(self, request: web.Request) -> tuple[Person, NodePath, Grant | None]:
        """Return whose permissions hold, the path, and what a pre-authorised address grants."""
        first, _, rest = request.rel_url.raw_path[len(_FILES) + 1 :].partition("/")
        first = first.replace("%3A", ":").replace("%3a", ":")
        if first.startswith(PREAUTH):
            path = NodePath.from_url(rest)
            user, view = self._signer.check(first, method=request.method, path=path)
            return await self._door.named(user), path, Grant(first, view)
        person = await self._door.person(request, write=request.method not in {"GET", "HEAD"})
        return person, path_of(request, _FILES), None

    async def _get(self, request: web.Request) -> web.StreamResponse:
        """Send the bytes of a file, all or ranges; of a folder, an archive (``view=zip`` or ``tar``)."""
        person, path, grant = await self._who(request)
        form = (grant.view if grant else None) or request.query.get("view")
        if form in archives.TYPES:
            return await self._archive(request, person, path, form)
        file: OpenFile = await self._door.run(self._nodes.open, person, path)
        with os.fdopen(file.descriptor, "rb", buffering=0) as source:
            if self._goes_around(request, file):
                return self._around(request, person, path, grant)
            response = file_response(request, file, source)
            await response.prepare(request)
            return response

    def _goes_around(self, request: web.Request, file: OpenFile) -> bool:
        """Whether the client is to fetch these bytes at their own address, which the proxy does not slow down."""
        settings = self._door.settings
        return (
            request.method == "GET"
            and settings.has_way_around
            and request.app.get(BY_COOKIE, True)
            and file.status.st_size >= settings.redirect_from_bytes
            and _may_follow(request)
        )

    def _around(self, request: web.Request, person: Person, path: NodePath, grant: Grant | None) -> web.Response:
        """Send the client to a pre-authorised address: credentials, which clients drop on the way, are not needed.

        Who comes by such an address is granted nothing new, so that none outlives its time.
        """
        base = self._door.settings.bytes_url
        if grant is not None:
            address = f"{base}/files/{grant.token}{quoted(path)}"
        else:
            address = self._signer.address(base, method="GET", path=path, user=person.name)
        address += "?inline" if "inline" in request.query else ""
        text = f"The bytes are at {address}\nFollow redirects (curl: -L).\n"
        headers = {"Location": address, "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
        return web.Response(status=303, text=text, headers=headers)

    async def _archive(self, request: web.Request, person: Person, path: NodePath, form: str) -> web.StreamResponse:
        """Send a folder as one archive, made while it is sent."""

        def pack(send: Callable[[bytes], None]) -> None:
            self._nodes.archive(person, path, form, send)

        return await archive_response(request, pack, name=path.shown_name or "all", form=form)

    async def _put(self, request: web.Request) -> web.StreamResponse:
        """Put bytes in a file's place, as a whole or not at all."""
        person, path, _view = await self._who(request)
        announced = digests.announced(request.headers)
        length = request.content_length
        if length is None and "chunked" not in request.headers.get("Transfer-Encoding", "").lower():
            length = 0
        digests.check_encoding(request.headers)
        if "Content-Range" in request.headers:
            raise invalid_argument("a PUT replaces the whole file; parts of it are sent by the resumable upload")
        if length == 0 and request.headers.get("x-total-length", "0") != "0":
            # CADC's clients ask so whether a file can be sent in segments. Not here: they send it whole then.
            return web.Response(status=200)
        created, tag, md5 = await self._take(
            person, path, request.content.iter_any(), length, announced=announced, request=request
        )
        headers = {"ETag": tag, **digests.headers_of(md5)}
        return web.Response(status=201 if created else 200, headers=headers)

    async def take(self, person: Person, path: NodePath, pieces: AsyncIterator[bytes], length: int | None) -> None:
        """Put what `pieces` gives into the node at `path`, as a whole or not at all."""
        await self._take(person, path, pieces, length, announced={}, request=None)

    async def _take(
        self,
        person: Person,
        path: NodePath,
        pieces: AsyncIterator[bytes],
        length: int | None,
        *,
        announced: dict[str, bytes],
        request: web.Request | None,
    ) -> tuple[bool, str, str | None]:
        """Take bytes into their place; return whether it is new, its entity tag and its MD5.

        Whatever fails leaves the old file as it was.
        """
        upload = await self._door.run(self._nodes.begin_upload, person, path)
        with self._nodes.account.busy(upload.path):
            return await self._take_into(upload, pieces, length, announced=announced, request=request)

    async def _take_into(
        self,
        upload: Upload,
        pieces: AsyncIterator[bytes],
        length: int | None,
        *,
        announced: dict[str, bytes],
        request: web.Request | None,
    ) -> tuple[bool, str, str | None]:
        receiver = Receiver(
            upload=upload,
            nodes=self._nodes,
            executor=self._executor,
            limit_bytes=self._door.settings.upload_limit_bytes,
        )
        old = upload.replaced
        tag = old.etag if old is not None else None
        accounted = committed = False
        commit: asyncio.Future[os.stat_result] | None = None
        headers: Mapping[str, str] = request.headers if request is not None else {}
        try:
            if request is not None:
                modified_s = int(old.status.st_mtime) if old is not None else None
                check_conditions(request, tag=tag, modified_s=modified_s)
            await self._door.run(receiver.open_account, length)
            accounted = True
            # Not before: of what is too much for a quota, others are not to lack the room meanwhile.
            if length is not None and length >= ANNOUNCED_FROM_BYTES:
                await self._door.run(upload.reserve, length)
            if request is not None and headers.get("Expect", "").lower() == "100-continue":
                await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                request.writer.output_size = 0
            wants_none = "md5=0" in headers.get("Want-Repr-Digest", "").replace(" ", "")
            algorithms = {*announced} if wants_none else {*announced, "md5"}
            await receiver.receive(pieces, algorithms=algorithms, length=length)
            receiver.check(announced)
            expected = Expected(
                must_be_new=headers.get("If-None-Match", "").strip() == "*",
                must_match=tag if "If-Match" in headers else None,
                unmodified_since_s=None
                if "If-Match" in headers
                else ranges.seconds_of(headers.get("If-Unmodified-Since")),
            )
            commit = asyncio.ensure_future(
                self._door.run(upload.commit, md5=receiver.md5, expected=expected, account=receiver.account)
            )
            # Not to be stopped half-way: whether it happened must be known here.
            done = await asyncio.shield(commit)
            committed = True
        finally:
            if commit is not None and not commit.done():
                await asyncio.wait([commit])
            committed = committed or (commit is not None and commit.exception() is None)
            if not committed:
                await self._door.run(upload.abandon)
            if accounted and not committed:
                await self._door.run(receiver.close_account)
        return upload.created, etag(done), receiver.md5

    async def _delete(self, request: web.Request) -> web.StreamResponse:
        """Remove a file."""
        person, path, _view = await self._who(request)
        await self._door.run(self._nodes.get, person, path, "min")

        def check(found: os.stat_result) -> None:
            check_conditions(request, tag=etag(found), modified_s=int(found.st_mtime))

        await self._door.run(self._nodes.delete_file, person, path, check)
        return web.Response(status=200)
