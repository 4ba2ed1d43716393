"""A server elsewhere, for tests of what happens in the middle of a transfer."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web


@dataclass
class Source:
    """A server that sends half of its bytes, and the rest only when it may."""

    data: bytes
    asked: int = 0
    half_sent: asyncio.Event = field(default_factory=asyncio.Event)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    url: str = ""

    async def send(self, request: web.Request) -> web.StreamResponse:
        """Answer a request."""
        self.asked += 1
        response = web.StreamResponse(headers={"Content-Length": str(len(self.data))})
        await response.prepare(request)
        half = len(self.data) // 2
        await response.write(self.data[:half])
        self.half_sent.set()
        await self.go_on.wait()
        await response.write(self.data[half:])
        return response


@asynccontextmanager
async def serving(address: str = "127.0.0.1", *, size: int) -> AsyncIterator[Source]:
    """A source of `size` random bytes that listens at `address`."""
    found = Source(os.urandom(size))
    app = web.Application()
    app.router.add_get("/data", found.send)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, address, 0).start()
        found.url = f"http://{address}:{runner.addresses[0][1]}/data"
        yield found
    finally:
        found.go_on.set()
        await runner.cleanup()
