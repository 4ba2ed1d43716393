"""Who may do what: through VOSpace as through a notebook, and nobody learns what they may not know."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from astrocloud.vospace import acl
from astrocloud.vospace.identity import acting_as
from astrocloud.vospace.models import ZIP_VIEW, is_hidden
from tests.services.vospace.platform import CORE, PEOPLE, TEAM, Space, node_xml, running, uri
from tests.services.vospace.test_transfers import transfer_xml

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="acting as people needs root")


async def test_nobody_gets_into_anothers_home(space: Space) -> None:
    await space.upload("/home/ada/secret", b"x")
    for who in ("bob", "eve", None):
        other = space.as_(who)
        for answer in (
            await other.node("/home/ada"),
            await other.node("/home/ada/secret"),
            await other.node("/home/ada/none"),
            await other.get("/files/home/ada/secret"),
            await other.get("/files/home/ada/none"),
            await other.upload("/home/ada/secret", b"y"),
            await other.upload("/home/ada/new", b"y"),
            await other.mkdir("/home/ada/new"),
            await other.set("/home/ada/secret", {"title": "t"}),
            await other("DELETE", "/nodes/home/ada/secret"),
            await other("DELETE", "/nodes/home/ada/none"),
        ):
            assert (answer.status, answer.fault) == (403, "PermissionDenied")
    assert space.posix("/home/ada/secret").read_bytes() == b"x"


async def test_names_of_people_and_groups_are_told_to_nobody(space: Space) -> None:
    await space.node("/home/ada")
    await space.as_("bob").node("/home/bob")
    eve = space.as_("eve")
    assert (await eve.node("/home")).names == ["eve"]
    assert (await eve.node("/project")).names == []
    assert (await space.as_(None).node("/home")).names == []
    there, not_there = await eve.node("/home/bob"), await eve.node("/home/nosuch")
    assert (there.status, there.fault) == (not_there.status, not_there.fault) == (403, "PermissionDenied")


async def test_group_shares_its_project_folder(space: Space) -> None:
    assert (await space.upload("/project/team/f", b"from ada")).status == 201
    status = space.posix("/project/team/f").stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (20001, TEAM, 0o660)
    bob = space.as_("bob")
    assert (await bob.get("/files/project/team/f")).body == b"from ada"
    assert (await bob.upload("/project/team/f", b"from bob")).status == 200
    assert space.posix("/project/team/f").stat().st_uid == 20001
    assert (await bob.mkdir("/project/team/d")).status == 201
    assert space.posix("/project/team/d").stat().st_mode & 0o7777 == 0o2770
    assert (await space.as_("eve").node("/project/team")).status == 403
    properties = (await bob.node("/project/team/f")).properties
    assert properties[f"{CORE}groupread"] == "ivo://astrocloud.local/gms?team"
    assert properties[f"{CORE}creator"] == "ada"


async def test_public_node_is_readable_without_a_login_and_nothing_else_is(space: Space) -> None:
    await space.mkdir("/home/ada/d")
    await space.upload("/home/ada/d/public", b"x")
    await space.upload("/home/ada/d/private", b"x")
    # As a notebook with a careless umask leaves them; behind a closed door it did not matter.
    space.write("/home/ada/careless", mode=0o644)
    space.make("/home/ada/careless.d", mode=0o755)
    space.write("/home/ada/d/careless", mode=0o666)
    answer = await space.set("/home/ada/d/public", {"ispublic": "true"})
    assert answer.properties[f"{CORE}ispublic"] == answer.properties[f"{CORE}publicread"] == "true"
    nobody = space.as_(None)
    assert (await nobody.get("/files/home/ada/d/public")).body == b"x"
    assert (await nobody.node("/home/ada/d/public")).status == 200
    for path in ("/home/ada", "/home/ada/d", "/home/ada/d/private", "/home/ada/careless", "/home/ada/careless.d"):
        assert (await nobody.node(path)).status == 403
    assert (await nobody.node("/home/ada/d/careless")).status == 403
    assert (await nobody.node("/home/ada/d/none")).status == 403
    assert (await nobody.upload("/home/ada/d/public", b"y")).status == 403
    await space.set("/home/ada/d/public", {"ispublic": "false"})
    assert (await nobody.node("/home/ada/d/public")).status == 403


async def test_public_folder_shares_what_is_made_in_it(space: Space) -> None:
    await space("PUT", "/nodes/home/ada/d", data=node_xml("/home/ada/d", "ContainerNode", {"ispublic": "true"}))
    await space.upload("/home/ada/d/f", b"x")
    await space.mkdir("/home/ada/d/e")
    nobody = space.as_(None)
    assert (await nobody.node("/home/ada/d")).names == ["e", "f"]
    assert (await nobody.get("/files/home/ada/d/f")).body == b"x"


async def test_share_with_a_group_is_an_access_control_list(space: Space) -> None:
    await space.mkdir("/home/ada/d")
    await space.upload("/home/ada/d/old", b"x")
    answer = await space.set("/home/ada/d", {"groupread": "ivo://astrocloud.local/gms?team"})
    assert answer.properties[f"{CORE}groupread"] == "ivo://astrocloud.local/gms?team"
    assert b"system.posix_acl_access" in [name.encode() for name in os.listxattr(space.posix("/home/ada/d"))]
    bob, eve = space.as_("bob"), space.as_("eve")
    assert (await bob.node("/home/ada/d")).status == 200
    assert (await bob.upload("/home/ada/d/new", b"y")).status == 403
    # What is made in it from now on, by whatever door, is shared too.
    await space.upload("/home/ada/d/mine", b"z")
    assert (await bob.get("/files/home/ada/d/mine")).body == b"z"
    assert (await eve.node("/home/ada/d")).status == 403
    await space.set("/home/ada/d", {"groupwrite": "team"})
    assert (await bob.upload("/home/ada/d/new", b"y")).status == 201
    await space.set("/home/ada/d", {"groupread": None, "groupwrite": None})
    assert (await bob.node("/home/ada/d")).status == 403
    assert f"{CORE}groupread" not in (await space.node("/home/ada/d")).properties


async def test_share_with_a_person(space: Space) -> None:
    await space.upload("/home/ada/f", b"x")
    await space.as_("eve").node("/home/eve")
    read = "ivo://astrocloud/vospace/core#userread"
    answer = await space.set("/home/ada/f", {read: "ivo://astrocloud.local/people?eve"})
    assert answer.properties[read] == "ivo://astrocloud.local/people?eve"
    assert (await space.as_("eve").get("/files/home/ada/f")).body == b"x"
    assert (await space.as_("bob").get("/files/home/ada/f")).status == 403
    answer = await space.set("/home/ada/f", {read: "nosuch"})
    assert (answer.status, answer.fault) == (400, "InvalidArgument")


async def test_only_the_owner_shares(space: Space) -> None:
    await space.upload("/project/team/f", b"x")
    answer = await space.as_("bob").set("/project/team/f", {"ispublic": "true"})
    assert (answer.status, answer.fault) == (403, "PermissionDenied")


async def test_archive_is_read_only_for_everybody(space: Space) -> None:
    space.posix("/archive/survey").mkdir()
    space.posix("/archive/survey/f").write_bytes(b"x")
    assert (await space.get("/files/archive/survey/f")).body == b"x"
    assert (await space.as_(None).get("/files/archive/survey/f")).body == b"x"
    for answer in (
        await space.upload("/archive/survey/f", b"y"),
        await space.mkdir("/archive/survey/d"),
        await space("DELETE", "/nodes/archive/survey"),
        await space.mkdir("/elsewhere"),
    ):
        assert (answer.status, answer.fault) == (403, "PermissionDenied")


async def test_folder_that_holds_what_may_not_be_removed_stays_whole(space: Space) -> None:
    await space.mkdir("/project/team/d")
    await space.mkdir("/project/team/d/inner")
    await space.upload("/project/team/d/inner/f", b"x")
    space.posix("/project/team/d/inner").chmod(0o2750)
    answer = await space.as_("bob")("DELETE", "/nodes/project/team/d")
    assert (answer.status, answer.fault) == (403, "PermissionDenied")
    assert space.posix("/project/team/d/inner/f").read_bytes() == b"x"
    assert [p.name for p in space.posix("/project/team").iterdir()] == ["d"]


async def test_token_without_the_scope_cannot_write(space: Space) -> None:
    reader = space.as_("ada.read")
    assert (await reader.node("/home/ada")).status == 200
    answer = await reader.mkdir("/home/ada/d")
    assert answer.status == 403
    assert b"custom:vospace:write" in answer.body


async def test_token_that_may_only_read_gets_no_address_to_put_to(space: Space) -> None:
    """A job of the same person, begun by a token that may write, is not a way around the scope."""
    document = transfer_xml("/home/ada/f", "pushToVoSpace", "httpput")
    answer = await space("POST", "/synctrans", data=document, headers={"Content-Type": "text/xml"})
    details = answer.headers["Location"]
    assert (await space.get(details)).status == 200
    reader = space.as_("ada.read")
    answer = await reader.get(details)
    assert answer.status == 403
    assert "preauth" not in answer.text
    document = transfer_xml("/home/ada", "pullFromVoSpace", "httpget", view=ZIP_VIEW)
    answer = await reader("POST", "/synctrans", data=document, headers={"Content-Type": "text/xml"})
    assert (await reader.get(answer.headers["Location"])).status == 200


async def test_wrong_credentials_are_not_nobodys(space: Space) -> None:
    answer = await space.as_("wrong").node("/archive")
    assert answer.status == 401


@pytest.mark.parametrize(
    "headers", [{"X-CADC-DelegationToken": "ada"}, {"Authorization": "Basic YWRhOmFkYQ=="}], ids=["delegation", "basic"]
)
async def test_older_ways_to_show_a_token(space: Space, headers: dict[str, str]) -> None:
    assert (await space.as_(None).get("/nodes/home/ada", headers=headers)).status == 200


async def test_list_of_links_and_foreign_files_shows_only_what_may_be_read(space: Space) -> None:
    space.as_("bob")
    await space.node("/project/team")
    space.write("/project/team/hers", who="bob", mode=0o600)
    space.write("/project/team/ours", who="bob", mode=0o644)
    assert (await space.node("/project/team")).names == ["ours"]
    assert (await space.as_("bob").node("/project/team")).names == ["hers", "ours"]


async def test_quota_is_exact_and_told(tmp_path) -> None:
    limits = {"vospace": {"home_quota_bytes": 1000, "home_quota_files": 4}}
    async with running(tmp_path / "data", limits) as space:
        properties = (await space.node("/home/ada")).properties
        assert (properties[f"{CORE}quota"], properties[f"{CORE}availableSpace"]) == ("1000", "1000")
        assert (await space.upload("/home/ada/a", b"x" * 600)).status == 201
        assert (await space.upload("/home/ada/b", b"x" * 400)).status == 201
        answer = await space.upload("/home/ada/c", b"x")
        assert (answer.status, answer.fault) == (507, "QuotaExceeded")
        answer = await space.upload("/home/ada/a", b"x" * 601)
        assert answer.status == 507
        assert space.posix("/home/ada/a").stat().st_size == 600
        assert (await space.upload("/home/ada/a", b"x" * 100)).status == 200
        assert (await space.node("/home/ada")).properties[f"{CORE}availableSpace"] == "500"

        async def pieces():
            for _ in range(3):
                yield b"x" * 200

        answer = await space("PUT", "/files/home/ada/d", data=pieces())
        assert answer.status == 507
        assert (await space("DELETE", "/nodes/home/ada/b")).status == 200
        assert (await space.node("/home/ada")).properties[f"{CORE}availableSpace"] == "900"
        for name in ("b", "c", "d"):
            assert (await space.mkdir(f"/home/ada/{name}")).status == 201
        answer = await space.mkdir("/home/ada/e")
        assert (answer.status, answer.fault) == (507, "QuotaExceeded")


async def test_quota_of_a_project_is_its_groups_together(tmp_path) -> None:
    limits = {"vospace": {"project_quota_bytes": 1000, "project_quota_files": 3, "home_quota_bytes": 10}}
    async with running(tmp_path / "data", limits) as space:
        bob = space.as_("bob")
        assert (await space.upload("/project/team/a", b"x" * 600)).status == 201
        properties = (await bob.node("/project/team")).properties
        assert (properties[f"{CORE}quota"], properties[f"{CORE}availableSpace"]) == ("1000", "400")
        answer = await bob.upload("/project/team/b", b"x" * 401)
        assert (answer.status, answer.fault) == (507, "QuotaExceeded")
        assert not space.posix("/project/team/b").exists()
        assert (await bob.upload("/project/team/b", b"x" * 400)).status == 201
        assert (await space.node("/project/team")).properties[f"{CORE}availableSpace"] == "0"
        assert (await bob.mkdir("/project/team/d")).status == 201
        assert (await space.mkdir("/project/team/e")).status == 507
        assert (await bob("DELETE", "/nodes/project/team/a")).status == 200
        assert (await space.node("/project/team")).properties[f"{CORE}availableSpace"] == "600"
        assert f"{CORE}quota" not in (await space.node("/project/team/d")).properties


async def test_upload_limit(tmp_path) -> None:
    async with running(tmp_path / "data", {"vospace": {"upload_limit_bytes": 1000}}) as space:
        answer = await space.upload("/home/ada/a", b"x" * 1001)
        assert (answer.status, answer.fault) == (413, "RequestEntityTooLarge")
        assert (await space.upload("/home/ada/a", b"x" * 1000)).status == 201


def test_people_of_these_tests_are_no_ones_on_this_machine() -> None:
    assert min(person.identity.uid for person in PEOPLE.values()) > 20000
    assert uri("/x").startswith("vos://")


async def test_who_is_not_signed_in_is_told_no_names(space: Space) -> None:
    await space.upload("/home/ada/f", b"x")
    await space.set("/home/ada/f", {"ispublic": "true", "groupread": "team"})
    await space.as_("bob").node("/home/bob")
    shown = (await space.as_("bob").node("/home/ada/f")).properties
    assert (shown[f"{CORE}creator"], shown[f"{CORE}groupread"].endswith("team")) == ("ada", True)
    nobody = await space.as_(None).node("/home/ada/f")
    assert nobody.status == 200
    assert nobody.properties[f"{CORE}ispublic"] == "true"
    assert not {f"{CORE}creator", f"{CORE}groupread", f"{CORE}groupwrite"} & set(nobody.properties)
    assert "team" not in nobody.text


async def test_what_is_behind_a_folder_that_may_only_be_passed_is_not_told(space: Space) -> None:
    """A folder, a link and a pipe are refused as what is not there is: nobody learns that they are."""
    await space.mkdir("/home/ada/d")
    space.posix("/home/ada").chmod(0o711)
    space.posix("/home/ada/d").chmod(0o700)
    space.posix("/home/ada/l").symlink_to("d")
    os.mkfifo(space.posix("/home/ada/p"))
    for who in ("eve", None):
        other = space.as_(who)
        for name in ("d", "l", "p", "none"):
            for method, below in (("GET", "files"), ("PUT", "files"), ("DELETE", "files"), ("DELETE", "nodes")):
                answer = await other(method, f"/{below}/home/ada/{name}", data=b"x" if method == "PUT" else None)
                assert (answer.status, answer.fault) == (403, "PermissionDenied"), (who, method, below, name)


async def test_bytes_under_way_to_a_private_file_are_private(space: Space) -> None:
    """In a folder whose group may read and write what is new, a file of one's own is replaced."""
    await space.node("/project/team")
    space.write("/project/team/private", b"old", mode=0o600)
    folder = space.posix("/project/team")
    place = os.open(folder, os.O_RDONLY)
    opened = []

    async def pieces() -> AsyncIterator[bytes]:
        yield bytes(2 << 20)
        async with asyncio.timeout(20):
            while not (found := [each for each in folder.iterdir() if is_hidden(os.fsencode(each.name))]):
                await asyncio.sleep(0.01)
        for flags in (os.O_RDONLY, os.O_RDWR):
            with acting_as(PEOPLE["bob"].identity), suppress(PermissionError):
                os.close(os.open(found[0].name, flags, dir_fd=place))
                opened.append(flags)
        yield b"end"

    assert (await space.put("/files/project/team/private", pieces())).status == 200
    os.close(place)
    assert opened == []
    assert (folder / "private").stat().st_mode & 0o777 == 0o600
    assert (folder / "private").stat().st_size == (2 << 20) + 3


@pytest.mark.parametrize("listed", [False, True])
async def test_file_that_was_removed_meanwhile_comes_as_a_new_one(space: Space, listed: bool) -> None:
    """What comes is for its owner alone until it is there; then it is what its folder makes of a new file."""
    await space.node("/home/ada")
    folder = space.make("/home/ada/folder", mode=0o775)
    if listed:
        shared = acl.Acl(7, 5, 4, {20002: 7}, {}, 7)
        os.setxattr(folder, acl.DEFAULT, shared.encode())
    file = space.write("/home/ada/folder/f", b"old", mode=0o600)
    if listed:
        os.setxattr(file, acl.ACCESS, acl.Acl(6, 0, 0).encode())

    async def pieces() -> AsyncIterator[bytes]:
        yield bytes(2 << 20)
        async with asyncio.timeout(20):
            while not any(is_hidden(os.fsencode(each.name)) for each in folder.iterdir()):
                await asyncio.sleep(0.01)
        file.unlink()
        yield b"end"

    assert (await space.put("/files/home/ada/folder/f", pieces())).status == 201
    assert (await space.upload("/home/ada/folder/new")).status == 201
    assert file.stat().st_mode == (folder / "new").stat().st_mode
    places = [str(file), str(folder / "new")]
    assert len({acl.read(place) for place in places}) == 1
    assert (acl.read(places[0]) is not None) == listed
