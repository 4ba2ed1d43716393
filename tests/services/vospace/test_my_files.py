"""My files over HTTP: listing in windows, searching, names, work on many files, the trash, sharing, links, samples."""

import asyncio
import json
import os
import struct
import threading
import time
import tracemalloc
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from astrocloud.vospace.models import NodePath, Person
from astrocloud.vospace.myfiles.sampling import Sample, take
from astrocloud.vospace.myfiles.views import Views, Wish
from tests.services.vospace.platform import PEOPLE, Answer, Space, running
from tests.services.vospace.test_resumable import begin, go_on

JSON = {"Accept": "application/json"}


async def ask(space: Space, at: str, /, **query: Any) -> Any:
    answer = await get(space, at, **query)
    assert answer.status == 200, answer.text
    return load(answer)


async def get(space: Space, at: str, /, **query: Any) -> Answer:
    text = "&".join(f"{name}={quote(str(value), safe='')}" for name, value in query.items())
    return await space.get(f"/api{at}?{text}", headers=JSON)


async def post(space: Space, at: str, /, **document: Any) -> Answer:
    sent = {**JSON, "Content-Type": "application/json"}
    return await space("POST", f"/api{at}", data=json.dumps(document).encode(), headers=sent)


def load(answer: Answer) -> Any:
    return json.loads(answer.body)


async def work(space: Space, what: str, /, **document: Any) -> Any:
    """Do work and return how it ended."""
    answer = await post(space, "/work", do=what, **document)
    assert answer.status == 201, answer.text
    told = load(answer)
    async with asyncio.timeout(30):
        while told["phase"] == "running":
            await asyncio.sleep(0.01)
            told = await ask(space, f"/work/{told['id']}")
    return told


def names(told: Any) -> list[str]:
    return [entry["name"] for entry in told["entries"]]


async def test_folder_is_told_in_windows_of_one_view(space: Space) -> None:
    await space.mkdir("/home/ada")
    for number in range(30):
        space.write(f"/home/ada/frame{number}.fits")
    space.make("/home/ada/Zoo")
    space.write("/home/ada/.profile")
    told = await ask(space, "/list", path="/home/ada", count=3)
    assert (told["total"], names(told)) == (31, ["Zoo", "frame0.fits", "frame1.fits"])
    assert told["folder"]["writable"] is True
    again = await ask(space, "/list", path="/home/ada", view=told["view"], first=9, count=3)
    assert (again["view"], again["stale"], names(again)) == (
        told["view"],
        False,
        ["frame8.fits", "frame9.fits", "frame10.fits"],
    )
    (space.root / "home/ada/frame9.fits").unlink()
    again = await ask(space, "/list", path="/home/ada", view=told["view"], first=9, count=3)
    assert again["stale"] is True
    assert again["entries"][1] is None
    anew = await ask(space, "/list", path="/home/ada", hidden=1)
    assert (anew["total"], anew["view"] != told["view"]) == (31, True)
    assert ".profile" in names(anew)


async def test_sorting_and_searching(space: Space) -> None:
    await space.mkdir("/home/ada")
    space.make("/home/ada/folder")
    for name, size in (("b.txt", 5), ("A.txt", 50), ("c.dat", 500)):
        space.write(f"/home/ada/{name}", b"x" * size)
    space.write("/home/ada/folder/Deep-A.txt")
    assert names(await ask(space, "/list", path="/home/ada")) == ["folder", "A.txt", "b.txt", "c.dat"]
    by_size = await ask(space, "/list", path="/home/ada", sort="size", order="desc")
    assert names(by_size) == ["folder", "c.dat", "A.txt", "b.txt"]
    assert names(await ask(space, "/list", path="/home/ada", q="TXT")) == ["A.txt", "b.txt"]
    told = await ask(space, "/search", path="/home/ada", q="a.TXT")
    assert (sorted(names(told)), told["complete"]) == (["A.txt", "Deep-A.txt"], True)
    assert (await get(space, "/list", path="/home/ada", sort="colour")).status == 400
    assert (await get(space, "/search", path="/home/ada")).status == 400


async def test_a_search_is_for_people_and_ends_the_one_before_it(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    await space.mkdir("/home/ada")
    answer = await get(space.as_(None), "/search", path="/home/ada", q="a")
    assert (answer.status, load(answer)["code"]) == (401, "not-signed-in")
    begun = threading.Event()

    def search(
        _self: Views, _person: Person, path: NodePath, _wish: Wish, stop: threading.Event
    ) -> tuple[list[dict[str, Any]], bool]:
        if str(path) == "/home/ada":
            begun.set()
            assert stop.wait(20)
        return [], not stop.is_set()

    monkeypatch.setattr(Views, "search", search)
    first = asyncio.create_task(ask(space, "/search", path="/home/ada", q="a"))
    assert await asyncio.to_thread(begun.wait, 20)
    assert (await ask(space.as_("bob"), "/search", path="/project/team", q="a"))["complete"] is True
    assert not first.done()  # another person's search ends nobody's
    assert (await ask(space, "/search", path="/project/team", q="a"))["complete"] is True
    assert (await first)["complete"] is False


async def test_listing_tells_nothing_that_the_reader_may_not_know(space: Space) -> None:
    await space.mkdir("/home/ada")
    await space.as_("bob").mkdir("/home/bob")
    assert (await get(space.as_("bob"), "/list", path="/home/ada")).status == 403
    assert (await get(space.as_("bob"), "/list", path="/home/ada/nothing")).status == 403
    assert (await get(space.as_(None), "/list", path="/home/ada")).status == 403
    space.write("/project/team/open.txt", who="ada", mode=0o644)
    space.write("/project/team/secret.txt", who="ada", mode=0o600)
    for who, total in (("ada", 2), ("bob", 1)):
        told = await ask(space.as_(who), "/list", path="/project/team")
        assert told["total"] == total
    assert names(await ask(space.as_("bob"), "/search", path="/project/team", q="txt")) == ["open.txt"]
    view = (await ask(space, "/list", path="/project/team"))["view"]
    stolen = await ask(space.as_("bob"), "/list", path="/project/team", view=view)
    assert (stolen["view"] != view, stolen["total"]) == (True, 1)
    answer = await post(space.as_("bob"), "/work", do="trash", view=view, picks=[0])
    assert (answer.status, load(answer)["code"]) == (409, "files-view-gone")


async def test_hundred_thousand_entries(space: Space) -> None:
    await space.mkdir("/home/ada")
    folder = space.make("/home/ada/many")
    for number in range(100_000):
        os.close(os.open(folder / f"f{number}", os.O_CREAT | os.O_WRONLY, 0o644))
        if os.geteuid() == 0 and number in {0, 99_999}:
            os.chown(folder / f"f{number}", 20001, 20001)
    told = await ask(space, "/list", path="/home/ada/many", count=50)
    assert (told["total"], len(told["entries"])) == (100_000, 50)
    last = await ask(space, "/list", path="/home/ada/many", view=told["view"], first=99_990, count=50)
    assert names(last)[-1] == "f99999"
    found = await ask(space, "/list", path="/home/ada/many", q="f9999", at="/home/ada/many/f99998")
    assert (found["total"], found["at"]) == (11, 9)


async def test_new_folder_rename_and_names_that_are_taken(space: Space) -> None:
    await space.mkdir("/home/ada")
    assert (await post(space, "/folder", path="/home/ada", name="Night 1")).status == 201
    assert (await post(space, "/folder", path="/home/ada", name="Night 1")).status == 409
    assert (await post(space, "/folder", path="/home/ada", name="Night 1/raw/a", parents=True)).status == 201
    assert (space.root / "home/ada/Night 1/raw/a").is_dir()
    for bad in ("", "..", "a/b", "x\ny", "a" * 300, ".auto", ".x.astrocloud-0123456789abcdef"):
        answer = await post(space, "/folder", path="/home/ada", name=bad)
        assert (answer.status, load(answer)["code"]) == (400, "files-bad-name"), bad
    space.write("/home/ada/a.tar.gz")
    answer = await post(space, "/exists", path="/home/ada", names=["a.tar.gz", "b"])
    assert load(answer)["taken"] == {"a.tar.gz": {"kind": "file", "size": 1, "free": "a (2).tar.gz"}}
    answer = await post(space, "/rename", path="/home/ada/a.tar.gz", name="Night 1")
    assert answer.status == 409
    answer = await post(space, "/rename", path="/home/ada/a.tar.gz", name="夜 1.tgz")
    assert (answer.status, load(answer)["name"]) == (200, "夜 1.tgz")
    assert (await post(space.as_("bob"), "/rename", path="/home/ada/Night%201", name="mine")).status == 403


async def test_copy_and_move_with_conflicts(space: Space) -> None:
    await space.mkdir("/home/ada")
    for name in ("from", "to"):
        space.make(f"/home/ada/{name}")
    space.write("/home/ada/from/a.txt", b"new")
    space.write("/home/ada/from/b.txt", b"b")
    space.write("/home/ada/to/a.txt", b"old")
    view = (await ask(space, "/list", path="/home/ada/from"))["view"]
    told = await work(space, "copy", view=view, but=[], target="/home/ada/to", conflict="keep")
    assert (told["phase"], told["done"], told["total_bytes"], told["done_bytes"]) == ("done", 2, 4, 4)
    to = space.root / "home/ada/to"
    assert sorted(p.name for p in to.iterdir()) == ["a (2).txt", "a.txt", "b.txt"]
    told = await work(space, "copy", paths=["/home/ada/from/a.txt"], target="/home/ada/to", conflict="skip")
    assert (told["skipped"], (to / "a.txt").read_bytes()) == (1, b"old")
    told = await work(space, "move", view=view, picks=[0], target="/home/ada/to", conflict="replace")
    assert (told["failed"], (to / "a.txt").read_bytes()) == (0, b"new")
    assert [thrown["name"] for thrown in (await ask(space, "/trash"))["entries"]] == ["a.txt"]
    told = await work(space, "copy", paths=["/home/ada/nothing", "/home/ada/from/b.txt"], target="/home/ada")
    assert (told["done"], told["failed"], told["problems"][0]["code"]) == (1, 1, "vospace-node-not-found")
    answer = await post(space.as_(None), "/work", do="trash", paths=["/home/ada/from"])
    assert answer.status == 401


async def test_copy_can_be_ended_and_leaves_nothing(space: Space) -> None:
    await space.mkdir("/home/ada")
    space.make("/home/ada/big")
    with space.posix("/home/ada/big/hole").open("wb") as file:
        file.truncate(40 << 30)
    os.chown(space.posix("/home/ada/big/hole"), 20001, 20001) if os.geteuid() == 0 else None
    answer = await post(space, "/work", do="copy", paths=["/home/ada/big"], target="/home/ada")
    job = load(answer)
    if job["phase"] == "running":
        ended = await space("DELETE", f"/api/work/{job['id']}", headers=JSON)
        assert load(ended)["phase"] == "stopped"
        async with asyncio.timeout(60):
            while any(path.name.startswith(".big") for path in space.posix("/home/ada").iterdir()):
                await asyncio.sleep(0.02)
        assert not space.posix("/home/ada/big (2)").exists()
    assert (await space.as_("bob").get(f"/api/work/{job['id']}", headers=JSON)).status == 404


async def test_trash_is_restored_where_it_was(space: Space) -> None:
    await space.mkdir("/home/ada")
    space.make("/home/ada/n")
    space.write("/home/ada/n/a.txt", b"1")
    told = await work(space, "trash", paths=["/home/ada/n/a.txt", "/home/ada/n"])
    assert (told["done"], told["failed"]) == (2, 0)
    assert not space.posix("/home/ada/n").exists()
    thrown = await ask(space, "/trash")
    assert [(e["name"], e["origin"]) for e in thrown["entries"]] == [
        ("n", "/home/ada/n"),
        ("a.txt", "/home/ada/n/a.txt"),
    ]
    assert (space.posix("/home/ada/.trash").stat().st_mode & 0o777) == 0o700
    assert (await ask(space.as_("bob"), "/trash"))["entries"] == []
    told = await work(space.as_("bob"), "restore", paths=["/home/ada/.trash/a.txt"])
    assert told["failed"] == 1
    # Its folder is gone: it is made again.
    told = await work(space, "restore", paths=["/home/ada/.trash/a.txt"])
    assert told["results"] == ["/home/ada/n/a.txt"]
    told = await work(space, "restore", paths=["/home/ada/.trash/n"])
    assert told["results"] == ["/home/ada/n%20(2)"]
    assert (await ask(space, "/trash"))["entries"] == []


async def test_trash_of_a_project_is_ones_own_and_what_is_deleted_in_it_is_gone(space: Space) -> None:
    await space.mkdir("/home/ada")
    space.write("/project/team/x", b"1", who="bob", mode=0o660)
    assert (await work(space, "trash", paths=["/project/team/x"]))["done"] == 1
    assert space.posix("/project/team/.trash/ada/x").exists()
    assert (await ask(space.as_("bob"), "/trash"))["entries"] == []
    assert (await work(space.as_("bob"), "trash", paths=["/project/team/.trash/ada/x"]))["failed"] == 1
    assert (await work(space, "delete", paths=["/project/team/.trash/ada/x"]))["done"] == 1
    assert not space.posix("/project/team/.trash/ada/x").exists()


async def test_trash_is_swept_and_counts_for_the_quota(tmp_path: Path) -> None:
    config = {"vospace": {"trash_days": 1, "home_quota_bytes": 100}}
    async with running(tmp_path / "data", config) as space:
        await space.mkdir("/home/ada")
        await space.upload("/home/ada/a", b"x" * 80)
        await work(space, "trash", paths=["/home/ada/a"])
        [place] = (await ask(space, "/places"))["places"][:1]
        assert (place["used_bytes"], place["limit_bytes"]) == (80, 100)
        assert (await space.upload("/home/ada/b", b"x" * 80)).status == 507
        assert space.service is not None
        trash = next(work.__self__ for work in space.service.background if work.__qualname__ == "Trash.keep_sweeping")
        assert await asyncio.to_thread(trash.sweep, time.time() - 3600) == 0
        assert await asyncio.to_thread(trash.sweep, time.time() + 1) == 1
        assert (await ask(space, "/trash"))["entries"] == []
        assert (await space.upload("/home/ada/b", b"x" * 80)).status == 201
    async with running(tmp_path / "data", {"vospace": {"trash_days": 0}}) as space:
        await work(space, "trash", paths=["/home/ada/b"])
        assert not space.posix("/home/ada/b").exists()
        assert (await ask(space, "/trash"))["entries"] == []


@pytest.mark.skipif(os.geteuid() != 0, reason="people have user ids of their own only where root runs the service")
async def test_share_is_seen_by_the_other_and_by_nobody_else(space: Space) -> None:
    for who in PEOPLE:
        await space.as_(who).mkdir(f"/home/{who}")
    space.make("/home/ada/data", mode=0o700)
    space.write("/home/ada/data/a.txt", b"for bob", mode=0o600)
    space.write("/home/ada/other.txt", mode=0o644)
    answer = await post(space, "/share", path="/home/ada/data", people={"bob": "read"})
    assert answer.status == 201, answer.text
    job = load(answer)
    assert (job["phase"], job["problems"]) == ("done", [])
    told = await ask(space, "/share", path="/home/ada/data")
    assert (told["people"], told["mine"], told["your_groups"]) == ({"bob": "read"}, True, ["team"])
    bob = space.as_("bob")
    shared = await ask(bob, "/shared")
    assert [(e["path"], e["owner"], e["folder"]) for e in shared["entries"]] == [("/home/ada/data", "ada", "/home/ada")]
    assert names(await ask(bob, "/list", path="/home/ada/data")) == ["a.txt"]
    assert (await bob.get("/files/home/ada/data/a.txt")).body == b"for bob"
    assert (await bob.get("/files/home/ada/other.txt")).status == 403
    assert (await ask(space.as_("eve"), "/shared"))["entries"] == []
    assert (await get(space.as_("eve"), "/share", path="/home/ada/data")).status == 403
    assert (await ask(bob, "/share", path="/home/ada/data"))["mine"] is False
    assert (await post(bob, "/share", path="/home/ada/data", people={"eve": "read"})).status == 403
    assert (await post(bob, "/links", path="/home/ada/data", hours=1)).status == 403
    assert (await post(space, "/share", path="/home/ada/data", people={"nobody-here": "read"})).status == 400
    await post(space, "/share", path="/home/ada/data", people={})
    assert (await ask(bob, "/shared"))["entries"] == []
    assert (await bob.get("/files/home/ada/data/a.txt")).status == 403


@pytest.mark.skipif(os.geteuid() != 0, reason="people have user ids of their own only where root runs the service")
async def test_share_made_in_a_terminal_is_found_by_the_walk(space: Space) -> None:
    from astrocloud.vospace import acl
    from astrocloud.vospace.models import NodePath

    for who in ("ada", "bob"):
        await space.as_(who).mkdir(f"/home/{who}")
    file = space.write("/home/ada/a.txt", mode=0o600)
    os.setxattr(file, acl.ACCESS, acl.Acl(6, 0, 0, {20002: 4}).encode())
    os.setxattr(space.posix("/home/ada"), acl.ACCESS, acl.Acl(7, 0, 0, {20002: 1}).encode())
    assert space.service is not None
    shares = next(work.__self__ for work in space.service.background if work.__qualname__ == "Shares.keep_looking")
    await asyncio.to_thread(shares.look, NodePath((b"home", b"ada")))
    assert [e["path"] for e in (await ask(space.as_("bob"), "/shared"))["entries"]] == ["/home/ada/a.txt"]


async def test_public_link_works_until_it_is_revoked_and_opens_nothing_else(space: Space) -> None:
    await space.mkdir("/home/ada")
    space.make("/home/ada/out", mode=0o700)
    space.write("/home/ada/out/a b.txt", b"for all", mode=0o600)
    space.write("/home/ada/secret.txt", b"no", mode=0o600)
    space.posix("/home/ada/out/way").symlink_to("../secret.txt")
    link = load(await post(space, "/links", path="/home/ada/out", hours=24))
    anybody, address = space.as_(None), link["url"]
    html = {"Accept": "text/html"}
    answer = await anybody.get(address, headers=html)
    assert answer.status == 200
    assert "a b.txt" in answer.text
    assert "noindex" in answer.headers["X-Robots-Tag"]
    assert (await anybody.get(f"{address}/a%20b.txt?get")).body == b"for all"
    with zipfile.ZipFile(BytesIO((await anybody.get(f"{address}?get")).body)) as archive:
        assert archive.namelist() == ["out/", "out/a b.txt"]
    for inside in ("/way?get", "/..%2Fsecret.txt?get", "/../secret.txt?get", "/nothing?get"):
        assert (await anybody.get(f"{address}{inside}")).status in {400, 404}, inside
    assert (await anybody.get(address[:-1] + ("A" if address[-1] != "A" else "B"))).status == 404
    assert (await space.as_("bob")("DELETE", f"/api/links/{link['id']}", headers=JSON)).status == 404
    assert (await post(space, "/links", path="/home/ada/out", hours=24 * 366)).status == 400
    assert (await space("DELETE", f"/api/links/{link['id']}", headers=JSON)).status == 204
    assert (await anybody.get(address, headers=html)).status == 404
    assert (await ask(space, "/links"))["links"] == []


async def test_sample_of_a_large_array_reads_every_so_many_th_number(space: Space) -> None:
    await space.mkdir("/home/ada")
    array = b"".join(struct.pack(">H", 100 * row + column) for row in range(6) for column in range(5))
    space.write("/home/ada/a.dat", b"head" + array)
    query = {"path": "/home/ada/a.dat", "offset": 4, "item": 2, "width": 5, "height": 6, "step": 2}
    answer = await get(space, "/sample", **query)
    assert struct.unpack(">9H", answer.body) == (0, 2, 4, 200, 202, 204, 400, 402, 404)
    for wrong in ({"item": 3}, {"step": 0}, {"width": 10**9}, {"height": 5000, "step": 1}, {"offset": "x"}):
        assert (await get(space, "/sample", **{**query, **wrong})).status == 400, wrong
    assert (await get(space.as_("bob"), "/sample", **query)).status == 403


@pytest.mark.parametrize("step", [1, 3, 700, 2500, 20_000, 100_000])
def test_sample_is_what_the_numbers_are_however_it_is_read(tmp_path: Path, step: int) -> None:
    width, height, item = min(2048 * step, 120_000), 3, 8
    whole = os.urandom(width * item * 2 + 4003)  # the file ends in the last row, within a number
    path = tmp_path / "a"
    path.write_bytes(b"head" + whole)
    whole += bytes(width * item * height - len(whole))
    expected = b"".join(
        whole[(row * width + column) * item :][:item]
        for row in range(0, height, step)
        for column in range(0, width, step)
    )
    with path.open("rb") as file:
        assert take(file.fileno(), Sample(4, item, width, height, step)) == expected


@pytest.mark.parametrize("size", [1, 1 << 30])
def test_sample_takes_little_memory(tmp_path: Path, size: int) -> None:
    with (tmp_path / "a").open("w+b") as file:
        file.truncate(size)
        tracemalloc.start()
        try:
            for width, step in ((1 << 26, 1 << 15), (1 << 22, 1 << 11)):
                found = take(file.fileno(), Sample(0, 8, width, 1, step))
                assert found == bytes(2048 * 8)
            assert tracemalloc.get_traced_memory()[1] < 8 << 20
        finally:
            tracemalloc.stop()


async def test_uploads_that_are_not_whole_are_told_to_their_owner(space: Space) -> None:
    await space.mkdir("/home/ada")
    url = (await begin(space, "/home/ada/big", 10)).headers["Location"]
    await go_on(space, url, 0, b"0123")
    [told] = (await ask(space, "/uploads"))["uploads"]
    assert (told["url"], told["path"], told["offset"], told["size"]) == (url, "/home/ada/big", 4, 10)
    assert (await ask(space.as_("bob"), "/uploads"))["uploads"] == []


@pytest.mark.skipif(os.geteuid() != 0, reason="people have user ids of their own only where root runs the service")
async def test_what_everybody_could_read_in_a_closed_home_is_made_public(space: Space) -> None:
    await space.mkdir("/home/ada")
    space.posix("/home/ada").chmod(0o700)
    space.make("/home/ada/d")
    for name in ("a.txt", "b.txt"):
        space.write(f"/home/ada/d/{name}")
    space.write("/home/ada/c.txt")
    anybody = space.as_(None)
    for path in ("/home/ada/d/a.txt", "/home/ada/d"):
        assert (await ask(space, "/share", path=path))["public"] is False
    assert (await post(space, "/share", path="/home/ada/d/a.txt", public=True)).status == 200
    assert (await ask(space, "/share", path="/home/ada/d/a.txt"))["public"] is True
    assert (await anybody.get("/files/home/ada/d/a.txt")).body == b"x"
    # What is beside it, at any depth, stays closed: neither shown nor read, by nobody and by no name.
    for path in ("/files/home/ada/c.txt", "/files/home/ada/d/b.txt", "/nodes/home/ada/d", "/nodes/home/ada"):
        for who in (None, "bob"):
            assert (await space.as_(who).get(path)).status == 403, path
    assert (await post(space, "/share", path="/home/ada/d/a.txt", public=False)).status == 200
    assert (await anybody.get("/files/home/ada/d/a.txt")).status == 403


@pytest.mark.skipif(os.geteuid() != 0, reason="people have user ids of their own only where root runs the service")
async def test_what_is_shared_deep_in_a_closed_home_opens_nothing_beside_it(space: Space) -> None:
    for who in ("ada", "bob"):
        await space.as_(who).mkdir(f"/home/{who}")
    space.posix("/home/ada").chmod(0o700)
    for name in ("d", "d/e", "d/other"):
        space.make(f"/home/ada/{name}")
        space.write(f"/home/ada/{name}/b.txt")
    space.write("/home/ada/d/e/a.txt")
    bob = space.as_("bob")
    assert (await post(space, "/share", path="/home/ada/d/e/a.txt", people={"bob": "read"})).status == 200
    assert (await bob.get("/files/home/ada/d/e/a.txt")).body == b"x"
    for name in ("d/b.txt", "d/e/b.txt", "d/other/b.txt"):
        assert (await bob.get(f"/files/home/ada/{name}")).status == 403, name
    # Another share opens the way to more, and leaves the first.
    assert (await post(space, "/share", path="/home/ada/d/e/b.txt", people={"bob": "read"})).status == 200
    for name in ("a.txt", "b.txt"):
        assert (await bob.get(f"/files/home/ada/d/e/{name}")).body == b"x"
    assert (await bob.get("/files/home/ada/d/b.txt")).status == 403
