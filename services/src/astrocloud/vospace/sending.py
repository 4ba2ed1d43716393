"""Answering with the bytes of an open file: by the kernel (sendfile) from the very descriptor that was checked."""

import asyncio
import os
import secrets
from collections.abc import Mapping, Sequence
from email.utils import formatdate
from typing import IO
from urllib.parse import quote

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from astrocloud.vospace import digests, ranges
from astrocloud.vospace.errors import Fault
from astrocloud.vospace.opening import OpenFile

_STEP = 1 << 20


class FileResponse(web.StreamResponse):
    """Parts of an open file.

    Parameters
    ----------
    source
        The file; not closed here.
    parts
        What is sent between its beginning and its end: text of a multipart answer, and ranges (first, after the last).
    status
        200, or 206 for a part.
    headers
        The headers.
    content
        All bytes of the file, where they were read already.
    """

    def __init__(
        self,
        source: IO[bytes],
        *,
        parts: Sequence[bytes | tuple[int, int]],
        status: int,
        headers: Mapping[str, str],
        content: bytes | None = None,
    ) -> None:
        super().__init__(status=status, headers=dict(headers))
        self._source = source
        self._content = content
        self._parts = parts
        self._begun = False
        self.content_length = sum(len(p) if isinstance(p, bytes) else p[1] - p[0] for p in parts)

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Send the whole answer."""
        writer = await super().prepare(request)
        # The server prepares again what a handler returns.
        if writer is None or request.method == "HEAD" or self._begun:
            return writer
        self._begun = True
        for part in self._parts:
            if isinstance(part, bytes):
                await writer.write(part)
            elif part[1] > part[0]:
                await self._send(request, writer, *part)
        await super().write_eof()
        return writer

    async def _send(self, request: web.BaseRequest, writer: AbstractStreamWriter, first: int, end: int) -> None:
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the client went")
        if self._content is not None:
            await writer.write(self._content[first:end])  # in one packet with the headers
            return
        loop = asyncio.get_running_loop()
        await writer.drain()
        if transport.get_extra_info("sslcontext") is None:
            writer.send_headers()
            try:
                sent = await loop.sendfile(transport, self._source, first, end - first)
            except (NotImplementedError, asyncio.SendfileNotAvailableError):
                sent = 0
            else:
                if sent != end - first:  # the file became shorter meanwhile: the client must notice
                    transport.abort()
                    raise ConnectionResetError("the file was cut while it was sent")
                return
        while first < end:
            data = await asyncio.to_thread(os.pread, self._source.fileno(), min(_STEP, end - first), first)
            if not data:
                transport.abort()
                raise ConnectionResetError("the file was cut while it was sent")
            await writer.write(data)
            first += len(data)


def check_conditions(request: web.Request, *, tag: str | None, modified_s: int | None) -> bool:
    """Return whether the client has these bytes already (304); RFC 9110, section 13.2.2.

    Parameters
    ----------
    tag
        The entity tag of what is there; `None` when nothing is.
    modified_s
        When it last changed, in seconds since the epoch.

    Raises
    ------
    Fault
        ``PreconditionFailed``.
    """
    headers = request.headers
    if "If-Match" in headers:
        if not ranges.tag_matches(headers["If-Match"], tag, weak=False):
            raise _failed(request)
    elif (since := ranges.seconds_of(headers.get("If-Unmodified-Since"))) is not None and (
        modified_s is None or modified_s > since
    ):
        raise _failed(request)
    reading = request.method in {"GET", "HEAD"}
    if "If-None-Match" in headers:
        if ranges.tag_matches(headers["If-None-Match"], tag, weak=True):
            if reading:
                return True
            raise _failed(request)
    elif reading and (since := ranges.seconds_of(headers.get("If-Modified-Since"))) is not None:
        return modified_s is not None and modified_s <= since
    return False


def _failed(request: web.Request) -> Fault:
    return Fault("vospace-precondition", uri=request.path[:300])


def file_headers(file: OpenFile, *, inline: bool) -> dict[str, str]:
    """Return the headers that tell of `file` as a whole."""
    kind = file.content_type
    name = file.path.shown_name
    disposition = "inline" if inline and _is_harmless(kind) else "attachment"
    return {
        "Content-Type": kind if _is_header_safe(kind) else "application/octet-stream",
        "Content-Disposition": f"{disposition}; filename*=UTF-8''{quote(name, safe='')}",
        "ETag": file.etag,
        "Last-Modified": formatdate(int(file.status.st_mtime), usegmt=True),
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",
        # Whatever a person put into a file, it runs no script on this origin.
        "Content-Security-Policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src 'self' data:",
        **digests.headers_of(file.md5),
    }


def _is_harmless(kind: str) -> bool:
    return kind in {"text/plain", "image/png", "image/jpeg", "image/gif", "image/webp", "application/pdf"}


def _is_header_safe(kind: str) -> bool:
    return kind.isascii() and kind.isprintable() and "/" in kind and len(kind) < 200


def file_response(request: web.Request, file: OpenFile, source: IO[bytes]) -> web.StreamResponse:
    """Return the answer to a GET or HEAD of `file`. Raises `Fault` (``PreconditionFailed``)."""
    size = file.status.st_size
    headers = file_headers(file, inline="inline" in request.query)
    if check_conditions(request, tag=file.etag, modified_s=int(file.status.st_mtime)):
        kept = {name: headers[name] for name in ("ETag", "Last-Modified", "Cache-Control")}
        return web.Response(status=304, headers=kept)
    wanted = request.headers.get("Range")
    condition = request.headers.get("If-Range")
    if condition is not None and condition.strip() not in {file.etag, headers["Last-Modified"]}:
        wanted = None
    try:
        parts = ranges.parse_ranges(wanted, size)
    except ranges.Unsatisfiable:
        fault = Fault("vospace-range", range=str(wanted)[:100], size=size)
        return web.Response(
            text=fault.text("en"), status=416, headers={"Content-Range": f"bytes */{size}", "Accept-Ranges": "bytes"}
        )
    if parts is None:
        return FileResponse(source, parts=[(0, size)], status=200, headers=headers, content=file.content)
    headers.pop("Content-MD5", None)  # of the body, which is not the whole (RFC 2616, section 14.15)
    if len(parts) == 1:
        first, end = parts[0]
        headers["Content-Range"] = f"bytes {first}-{end - 1}/{size}"
        return FileResponse(source, parts=parts, status=206, headers=headers, content=file.content)
    return _several(source, parts, size, headers)


def _several(
    source: IO[bytes], parts: Sequence[tuple[int, int]], size: int, headers: dict[str, str]
) -> web.StreamResponse:
    boundary = secrets.token_hex(12)
    pieces: list[bytes | tuple[int, int]] = []
    for first, end in parts:
        head = (
            f"\r\n--{boundary}\r\nContent-Type: {headers['Content-Type']}\r\n"
            f"Content-Range: bytes {first}-{end - 1}/{size}\r\n\r\n"
        )
        pieces += [head.encode(), (first, end)]
    pieces.append(f"\r\n--{boundary}--\r\n".encode())
    headers["Content-Type"] = f"multipart/byteranges; boundary={boundary}"
    return FileResponse(source, parts=pieces, status=206, headers=headers)
