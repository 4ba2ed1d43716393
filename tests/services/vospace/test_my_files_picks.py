"""What is picked in a list of My files: downloaded as one archive, worked on, looked for where it is to go."""

import asyncio
import secrets
import threading
import zipfile
from io import BytesIO
from typing import Any

import pytest

from astrocloud.vospace.models import Person
from astrocloud.vospace.myfiles import api_work
from astrocloud.vospace.myfiles.works import Task, Works
from tests.services.vospace.platform import Space
from tests.services.vospace.test_my_files import JSON, ask, load, post, work


async def packed(space: Space, /, **picks: Any) -> dict[str, bytes]:
    """Download what is picked as one archive; return its files by name."""
    answer = await post(space, "/archive", **picks)
    assert answer.status == 201, answer.text
    found = await space.get(load(answer)["url"].removeprefix("/services/vospace"))
    assert (found.status, found.headers["Content-Type"]) == (200, "application/zip")
    with zipfile.ZipFile(BytesIO(found.body)) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}


async def test_just_what_is_picked_is_downloaded_as_one_archive(space: Space) -> None:
    for who in ("ada", "bob"):
        await space.as_(who).mkdir(f"/home/{who}")
    for name in ("d", "d/e"):
        space.make(f"/home/ada/{name}")
    for name in ("a1", "a2", "b1", "b c", ".hidden", "d/a3", "d/e/a4", "d/e/x"):
        space.write(f"/home/ada/{name}", name.encode())
    # Positions are of the list that was picked from: what it left out is not packed.
    view = (await ask(space, "/list", path="/home/ada", q="a"))["view"]
    assert sorted(await packed(space, view=view, but=[])) == ["ada/a1", "ada/a2"]
    view = (await ask(space, "/list", path="/home/ada"))["view"]
    assert sorted(await packed(space, view=view, but=[0, 1])) == ["ada/a2", "ada/b c", "ada/b1"]
    assert await packed(space, view=view, picks=[1, 4]) == {"ada/a1": b"a1", "ada/b c": b"b c"}
    assert sorted(await packed(space, view=view, picks=[0])) == ["ada/d/a3", "ada/d/e/a4", "ada/d/e/x"]
    # What a search found lies in many folders, what others share in many homes.
    paths = ["/home/ada/a1", "/home/ada/d/a3", "/home/ada/d/e/a4"]
    assert sorted(await packed(space, paths=paths)) == ["ada/a1", "ada/d/a3", "ada/d/e/a4"]
    space.write("/home/bob/for ada", b"bob's", who="bob")
    space.write("/home/bob/private", who="bob", mode=0o600)
    space.posix("/home/bob").chmod(0o711)
    picks = ["/home/ada/b%20c", "/home/bob/for%20ada", "/home/bob/private"]
    assert sorted(await packed(space, paths=picks)) == ["home/ada/b c", "home/bob/for ada"]
    space.write("/project/team/t")
    assert sorted(await packed(space, paths=[*picks, "/project/team/t"]))[-1] == "files/project/team/t"


async def test_an_archive_is_for_who_picked_it_and_a_list_that_is_gone_is_told(space: Space) -> None:
    await space.mkdir("/home/ada")
    space.write("/home/ada/a")
    # What is little stands in the address, which gives nobody more than they may read.
    url = load(await post(space, "/archive", paths=["/home/ada/a"]))["url"].removeprefix("/services/vospace")
    for who, found in (("ada", ["ada/a"]), ("bob", [])):
        with zipfile.ZipFile(BytesIO((await space.as_(who).get(url)).body)) as archive:
            assert archive.namelist() == found
    for wrong in (".", ".x", ".eJw=", f".{'A' * 2000}"):
        assert (await space.get(f"/api/archive/{wrong}", headers=JSON)).status in {400, 404}, wrong
    # What is much is kept for who picked it, and once.
    random_paths = [f"/home/ada/{secrets.token_hex(60)}" for _ in range(100)]
    told = load(await post(space, "/archive", paths=["/home/ada/a", *random_paths]))
    url = told["url"].removeprefix("/services/vospace")
    for who, status in (("bob", 404), ("ada", 200), ("ada", 404)):
        assert (await space.as_(who).get(url)).status == status, who
    for picks, code in (
        ({"view": "gone", "but": []}, "files-view-gone"),
        ({"paths": []}, "vospace-invalid-argument"),
        ({"paths": [1]}, "vospace-invalid-argument"),
    ):
        assert load(await post(space, "/archive", **picks))["code"] == code
    many = await packed(space, paths=["/home/ada/a", *(f"/home/ada/{n:0200}" for n in range(5000))])
    assert many == {"ada/a": b"x"}


async def test_names_that_are_taken_are_told_for_all_that_is_picked(space: Space) -> None:
    await space.mkdir("/home/ada")
    for name in ("from", "to", "from/f", "to/f"):
        space.make(f"/home/ada/{name}")
    for number in range(30):
        space.write(f"/home/ada/from/n{number}")
        space.write(f"/home/ada/to/n{number}", b"there")
    space.write("/home/ada/from/free")
    view = (await ask(space, "/list", path="/home/ada/from", count=1))["view"]
    told = load(await post(space, "/exists", path="/home/ada/to", view=view, but=[]))
    assert (told["count"], len(told["some"]), told["some"][:2]) == (31, 10, ["f", "n0"])
    # What is there already is not in its own way.
    told = load(await post(space, "/exists", path="/home/ada/to", paths=["/home/ada/to/n1", "/home/ada/from/n2"]))
    assert told == {"count": 1, "some": ["n2"]}
    assert load(await post(space, "/exists", path="/home/ada/to", view="gone", but=[]))["code"] == "files-view-gone"


async def test_odd_names_are_looked_for_as_they_are(space: Space) -> None:
    await space.mkdir("/home/ada")
    space.write("/home/ada/a.txt", b"12345")
    space.write("/project/team/secret", who="bob", mode=0o600)
    made = await post(space, "/folder", path="/home/ada", name="data /sub ", parents=True)
    assert (made.status, load(made)["path"]) == (201, "/home/ada/data%20/sub%20")
    assert space.posix("/home/ada/data /sub ").is_dir()
    assert load(await post(space, "/folder", path="/home/ada", name=" typed "))["name"] == "typed"
    odd = ["Icon\r", ".auto", "a\nb", "..", "", "a/b", "x" * 300, "天" * 100, "\x00", "data", "data ", "a.txt", "ä\x7f"]
    taken = load(await post(space, "/exists", path="/home/ada", names=odd))["taken"]
    assert taken == {
        "data ": {"kind": "folder", "size": None, "free": "data  (2)"},
        "a.txt": {"kind": "file", "size": 5, "free": "a (2).txt"},
    }
    # Of what somebody may not read neither kind nor size is told.
    taken = load(await post(space, "/exists", path="/project/team", names=["secret"]))["taken"]
    assert taken == {"secret": {"kind": "file", "size": None, "free": "secret (2)"}}


async def test_what_has_a_long_name_is_replaced(space: Space) -> None:
    await space.mkdir("/home/ada")
    name = "星" * 80 + ".txt"
    for folder, text in (("from", b"new"), ("to", b"old")):
        space.make(f"/home/ada/{folder}")
        space.write(f"/home/ada/{folder}/{name}", text)
    told = await work(space, "copy", paths=[f"/home/ada/from/{name}"], target="/home/ada/to", conflict="replace")
    assert (told["done"], told["problems"]) == (1, [])
    assert space.posix(f"/home/ada/to/{name}").read_bytes() == b"new"


async def test_work_that_waits_is_not_forgotten(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    await space.mkdir("/home/ada")
    monkeypatch.setattr(api_work, "_KEPT", 2)
    go, run = threading.Event(), Works.run

    def held(works: Works, person: Person, task: Task) -> None:
        assert go.wait(30)
        run(works, person, task)

    monkeypatch.setattr(Works, "run", held)
    for number in range(6):
        space.write(f"/home/ada/{number}")
    answers = await asyncio.gather(
        *(post(space, "/work", do="trash", paths=[f"/home/ada/{number}"]) for number in range(6))
    )
    go.set()
    async with asyncio.timeout(30):
        for answer in answers:
            while (told := await ask(space, f"/work/{load(answer)['id']}"))["phase"] == "running":
                await asyncio.sleep(0.01)
            assert (told["phase"], told["done"]) == ("done", 1), told
    assert [path.name for path in space.posix("/home/ada").iterdir()] == [".trash"]
