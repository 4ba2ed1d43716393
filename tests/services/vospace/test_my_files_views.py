"""The order of a folder in My files, and the memory that a folder of any size takes."""

import asyncio
import random
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from astrocloud.vospace.identity import Identity
from astrocloud.vospace.models import NodePath, Person
from astrocloud.vospace.myfiles import views
from astrocloud.vospace.myfiles.views import View, Views, Wish
from astrocloud.vospace.quotas import SqlQuotas
from tests.services.vospace.platform import PEOPLE, Space, running
from tests.services.vospace.test_my_files import ask, names

MANY = 10_000


def views_of(space: Space) -> Views:
    assert space.service is not None
    trash: Any = next(each.__self__ for each in space.service.background if each.__qualname__ == "Trash.keep_sweeping")
    return Views(nodes=trash._nodes)


async def test_names_are_in_the_order_that_people_expect(space: Space) -> None:
    await space.mkdir("/home/ada")
    expected = ["a", "a1", "a01b", "a2", "a10", "a10b2", "a10b10", "ab", "B", "c-9", "c-10", "é", "天1", "天2", "天10"]
    for name in random.Random(3).sample(expected, len(expected)):
        space.write(f"/home/ada/{name}")
    for name in ("z9", "z10"):
        space.make(f"/home/ada/{name}")
    assert names(await ask(space, "/list", path="/home/ada")) == ["z9", "z10", *expected]
    assert names(await ask(space, "/list", path="/home/ada", order="desc")) == ["z10", "z9", *reversed(expected)]
    for position, name in enumerate(["z9", "z10", *expected]):
        assert (await ask(space, "/list", path="/home/ada", at=f"/home/ada/{name}"))["at"] == position
    assert (await ask(space, "/list", path="/home/ada", at="/home/ada/a0"))["at"] is None
    assert (await ask(space, "/list", path="/home/ada/z9", at="/home/ada/z9/a"))["total"] == 0


@pytest.mark.parametrize("sort", ["name", "date"])
async def test_large_folder_takes_little_more_memory_than_its_names(space: Space, sort: str) -> None:
    await space.mkdir("/home/ada")
    folder = space.make("/home/ada/many")
    for number in range(MANY):
        (folder / f"frame{number}.fits").touch()
    seen, path = views_of(space), NodePath((b"home", b"ada", b"many"))
    tracemalloc.start()
    try:
        view, _stale = await asyncio.to_thread(seen.open, PEOPLE["ada"], path, Wish(sort))
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (len(view.names), view.names[MANY - 1]) == (MANY, f"frame{MANY - 1}.fits".encode())
    assert (kept / MANY < 40, peak / MANY < 400) == (True, True), (kept / MANY, peak / MANY)


async def test_names_of_views_are_kept_while_there_is_room(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    await space.mkdir("/home/ada")
    for number in range(100):
        space.write(f"/home/ada/{number:0100}")
    monkeypatch.setattr(views, "_ROOM_BYTES", 25_000)
    seen, path = views_of(space), NodePath((b"home", b"ada"))

    async def look(text: str, view_id: str = "") -> View:
        return (await asyncio.to_thread(seen.open, PEOPLE["ada"], path, Wish(match=text), view_id=view_id))[0]

    kept = [await look(text) for text in ("", "0", "00")]
    assert await look("00", kept[2].id) is kept[2]
    again = await look("", kept[0].id)
    assert again is not kept[0]
    assert (again.id, again.names.digest) == (kept[0].id, kept[0].names.digest)  # made anew just as it was


async def test_what_notebooks_wrote_is_counted_when_somebody_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    walks: list[NodePath] = []
    go, recount = threading.Event(), SqlQuotas.recount

    def held(quotas: SqlQuotas, top: NodePath) -> bool:
        walks.append(top)
        assert go.wait(20)
        return recount(quotas, top)

    monkeypatch.setattr(SqlQuotas, "recount", held)
    async with running(tmp_path / "data", {"vospace": {"home_quota_bytes": 10_000}}) as space:
        await space.mkdir("/home/ada")
        await space.upload("/home/ada/a", b"x" * 100)
        space.write("/home/ada/b", b"x" * 1000)
        for _look in range(3):  # it is counted once, however many look
            told = await ask(space, "/places")
            assert (told["places"][0]["used_bytes"], told["counting"][0]) == (100, "/home/ada")
        go.set()
        async with asyncio.timeout(20):
            while (told := await ask(space, "/places"))["counting"]:
                await asyncio.sleep(0.01)
        assert told["places"][0]["used_bytes"] == 1100
    assert sorted(set(walks)) == sorted(walks)


async def test_who_is_in_many_projects_keeps_nobody_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is counted when the page is opened, and large ones take long."""
    groups = {f"team{number}": 31000 + number for number in range(40)}
    ada = PEOPLE["ada"]
    identity = Identity(ada.identity.uid, ada.identity.gid, tuple(groups.values()))
    monkeypatch.setitem(PEOPLE, "ada", Person("ada", identity, groups))
    go, recount = threading.Event(), SqlQuotas.recount

    def held(quotas: SqlQuotas, top: NodePath) -> bool:
        assert go.wait(60)
        return recount(quotas, top)

    monkeypatch.setattr(SqlQuotas, "recount", held)
    async with running(tmp_path / "data") as space:
        try:
            assert len((await ask(space, "/places"))["counting"]) == 41
            async with asyncio.timeout(20):
                assert (await space.upload("/home/ada/f")).status == 201
                assert (await space.as_("bob").node("/home/bob")).status == 200
        finally:
            go.set()
        async with asyncio.timeout(60):
            while (await ask(space, "/places"))["counting"]:
                await asyncio.sleep(0.01)
