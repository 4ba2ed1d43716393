"""Bytes in and out at ``/files``."""

import asyncio
import base64
import hashlib
import io
import os
import tarfile
import zipfile
from typing import Any

import pytest

from astrocloud.vospace.domain import Nodes
from tests.services.vospace.platform import CORE, Space, digest, node_xml


def leftovers(space: Space) -> list[str]:
    return [name for _, _, files in os.walk(space.root) for name in files if ".astrocloud-" in name]


@pytest.mark.parametrize("size", [0, 1, 1000, 3 << 20])
async def test_what_is_put_is_what_is_got(space: Space, size: int) -> None:
    data = os.urandom(size)
    answer = await space.upload("/home/ada/f.bin", data)
    assert (answer.status, answer.headers["Digest"]) == (201, digest(data))
    assert space.posix("/home/ada/f.bin").read_bytes() == data
    status = space.posix("/home/ada/f.bin").stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (20001, 20001, 0o600)
    answer = await space.get("/files/home/ada/f.bin")
    assert (answer.status, answer.body) == (200, data)
    assert answer.headers["Content-Length"] == str(size)
    assert answer.headers["Digest"] == digest(data)
    assert (await space.node("/home/ada/f.bin")).properties[f"{CORE}MD5"] == hashlib.md5(data).hexdigest()
    assert leftovers(space) == []


async def test_head_tells_what_get_tells(space: Space) -> None:
    await space.upload("/home/ada/f.fits", b"abc")
    head, get = await space("HEAD", "/files/home/ada/f.fits"), await space.get("/files/home/ada/f.fits")
    for name in ("Content-Length", "Content-Type", "ETag", "Last-Modified", "Digest", "Content-MD5", "Accept-Ranges"):
        assert head.headers[name] == get.headers[name]
    assert head.body == b""
    assert get.headers["Content-Type"] == "application/fits"


async def test_a_notebooks_file_is_there_at_once_without_a_stale_sum(space: Space) -> None:
    await space.upload("/home/ada/f", b"abc")
    with space.posix("/home/ada/f").open("r+b") as file:
        file.write(b"xyz")
    answer = await space.get("/files/home/ada/f")
    assert answer.body == b"xyz"
    assert "Digest" not in answer.headers
    assert f"{CORE}MD5" not in (await space.node("/home/ada/f")).properties


@pytest.mark.parametrize(
    ("asked", "status", "expected"),
    [
        ("bytes=0-0", 206, b"0"),
        ("bytes=2-4", 206, b"234"),
        ("bytes=7-", 206, b"789"),
        ("bytes=7-99", 206, b"789"),
        ("bytes=-3", 206, b"789"),
        ("bytes=-99", 206, b"0123456789"),
        ("bytes=5-2", 200, b"0123456789"),
        ("bytes=a-b", 200, b"0123456789"),
        ("lines=1-2", 200, b"0123456789"),
        ("bytes=0-9,0-9", 200, b"0123456789"),
        ("bytes=10-", 416, None),
        ("bytes=-0", 416, None),
    ],
)
async def test_ranges(space: Space, asked: str, status: int, expected: bytes | None) -> None:
    await space.upload("/home/ada/f", b"0123456789")
    answer = await space.get("/files/home/ada/f", headers={"Range": asked})
    assert answer.status == status
    if expected is not None:
        assert answer.body == expected
    else:
        assert answer.headers["Content-Range"] == "bytes */10"
    if status == 206:
        first = b"0123456789".index(expected[:1])
        assert answer.headers["Content-Range"] == f"bytes {first}-{first + len(expected) - 1}/10"


async def test_several_ranges_come_in_parts(space: Space) -> None:
    await space.upload("/home/ada/f", b"0123456789")
    answer = await space.get("/files/home/ada/f", headers={"Range": "bytes=0-1,-2"})
    assert answer.status == 206
    import email

    message = email.message_from_bytes(
        b"Content-Type: " + answer.headers["Content-Type"].encode() + b"\r\n\r\n" + answer.body
    )
    parts = [(part["Content-Range"], part.get_payload(decode=True)) for part in message.get_payload()]
    assert parts == [("bytes 0-1/10", b"01"), ("bytes 8-9/10", b"89")]


async def test_conditions(space: Space) -> None:
    tag = (await space.upload("/home/ada/f", b"abc")).headers["ETag"]
    answer = await space.get("/files/home/ada/f")
    assert answer.headers["ETag"] == tag
    assert (await space.get("/files/home/ada/f", headers={"If-None-Match": tag})).status == 304
    assert (await space.get("/files/home/ada/f", headers={"If-None-Match": f'W/{tag}, "x"'})).status == 304
    assert (await space.get("/files/home/ada/f", headers={"If-None-Match": '"x"'})).status == 200
    assert (await space.get("/files/home/ada/f", headers={"If-Match": '"x"'})).status == 412
    modified = answer.headers["Last-Modified"]
    assert (await space.get("/files/home/ada/f", headers={"If-Modified-Since": modified})).status == 304
    old = "Thu, 01 Jan 1970 00:00:10 GMT"
    assert (await space.get("/files/home/ada/f", headers={"If-Unmodified-Since": old})).status == 412
    ranged = {"Range": "bytes=0-0", "If-Range": '"x"'}
    assert (await space.get("/files/home/ada/f", headers=ranged)).status == 200
    assert (await space.get("/files/home/ada/f", headers={**ranged, "If-Range": tag})).status == 206


async def test_conditional_put_changes_only_what_is_expected(space: Space) -> None:
    tag = (await space.upload("/home/ada/f", b"one", headers={"If-None-Match": "*"})).headers["ETag"]
    answer = await space.upload("/home/ada/f", b"two", headers={"If-None-Match": "*"})
    assert (answer.status, answer.fault) == (412, "PreconditionFailed")
    assert (await space.upload("/home/ada/f", b"two", headers={"If-Match": tag})).status == 200
    assert (await space.upload("/home/ada/f", b"three", headers={"If-Match": tag})).status == 412
    assert (await space.upload("/home/ada/none", b"x", headers={"If-Match": "*"})).status == 412
    assert space.posix("/home/ada/f").read_bytes() == b"two"
    assert leftovers(space) == []


async def test_wrong_checksum_leaves_the_old_file(space: Space) -> None:
    await space.upload("/home/ada/f", b"old")
    for headers in (
        {"Digest": digest(b"other")},
        {"Content-MD5": digest(b"other")[4:]},
        {"Repr-Digest": "sha-256=:" + base64.b64encode(hashlib.sha256(b"x").digest()).decode() + ":"},
    ):
        answer = await space.upload("/home/ada/f", b"new", headers=headers)
        assert (answer.status, answer.fault) == (412, "ChecksumMismatch")
    assert space.posix("/home/ada/f").read_bytes() == b"old"
    answer = await space.upload("/home/ada/f", b"new", headers={"Digest": "md5=zz"})
    assert (answer.status, answer.fault) == (400, "InvalidArgument")
    assert (await space.upload("/home/ada/f", b"new", headers={"Digest": digest(b"new")})).status == 200
    assert leftovers(space) == []


async def test_replacing_keeps_permissions_and_properties(space: Space) -> None:
    await space.upload("/home/ada/f", b"old")
    await space.set("/home/ada/f", {"title": "t"})
    space.posix("/home/ada/f").chmod(0o640)
    assert (await space.upload("/home/ada/f", b"new")).status == 200
    assert space.posix("/home/ada/f").stat().st_mode & 0o777 == 0o640
    assert (await space.node("/home/ada/f")).properties[f"{CORE}title"] == "t"


async def test_chunked_upload(space: Space) -> None:
    async def pieces():
        for _ in range(5):
            yield b"x" * 300_000

    answer = await space("PUT", "/files/home/ada/f", data=pieces())
    assert answer.status == 201
    assert space.posix("/home/ada/f").stat().st_size == 1_500_000


async def send_raw(space: Space, text: bytes) -> bytes:
    host, port = space.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(text)
    await writer.drain()
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


@pytest.mark.parametrize(
    "rest",
    [
        b"Content-Length: 1000\r\n\r\nonly so much",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nhel",
    ],
)
async def test_cut_upload_leaves_the_old_file(space: Space, rest: bytes) -> None:
    await space.upload("/home/ada/f", b"old")
    head = b"PUT /services/vospace/files/home/ada/f HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ada\r\n"
    await send_raw(space, head + rest)
    async with asyncio.timeout(10):
        while leftovers(space):
            await asyncio.sleep(0.01)
    assert space.posix("/home/ada/f").read_bytes() == b"old"


async def test_upload_into_nothing_and_onto_a_folder(space: Space) -> None:
    answer = await space.upload("/home/ada/no/f", b"x")
    assert (answer.status, answer.fault) == (404, "ContainerNotFound")
    await space.mkdir("/home/ada/d")
    answer = await space.upload("/home/ada/d", b"x")
    assert (answer.status, answer.fault) == (409, "DuplicateNode")
    assert leftovers(space) == []


async def test_first_put_of_a_segmented_upload_changes_nothing(space: Space) -> None:
    await space.upload("/home/ada/f", b"old")
    headers = {"x-put-txn-op": "start", "x-total-length": "9999999999"}
    answer = await space.upload("/home/ada/f", b"", headers=headers)
    assert answer.status == 200
    assert "x-put-txn-id" not in answer.headers
    assert space.posix("/home/ada/f").read_bytes() == b"old"


async def test_pipes_and_devices_are_never_opened(space: Space) -> None:
    await space.node("/home/ada")
    os.mkfifo(space.posix("/home/ada/pipe"), 0o666)
    os.chown(space.posix("/home/ada/pipe"), 20001, 20001)
    for answer in (
        await space.get("/files/home/ada/pipe"),
        await space.upload("/home/ada/pipe", b"x"),
        await space.node("/home/ada/pipe"),
    ):
        assert (answer.status, answer.fault) == (400, "TypeNotSupported")
    assert (await space.node("/home/ada")).names == []


async def test_writing_through_a_link_writes_where_it_leads(space: Space) -> None:
    await space.upload("/home/ada/real", b"old")
    space.posix("/home/ada/link").symlink_to("/home/ada/real")
    assert (await space.upload("/home/ada/link", b"new")).status == 200
    assert space.posix("/home/ada/link").is_symlink()
    assert space.posix("/home/ada/real").read_bytes() == b"new"


@pytest.mark.parametrize("target", ["/etc/passwd", "../../../../../../etc/passwd", "/proc/self/environ"])
async def test_links_never_lead_out_of_the_tree(space: Space, target: str) -> None:
    await space.node("/home/ada")
    space.posix("/home/ada/link").symlink_to(target)
    answer = await space.get("/files/home/ada/link")
    assert answer.status == 404
    assert (await space.upload("/home/ada/link", b"x")).status in {400, 403, 404}


async def test_links_in_a_circle_end(space: Space) -> None:
    await space.node("/home/ada")
    space.posix("/home/ada/a").symlink_to("b")
    space.posix("/home/ada/b").symlink_to("a")
    answer = await space.get("/files/home/ada/a")
    assert (answer.status, answer.fault) == (400, "LinkFound")


async def test_folder_as_zip_and_tar(space: Space) -> None:
    await space.mkdir("/home/ada/d")
    await space.mkdir("/home/ada/d/empty")
    await space.upload("/home/ada/d/天.txt", b"hello")
    big = os.urandom(3 << 20)
    await space.upload("/home/ada/d/big", big)
    answer = await space.get("/files/home/ada/d?view=zip")
    assert answer.headers["Content-Type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(answer.body)) as archive:
        assert archive.testzip() is None
        assert sorted(archive.namelist()) == ["d/", "d/big", "d/empty/", "d/天.txt"]
        assert archive.read("d/big") == big
    answer = await space.get("/files/home/ada/d?view=tar")
    with tarfile.open(fileobj=io.BytesIO(answer.body)) as archive:
        assert sorted(archive.getnames()) == ["d", "d/big", "d/empty", "d/天.txt"]
        assert archive.extractfile("d/天.txt").read() == b"hello"
    answer = await space.get("/files/home/ada/d")
    assert (answer.status, answer.fault) == (400, "TypeNotSupported")


async def test_delete_of_a_file(space: Space) -> None:
    await space.upload("/home/ada/f", b"x")
    assert (await space("DELETE", "/files/home/ada/f")).status == 200
    assert (await space("DELETE", "/files/home/ada/f")).status == 404


async def test_a_persons_page_runs_no_script_here(space: Space) -> None:
    await space.upload("/home/ada/x.html", b"<script>alert(1)</script>")
    answer = await space.get("/files/home/ada/x.html?inline")
    assert answer.headers["Content-Disposition"].startswith("attachment")
    assert answer.headers["Content-Security-Policy"].startswith("sandbox")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_content_type_is_what_was_set(space: Space) -> None:
    await space("PUT", "/nodes/home/ada/x", data=node_xml("/home/ada/x", "DataNode", {"type": "text/x-special"}))
    assert (await space.get("/files/home/ada/x")).headers["Content-Type"] == "text/x-special"


async def test_sum_of_a_notebooks_file_is_known_once_it_has_settled(space: Space) -> None:
    await space.node("/home/ada")
    file = space.write("/home/ada/f", b"hello")
    assert f"{CORE}MD5" not in (await space.node("/home/ada/f")).properties
    os.utime(file, (1_000_000_000, 1_000_000_000))
    assert (await space.node("/home/ada/f")).properties[f"{CORE}MD5"] == hashlib.md5(b"hello").hexdigest()
    assert (await space("HEAD", "/files/home/ada/f")).headers["Digest"] == digest(b"hello")
    file.write_bytes(b"other")
    assert f"{CORE}MD5" not in (await space.node("/home/ada/f")).properties


@pytest.mark.parametrize("chunked", [False, True])
async def test_what_is_compressed_on_its_way_is_not_taken(space: Space, chunked: bool) -> None:
    import gzip

    packed = gzip.compress(b"hello")

    async def pieces():
        yield packed

    headers = {"Content-Encoding": "gzip"}
    answer = await space("PUT", "/files/home/ada/f", data=pieces() if chunked else packed, headers=headers)
    assert (answer.status, answer.fault) == (400, "InvalidArgument")
    assert not space.posix("/home/ada/f").exists()
    assert (await space.upload("/home/ada/f", packed, headers={"Content-Encoding": "identity"})).status == 201
    assert space.posix("/home/ada/f").read_bytes() == packed


@pytest.mark.parametrize("form", ["zip", "tar"])
async def test_head_of_an_archive_has_no_body(space: Space, form: str) -> None:
    await space.mkdir("/home/ada/d")
    await space.upload("/home/ada/d/f", b"hello")
    head = (
        f"HEAD /services/vospace/files/home/ada/d?view={form} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ada\r\n\r\n"
    )
    after = "GET /services/vospace/files/home/ada/d/f HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ada\r\n\r\n"
    host, port = space.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write((head + after.replace("Host", "Connection: close\r\nHost")).encode())
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    first, second, rest = answer.split(b"\r\n\r\n")
    assert first.startswith(b"HTTP/1.1 200")
    assert f"application/{'zip' if form == 'zip' else 'x-tar'}".encode() in first
    assert second.startswith(b"HTTP/1.1 200")
    assert rest == b"hello"
    assert (await space("HEAD", f"/files/home/ada/none?view={form}")).status == 404


async def slowly(space: Space, path: str, data: bytes, meanwhile, **kwargs):
    """Upload `data` with `meanwhile` done when the service has begun to receive it."""

    async def pieces():
        yield data[:1]
        async with asyncio.timeout(10):
            while not leftovers(space):
                await asyncio.sleep(0.01)
        await meanwhile()
        yield data[1:]

    return await space("PUT", f"/files{path}", data=pieces(), **kwargs)


async def test_permissions_are_those_of_the_end_of_an_upload(space: Space) -> None:
    await space.upload("/home/ada/f", b"old")
    space.posix("/home/ada/f").chmod(0o644)

    async def close() -> None:
        space.posix("/home/ada/f").chmod(0o600)

    assert (await slowly(space, "/home/ada/f", b"new", close)).status == 200
    assert space.posix("/home/ada/f").stat().st_mode & 0o777 == 0o600

    async def remove() -> None:
        assert (await space("DELETE", "/files/home/ada/f")).status == 200

    space.posix("/home/ada/f").chmod(0o644)
    assert (await slowly(space, "/home/ada/f", b"new", remove)).status == 201
    assert space.posix("/home/ada/f").stat().st_mode & 0o777 == 0o600

    async def forbid() -> None:
        space.write("/home/ada/f", b"another's", who="bob")

    await space("DELETE", "/files/home/ada/f")
    assert (await slowly(space, "/home/ada/f", b"new", forbid)).status == 403
    assert space.posix("/home/ada/f").read_bytes() == b"another's"
    assert leftovers(space) == []


async def test_conditions_hold_at_the_end_of_an_upload(space: Space) -> None:
    tag = (await space.upload("/home/ada/f", b"old")).headers["ETag"]
    os.utime(space.posix("/home/ada/f"), (1_000_000_000, 1_000_000_000))
    tag = (await space("HEAD", "/files/home/ada/f")).headers["ETag"]

    async def change() -> None:
        space.posix("/home/ada/f").write_bytes(b"a notebook's")

    since = {"If-Unmodified-Since": "Sun, 09 Sep 2001 01:46:40 GMT"}
    for condition in ({"If-Match": tag}, since):
        os.utime(space.posix("/home/ada/f"), (1_000_000_000, 1_000_000_000))
        answer = await slowly(space, "/home/ada/f", b"new", change, headers=condition)
        assert (answer.status, answer.fault) == (412, "PreconditionFailed")
    assert space.posix("/home/ada/f").read_bytes() == b"a notebook's"
    os.utime(space.posix("/home/ada/f"), (1_000_000_000, 1_000_000_000))
    assert (await space.upload("/home/ada/f", b"new", headers=since)).status == 200


async def test_of_many_that_expect_one_file_only_one_replaces_it(space: Space) -> None:
    for round_number in range(5):
        tag = (await space.upload("/home/ada/f", b"old")).headers["ETag"]
        answers = await asyncio.gather(
            *(space.upload("/home/ada/f", b"%d" % n, headers={"If-Match": tag}) for n in range(8))
        )
        assert sorted(answer.status for answer in answers) == [200] + [412] * 7, round_number


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts file systems")
async def test_a_file_on_a_disk_that_keeps_no_sum_is_sent_all_the_same(space: Space, monkeypatch) -> None:
    import errno
    import subprocess

    (space.root / "archive").mkdir(exist_ok=True)
    archive = space.posix("/archive")
    (archive / "f").write_bytes(b"hello")
    os.utime(archive / "f", (1_000_000_000, 1_000_000_000))
    for command in (["mount", "--bind", archive, archive], ["mount", "-o", "remount,ro,bind", archive]):
        subprocess.run(command, check=True)
    try:
        assert (await space.get("/files/archive/f")).body == b"hello"
        assert (await space.node("/archive/f")).properties[f"{CORE}MD5"] == hashlib.md5(b"hello").hexdigest()
    finally:
        subprocess.run(["umount", "-l", archive], check=True)

    def full(path: str, name: str, *_args: object, **_kwargs: object) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(os, "setxattr", full)
    assert (await space.get("/files/archive/f")).body == b"hello"
    assert (await space.upload("/home/ada/f", b"new")).status == 201


async def test_names_last_in_a_folder_that_its_owner_may_not_list(space: Space, monkeypatch) -> None:
    await space.mkdir("/home/ada/d")
    await space.upload("/home/ada/d/f", b"old")
    space.posix("/home/ada/d").chmod(0o300)
    synced: list[int] = []
    real = os.fsync

    def noting(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_ino)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", noting)
    assert (await space.upload("/home/ada/d/f", b"x")).status == 200
    assert synced == [space.posix("/home/ada/d/f").stat().st_ino, space.posix("/home/ada/d").stat().st_ino]
    synced.clear()
    assert (await space("DELETE", "/nodes/home/ada/d/f")).status == 200
    assert synced == [space.posix("/home/ada/d").stat().st_ino]


async def test_many_archives_of_one_wait_for_each_other(space: Space, monkeypatch) -> None:
    import threading

    import astrocloud.vospace.archives as archives
    from astrocloud.vospace.packing import EACH

    await space.mkdir("/home/ada/d")
    await space.upload("/home/ada/d/f", b"hello")
    await space.as_("bob").mkdir("/home/bob/d")
    begun, go_on = threading.Semaphore(0), threading.Event()
    real = archives.write

    def write(*args, **kwargs) -> None:
        begun.release()
        assert go_on.wait(30)
        real(*args, **kwargs)

    monkeypatch.setattr(archives, "write", write)
    asked = [asyncio.create_task(space.get("/files/home/ada/d?view=zip")) for _ in range(EACH + 3)]
    for _ in range(EACH):
        assert await asyncio.to_thread(begun.acquire, timeout=30)
    assert (await space.get("/files/home/ada/d/f")).body == b"hello"  # whatever was asked before has been heard
    assert not begun.acquire(blocking=False)
    theirs = asyncio.create_task(space.as_("bob").get("/files/home/bob/d?view=zip"))
    assert await asyncio.to_thread(begun.acquire, timeout=30)
    go_on.set()
    assert {answer.status for answer in await asyncio.gather(theirs, *asked)} == {200}


async def test_delete_keeps_to_its_conditions(space: Space) -> None:
    tag = (await space.upload("/home/ada/f", b"one")).headers["ETag"]
    await space.upload("/home/ada/f", b"two")
    for headers in (
        {"If-Match": tag},
        {"If-None-Match": "*"},
        {"If-Unmodified-Since": "Wed, 01 Jan 2020 00:00:00 GMT"},
    ):
        answer = await space("DELETE", "/files/home/ada/f", headers=headers)
        assert (answer.status, answer.fault) == (412, "PreconditionFailed"), headers
    assert (await space.get("/files/home/ada/f")).body == b"two"
    tag = (await space("HEAD", "/files/home/ada/f")).headers["ETag"]
    assert (await space("DELETE", "/files/home/ada/f", headers={"If-Match": tag})).status == 200
    assert not space.posix("/home/ada/f").exists()


async def test_delete_of_a_file_takes_no_folder_that_came_in_its_place(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    await space.upload("/home/ada/f", b"one")
    find = Nodes.get

    def found_before_it_changed(nodes: Nodes, *given: Any) -> Any:
        node = find(nodes, *given)
        space.posix("/home/ada/f").unlink()
        space.make("/home/ada/f")
        space.write("/home/ada/f/inside")
        return node

    monkeypatch.setattr(Nodes, "get", found_before_it_changed)
    answer = await space("DELETE", "/files/home/ada/f")
    assert (answer.status, answer.fault) == (400, "TypeNotSupported")
    assert space.posix("/home/ada/f/inside").exists()
