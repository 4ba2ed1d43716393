"""Getting, creating, setting and deleting nodes (VOSpace 2.1, sections 6.1 and 6.2)."""

import io
import os
import zipfile

import pytest

from tests.services.vospace.platform import CORE, Space, node_xml, uri


async def test_a_home_is_there_before_any_server_ran(space: Space) -> None:
    answer = await space.node("/home/ada")
    assert (answer.status, answer.type, answer.children) == (200, "ContainerNode", [])
    status = space.posix("/home/ada").stat()
    assert (status.st_uid, status.st_mode & 0o777) == (20001, 0o700)


async def test_container_is_created_and_is_a_folder(space: Space) -> None:
    answer = await space.mkdir("/home/ada/new")
    assert (answer.status, answer.type) == (201, "ContainerNode")
    status = space.posix("/home/ada/new").stat()
    assert (status.st_uid, status.st_mode & 0o777) == (20001, 0o700)
    assert (await space.node("/home/ada")).children == [uri("/home/ada/new")]


async def test_existing_node_is_a_duplicate(space: Space) -> None:
    await space.mkdir("/home/ada/new")
    answer = await space.mkdir("/home/ada/new")
    assert (answer.status, answer.fault) == (409, "DuplicateNode")


async def test_missing_parent_is_container_not_found(space: Space) -> None:
    answer = await space.mkdir("/home/ada/no/new")
    assert (answer.status, answer.fault) == (404, "ContainerNotFound")


async def test_parent_that_is_a_file_is_container_not_found(space: Space) -> None:
    await space.upload("/home/ada/file", b"x")
    answer = await space.mkdir("/home/ada/file/new")
    assert (answer.status, answer.fault) == (404, "ContainerNotFound")


async def test_missing_node_is_not_found(space: Space) -> None:
    answer = await space.node("/home/ada/none")
    assert (answer.status, answer.fault) == (404, "NodeNotFound")


async def test_unknown_type_is_not_supported(space: Space) -> None:
    answer = await space("PUT", "/nodes/home/ada/x", data=node_xml("/home/ada/x", "StrangeNode"))
    assert (answer.status, answer.fault) == (400, "TypeNotSupported")


@pytest.mark.parametrize("kind", ["DataNode", "UnstructuredDataNode", "StructuredDataNode"])
async def test_data_nodes_keep_their_type(space: Space, kind: str) -> None:
    answer = await space("PUT", "/nodes/home/ada/x.fits", data=node_xml("/home/ada/x.fits", kind))
    assert (answer.status, answer.type) == (201, kind)
    answer = await space.node("/home/ada/x.fits")
    assert answer.type == kind
    assert answer.properties[f"{CORE}length"] == "0"
    assert answer.properties[f"{CORE}type"] == "application/fits"
    assert space.posix("/home/ada/x.fits").read_bytes() == b""


async def test_link_is_a_symbolic_link_that_a_notebook_can_follow(space: Space) -> None:
    await space.upload("/home/ada/data.txt", b"hello")
    document = node_xml("/home/ada/link", "LinkNode", target=uri("/home/ada/data.txt"))
    answer = await space("PUT", "/nodes/home/ada/link", data=document)
    assert (answer.status, answer.type) == (201, "LinkNode")
    assert space.posix("/home/ada/link").readlink().as_posix() == "/home/ada/data.txt"
    answer = await space.node("/home/ada/link")
    assert answer.xml.findtext("{*}target") == uri("/home/ada/data.txt")
    assert f"{CORE}date" in answer.properties
    assert (await space.get("/files/home/ada/link")).body == b"hello"


async def test_relative_link_of_a_notebook_has_a_whole_target(space: Space) -> None:
    await space.upload("/home/ada/data.txt", b"hello")
    space.posix("/home/ada/link").symlink_to("../ada/data.txt")
    answer = await space.node("/home/ada/link")
    assert answer.xml.findtext("{*}target") == uri("/home/ada/data.txt")
    assert (await space.get("/files/home/ada/link")).body == b"hello"


async def test_link_to_elsewhere_keeps_its_target(space: Space) -> None:
    document = node_xml("/home/ada/link", "LinkNode", target="https://example.org/a?b=c")
    assert (await space("PUT", "/nodes/home/ada/link", data=document)).status == 201
    assert (await space.node("/home/ada/link")).xml.findtext("{*}target") == "https://example.org/a?b=c"
    answer = await space.get("/files/home/ada/link")
    assert (answer.status, answer.fault) == (400, "LinkFound")


async def test_parent_that_is_a_link_is_link_found(space: Space) -> None:
    await space.mkdir("/home/ada/real")
    space.posix("/home/ada/link").symlink_to("real")
    for answer in (
        await space.node("/home/ada/link/x"),
        await space.mkdir("/home/ada/link/x"),
        await space("DELETE", "/nodes/home/ada/link/x"),
    ):
        assert (answer.status, answer.fault) == (400, "LinkFound")


async def test_properties_are_merged_and_nil_takes_away(space: Space) -> None:
    await space.mkdir("/home/ada/d")
    answer = await space.set("/home/ada/d", {"title": "A &amp; B", "ivo://me/x#y": "2"})
    assert answer.status == 200
    assert answer.properties[f"{CORE}title"] == "A & B"
    answer = await space.set("/home/ada/d", {"description": "new", "ivo://me/x#y": None})
    assert answer.properties[f"{CORE}description"] == "new"
    assert f"{CORE}title" in answer.properties
    assert "ivo://me/x#y" not in answer.properties


async def test_read_only_property_cannot_be_set(space: Space) -> None:
    await space.upload("/home/ada/f", b"abc")
    answer = await space.set("/home/ada/f", {"length": "5"})
    assert (answer.status, answer.fault) == (403, "PermissionDenied")


async def test_read_only_property_is_ignored_when_creating(space: Space) -> None:
    document = node_xml("/home/ada/f", "DataNode", {"length": "5", "title": "t"})
    answer = await space("PUT", "/nodes/home/ada/f", data=document)
    assert answer.status == 201
    assert answer.properties[f"{CORE}length"] == "0"


async def test_the_document_that_was_read_can_be_sent_back(space: Space) -> None:
    await space.upload("/home/ada/f", b"abc")
    document = (await space.node("/home/ada/f")).body
    answer = await space("POST", "/nodes/home/ada/f", data=document)
    assert (answer.status, answer.properties[f"{CORE}length"]) == (200, "3")


async def test_type_cannot_change(space: Space) -> None:
    await space.upload("/home/ada/f", b"abc")
    answer = await space.set("/home/ada/f", {"title": "t"}, kind="ContainerNode")
    assert (answer.status, answer.fault) == (400, "InvalidArgument")


async def test_too_many_properties_are_refused_and_nothing_changes(space: Space) -> None:
    await space.mkdir("/home/ada/d")
    answer = await space.set("/home/ada/d", {"title": "x" * 5000})
    assert (answer.status, answer.fault) == (400, "InvalidArgument")
    assert f"{CORE}title" not in (await space.node("/home/ada/d")).properties


async def test_delete_takes_a_folder_with_all_in_it(space: Space) -> None:
    await space.mkdir("/home/ada/d")
    await space.mkdir("/home/ada/d/e")
    await space.upload("/home/ada/d/e/f", b"abc")
    assert (await space("DELETE", "/nodes/home/ada/d")).status == 200
    assert list(space.posix("/home/ada").iterdir()) == []
    answer = await space("DELETE", "/nodes/home/ada/d")
    assert (answer.status, answer.fault) == (404, "NodeNotFound")


async def test_below_files_and_links_nothing_is_told_to_who_may_not_list_their_folder(space: Space) -> None:
    await space.mkdir("/home/ada/d")
    for name in ("home/ada", "home/ada/d"):
        space.posix(f"/{name}").chmod(0o711)
    await space.upload("/home/ada/d/file", b"abc")
    for name, target in (("out", "https://elsewhere/x"), ("in", "/home/ada/d/file"), ("round", "/home/ada/d/round")):
        space.posix(f"/home/ada/d/{name}").symlink_to(target)
    for who in ("eve", None):
        outsider = space.as_(who)
        for name in (
            "none",
            "none/b/c",
            "file",
            "file/b",
            "file/b/c",
            "in/b",
            "in/b/c",
            "out",
            "out/b",
            "round",
            "round/b",
        ):
            for kind in ("nodes", "files") if "/" in name or name in {"none", "file"} else ("files",):
                answer = await outsider.get(f"/{kind}/home/ada/d/{name}")
                assert (answer.status, answer.fault) == (403, "PermissionDenied"), (kind, name, who)
    assert (await space.get("/files/home/ada/d/file/b/c")).fault == "NodeNotFound"
    assert (await space.get("/files/home/ada/d/out")).fault == "LinkFound"


async def test_home_itself_cannot_be_deleted(space: Space) -> None:
    await space.node("/home/ada")
    for path in ("/home/ada", "/home", "/archive", ""):
        answer = await space("DELETE", f"/nodes{path}")
        assert (answer.status, answer.fault) == (403, "PermissionDenied")


async def test_address_and_document_must_be_about_the_same_node(space: Space) -> None:
    answer = await space("PUT", "/nodes/home/ada/a", data=node_xml("/home/ada/b"))
    assert (answer.status, answer.fault) == (400, "InvalidArgument")


async def test_foreign_authority_is_an_invalid_uri(space: Space) -> None:
    document = node_xml("/home/ada/a").replace("astrocloud.local", "elsewhere.org")
    answer = await space("PUT", "/nodes/home/ada/a", data=document)
    assert (answer.status, answer.fault) == (400, "InvalidURI")


@pytest.mark.parametrize("authority", ["astrocloud.local!vospace", "cadc.nrc.ca!arc", "cadc.nrc.ca~arc"])
async def test_other_spellings_of_the_authority_are_taken(space: Space, authority: str) -> None:
    document = node_xml("/home/ada/a").replace("astrocloud.local~vospace", authority)
    assert (await space("PUT", "/nodes/home/ada/a", data=document)).status == 201


async def test_detail_says_how_much_is_told(space: Space) -> None:
    await space.upload("/home/ada/f", b"abc")
    assert (await space.node("/home/ada", "?detail=min")).xml.find(".//{*}property") is None
    assert f"{CORE}length" in (await space.node("/home/ada/f", "?detail=properties")).properties
    answer = await space.node("/home/ada", "?detail=all")
    assert (answer.status, answer.fault) == (400, "InvalidArgument")


async def test_pages_begin_with_the_uri_and_have_the_limit(space: Space) -> None:
    for number in range(7):
        await space.upload(f"/home/ada/f{number}", b"")
    first = await space.node("/home/ada", "?limit=3")
    assert first.names == ["f0", "f1", "f2"]
    second = await space.node("/home/ada", f"?limit=3&uri={first.children[-1]}")
    assert second.names == ["f2", "f3", "f4"]
    assert (await space.node("/home/ada", "?limit=0")).names == []
    assert len((await space.node("/home/ada")).names) == 7
    answer = await space.node("/home/ada", "?limit=-1")
    assert (answer.status, answer.fault) == (400, "InvalidArgument")
    answer = await space.node("/home/ada", f"?uri={uri('/home/bob/x')}")
    assert (answer.status, answer.fault) == (400, "InvalidArgument")


async def test_children_can_be_sorted_by_length(space: Space) -> None:
    for name, size in (("a", 2), ("b", 3), ("c", 1)):
        await space.upload(f"/home/ada/{name}", b"x" * size)
    assert (await space.node("/home/ada", f"?sort={CORE.replace('#', '%23')}length")).names == ["c", "a", "b"]
    assert (await space.node("/home/ada", "?sort=length&order=desc")).names == ["b", "a", "c"]
    assert (await space.node("/home/ada", "?sort=colour")).status == 400


async def test_link_takes_no_properties(space: Space) -> None:
    document = node_xml("/home/ada/link", "LinkNode", target="https://example.org/")
    await space("PUT", "/nodes/home/ada/link", data=document)
    answer = await space.set("/home/ada/link", {"title": "t"})
    assert (answer.status, answer.fault) == (400, "OperationNotSupported")


async def test_lock_refuses_changes_until_it_is_taken_away(space: Space) -> None:
    await space.upload("/home/ada/f", b"abc")
    lock = "ivo://cadc.nrc.ca/vospace/core#islocked"
    await space.set("/home/ada/f", {lock: "true"})
    for answer in (await space.upload("/home/ada/f", b"new"), await space("DELETE", "/nodes/home/ada/f")):
        assert (answer.status, answer.fault) == (423, "NodeLocked")
    await space.set("/home/ada/f", {lock: None})
    assert (await space("DELETE", "/nodes/home/ada/f")).status == 200


async def test_errors_are_told_in_the_language_asked_for_and_as_json(space: Space) -> None:
    answer = await space.node("/home/ada/none", "")
    assert answer.headers["Content-Language"] == "en"
    answer = await space.get("/nodes/home/ada/none", headers={"Accept-Language": "zh"})
    assert answer.fault == "NodeNotFound"
    assert "没有内容" in answer.text
    answer = await space.get("/nodes/home/ada/none", headers={"Accept": "application/json"})
    assert answer.headers["Content-Type"].startswith("application/problem+json")
    assert '"vospace-node-not-found"' in answer.text


async def test_delete_that_is_not_recursive_removes_an_empty_folder_only(space: Space) -> None:
    await space.mkdir("/home/ada/d")
    await space.upload("/home/ada/d/f")
    answer = await space("DELETE", "/nodes/home/ada/d?recursive=false")
    assert (answer.status, answer.fault) == (409, "DuplicateNode")
    assert space.posix("/home/ada/d/f").exists()
    assert (await space("DELETE", "/nodes/home/ada/d?recursive=perhaps")).fault == "InvalidArgument"
    assert (await space("DELETE", "/nodes/home/ada/d/f?recursive=false")).status == 200
    assert (await space("DELETE", "/nodes/home/ada/d?recursive=false")).status == 200
    assert not space.posix("/home/ada/d").exists()


@pytest.mark.parametrize("sort", ["&sort=date", ""])
async def test_a_page_that_cannot_begin_where_it_is_asked_to_says_so(space: Space, monkeypatch, sort: str) -> None:
    from astrocloud.vospace import listing

    await space.mkdir("/home/ada/d")
    for name in "abc":
        await space.upload(f"/home/ada/d/{name}", b"x")
    if not sort:
        monkeypatch.setattr(listing, "SMALL", 1)  # told in the folder's own order
    answer = await space.node("/home/ada/d", f"?uri={uri('/home/ada/d/b')}{sort}")
    assert "b" in answer.names
    await space("DELETE", "/nodes/home/ada/d/b")
    answer = await space.node("/home/ada/d", f"?uri={uri('/home/ada/d/b')}{sort}")
    assert (answer.status, answer.fault) == (400, "InvalidArgument")
    # By name it goes on with the next one.
    assert (await space.node("/home/ada/d", f"?uri={uri('/home/ada/d/b')}&limit=5")).names == ["c"]


async def test_properties_are_set_all_or_none(space: Space, monkeypatch) -> None:
    from astrocloud.vospace import rights
    from astrocloud.vospace.errors import Fault

    await space.mkdir("/home/ada/d")
    await space.set("/home/ada/d", {"title": "before"})

    def refuse(*_args: object) -> None:
        raise Fault("vospace-operation-not-supported", what="sharing with named groups on this file system")

    monkeypatch.setattr(rights, "apply", refuse)
    answer = await space.set("/home/ada/d", {"title": "after", "description": "new", "ispublic": "true"})
    assert answer.fault == "OperationNotSupported"
    found = (await space.node("/home/ada/d")).properties
    assert found[f"{CORE}title"] == "before"
    assert f"{CORE}description" not in found


@pytest.mark.parametrize(
    "value",
    [
        b'{"properties": {}, "kind": []}',
        b'{"properties": {}, "kind": {"a": 1}}',
        b"[" * 2000,
        b'{"properties": {"ivo://ivoa.net/vospace/core#type": "a/\\ud800", "\\udfff": "\\ud800"}, "kind": null}',
    ],
)
async def test_what_an_owner_keeps_with_a_file_by_hand_breaks_no_listing(space: Space, value: bytes) -> None:
    await space.node("/home/ada")
    file = space.write("/home/ada/f")
    os.setxattr(file, "user.astrocloud.vospace", value)
    os.setxattr(file, "user.astrocloud.md5", b"0" * 32 + b" 1 1 " + b"1" * 1000)
    for path in ("/nodes/home/ada", "/nodes/home/ada/f", "/files/home/ada/f", "/api/list?path=/home/ada"):
        answer = await space.get(path)
        assert answer.status == 200, path
    assert (await space.set("/home/ada/f", {"title": "t"})).properties[f"{CORE}title"] == "t"
    assert (await space.upload("/home/ada/f", b"new")).status == 200


@pytest.mark.parametrize("year", [1905, 2150, 2400])
async def test_dates_that_no_clock_should_have_break_nothing(space: Space, year: int) -> None:
    await space.mkdir("/home/ada/d")
    moment = (year - 1969.5) * 365.2425 * 86400
    os.utime(space.write("/home/ada/d/f", b"bytes"), (moment, moment))
    assert (await space.node("/home/ada/d/f")).properties[f"{CORE}date"].startswith(str(year))
    answer = await space.get("/files/home/ada/d/f")
    assert (answer.status, str(year) in answer.headers["Last-Modified"]) == (200, True)
    for query in ("sort=date", "sort=date&order=desc", "sort=name"):
        assert (await space.get(f"/api/list?path=/home/ada/d&{query}")).status == 200
    assert (await space.get("/files/home/ada/d?view=tar")).status == 200
    packed = await space.get("/files/home/ada/d?view=zip")
    assert zipfile.ZipFile(io.BytesIO(packed.body)).read("d/f") == b"bytes"
