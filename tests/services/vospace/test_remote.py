"""Addresses that clients name: what is connected to is what was checked, through redirects as well."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web

from tests.services.vospace.platform import Answer, Space, running
from tests.services.vospace.test_transfers import UWS, job, transfer_xml

ONLY_ONE = {"vospace": {"transfer_networks": ["127.0.0.1/32"]}}


@dataclass
class Elsewhere:
    """Another server, on two addresses of this machine of which one may be reached."""

    port: int
    asked: list[str] = field(default_factory=list)
    taken: dict[str, bytes] = field(default_factory=dict)

    @property
    def allowed(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def inside(self) -> str:
        return f"http://127.0.0.2:{self.port}"


@asynccontextmanager
async def elsewhere() -> AsyncIterator[Elsewhere]:
    found = Elsewhere(0)

    async def serve(request: web.Request) -> web.Response:
        found.asked.append(request.host)
        return web.Response(body=b"what is inside")

    async def lead(request: web.Request) -> web.Response:
        if request.can_read_body and "early" not in request.query:
            await request.read()
        status = int(request.match_info["status"])
        return web.Response(status=status, headers={"Location": request.query.get("to", request.path)})

    async def take(request: web.Request) -> web.Response:
        found.asked.append(request.method)
        found.taken[request.path] = await request.read()
        return web.Response(status=201)

    app = web.Application(client_max_size=1 << 30)

    async def say(request: web.Request) -> web.Response:
        return web.Response(status=int(request.match_info["status"]), body=b"it will come")

    app.router.add_get("/data", serve)
    app.router.add_get("/status/{status}", say)
    app.router.add_route("*", "/lead/{status}", lead)
    app.router.add_put("/take", take)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    found.port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr,attr-defined]
    await web.TCPSite(runner, "127.0.0.2", found.port).start()
    try:
        yield found
    finally:
        await runner.cleanup()


async def pulled(space: Space, address: str) -> Answer:
    _url, ended = await job(space, transfer_xml("/home/ada/new", "pullToVoSpace", "httpget", endpoint=address))
    return ended


async def pushed(space: Space, address: str) -> Answer:
    _url, ended = await job(space, transfer_xml("/home/ada/f", "pushFromVoSpace", "httpput", endpoint=address))
    return ended


def phase(ended: Answer) -> str | None:
    return ended.xml.findtext(f"{UWS}phase")


def refusal(ended: Answer) -> str:
    return ended.xml.findtext(f"{UWS}errorSummary/{UWS}message") or ""


SPELLINGS = ["127.0.0.2", "127。0。0。2", "127．0．0．2", "１２７.0.0.2", "127.0.0.②", "2130706434", "0x7f.2"]


async def test_a_number_in_other_letters_is_still_that_number(tmp_path: Path) -> None:
    async with elsewhere() as there, running(tmp_path / "data", ONLY_ONE) as space:
        await space.node("/home/ada")
        for spelling in SPELLINGS:
            address = f"http://{spelling}:{there.port}/data"
            for named in (address, f"{there.allowed}/lead/302?to={address}"):
                assert "network" in refusal(await pulled(space, named))
        assert there.asked == []
        assert not space.posix("/home/ada/new").exists()


async def test_a_redirect_is_followed_where_it_may_be(tmp_path: Path) -> None:
    async with elsewhere() as there, running(tmp_path / "data", ONLY_ONE) as space:
        await space.node("/home/ada")
        for target in (f"{there.allowed}/data", "/data", "../data?x=%2F"):
            assert (
                phase(await pulled(space, f"{there.allowed}/lead/307?to={target.replace('%', '%25')}")) == "COMPLETED"
            )
            assert space.posix("/home/ada/new").read_bytes() == b"what is inside"
        there.asked.clear()
        assert "network" in refusal(await pulled(space, f"{there.allowed}/lead/302?to={there.inside}/data"))
        assert "redirects" in refusal(await pulled(space, f"{there.allowed}/lead/302"))
        assert refusal(await pulled(space, f"{there.allowed}/lead/302?to=http://[x/")).startswith("TransferFailed")
        assert there.asked == []


@pytest.mark.parametrize("when", ["", "&amp;early"])
async def test_what_is_pushed_goes_whole_to_where_a_redirect_leads(tmp_path: Path, when: str) -> None:
    data = os.urandom(3_000_000)
    async with elsewhere() as there, running(tmp_path / "data", ONLY_ONE) as space:
        await space.upload("/home/ada/f", data)
        for status in (301, 302, 307, 308):
            there.taken.clear()
            address = f"{there.allowed}/lead/{status}?to={there.allowed}/take{when}"
            assert phase(await pushed(space, address)) == "COMPLETED"
            assert there.taken == {"/take": data}
        there.taken.clear()
        assert "network" in refusal(await pushed(space, f"{there.allowed}/lead/307?to={there.inside}/take{when}"))
        assert there.taken == {}


async def test_what_is_pushed_is_sent_once_when_the_answer_lies_elsewhere(tmp_path: Path) -> None:
    async with elsewhere() as there, running(tmp_path / "data", ONLY_ONE) as space:
        await space.upload("/home/ada/f", b"hello")
        assert phase(await pushed(space, f"{there.allowed}/lead/303?to={there.allowed}/data")) == "COMPLETED"
        assert there.taken == {}
        assert len(there.asked) == 1


@pytest.mark.parametrize("status", [201, 202, 204])
async def test_answer_that_is_not_the_bytes_replaces_no_file(tmp_path: Path, status: int) -> None:
    """An archive that has a file brought from tape says 202, and some words."""
    async with elsewhere() as there, running(tmp_path / "data", ONLY_ONE) as space:
        await space.upload("/home/ada/new", b"the old bytes")
        ended = await pulled(space, f"{there.allowed}/status/{status}")
        assert phase(ended) == "ERROR"
        assert f"/status/{status} answered with status {status}" in refusal(ended)
        assert space.posix("/home/ada/new").read_bytes() == b"the old bytes"


@pytest.mark.parametrize(
    "number", ["fec0::1", "[::ffff:127.0.0.2]", "fe80::1", "fd00::1", "64:ff9b::7f00:2", "::127.0.0.2"]
)
async def test_networks_that_are_nobodys_outside_are_not_connected_to(tmp_path: Path, number: str) -> None:
    async with running(tmp_path / "data", ONLY_ONE) as space:
        await space.node("/home/ada")
        ended = await pulled(space, f"http://[{number.strip('[]')}]:9/")
        assert "is in a network that this service does not connect to" in refusal(ended)
