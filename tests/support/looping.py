"""An event loop in a thread of its own, for tests that are no coroutines themselves.

Playwright's synchronous API keeps a loop running in the thread of the tests, in which no second one can run then.
"""

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Run(Protocol):
    """Runs a coroutine to its end."""

    def __call__(self, work: Coroutine[Any, Any, T], *, within_s: float = 120) -> T:
        """Return what `work` returns. Raises `TimeoutError` when that takes more than `within_s` seconds."""


@contextmanager
def event_loop_in_a_thread() -> Iterator[Run]:
    """Give what runs coroutines one after another or, called from several threads, beside each other."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="test-loop", daemon=True)
    thread.start()

    def run(work: Coroutine[Any, Any, T], *, within_s: float = 120) -> T:
        async def limited() -> T:
            async with asyncio.timeout(within_s):
                return await work

        return asyncio.run_coroutine_threadsafe(limited(), loop).result()

    try:
        yield run
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
