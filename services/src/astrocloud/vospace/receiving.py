"""Taking bytes into an upload: in pieces of a megabyte, written in one worker thread and summed in another."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor
from typing import Final

from aiohttp import ClientPayloadError, web
from aiohttp.http_exceptions import HttpProcessingError

from astrocloud.vospace.digests import ALGORITHMS
from astrocloud.vospace.domain import Nodes
from astrocloud.vospace.errors import Fault
from astrocloud.vospace.summing import Sums
from astrocloud.vospace.uploads import Upload

PIECE_BYTES: Final = 1 << 20
_MOST_BUFFERS: Final = 512
SLOWEST_S: Final = 600.0
"""How long a megabyte may take to come, in seconds."""
CHARGE_BYTES: Final = 64 << 20
"""How much of the quota an upload of unknown length takes at once."""


class _Piece:
    """Bytes as they came, not copied together: what is written next at one stroke."""

    def __init__(self) -> None:
        self.buffers: list[bytes] = []
        self.size = 0

    def add(self, chunk: bytes) -> None:
        """Add what has come."""
        if len(self.buffers) >= _MOST_BUFFERS:  # many small ones
            self.buffers = [b"".join(self.buffers)]
        self.buffers.append(chunk)
        self.size += len(chunk)


class Receiver:
    """Receives one upload and keeps its quota's account.

    Parameters
    ----------
    upload
        Where the bytes go.
    nodes
        Counts for the quota.
    executor
        Worker threads.
    limit_bytes
        The largest file that is taken; 0: any.
    """

    def __init__(self, *, upload: Upload, nodes: Nodes, executor: Executor, limit_bytes: int) -> None:
        self._upload = upload
        self._nodes = nodes
        self._executor = executor
        self._limit_bytes = limit_bytes
        old = upload.replaced
        self._old_size = old.status.st_size if old is not None else 0
        self._charged = self._received = 0
        self._new_files = 1 if upload.created else 0
        self._sums = Sums({}, executor)

    @property
    def md5(self) -> str | None:
        """The MD5 of what was received, in hexadecimal, if it was asked for."""
        return self._sums.hexdigest("md5")

    def open_account(self, length: int | None) -> None:
        """Count what is announced. Raises `Fault` when it is too much for the limit or the quota."""
        self._check_limit(length or 0)
        grows = max(0, (length or 0) - self._old_size)
        self._nodes.account.charge(self._upload.path, size=grows, files=self._new_files)
        self._charged = grows

    def account(self, replaced: os.stat_result | None) -> None:
        """Count what really comes of it, now that it is known what it takes the place of.

        Raises
        ------
        Fault
            ``QuotaExceeded``, and what was counted before stays counted.
        """
        size = self._upload.size - (replaced.st_size if replaced is not None else 0)
        files = 0 if replaced is not None else 1
        self._nodes.account.charge(self._upload.path, size=size - self._charged, files=files - self._new_files)
        self._charged, self._new_files = size, files

    def close_account(self) -> None:
        """Give back what was counted: nothing came of it."""
        self._nodes.account.charge(self._upload.path, size=-self._charged, files=-self._new_files)

    def _check_limit(self, size: int) -> None:
        if self._limit_bytes and size > self._limit_bytes:
            reason = f"{self._upload.path} would have {size} bytes; a file may have {self._limit_bytes}"
            raise Fault("vospace-too-large", reason=reason)

    async def receive(self, pieces: AsyncIterator[bytes], *, algorithms: set[str], length: int | None) -> None:
        """Write what `pieces` gives, summing it by `algorithms`.

        Raises
        ------
        Fault
            ``TransferFailed`` when the body ends before `length`, ``QuotaExceeded``, ``RequestEntityTooLarge``.
        """
        self._sums = Sums({name: ALGORITHMS[name] for name in algorithms}, self._executor)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(SLOWEST_S) as patience:
                await self._receive(pieces, lambda: patience.reschedule(loop.time() + SLOWEST_S), length)
        except TimeoutError as err:
            raise self._incomplete(self._received, length) from err

    async def _receive(self, pieces: AsyncIterator[bytes], go_on: Callable[[], None], length: int | None) -> None:
        pending: asyncio.Future[None] | None = None
        piece = _Piece()
        received = self._received = 0
        try:
            async for chunk in pieces:
                piece.add(chunk)
                if piece.size >= PIECE_BYTES:
                    go_on()
                    if pending is not None:
                        await asyncio.shield(pending)  # whatever ends this must wait for the thread: see below
                    received = self._received = received + piece.size
                    pending = asyncio.ensure_future(self._take(piece.buffers, received))
                    piece = _Piece()
            if pending is not None:
                await asyncio.shield(pending)
            received += piece.size
            pending = asyncio.ensure_future(self._take(piece.buffers, received))
            await asyncio.shield(pending)
            await self._sums.finish()
        except (HttpProcessingError, ClientPayloadError, web.RequestPayloadError, ConnectionError) as err:
            raise self._incomplete(received, length) from err
        finally:
            if pending is not None:
                # A thread that still writes would write into whatever gets the descriptor's number next.
                await asyncio.wait([pending])
                pending.exception()
        if length is not None and received != length:
            raise self._incomplete(received, length)

    def _incomplete(self, received: int, length: int | None) -> Fault:
        expected = "its end" if length is None else str(length)
        return Fault("vospace-incomplete", uri=str(self._upload.path), received=received, expected=expected)

    async def _take(self, buffers: Sequence[bytes], received: int) -> None:
        """Write a piece; it is summed beside that, and maybe not yet when this returns."""
        loop = asyncio.get_running_loop()
        writing = loop.run_in_executor(self._executor, self._write, buffers, received)
        try:
            await self._sums.add(buffers)
        finally:
            await asyncio.wait([writing])
        writing.result()

    def _write(self, buffers: Sequence[bytes], received: int) -> None:
        self._check_limit(received)
        if received - self._old_size > self._charged:
            self._charge_ahead(received - self._old_size - self._charged)
        self._upload.write_all(buffers)

    def _charge_ahead(self, need: int) -> None:
        """Count `need` bytes, and more of them at once where there is room, for that costs a transaction."""
        ahead = max(CHARGE_BYTES, need)
        try:
            self._nodes.account.charge(self._upload.path, size=ahead, files=0)
        except Fault:
            if ahead == need:
                raise
            ahead = need
            self._nodes.account.charge(self._upload.path, size=ahead, files=0)
        self._charged += ahead

    def check(self, announced: dict[str, bytes]) -> None:
        """Raise `Fault` (``ChecksumMismatch``) unless the sums are those that were announced."""
        for algorithm, value in announced.items():
            if self._sums.digest(algorithm) != value:
                raise Fault("vospace-checksum", uri=str(self._upload.path), algorithm=algorithm)
