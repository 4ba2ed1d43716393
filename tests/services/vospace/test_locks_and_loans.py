"""Locks hold whatever takes the node away; a file that alone is shared can be written by VOSpace as by a notebook."""

import os
import stat
from pathlib import Path

import pytest

from astrocloud.vospace import acl, posix
from tests.services.vospace.platform import CORE, TEAM, Space, running, uri
from tests.services.vospace.test_files import leftovers
from tests.services.vospace.test_resumable import begin, go_on
from tests.services.vospace.test_transfers import job, transfer_xml

LOCK = "ivo://cadc.nrc.ca/vospace/core#islocked"
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="people are others only to root")


async def test_a_folder_with_a_locked_node_stays(space: Space) -> None:
    await space.mkdir("/home/ada/d")
    await space.mkdir("/home/ada/d/e")
    await space.upload("/home/ada/d/e/f", b"hello")
    assert (await space.set("/home/ada/d/e/f", {LOCK: "true"})).status == 200
    for path in ("/home/ada/d", "/home/ada/d/e"):
        answer = await space("DELETE", f"/nodes{path}")
        assert (answer.status, answer.fault) == (423, "NodeLocked")
        url, _ended = await job(space, transfer_xml(path, uri("/home/ada/moved"), keep=False))
        assert (await space.get(f"{url}/error")).text == "NodeLocked"
    # A copy takes nothing away, and is nobody's locked one.
    url, _ended = await job(space, transfer_xml("/home/ada/d", uri("/home/ada/copied"), keep=True))
    assert (await space.get(f"{url}/phase")).text == "COMPLETED"
    # Of a removal one by one just that node stays, and the folders that it is in.
    answer = await space("POST", "/async-delete", data={"target": uri("/home/ada/d")})
    await space("POST", answer.headers["Location"] + "/phase", data={"PHASE": "RUN"})
    await space.get(answer.headers["Location"] + "?WAIT=20")
    assert (await space.get("/files/home/ada/d/e/f")).body == b"hello"
    assert (await space.set("/home/ada/d/e/f", {LOCK: None})).status == 200
    assert (await space("DELETE", "/nodes/home/ada/d")).status == 200


async def test_an_upload_in_parts_heeds_a_lock_that_came_meanwhile(space: Space) -> None:
    await space.upload("/home/ada/f", b"the old bytes")
    url = (await begin(space, "/home/ada/f", 6)).headers["Location"]
    assert (await go_on(space, url, 0, b"new")).status == 204
    await space.set("/home/ada/f", {LOCK: "true"})
    answer = await go_on(space, url, 3, b"new")
    assert (answer.status, answer.fault) == (423, "NodeLocked")
    assert space.posix("/home/ada/f").read_bytes() == b"the old bytes"
    await space.set("/home/ada/f", {LOCK: None})
    assert (await go_on(space, url, 3, b"new")).status == 204
    assert space.posix("/home/ada/f").read_bytes() == b"newnew"


async def test_who_may_write_properties_of_a_locked_node_may_still(space: Space) -> None:
    """A lock keeps bytes and place; its owner describes the node all the same, and takes the lock away."""
    await space.upload("/home/ada/f", b"hello")
    await space.set("/home/ada/f", {LOCK: "true"})
    assert (await space.set("/home/ada/f", {"title": "t"})).properties[f"{CORE}title"] == "t"


@pytest.fixture
async def shared(space: Space) -> Space:
    """Bob's file, which ada may write through the group, in a folder in which she may make nothing."""
    bob = space.as_("bob")
    await bob.upload("/home/bob/f", b"the old bytes")
    assert (await bob.set("/home/bob/f", {"groupread": "team", "groupwrite": "team"})).status == 200
    return space


@root_only
async def test_a_file_shared_alone_is_written_and_stays_its_owners(shared: Space) -> None:
    before = shared.posix("/home/bob/f").stat()
    answer = await shared.upload("/home/bob/f", b"by ada")
    assert answer.status == 200, answer.text
    after = shared.posix("/home/bob/f").stat()
    assert shared.posix("/home/bob/f").read_bytes() == b"by ada"
    assert (after.st_uid, after.st_gid, after.st_mode) == (before.st_uid, before.st_gid, before.st_mode)
    assert (await shared.as_("bob").node("/home/bob/f")).properties[f"{CORE}groupwrite"].endswith("team")
    assert (await shared.get("/files/home/bob/f")).body == b"by ada"
    # In parts as well.
    url = (await begin(shared, "/home/bob/f", 6)).headers["Location"]
    assert (await go_on(shared, url, 0, b"par")).status == 204
    assert (await go_on(shared, url, 3, b"ts!")).status == 204
    assert shared.posix("/home/bob/f").read_bytes() == b"parts!"
    assert shared.posix("/home/bob/f").stat().st_uid == before.st_uid
    assert leftovers(shared) == []


@root_only
async def test_nothing_else_in_that_folder_can_be_made_or_replaced(shared: Space) -> None:
    await shared.as_("bob").upload("/home/bob/other", b"bob's")
    for path in ("/home/bob/new", "/home/bob/other"):
        assert (await shared.upload(path, b"by ada")).status == 403
    assert (await shared("DELETE", "/nodes/home/bob/f")).status == 403
    assert (await shared.as_("eve").upload("/home/bob/f", b"by eve")).status == 403
    answer = await shared.upload("/home/bob/f", b"by ada", headers={"Content-MD5": "AAAAAAAAAAAAAAAAAAAAAA=="})
    assert answer.status == 412
    assert shared.posix("/home/bob/f").read_bytes() == b"the old bytes"
    assert leftovers(shared) == []


@root_only
@pytest.mark.parametrize("becomes", ["another file", "a link", "nothing"])
async def test_another_file_that_gets_the_name_meanwhile_is_not_replaced(
    shared: Space, becomes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = shared.posix("/home/bob/f")
    real = posix.exchange

    def exchange(folder: int, one: bytes, other: bytes) -> None:
        if not switched:
            switched.append(True)
            place.unlink()
            if becomes == "a link":
                place.symlink_to("other")
            elif becomes == "another file":
                place.write_bytes(b"bob's own")
                place.chmod(0o600)
        real(folder, one, other)

    switched: list[bool] = []
    monkeypatch.setattr(posix, "exchange", exchange)
    answer = await shared.upload("/home/bob/f", b"by ada")
    assert (answer.status, answer.fault) == (403, "PermissionDenied")
    if becomes == "another file":
        assert place.read_bytes() == b"bob's own"
        assert stat.S_IMODE(place.stat().st_mode) == 0o600
    elif becomes == "a link":
        assert os.readlink(place) == "other"
    else:
        assert not place.exists()
    assert leftovers(shared) == []


@root_only
async def test_a_new_version_has_no_lists_that_the_old_one_had_not(tmp_path: Path) -> None:
    """A folder may give new files more than an old one in it has."""
    async with running(tmp_path / "data") as space:
        await space.mkdir("/home/ada/d")
        file = space.posix("/home/ada/d/f")
        await space.upload("/home/ada/d/f", b"mine alone")
        file.chmod(0o660)
        given = acl.Acl(7, 5, 0, {}, {TEAM: 5})
        os.setxattr(space.posix("/home/ada/d"), acl.DEFAULT, given.encode())
        assert (await space.upload("/home/ada/d/f", b"still mine alone")).status == 200
        assert acl.ACCESS not in os.listxattr(file)
        assert stat.S_IMODE(file.stat().st_mode) == 0o660
