"""What is counted for a quota is what is there, whatever happens while bytes come in."""

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from astrocloud.core.database import open_database, sqlite_url
from astrocloud.vospace.partial import Partial, Partials
from astrocloud.vospace.uploads import Upload
from tests.services.vospace.platform import CORE, Space, node_xml, running, uri
from tests.services.vospace.test_files import leftovers, slowly
from tests.services.vospace.test_resumable import TUS, begin, go_on
from tests.services.vospace.test_transfers import job, transfer_xml

LIMIT = 1000
LIMITS = {"vospace": {"home_quota_bytes": LIMIT, "home_quota_files": 5, "project_quota_bytes": LIMIT}}


async def used(space: Space, who: str = "ada") -> int:
    properties = (await space.as_(who).node(f"/home/{who}")).properties
    return LIMIT - int(properties[f"{CORE}availableSpace"])


def there(space: Space) -> int:
    return sum(f.stat().st_size for f in space.posix("/home/ada").rglob("*") if f.is_file())


def rows(space: Space) -> dict[str, tuple[int, int]]:
    assert space.data is not None
    engine = open_database(sqlite_url(space.data.databases))
    with engine.begin() as connection:
        found = connection.execute(text("SELECT top, size, files FROM vospace_usage")).all()
    engine.dispose()
    return {os.fsdecode(row[0]): (row[1], row[2]) for row in found}


async def test_a_file_that_goes_while_another_comes_in_its_place(tmp_path: Path) -> None:
    async with running(tmp_path / "data", LIMITS) as space:
        await space.upload("/home/ada/f", b"x" * 600)

        async def delete() -> None:
            assert (await space("DELETE", "/files/home/ada/f")).status == 200

        assert (await slowly(space, "/home/ada/f", b"y" * 600, delete)).status == 201
        assert await used(space) == there(space) == 600
        assert rows(space)["home/ada"] == (600, 1)

        async def make() -> None:
            await delete()
            assert (await space.upload("/home/ada/g", b"z" * 600)).status == 201

        # There is room no more when it is whole, and what is counted is still what is there.
        answer = await slowly(space, "/home/ada/f", b"y" * 600, make)
        assert (answer.status, answer.fault) == (507, "QuotaExceeded")
        assert leftovers(space) == []
        assert rows(space)["home/ada"] == (600, 1)
        assert there(space) == 600


async def test_two_that_make_one_file_are_one_file(tmp_path: Path) -> None:
    async with running(tmp_path / "data", LIMITS) as space:
        await space.node("/home/ada")

        async def other() -> None:
            assert (await space.upload("/home/ada/f", b"x" * 300)).status == 201

        assert (await slowly(space, "/home/ada/f", b"y" * 400, other)).status == 200
        assert rows(space)["home/ada"] == (400, 1)
        await asyncio.gather(*(space.upload("/home/ada/f", b"z" * 100) for _ in range(4)))
        assert rows(space)["home/ada"] == (100, 1)


async def test_an_upload_in_parts_is_counted_for_what_it_replaces(tmp_path: Path) -> None:
    async with running(tmp_path / "data", LIMITS) as space:
        await space.upload("/home/ada/f", b"x" * 600)
        url = (await begin(space, "/home/ada/f", 700)).headers["Location"]
        await go_on(space, url, 0, b"y" * 600)
        await space("DELETE", "/files/home/ada/f")
        await space.upload("/home/ada/g", b"z" * 600)
        answer = await go_on(space, url, 600, b"y" * 100)
        assert (answer.status, answer.fault) == (507, "QuotaExceeded")
        assert not space.posix("/home/ada/f").exists()
        await space("DELETE", "/files/home/ada/g")
        assert (await go_on(space, url, 700, b"")).status == 204
        assert rows(space)["home/ada"] == (700, 1)


@pytest.mark.parametrize("by", ["delete", "move"])
async def test_the_first_thing_that_is_counted_goes_away(tmp_path: Path, by: str) -> None:
    async with running(tmp_path / "data", LIMITS) as space:
        await space.node("/home/ada")
        space.write("/home/ada/f", b"x" * 600)
        space.write("/home/ada/kept", b"x" * 100)
        if by == "delete":
            assert (await space("DELETE", "/nodes/home/ada/f")).status == 200
        else:
            await job(space, transfer_xml("/home/ada/f", uri("/project/team"), keep=False))
            assert rows(space)["project/team"] == (600, 1)
        assert rows(space)["home/ada"] == (100, 1)


async def test_who_may_not_write_is_told_that_and_nothing_is_counted(tmp_path: Path) -> None:
    async with running(tmp_path / "data", LIMITS) as space:
        await space.as_("bob").node("/home/bob")
        for name in "abcde":
            await space.as_("bob").upload(f"/home/bob/{name}", b"x" * 150)
        eve = space.as_("eve")
        await eve.upload("/home/eve/f", b"x" * 900)
        await space.node("/home/ada")  # never counted
        for path in ("/home/bob/x", "/home/ada/x", "/home/nobody-at-all/x"):
            answer = await eve("PUT", f"/nodes{path}", data=node_xml(path))
            assert (answer.status, answer.fault) == (403, "PermissionDenied"), path
            url, _ended = await job(eve, transfer_xml("/home/eve/f", uri(path), keep=True))
            assert (await eve.get(f"{url}/error")).text == "PermissionDenied"
        assert rows(space).keys() == {"home/bob", "home/eve"}


async def test_a_node_that_could_not_be_made_as_asked_is_not_there(tmp_path: Path) -> None:
    async with running(tmp_path / "data", LIMITS) as space:
        await space.node("/home/ada")
        for kind in ("ContainerNode", "DataNode"):
            document = node_xml("/home/ada/new", kind, {"title": "x" * 5000})
            answer = await space("PUT", "/nodes/home/ada/new", data=document)
            assert (answer.status, answer.fault) == (400, "InvalidArgument")
            assert not space.posix("/home/ada/new").exists()
        assert rows(space)["home/ada"] == (0, 0)


async def test_no_room_is_taken_for_what_is_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others would lack it as long as that lasts."""
    taken = []
    monkeypatch.setattr(os, "posix_fallocate", lambda _file, _first, length: taken.append(length))
    async with running(tmp_path / "data", {"vospace": {"home_quota_bytes": 5 << 20}}) as space:
        assert (await space.upload("/home/ada/f", bytes(6 << 20))).status == 507
        assert taken == []
        assert (await space.upload("/home/ada/f", bytes(4 << 20))).status == 201
        assert taken == [4 << 20]


async def test_upload_that_is_broken_off_when_it_is_in_its_place_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, commit, ended = asyncio.get_running_loop(), Upload.commit, []

    async with running(tmp_path / "data", LIMITS) as space:
        url = (await begin(space, "/home/ada/f", 300)).headers["Location"]

        def broken_off(upload: Upload, **given: Any) -> os.stat_result:
            status = commit(upload, **given)
            end = asyncio.run_coroutine_threadsafe(space("DELETE", url, headers=TUS), loop)
            ended.append(end.result(20).status)
            return status

        monkeypatch.setattr(Upload, "commit", broken_off)
        assert (await go_on(space, url, 0, bytes(300))).status == 204
        assert ended == [204]
        assert (await used(space), there(space)) == (300, 300)


async def test_upload_that_cannot_be_remembered_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(_partials: Partials, _partial: Partial) -> None:
        raise OperationalError("", {}, Exception("the database is away"))

    async with running(tmp_path / "data", LIMITS) as space:
        await space.node("/home/ada")
        monkeypatch.setattr(Partials, "add", away)
        open_before = len(os.listdir("/proc/self/fd"))
        for _ in range(20):
            assert (await begin(space, "/home/ada/f", 300)).status == 500
        assert len(os.listdir("/proc/self/fd")) < open_before + 20
        assert (await used(space), leftovers(space)) == (0, [])
