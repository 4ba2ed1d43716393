"""Answering with a folder as one archive, made while it is sent."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import quote
from weakref import WeakKeyDictionary

from aiohttp import web

from astrocloud.core.places import Places
from astrocloud.core.web import PRINCIPAL
from astrocloud.vospace import archives

AT_ONCE: Final = 16
"""How many archives are made at once."""
EACH: Final = 4
"""How many of them for one person; those for nobody in particular are one's. Others wait."""

_of_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, Places] = WeakKeyDictionary()


def _places() -> Places:
    """Return the places of the loop that runs: each archive holds a thread as long as its client reads."""
    return _of_loops.setdefault(asyncio.get_running_loop(), Places(at_once=AT_ONCE, each=EACH))


async def archive_response(
    request: web.Request, pack: Callable[[Callable[[bytes], None]], None], *, name: str, form: str
) -> web.StreamResponse:
    """Send what `pack` hands piece by piece to the function it is given.

    Parameters
    ----------
    pack
        Runs in a thread of its own.
    name
        What the archive is called, without its extension.
    form
        ``zip`` or ``tar``.
    """
    principal: Any = request.get(PRINCIPAL)
    async with _places().taken_by(principal.name if principal is not None else None):
        return await _archive(request, pack, name=name, form=form)


async def _archive(
    request: web.Request, pack: Callable[[Callable[[bytes], None]], None], *, name: str, form: str
) -> web.StreamResponse:
    pieces: asyncio.Queue[bytes | BaseException | None] = asyncio.Queue(maxsize=2)
    loop = asyncio.get_running_loop()
    gone = threading.Event()

    def send(piece: bytes) -> None:
        if gone.is_set():
            raise ConnectionResetError("the client went")
        asyncio.run_coroutine_threadsafe(pieces.put(piece), loop).result()

    def work() -> None:
        outcome: BaseException | None = None
        try:
            pack(send)
        except BaseException as err:  # noqa: BLE001 - handed to the request, which raises it
            outcome = err
        asyncio.run_coroutine_threadsafe(pieces.put(outcome), loop).result()

    # A thread of its own: it lives as long as the client reads, and would hold a worker's place.
    thread = threading.Thread(target=work, name="vospace-archive", daemon=True)
    thread.start()
    piece = await pieces.get()
    try:
        if isinstance(piece, BaseException):
            raise piece
        headers = {
            "Content-Type": archives.TYPES[form],
            "Content-Disposition": f"attachment; filename*=UTF-8''{quote(f'{name}.{form}', safe='')}",
        }
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        if request.method == "HEAD":
            await response.write_eof()
            return response
        while isinstance(piece, bytes):
            await response.write(piece)
            piece = await pieces.get()
        if piece is not None:
            # Headers are out: only a cut connection tells that the archive is not whole.
            if request.transport is not None:
                request.transport.abort()
            raise piece
        await response.write_eof()
        return response
    finally:
        gone.set()
        while isinstance(piece, bytes):
            piece = await pieces.get()
