"""Jobs while they execute: waited for, ended by their owner, by their own limit and by their destruction."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import web

from tests.services.vospace.platform import Space, running
from tests.services.vospace.test_files import leftovers
from tests.services.vospace.test_transfers import UWS, transfer_xml

CONFIG = {"vospace": {"transfer_networks": ["127.0.0.1/32"]}}


@dataclass
class Slow:
    """A server that sends the first half of a file, and the rest when it is let."""

    address: str = ""
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when who fetches has gone before the end."""
    go_on: asyncio.Event = field(default_factory=asyncio.Event)


@asynccontextmanager
async def slow_server() -> AsyncIterator[Slow]:
    found = Slow()

    async def serve(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "2000000"})
        await response.prepare(request)
        await response.write(bytes(1_000_000))
        found.begun.set()
        try:
            await found.go_on.wait()
            await response.write(bytes(1_000_000))
        except (asyncio.CancelledError, ConnectionError):
            found.left.set()
            raise
        return response

    app = web.Application()
    app.router.add_get("/data", serve)
    runner = web.AppRunner(app, shutdown_timeout=1, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    found.address = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}/data"  # type: ignore[union-attr,attr-defined]
    try:
        yield found
    finally:
        found.go_on.set()
        await runner.cleanup()


@pytest.fixture
async def slow() -> AsyncIterator[Slow]:
    async with slow_server() as found:
        yield found


@pytest.fixture
async def space(tmp_path: Path) -> AsyncIterator[Space]:
    async with running(tmp_path / "data", CONFIG) as found:
        await found.upload("/home/ada/f", b"the old bytes")
        yield found


async def executing(space: Space, slow: Slow, *, duration_s: int | None = None) -> str:
    """Start a job that fetches from the slow server; return its address when it does."""
    document = transfer_xml("/home/ada/f", "pullToVoSpace", "httpget", endpoint=slow.address)
    url = (await space("POST", "/transfers", data=document)).headers["Location"]
    if duration_s is not None:
        await space("POST", f"{url}/executionduration", data={"EXECUTIONDURATION": str(duration_s)})
        assert (await space.get(f"{url}/executionduration")).text == str(duration_s)
    await space("POST", f"{url}/phase", data={"PHASE": "RUN"})
    async with asyncio.timeout(20):
        await slow.begun.wait()
    assert (await space.get(f"{url}/phase")).text == "EXECUTING"
    return url


async def nothing_happened(space: Space, slow: Slow) -> None:
    async with asyncio.timeout(20):
        await slow.left.wait()
        while leftovers(space):
            await asyncio.sleep(0.01)
    assert space.posix("/home/ada/f").read_bytes() == b"the old bytes"


async def test_who_waits_for_a_job_that_executes_is_told_of_its_end_at_once(space: Space, slow: Slow) -> None:
    url = await executing(space, slow)
    waiting = asyncio.create_task(space.get(f"{url}?WAIT=50"))
    other = asyncio.create_task(space.get(f"{url}?WAIT=50&PHASE=EXECUTING"))
    # One that ends after a second tells that nothing changed, and the first has not been told anything by then.
    assert (await space.get(f"{url}?WAIT=1")).xml.findtext(f"{UWS}phase") == "EXECUTING"
    assert not waiting.done()
    # Who waits while it is queued need not wait.
    assert (await space.get(f"{url}?WAIT=50&PHASE=QUEUED")).xml.findtext(f"{UWS}phase") == "EXECUTING"
    slow.go_on.set()
    async with asyncio.timeout(20):
        for answer in await asyncio.gather(waiting, other):
            assert answer.xml.findtext(f"{UWS}phase") == "COMPLETED"
            assert answer.xml.findtext(f"{UWS}startTime") <= answer.xml.findtext(f"{UWS}endTime")
    assert space.posix("/home/ada/f").read_bytes() == bytes(2_000_000)


async def test_an_aborted_job_stops_and_leaves_nothing(space: Space, slow: Slow) -> None:
    url = await executing(space, slow)
    assert (await space.as_("bob")("POST", f"{url}/phase", data={"PHASE": "ABORT"})).status == 404
    waiting = asyncio.create_task(space.get(f"{url}?WAIT=50"))
    assert (await space("POST", f"{url}/phase", data={"PHASE": "ABORT"})).status == 303
    assert (await waiting).xml.findtext(f"{UWS}phase") == "ABORTED"
    await nothing_happened(space, slow)
    answer = await space.get(url)
    assert answer.xml.findtext(f"{UWS}phase") == "ABORTED"
    assert answer.xml.findtext(f"{UWS}endTime")


async def test_a_deleted_job_stops_and_is_forgotten(space: Space, slow: Slow) -> None:
    url = await executing(space, slow)
    assert (await space("DELETE", url)).status == 303
    assert (await space.get(url)).status == 404
    assert len((await space.get("/transfers")).xml) == 0
    await nothing_happened(space, slow)


async def test_a_job_whose_time_is_over_is_aborted_with_the_reason(space: Space, slow: Slow) -> None:
    url = await executing(space, slow, duration_s=1)
    ended = await space.get(f"{url}?WAIT=50")
    assert ended.xml.findtext(f"{UWS}phase") == "ABORTED"
    assert "1 s" in (ended.xml.findtext(f"{UWS}errorSummary/{UWS}message") or "")
    await nothing_happened(space, slow)


async def test_a_job_whose_destruction_has_come_is_gone_though_it_executes(space: Space, slow: Slow) -> None:
    url = await executing(space, slow)
    later = datetime.now(tz=UTC) + timedelta(hours=1)
    assert (await space("POST", f"{url}/destruction", data={"DESTRUCTION": later.isoformat()})).status == 303
    assert (await space.get(f"{url}/phase")).text == "EXECUTING"
    now = datetime.now(tz=UTC)
    assert (await space("POST", f"{url}/destruction", data={"DESTRUCTION": now.isoformat()})).status == 303
    assert (await space.get(url)).status == 404
    await nothing_happened(space, slow)
