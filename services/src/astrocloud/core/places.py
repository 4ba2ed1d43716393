"""Places for work that lasts: so many at once, and of these only a share for one person."""

import asyncio
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass


@dataclass
class _Share:
    places: asyncio.Semaphore
    wanted: int = 0


class Places:
    """A number of places.

    Parameters
    ----------
    at_once
        How many there are.
    each
        How many one person may have; who wants more waits, and keeps nobody else waiting.
    """

    def __init__(self, *, at_once: int, each: int) -> None:
        self._all = asyncio.Semaphore(at_once)
        self._each = each
        self._shares: dict[Hashable, _Share] = {}

    @asynccontextmanager
    async def taken_by(self, who: Hashable) -> AsyncIterator[None]:
        """Hold a place for `who` inside the block, once there is one; all who are not signed in are one."""
        share = self._shares.setdefault(who, _Share(asyncio.Semaphore(self._each)))
        share.wanted += 1
        try:
            # Its own first: whoever waits for that holds none of everybody's.
            async with share.places, self._all:
                yield
        finally:
            share.wanted -= 1
            if not share.wanted:
                del self._shares[who]
