"""Moves to another file system, as a project's own volume is one: whole, with all that a rename keeps, or not."""

import os
import stat
import subprocess
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from astrocloud.core.uws.jobs import Taken
from astrocloud.vospace import copying
from astrocloud.vospace.identity import as_platform
from astrocloud.vospace.storage import Tree
from tests.services.vospace.platform import CORE, PEOPLE, TEAM, Answer, Space, running, uri
from tests.services.vospace.test_files import leftovers
from tests.services.vospace.test_transfers import UWS, job, transfer_xml

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts file systems")
QUOTA = {"vospace": {"home_quota_bytes": 10_000_000, "project_quota_bytes": 10_000_000}}


@pytest.fixture
async def space(tmp_path: Path) -> AsyncIterator[Space]:
    """A service in which the team's project has a file system of its own."""
    disk = tmp_path / "data" / "tree" / "project" / "team"
    disk.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"mode=2770,uid=0,gid={TEAM}", "none", disk], check=True)
    try:
        async with running(tmp_path / "data", QUOTA) as found:
            await found.node("/home/ada")
            yield found
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


async def move(space: Space, source: str, target: str) -> tuple[str, Answer]:
    url, ended = await job(space, transfer_xml(source, uri(target), keep=False))
    return ended.xml.findtext(f"{UWS}phase") or "", await space.get(f"{url}/error")


async def free(space: Space, top: str) -> int:
    return int((await space.node(top, "?limit=0")).properties[f"{CORE}availableSpace"])


async def test_permissions_lists_properties_and_times_go_along(space: Space) -> None:
    await space.mkdir("/home/ada/d")
    await space.upload("/home/ada/d/f", b"hello")
    await space.upload("/home/ada/d/g", b"there")
    for path, properties in {
        "/home/ada/d": {"title": "a folder"},
        "/home/ada/d/f": {"title": "a file", "groupread": "team"},
        "/home/ada/d/g": {"ispublic": "true"},
    }.items():
        assert (await space.set(path, properties)).status == 200
    os.setxattr(space.posix("/home/ada/d/f"), "user.notebook", b"kept")
    space.posix("/home/ada/d/l").symlink_to("f")
    os.chown(space.posix("/home/ada/d/l"), 20001, 20001, follow_symlinks=False)
    space.posix("/home/ada/d/g").chmod(0o540)
    os.utime(space.posix("/home/ada/d/f"), (1_000_000_000, 1_000_000_000))
    before = {name: (await space.node(f"/home/ada/d/{name}")).properties for name in ("f", "g")}
    modes = {name: space.posix(f"/home/ada/d/{name}").stat().st_mode for name in ("f", "g")}
    phase, ended = await move(space, "/home/ada/d", "/project/team/moved")
    assert phase == "COMPLETED", ended.text
    assert not space.posix("/home/ada/d").exists()
    changes = {f"{CORE}ctime"}
    for name, properties in before.items():
        path = f"/project/team/moved/{name}"
        now = (await space.node(path)).properties
        assert {k: v for k, v in now.items() if k not in changes} == {
            k: v for k, v in properties.items() if k not in changes
        }
        assert space.posix(path).stat().st_mode == modes[name]
        assert (space.posix(path).stat().st_uid, space.posix(path).stat().st_gid) == (20001, 20001)
    assert (await space.node("/project/team/moved")).properties[f"{CORE}title"] == "a folder"
    assert os.getxattr(space.posix("/project/team/moved/f"), "user.notebook") == b"kept"
    assert os.readlink(space.posix("/project/team/moved/l")) == "f"
    assert space.posix("/project/team/moved").stat().st_mode & stat.S_ISGID
    assert leftovers(space) == []


@pytest.mark.parametrize("odd", ["another's", "pipe"])
async def test_what_only_a_rename_can_move_is_refused_and_all_stays(space: Space, odd: str) -> None:
    await space.mkdir("/project/team/d")
    await space.upload("/project/team/d/f", b"hello")
    if odd == "pipe":
        os.mkfifo(space.posix("/project/team/d/pipe"))
        os.chown(space.posix("/project/team/d/pipe"), 20001, 20001)
    else:
        assert (await space.as_("bob").upload("/project/team/d/his", b"bob's")).status == 201
    before = (await free(space, "/home/ada"), await free(space, "/project/team"))
    phase, ended = await move(space, "/project/team/d", "/home/ada/d")
    assert (phase, ended.text) == ("ERROR", "TypeNotSupported" if odd == "pipe" else "PermissionDenied")
    assert space.posix("/project/team/d/f").read_bytes() == b"hello"
    assert not space.posix("/home/ada/d").exists()
    assert (await free(space, "/home/ada"), await free(space, "/project/team")) == before
    assert leftovers(space) == []


async def test_what_comes_while_it_is_moved_is_not_lost(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    await space.mkdir("/home/ada/d")
    await space.upload("/home/ada/d/f", b"hello")
    await space.upload("/home/ada/d/g", b"there")
    real, copied = copying.copy, threading.Event()

    def write() -> None:
        copied.wait(20)
        space.write("/home/ada/d/f", b"changed by a notebook")
        space.write("/home/ada/d/new", b"new")

    notebook = threading.Thread(target=write)  # begun here, for a thread acts as who began it
    notebook.start()

    def copy(*arguments: object, **named: object) -> None:
        real(*arguments, **named)  # type: ignore[arg-type]
        copied.set()
        notebook.join()

    monkeypatch.setattr(copying, "copy", copy)
    phase, ended = await move(space, "/home/ada/d", "/project/team/d")
    assert (phase, ended.text) == ("ERROR", "NodeBusy")
    # Both are there: what was copied, and what it has become since.
    assert space.posix("/project/team/d/f").read_bytes() == b"hello"
    assert space.posix("/home/ada/d/f").read_bytes() == b"changed by a notebook"
    assert space.posix("/home/ada/d/new").read_bytes() == b"new"
    assert space.posix("/home/ada/d/g").read_bytes() == b"there"
    assert leftovers(space) == []


async def test_quotas_follow_a_move(space: Space) -> None:
    before = (await free(space, "/home/ada"), await free(space, "/project/team"))
    await space.mkdir("/home/ada/d")
    await space.upload("/home/ada/d/f", bytes(1_000_000))
    assert await free(space, "/home/ada") == before[0] - 1_000_000
    assert (await move(space, "/home/ada/d", "/project/team/d"))[0] == "COMPLETED"
    assert (await free(space, "/home/ada"), await free(space, "/project/team")) == (before[0], before[1] - 1_000_000)


async def test_another_error_is_not_taken_for_another_file_system(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    await space.upload("/home/ada/f", b"hello")

    def fail(*_arguments: object) -> None:
        raise OSError(5, "Input/output error")

    from astrocloud.vospace import posix

    monkeypatch.setattr(posix, "rename_new", fail)
    phase, ended = await move(space, "/home/ada/f", "/project/team/f")
    assert (phase, ended.text) == ("ERROR", "InternalFault")
    assert space.posix("/home/ada/f").read_bytes() == b"hello"
    assert not space.posix("/project/team/f").exists()


async def test_a_sticky_folder_with_anothers_file_stays_whole(space: Space) -> None:
    """Its names may not all be removed, which the folder's own permissions do not tell."""
    await space.mkdir("/project/team/d")
    await space.mkdir("/project/team/d/inner")
    assert (await space.as_("bob").upload("/project/team/d/inner/his", b"bob's")).status == 201
    await space.upload("/project/team/d/inner/mine", b"ada's")
    os.chown(space.posix("/project/team/d/inner"), 0, TEAM)
    space.posix("/project/team/d/inner").chmod(0o3770)
    answer = await space("DELETE", "/nodes/project/team/d")
    assert (answer.status, answer.fault) == (403, "PermissionDenied")
    assert space.posix("/project/team/d/inner/mine").read_bytes() == b"ada's"
    assert PEOPLE["bob"].identity.uid == space.posix("/project/team/d/inner/his").stat().st_uid


async def test_what_went_before_a_removal_failed_is_given_back(space: Space) -> None:
    await space.mkdir("/home/ada/d")
    for name in ("a", "b", "c"):
        await space.upload(f"/home/ada/d/{name}", bytes(1000))
    before = await free(space, "/home/ada")
    subprocess.run(["chattr", "+i", space.posix("/home/ada/d/b")], check=True)
    try:
        answer = await space("DELETE", "/nodes/home/ada/d")
        assert answer.status == 403
        left = [path.name for path in space.posix("/home/ada/d").iterdir()]
        assert "b" in left
        assert await free(space, "/home/ada") == before + 1000 * (3 - len(left))
    finally:
        subprocess.run(["chattr", "-i", space.posix("/home/ada/d/b")], check=True)


def be_quick(space: Space) -> None:
    """Let transfers that nobody does be begun again at once."""
    assert space.service is not None
    for each in space.service.background:
        jobs: Any = getattr(each, "__self__", None)
        if getattr(jobs, "name", "") == "vospace/transfers":
            jobs._beat_s, jobs._lost_s = 0.1, 0.2


@pytest.mark.parametrize("change", ["nothing", "new", "changed", "replaced"])
async def test_what_changed_after_an_attempt_was_cut_short_is_not_lost(
    space: Space, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """The copy is there, the old one not removed; until the move is begun again a notebook goes on."""
    await space.mkdir("/home/ada/d")
    await space.mkdir("/home/ada/d/e")
    await space.upload("/home/ada/d/e/f", b"hello")
    space.posix("/home/ada/d/l").symlink_to("e/f")
    os.chown(space.posix("/home/ada/d/l"), 20001, 20001, follow_symlinks=False)
    before = await free(space, "/home/ada")
    remove = Tree.remove

    def cut_short(*_given: Any, **_more: Any) -> None:
        monkeypatch.setattr(Tree, "remove", remove)
        with as_platform():
            go_on()
        raise Taken

    def go_on() -> None:
        if change == "new":
            space.write("/home/ada/d/e/new")
        elif change == "changed":
            space.write("/home/ada/d/e/f", b"other")
        elif change == "replaced":
            space.posix("/home/ada/d/e/f").unlink()
            space.posix("/home/ada/d/e/f").symlink_to("elsewhere")

    monkeypatch.setattr(Tree, "remove", cut_short)
    be_quick(space)
    phase, ended = await move(space, "/home/ada/d", "/project/team/moved")
    assert space.posix("/project/team/moved/e/f").read_bytes() == b"hello"
    if change == "nothing":
        assert phase == "COMPLETED", ended.text
        assert not space.posix("/home/ada/d").exists()
        assert await free(space, "/home/ada") > before
        return
    assert (phase, ended.text) == ("ERROR", "NodeBusy")
    assert sorted(os.listdir(space.posix("/home/ada/d"))) == ["e", "l"]
    left = space.posix("/home/ada/d/e")
    if change == "new":
        assert (left / "new").read_bytes() == b"x"
    elif change == "changed":
        assert (left / "f").read_bytes() == b"other"
    else:
        assert os.readlink(left / "f") == "elsewhere"
    assert leftovers(space) == []
