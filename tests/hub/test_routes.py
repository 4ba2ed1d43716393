"""A proxy that was started anew gets its routes back from the hub at once."""

import asyncio
from contextlib import suppress

from aiohttp import web

from astrocloud_hub.routes import RouteKeeper


class FakeProxy:
    """What of the proxy's REST API tells whether it has routes."""

    def __init__(self) -> None:
        self.routes: set[str] = set()
        self.leads_to = ""
        """Where it sends whoever asks, instead of an answer."""
        self.tokens: set[str] = set()
        self.asked = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self.port = 0

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/api/routes/{name}", self._get)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _get(self, request: web.Request) -> web.Response:
        self.tokens.add(request.headers.get("Authorization", ""))
        self.asked.set()
        if self.leads_to:
            return web.Response(status=302, headers={"Location": self.leads_to})
        return web.json_response({}, status=200 if request.match_info["name"] in self.routes else 404)


async def test_routes_are_restored_when_and_only_when_the_proxy_has_lost_them() -> None:
    proxy, restored = FakeProxy(), asyncio.Queue[int]()
    await proxy.start()
    proxy.routes.add("hub")

    async def restore() -> None:
        proxy.routes.add("hub")
        restored.put_nowait(1)

    keeper = RouteKeeper(api_url=f"http://127.0.0.1:{proxy.port}", token="t", restore=restore)
    keeping = asyncio.create_task(keeper.keep())
    await asyncio.wait_for(proxy.asked.wait(), 10)
    assert restored.empty()

    # It dies, and another takes its place that knows nothing.
    await proxy.stop()
    proxy.routes.clear()
    await proxy.start()
    await asyncio.wait_for(restored.get(), 10)

    # One restoration was enough.
    proxy.asked.clear()
    await asyncio.wait_for(proxy.asked.wait(), 10)
    assert restored.empty()
    assert proxy.tokens == {"token t"}
    keeping.cancel()
    with suppress(asyncio.CancelledError):
        await keeping
    await proxy.stop()


async def test_a_restoration_that_fails_is_tried_again() -> None:
    proxy, tried = FakeProxy(), asyncio.Queue[int]()
    await proxy.start()

    async def restore() -> None:
        tried.put_nowait(1)
        raise ConnectionRefusedError

    keeper = RouteKeeper(api_url=f"http://127.0.0.1:{proxy.port}", token="t", restore=restore)
    keeping = asyncio.create_task(keeper.keep())
    await asyncio.wait_for(tried.get(), 10)
    await asyncio.wait_for(tried.get(), 10)

    keeping.cancel()
    with suppress(asyncio.CancelledError):
        await keeping
    await proxy.stop()


async def test_an_answer_that_makes_no_sense_is_survived() -> None:
    """Whatever answers at that address for a moment, the routes are looked after."""
    proxy, restored = FakeProxy(), asyncio.Queue[int]()
    proxy.leads_to = "ftp://nowhere/"
    await proxy.start()

    async def restore() -> None:
        restored.put_nowait(1)

    keeper = RouteKeeper(api_url=f"http://127.0.0.1:{proxy.port}", token="t", restore=restore)
    keeping = asyncio.create_task(keeper.keep())
    await asyncio.wait_for(proxy.asked.wait(), 10)
    proxy.asked.clear()
    await asyncio.wait_for(proxy.asked.wait(), 10)
    assert restored.empty()

    proxy.leads_to = ""
    await asyncio.wait_for(restored.get(), 10)

    keeping.cancel()
    with suppress(asyncio.CancelledError):
        await keeping
    await proxy.stop()
