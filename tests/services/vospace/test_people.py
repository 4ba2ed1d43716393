"""Who people are: asked of the passport, believed for a short time; and what notebooks wrote is counted."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from pydantic import SecretStr

from astrocloud.core.errors import RequestError
from astrocloud.vospace import people as people_module
from astrocloud.vospace.identity import Identity
from astrocloud.vospace.models import NodePath
from astrocloud.vospace.people import Owners, PassportPeople
from tests.services.vospace.platform import CORE, Space, running

DOCUMENT = {"username": "ada", "uid": 20001, "gid": 20001, "groups": [{"name": "team", "gid": 30001}], "admin": False}


@pytest.fixture
async def passport() -> AsyncIterator[tuple[str, dict[str, object], list[str]]]:
    """A passport's internal interface: its address, what it answers, and whom it was asked for."""
    answers: dict[str, object] = {"ada": {**DOCUMENT, "status": "active"}, "bob": {**DOCUMENT, "status": "disabled"}}
    asked: list[str] = []

    async def person(request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == "Bearer secret"
        name = request.match_info["name"]
        asked.append(name)
        if name == "broken":
            return web.Response(status=500)
        if name not in answers:
            return web.Response(status=404)
        return web.json_response(answers[name])

    app = web.Application()
    app.router.add_get("/services/passport/api/internal/people/{name}", person)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}", answers, asked
    await runner.cleanup()


async def test_person_is_asked_for_once_and_again_when_the_answer_is_old(passport, monkeypatch) -> None:
    url, answers, asked = passport
    people = PassportPeople(url=url, secret=SecretStr("secret"))
    found = await asyncio.gather(*(people.person("ada") for _ in range(10)))
    assert {person.identity for person in found} == {Identity(20001, 20001, (30001,))}
    assert asked == ["ada"]
    assert await people.person("bob") is None
    assert await people.person("nobody") is None
    answers["ada"] = {**DOCUMENT, "status": "disabled"}
    assert await people.person("ada") is not None
    now = people_module.time.monotonic()
    monkeypatch.setattr(people_module.time, "monotonic", lambda: now + people_module.CACHE_S + 1)
    assert await people.person("ada") is None
    assert people_module.CACHE_S <= 15


async def test_passport_that_does_not_answer_is_no_answer(passport) -> None:
    url, _answers, _asked = passport
    people = PassportPeople(url=url, secret=SecretStr("secret"))
    with pytest.raises(RequestError) as caught:
        await people.person("broken")
    assert caught.value.code == "unavailable"
    gone = PassportPeople(url="http://127.0.0.1:1", secret=SecretStr("secret"))
    with pytest.raises(RequestError):
        await gone.person("ada")
    assert "secret" not in repr(people)


async def test_what_notebooks_wrote_is_counted_by_the_scan(tmp_path: Path) -> None:
    async with running(tmp_path / "data", {"vospace": {"home_quota_bytes": 1000}}) as space:
        await space.upload("/home/ada/a", b"x" * 100)
        space.make("/home/ada/d")
        space.write("/home/ada/d/b", b"x" * 500)
        available = f"{CORE}availableSpace"
        assert (await space.node("/home/ada")).properties[available] == "900"
        await scan(space)
        assert (await space.node("/home/ada")).properties[available] == "400"
        assert (await space.upload("/home/ada/c", b"x" * 401)).status == 507
        space.posix("/home/ada/d/b").unlink()
        await scan(space)
        assert (await space.node("/home/ada")).properties[available] == "900"


async def scan(space: Space) -> None:
    assert space.service is not None
    scanner = space.service.background[0].__self__
    await scanner.scan()
    assert str(NodePath((b"home", b"ada"))) == "/home/ada"


@pytest.mark.skipif(os.geteuid() != 0, reason="homes have owners of their own only where root runs it")
async def test_second_home_of_one_owner_takes_no_name_from_the_others(tmp_path: Path) -> None:
    """As a copy that an administrator keeps beside the first."""
    async with running(tmp_path / "data") as space:
        for name in ("ada", "bob", "eve"):
            await space.as_(name).node(f"/home/{name}")
        space.make("/home/eve.old", who="eve")
        owners = Owners(space.root)
        assert [owners.uid(name) for name in ("ada", "bob", "eve")] == [20001, 20002, None]
        assert owners.names(space.people["bob"]).users == {20001: "ada", 20002: "bob"}
        assert owners.names(space.people["eve"]).users == {20001: "ada", 20002: "bob", 20003: "eve"}


@pytest.mark.skipif(os.geteuid() != 0, reason="homes have owners of their own only where root runs it")
async def test_who_came_by_another_replica_is_known_at_once(tmp_path: Path) -> None:
    async with running(tmp_path / "data") as space:
        await space.as_("ada").node("/home/ada")
        elsewhere = Owners(space.root)
        assert elsewhere.uid("ada") == 20001
        await space.as_("bob").node("/home/bob")
        assert elsewhere.names(space.people["ada"]).users == {20001: "ada", 20002: "bob"}
        assert elsewhere.uid("bob") == 20002


@pytest.mark.skipif(os.geteuid() != 0, reason="homes have owners of their own only where root runs it")
async def test_home_seen_before_it_has_its_owner_is_looked_at_again(tmp_path: Path) -> None:
    async with running(tmp_path / "data") as space:
        elsewhere = Owners(space.root)
        home = space.root / "home" / "ada"
        home.mkdir()
        assert elsewhere.uid("ada") is None
        os.chown(home, 20001, 20001)
        assert elsewhere.uid("ada") == 20001


@pytest.mark.skipif(os.geteuid() != 0, reason="folders of nobody's are root's")
def test_folder_that_stays_without_an_owner_is_not_looked_at_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Something keeps writing into it, or the storage's clock is ahead."""
    looks: list[object] = []
    listed = os.scandir
    monkeypatch.setattr(people_module, "OWNERLESS_S", 0)
    monkeypatch.setattr(people_module.os, "scandir", lambda folder: (looks.append(folder), listed(folder))[1])
    (tmp_path / "home").mkdir()
    (tmp_path / "project" / "lost").mkdir(parents=True)
    os.utime(tmp_path / "project" / "lost", (2**32, 2**32))
    owners = Owners(tmp_path)
    for _ in range(9):
        assert owners.uid("ada") is None
    assert len(looks) == 2
