"""What members of a project, who may rename and make things in it, cannot make My files do for them."""

import asyncio
import ctypes
import errno
import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from astrocloud.vospace import acl, births
from astrocloud.vospace.domain import Nodes
from astrocloud.vospace.identity import acting_as
from astrocloud.vospace.models import NodePath, Person
from astrocloud.vospace.myfiles import trash
from astrocloud.vospace.storage import Tree
from tests.services.vospace.platform import PEOPLE, TEAM, Space, running
from tests.services.vospace.test_my_files import JSON, ask, load, post, work

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="people have user ids of their own only where root runs it")


def trash_of(space: Space) -> Any:
    assert space.service is not None
    return next(each.__self__ for each in space.service.background if each.__qualname__ == "Trash.keep_sweeping")


async def sweep(space: Space) -> int:
    count: int = await asyncio.to_thread(trash_of(space).sweep, time.time() + 1)
    return count


async def link_to(space: Space, path: str) -> str:
    answer = await post(space, "/links", path=path, hours=1)
    assert answer.status == 201, answer.text
    url: str = load(answer)["url"]
    return url


async def home_and_project(space: Space) -> None:
    await space.mkdir("/home/ada")
    await space.as_("bob").mkdir("/home/bob")


async def test_public_link_is_not_repointed_through_a_symlink(space: Space) -> None:
    await home_and_project(space)
    space.write("/home/ada/a.txt", b"secret", mode=0o600)
    space.make("/project/team/out")
    space.write("/project/team/out/a.txt", b"for all")
    folder, file = await link_to(space, "/project/team/out"), await link_to(space, "/project/team/out/a.txt")
    anybody = space.as_(None)
    assert (await anybody.get(f"{folder}/a.txt?get")).body == b"for all"
    assert (await anybody.get(f"{file}?get")).body == b"for all"
    space.posix("/project/team/out").rename(space.posix("/project/team/aside"))
    space.posix("/project/team/out").symlink_to("/home/ada")
    for address in (f"{folder}/a.txt?get", f"{folder}?get", folder, f"{file}?get", file):
        assert (await anybody.get(address, headers=JSON)).status == 404, address
    space.posix("/project/team/out").unlink()
    space.posix("/project/team/aside").rename(space.posix("/project/team/out"))
    assert (await anybody.get(f"{folder}/a.txt?get")).body == b"for all"


async def test_public_link_opens_nothing_that_was_put_there_after_the_look(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    await home_and_project(space)
    space.write("/home/ada/a.txt", b"secret", mode=0o600)
    space.make("/project/team/out")
    file = space.write("/project/team/out/a.txt", b"for all")
    link = await link_to(space, "/project/team/out")
    follow, folder = Tree.follow, os.open(file.parent, os.O_PATH)

    def followed(tree: Tree, path: NodePath) -> NodePath:
        there = follow(tree, path)
        if path.name == b"a.txt":
            os.unlink("a.txt", dir_fd=folder)
            os.symlink("/home/ada/a.txt", "a.txt", dir_fd=folder)
        return there

    monkeypatch.setattr(Tree, "follow", followed)
    answer = await space.as_(None).get(f"{link}/a.txt?get", headers=JSON)
    os.close(folder)
    assert file.is_symlink()
    assert (answer.status, b"secret" in answer.body) == (404, False)


async def test_public_link_does_not_open_another_thing_that_members_put_there(space: Space) -> None:
    await home_and_project(space)
    for name in ("out", "private"):
        space.make(f"/project/team/{name}", mode=0o700)
        space.write(f"/project/team/{name}/a.txt", name.encode(), mode=0o600)
    space.write("/project/team/b.txt", b"for all", mode=0o640)
    space.write("/project/team/c.txt", b"private", mode=0o600)
    folder, file = await link_to(space, "/project/team/out"), await link_to(space, "/project/team/b.txt")
    for old, new in (("private", "out"), ("c.txt", "b.txt")):
        space.posix(f"/project/team/{new}").rename(space.posix(f"/project/team/{new}-aside"))
        space.posix(f"/project/team/{old}").rename(space.posix(f"/project/team/{new}"))
    for address in (f"{folder}/a.txt?get", f"{folder}?get", f"{file}?get"):
        assert (await space.as_(None).get(address)).status == 404, address


async def test_public_link_shows_nothing_that_takes_the_place_of_its_folder_meanwhile(space: Space) -> None:
    """Somebody who may rename there keeps exchanging the folder with a private one of its owner."""
    await home_and_project(space)
    for name in ("out", "private"):
        space.make(f"/project/team/{name}", mode=0o700)
    for name in ("for-all", "for-all-2"):
        space.write(f"/project/team/out/{name}.txt", name.encode(), mode=0o600)
        space.write(f"/project/team/private/{name}.txt", b"secret-bytes", mode=0o600)
    space.write("/project/team/private/secret-name.txt", b"secret-bytes", mode=0o600)
    link = await link_to(space, "/project/team/out")
    anybody, enough = space.as_(None), threading.Event()
    out, private = (os.fsencode(space.posix(f"/project/team/{name}")) for name in ("out", "private"))

    def exchange() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        while not enough.is_set():
            assert libc.renameat2(-100, out, -100, private, 2) == 0

    thread = threading.Thread(target=exchange)
    thread.start()
    seen: set[int] = set()
    try:
        for address in ("?get", "", "/for-all.txt?get", "/for-all.txt") * 40:
            with suppress(aiohttp.ClientError):  # an archive that was refused after it began
                answer = await anybody.get(link + address)
                seen.add(answer.status)
                assert b"secret" not in answer.body, address
    finally:
        enough.set()
        thread.join()
    assert 404 in seen


async def test_public_link_stays_when_its_owner_writes_the_thing_anew(space: Space) -> None:
    await home_and_project(space)
    space.posix("/home/ada").chmod(0o700)
    space.make("/home/ada/out")
    space.write("/home/ada/out/a.txt", b"1", mode=0o600)
    await space.upload("/project/team/b.txt", b"1")
    links = [await link_to(space, path) for path in ("/home/ada/out/a.txt", "/project/team/b.txt", "/home/ada/out")]
    assert (await space.upload("/home/ada/out/a.txt", b"2")).status in {200, 201}
    assert (await space.upload("/project/team/b.txt", b"2")).status in {200, 201}
    for link in links[:2]:
        assert (await space.as_(None).get(f"{link}?get")).body == b"2"
    space.posix("/home/ada/out").rename(space.posix("/home/ada/old"))
    space.make("/home/ada/out")
    space.write("/home/ada/out/a.txt", b"3", mode=0o600)
    assert (await space.as_(None).get(f"{links[2]}/a.txt?get")).body == b"3"


@pytest.mark.parametrize("what", ["folder", "file", "symlink", "roots", "list", "inner"])
async def test_project_trash_that_the_platform_did_not_make_is_not_used(space: Space, what: str) -> None:
    await home_and_project(space)
    space.write("/project/team/x", b"1", mode=0o660)
    planted = space.posix("/project/team/.trash")
    if what == "folder":
        space.make("/project/team/.trash", who="bob", mode=0o770)
    elif what == "file":
        space.write("/project/team/.trash", who="bob")
    elif what == "symlink":
        planted.symlink_to("/home/ada")
    elif what == "roots":
        planted.mkdir(mode=0o700)
    elif what == "list":
        planted.mkdir()
        os.chown(planted, 0, TEAM)
        planted.chmod(0o2750)
        os.setxattr(planted, acl.ACCESS, acl.Acl(7, 7, 0, {20002: 7}).encode())
    else:
        space.write("/project/team/y", who="bob", mode=0o660)
        # As it was made at first, when members could make things in it.
        await work(space.as_("bob"), "trash", paths=["/project/team/y"])
        planted.chmod(0o3770)
        space.make("/project/team/.trash/ada", who="bob", mode=0o777)
        planted = planted / "ada"
    before = planted.lstat()
    told = await work(space, "trash", paths=["/project/team/x"])
    assert [each["code"] for each in told["problems"]] == ["files-trash-unusable"]
    assert space.posix("/project/team/x").read_bytes() == b"1"
    after = planted.lstat()
    assert (after.st_uid, after.st_gid, after.st_mode) == (before.st_uid, before.st_gid, before.st_mode)


async def test_project_trash_is_made_with_its_owners(space: Space) -> None:
    await home_and_project(space)
    os.setxattr(space.posix("/project/team"), acl.DEFAULT, acl.Acl(7, 7, 0, {20002: 7}).encode())
    for who in ("ada", "bob"):
        for name in ("x", "y"):
            space.write(f"/project/team/{name}", who=who, mode=0o660)
            assert (await work(space.as_(who), "trash", paths=[f"/project/team/{name}"]))["done"] == 1
    shared = space.posix("/project/team/.trash")
    assert (shared.stat().st_uid, shared.stat().st_gid, shared.stat().st_mode & 0o7777) == (0, TEAM, 0o2750)
    for who in ("ada", "bob"):
        own = (shared / who).stat()
        assert (own.st_uid, own.st_mode & 0o7777) == (PEOPLE[who].identity.uid, 0o700)
    assert sorted(os.listdir(shared)) == ["ada", "bob"]
    # One that was made when members could make things in it is closed, and goes on.
    shared.chmod(0o3770)
    space.write("/project/team/z", mode=0o660)
    assert (await work(space, "trash", paths=["/project/team/z"]))["done"] == 1
    assert shared.stat().st_mode & 0o7777 == 0o2750
    folder = os.open(shared, os.O_PATH)
    with pytest.raises(PermissionError), acting_as(PEOPLE["bob"].identity):
        os.mkdir("eve", dir_fd=folder)
    os.close(folder)


async def test_sweep_removes_only_what_was_put_there_by_the_platform(space: Space) -> None:
    await home_and_project(space)
    for path in ("/home/ada/a", "/home/ada/b", "/home/ada/c", "/project/team/p", "/home/ada/open"):
        space.write(path, b"old", mode=0o660)
        assert (await work(space, "trash", paths=[path]))["done"] == 1
    space.write("/home/ada/.trash/own", b"ada's own")
    space.write("/home/ada/new", b"another")
    os.rename(space.posix("/home/ada/new"), space.posix("/home/ada/.trash/b"))
    os.unlink(space.posix("/home/ada/.trash/c"))
    listed = {each["name"]: each["origin"] for each in (await ask(space, "/trash"))["entries"]}
    assert listed["a"] == "/home/ada/a"
    assert await sweep(space) == 3
    left = sorted(path.name for path in space.posix("/home/ada/.trash").iterdir())
    assert left == ["b", "own"]
    assert list(space.posix("/project/team/.trash/ada").iterdir()) == []
    assert await sweep(space) == 0


async def test_sweep_leaves_a_folder_alone_that_is_no_trash_and_goes_on(space: Space) -> None:
    await home_and_project(space)
    space.write("/project/team/p", who="bob", mode=0o660)
    await work(space.as_("bob"), "trash", paths=["/project/team/p"])
    space.write("/home/ada/a")
    await work(space, "trash", paths=["/home/ada/a"])
    space.write("/home/bob/b", who="bob")
    await work(space.as_("bob"), "trash", paths=["/home/bob/b"])
    space.posix("/home/ada/.trash").chmod(0o755)
    space.posix("/project/team/.trash").chmod(0o777)
    assert await sweep(space) == 1
    assert space.posix("/home/ada/.trash/a").exists()
    assert space.posix("/project/team/.trash/bob/p").exists()
    assert not space.posix("/home/bob/.trash/b").exists()


async def test_sweep_goes_on_when_one_thing_cannot_be_removed(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    await home_and_project(space)
    space.make("/home/ada/d")
    space.write("/home/ada/z")
    assert (await work(space, "trash", paths=["/home/ada/d", "/home/ada/z"]))["done"] == 2

    def fail(_folder: int, _name: bytes) -> tuple[int, int]:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(trash, "empty_and_remove", fail)
    assert await sweep(space) == 1
    assert [path.name for path in space.posix("/home/ada/.trash").iterdir()] == ["d"]


async def test_another_thing_in_the_trash_is_not_restored_to_where_the_old_one_was(space: Space) -> None:
    await home_and_project(space)
    space.make("/home/ada/n")
    space.write("/home/ada/n/a.txt", b"1")
    await work(space, "trash", paths=["/home/ada/n/a.txt"])
    space.write("/home/ada/other", b"2")
    os.rename(space.posix("/home/ada/other"), space.posix("/home/ada/.trash/a.txt"))
    [entry] = (await ask(space, "/trash"))["entries"]
    assert entry["origin"] == "/home/ada/a.txt"
    told = await work(space, "restore", paths=["/home/ada/.trash/a.txt"])
    assert told["results"] == ["/home/ada/a.txt"]


@pytest.mark.parametrize("days", [0, 30])
async def test_replaced_thing_stays_when_the_new_one_cannot_be_brought(tmp_path: Path, days: int) -> None:
    async with running(tmp_path / "data", {"vospace": {"trash_days": days}}) as space:
        await home_and_project(space)
        for name in ("from", "to"):
            space.make(f"/home/ada/{name}")
            space.make(f"/home/ada/{name}/d")
            space.write(f"/home/ada/{name}/d/a.txt", name.encode())
        space.write("/home/ada/from/d/secret", who="bob", mode=0o600)
        to = space.posix("/home/ada/to")
        told = await work(space, "copy", paths=["/home/ada/from/d"], target="/home/ada/to", conflict="replace")
        assert told["failed"] == 1
        assert ([p.name for p in to.iterdir()], (to / "d/a.txt").read_bytes()) == (["d"], b"to")
        assert (await ask(space, "/trash"))["entries"] == []
        space.posix("/home/ada/from/d/secret").unlink()
        # The old one cannot go: what was to come is back where it was.
        locked = await space.set("/home/ada/to/d", {"ivo://cadc.nrc.ca/vospace/core#islocked": "true"}, "ContainerNode")
        assert locked.status == 200
        for what in ("copy", "move"):
            told = await work(space, what, paths=["/home/ada/from/d"], target="/home/ada/to", conflict="replace")
            assert [each["code"] for each in told["problems"]] == ["vospace-node-locked"]
            assert ([p.name for p in to.iterdir()], (to / "d/a.txt").read_bytes()) == (["d"], b"to")
            assert space.posix("/home/ada/from/d/a.txt").read_bytes() == b"from"
        await space.set("/home/ada/to/d", {"ivo://cadc.nrc.ca/vospace/core#islocked": None}, "ContainerNode")
        for what in ("copy", "move"):
            told = await work(space, what, paths=["/home/ada/from/d"], target="/home/ada/to", conflict="replace")
            assert (told["done"], told["results"]) == (1, ["/home/ada/to/d"])
            assert ([p.name for p in to.iterdir()], (to / "d/a.txt").read_bytes()) == (["d"], b"from")
        assert len((await ask(space, "/trash"))["entries"]) == (2 if days else 0)


async def test_a_new_thing_with_the_old_ones_number_is_not_taken_for_it(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    await home_and_project(space)
    space.make("/project/team/out", mode=0o700)
    space.write("/project/team/out/a.txt", b"for all", mode=0o600)
    link = await link_to(space, "/project/team/out")
    space.write("/home/ada/b.txt")
    await work(space, "trash", paths=["/home/ada/b.txt"])
    was = births.born

    def born(descriptor: int, name: bytes = b"") -> str:
        moment = was(descriptor, name)
        assert moment, "this file system does not tell when a file was made"
        return f"1{moment}"

    assert (await space.as_(None).get(f"{link}/a.txt?get")).status == 200
    monkeypatch.setattr(births, "born", born)
    assert (await space.as_(None).get(f"{link}/a.txt?get")).status == 404
    assert await sweep(space) == 0
    assert [each["origin"] for each in (await ask(space, "/trash"))["entries"]] == ["/home/ada/b.txt"]
    assert space.posix("/home/ada/.trash/b.txt").exists()
    monkeypatch.setattr(births, "born", was)
    assert await sweep(space) == 1


@pytest.mark.parametrize("hours", ["1" + "0" * 400, "1e999", "NaN", "-1", "true", '"1"', "null"])
async def test_public_link_for_no_time_that_there_is(space: Space, hours: str) -> None:
    await space.upload("/home/ada/f")
    answer = await space("POST", "/api/links", data=f'{{"path": "/home/ada/f", "hours": {hours}}}', headers=JSON)
    assert (answer.status, load(answer)["fault"]) == (400, "InvalidArgument")


@pytest.mark.parametrize("do", ["trash", "restore", "copy", "move", "rename"])
async def test_folder_that_takes_the_name_meanwhile_takes_nothing_in(
    space: Space, monkeypatch: pytest.MonkeyPatch, do: str
) -> None:
    """As two folders of one name do that go to the trash at the same time: each is to be told, and kept, by itself."""
    await space.mkdir("/home/ada/d")
    await space.upload("/home/ada/d/f", b"bytes")
    await space.mkdir("/home/ada/to")
    path = "/home/ada/d"
    if do == "restore":
        (path,) = (await work(space, "trash", paths=[path]))["results"]
    begin, others = Nodes.copy if do == "copy" else Nodes.move, []

    def another_was_faster(nodes: Nodes, person: Person, source: NodePath, target: NodePath, **given: Any) -> NodePath:
        if not others:
            others.append(target)
            space.make(str(target))
        return begin(nodes, person, source, target, **given)

    monkeypatch.setattr(Nodes, begin.__name__, another_was_faster)
    if do == "rename":
        answer = await post(space, "/rename", path=path, name="e")
        assert (answer.status, load(answer)["code"]) == (409, "vospace-duplicate-node")
        assert (await ask(space, "/list", path="/home/ada/e"))["total"] == 0
        return
    told = await work(space, do, paths=[path], **({"target": "/home/ada/to"} if do in {"copy", "move"} else {}))
    (place,) = told["results"]
    assert place == f"{others[0]}%20(2)"
    assert (await ask(space, "/list", path=str(others[0])))["total"] == 0
    assert (await space.get(f"/files{place}/f")).body == b"bytes"
    if do == "trash":
        entries = (await ask(space, "/trash"))["entries"]
        assert [each["origin"] for each in entries if each["path"] == place] == ["/home/ada/d"]


async def test_page_tells_no_names_that_a_listing_does_not(space: Space) -> None:
    """In a folder that one may only pass, and among the homes, a taken name is answered like one that is not."""
    bob, eve = space.as_("bob"), space.as_("eve")
    await bob.upload("/home/bob/plan")
    space.posix("/home/bob").chmod(0o711)
    for name in ("plan", "none", "bob", "nosuch"):
        await eve.upload(f"/home/eve/{name}")
    for folder, names in (("/home/bob", ("plan", "none")), ("/home", ("bob", "nosuch"))):
        answer = await post(eve, "/exists", path=folder, names=names)
        assert (answer.status, load(answer)) == (200, {"taken": {}})
        seen = []
        for name in names:
            answer = await post(eve, "/rename", path=f"{folder}/eve", name=name)
            told = [(answer.status, answer.text.replace(name, "NAME"))]
            for conflict in ("keep", "replace", "skip"):
                done = await work(eve, "copy", paths=[f"/home/eve/{name}"], target=folder, conflict=conflict)
                beside = done["problems"][0]["detail"].partition(".replacing-")[0].replace(name, "NAME")
                told.append((done["done"], done["skipped"], done["failed"], beside))
            seen.append(told)
        assert seen[0] == seen[1]


async def test_half_a_character_is_no_name(space: Space) -> None:
    """JSON can name one, and no file can have it."""
    await space.mkdir("/home/ada/%3F")
    answer = await post(space, "/exists", path="/home/ada", names=["\ud800", "?"])
    assert load(answer)["taken"].keys() == {"?"}
    for at, document in (("/folder", {"path": "/home/ada"}), ("/rename", {"path": "/home/ada/%3F"})):
        answer = await post(space, at, name="a\udfff", **document)
        assert (answer.status, load(answer)["code"]) == (400, "files-bad-name")
