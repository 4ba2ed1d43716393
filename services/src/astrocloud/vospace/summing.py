"""Sums of bytes that come in pieces, made in a thread of their own that need not keep up with each piece."""

import asyncio
import hashlib
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from hashlib import _Hash

BEHIND: Final = 4
"""How many pieces may wait to be summed; more of them would only take memory."""
_AT_ONCE_BYTES: Final = 1 << 16
"""What is not larger is summed where it is: that takes less than to ask a thread."""


class Sums:
    """The sums of one upload.

    A thread that has taken on one piece takes on the next as well: to begin anew with each costs turns of the loop,
    in which nothing is summed, and summing is what takes longest.

    Parameters
    ----------
    algorithms
        Names on the wire -> names in `hashlib`.
    executor
        Worker threads.
    """

    def __init__(self, algorithms: Mapping[str, str], executor: Executor) -> None:
        self._running: dict[str, _Hash] = {
            name: hashlib.new(own, usedforsecurity=False) for name, own in algorithms.items()
        }
        self._executor = executor
        self._left: deque[Sequence[bytes]] = deque()
        self._room = asyncio.Event()
        self._worker: asyncio.Future[None] | None = None

    def digest(self, name: str) -> bytes:
        """Return a sum, of all that was added before `finish`."""
        return self._running[name].digest()

    def hexdigest(self, name: str) -> str | None:
        """Return a sum in hexadecimal, or `None` where it was not asked for."""
        found = self._running.get(name)
        return found.hexdigest() if found is not None else None

    async def add(self, buffers: Sequence[bytes]) -> None:
        """Sum `buffers` after all that came before; wait while too much of that is left."""
        if not self._running:
            return
        if (
            not self._left
            and sum(map(len, buffers)) <= _AT_ONCE_BYTES
            and (self._worker is None or self._worker.done())
        ):
            _sum(self._running.values(), b"".join(buffers))
            return
        while len(self._left) >= BEHIND:
            self._room.clear()
            self._go_on()
            await self._room.wait()
        self._left.append(buffers)
        self._go_on()

    async def finish(self) -> None:
        """Wait until all is summed."""
        while self._worker is not None:
            worker, self._worker = self._worker, None
            await worker
            self._go_on()

    def _go_on(self) -> None:
        if self._worker is not None and self._worker.done():
            self._worker.result()
            self._worker = None
        if self._left and self._worker is None:
            loop = asyncio.get_running_loop()
            self._worker = loop.run_in_executor(self._executor, self._work, loop)

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            while self._left:
                # In one piece: with every call the interpreter is given away, and to get it back takes a while.
                _sum(self._running.values(), b"".join(self._left[0]))
                self._left.popleft()
                loop.call_soon_threadsafe(self._room.set)
        finally:
            loop.call_soon_threadsafe(self._room.set)


def _sum(running: Iterable["_Hash"], data: bytes) -> None:
    for each in running:
        each.update(data)
