"""Resumable uploads (tus 1.0.0): begun, interrupted, continued, also after the service was started anew."""

import asyncio
import base64
import json
import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from unittest.mock import patch

import pytest

from astrocloud.vospace import api_uploads, resuming
from astrocloud.vospace.partial import Partials
from astrocloud.vospace.resuming import Resuming
from astrocloud.vospace.scanning import sweep
from astrocloud.vospace.uploads import Upload
from tests.services.vospace.platform import CORE, Answer, Space, digest, running, uri
from tests.services.vospace.test_files import leftovers

TUS = {"Tus-Resumable": "1.0.0"}


async def begin(space: Space, path: str, length: int, **metadata: str) -> Answer:
    pairs = {"uri": uri(path), **metadata}
    header = ",".join(f"{name} {base64.b64encode(value.encode()).decode()}" for name, value in pairs.items())
    return await space("POST", "/uploads", headers={**TUS, "Upload-Length": str(length), "Upload-Metadata": header})


async def go_on(space: Space, url: str, offset: int, data: bytes) -> Answer:
    headers = {**TUS, "Upload-Offset": str(offset), "Content-Type": "application/offset+octet-stream"}
    return await space("PATCH", url, data=data, headers=headers)


async def offset_of(space: Space, url: str) -> int:
    answer = await space("HEAD", url, headers=TUS)
    assert answer.status == 200
    return int(answer.headers["Upload-Offset"])


async def test_upload_in_parts_is_there_when_it_is_whole(space: Space) -> None:
    data = os.urandom(2_500_000)
    answer = await space("OPTIONS", "/uploads")
    assert answer.headers["Tus-Extension"] == "creation,termination,expiration"
    answer = await begin(space, "/home/ada/big", len(data))
    assert answer.status == 201
    url = answer.headers["Location"]
    assert await offset_of(space, url) == 0
    answer = await go_on(space, url, 0, data[:1_000_000])
    assert (answer.status, answer.headers["Upload-Offset"]) == (204, "1000000")
    assert (await space.node("/home/ada")).names == []
    answer = await go_on(space, url, 5, b"wrong place")
    assert (answer.status, answer.headers["Upload-Offset"]) == (409, "1000000")
    assert (await go_on(space, url, 1_000_000, data[1_000_000:])).status == 204
    answer = await space.get("/files/home/ada/big")
    assert (answer.body, answer.headers["Digest"]) == (data, digest(data))
    assert space.posix("/home/ada/big").stat().st_uid == 20001
    assert leftovers(space) == []
    # Who did not hear that it came whole is told so, and changes nothing by asking; others are told nothing.
    assert await offset_of(space, url) == len(data)
    assert (await space.as_("bob")("HEAD", url, headers=TUS)).status == 404
    assert (await go_on(space, url, len(data), b"")).status == 204
    for offset, more in ((0, b"anew"), (len(data), b"more"), (0, b"")):
        answer = await go_on(space, url, offset, more)
        assert (answer.status, answer.headers["Upload-Offset"]) == (409, str(len(data)))
    assert json.loads((await space.get("/api/uploads")).body)["uploads"] == []
    assert (await space("DELETE", url, headers=TUS)).status == 204
    assert (await space("HEAD", url, headers=TUS)).status == 404
    assert space.posix("/home/ada/big").read_bytes() == data


async def test_broken_connection_keeps_what_arrived(space: Space) -> None:
    url = (await begin(space, "/home/ada/f", 10)).headers["Location"]
    path = url.removeprefix(space.url)
    head = (
        f"PATCH {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ada\r\nTus-Resumable: 1.0.0\r\n"
        "Upload-Offset: 0\r\nContent-Type: application/offset+octet-stream\r\nContent-Length: 10\r\n\r\n"
    )
    host, port = space.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(head.encode())
    async with asyncio.timeout(10):
        # Two at once are one too many: it shows that the first is being served, or else was refused itself.
        while (await go_on(space, url, 1, b"")).headers.get("Upload-Offset") is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(reader.readexactly(1), 0.05)
                writer.close()
                reader, writer = await asyncio.open_connection(host, int(port))
                writer.write(head.encode())
    writer.write(b"01234")
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    async with asyncio.timeout(10):
        while await offset_of(space, url) != 5:
            await asyncio.sleep(0.01)
    assert (await go_on(space, url, 5, b"56789")).status == 204
    assert space.posix("/home/ada/f").read_bytes() == b"0123456789"


async def test_upload_outlives_the_service_and_its_sweep(tmp_path: Path) -> None:
    async with running(tmp_path / "data") as space:
        url = (await begin(space, "/home/ada/f", 6)).headers["Location"]
        await go_on(space, url, 0, b"abc")
        await space.upload("/home/ada/.other.astrocloud-x", b"not one of ours")
    async with running(tmp_path / "data") as space:
        assert len(leftovers(space)) == 2
        path = "/uploads/" + url.rsplit("/", 1)[1]
        assert await offset_of(space, path) == 3
        assert (await go_on(space, path, 3, b"def")).status == 204
        assert space.posix("/home/ada/f").read_bytes() == b"abcdef"


async def test_killed_between_the_files_place_and_its_record_nothing_is_lost(tmp_path: Path) -> None:
    limits = {"vospace": {"home_quota_bytes": 1000}}
    async with running(tmp_path / "data", limits) as space:
        await space.upload("/home/ada/f", b"old")
        url = (await begin(space, "/home/ada/f", 10, replaces="true")).headers["Location"]
        with patch.object(Partials, "finish", side_effect=OSError("killed here")):
            assert (await go_on(space, url, 0, b"0123456789")).status == 500
    async with running(tmp_path / "data", limits) as space:
        assert space.posix("/home/ada/f").read_bytes() == b"0123456789"
        assert (await space.get("/files/home/ada/f")).body == b"0123456789"
        here = f"/uploads/{url.rsplit('/', 1)[1]}"
        assert (await space("HEAD", here, headers=TUS)).status == 404
        assert (await space("DELETE", here, headers=TUS)).status in {204, 404}
        assert (await space.upload("/home/ada/f", b"newer")).status == 200
        assert leftovers(space) == []


async def test_upload_is_its_owners_alone(space: Space) -> None:
    url = (await begin(space, "/project/team/f", 3)).headers["Location"]
    for who in ("bob", "eve", None):
        other = space.as_(who)
        assert (await other("HEAD", url, headers=TUS)).status == 404
        assert (await go_on(other, url, 0, b"abc")).status == 404
        assert (await other("DELETE", url, headers=TUS)).status == 404
    assert (await begin(space.as_(None), "/home/ada/f", 3)).status == 403
    assert (await begin(space.as_("eve"), "/home/ada/f", 3)).status == 403
    assert (await go_on(space, url, 0, b"abc")).status == 204


async def test_what_cannot_be(space: Space) -> None:
    await space.upload("/home/ada/f", b"old")
    answer = await begin(space, "/home/ada/f", 3, replace="false")
    assert (answer.status, answer.fault) == (409, "DuplicateNode")
    assert (await begin(space, "/home/ada/no/f", 3)).fault == "ContainerNotFound"
    assert (await space("POST", "/uploads", headers={"Upload-Length": "3"})).status == 412
    assert (await space("POST", "/uploads", headers={**TUS, "Upload-Length": "x"})).fault == "InvalidArgument"
    url = (await begin(space, "/home/ada/g", 3)).headers["Location"]
    assert (await space("PATCH", url, data=b"abc", headers={**TUS, "Upload-Offset": "0"})).status == 415
    answer = await go_on(space, url, 0, b"too much")
    assert (answer.status, answer.fault) == (400, "InvalidArgument")
    assert await offset_of(space, url) == 0
    assert (await space("DELETE", url, headers=TUS)).status == 204
    assert leftovers(space) == []
    assert space.posix("/home/ada/f").read_bytes() == b"old"


async def test_empty_upload_is_whole_at_once_and_one_that_replaces_does(space: Space) -> None:
    await begin(space, "/home/ada/empty", 0)
    assert space.posix("/home/ada/empty").read_bytes() == b""
    await space.upload("/home/ada/f", b"old")
    await space.set("/home/ada/f", {"title": "t"})
    url = (await begin(space, "/home/ada/f", 3)).headers["Location"]
    assert space.posix("/home/ada/f").read_bytes() == b"old"
    await go_on(space, url, 0, b"new")
    assert space.posix("/home/ada/f").read_bytes() == b"new"
    assert (await space.node("/home/ada/f")).properties[f"{CORE}title"] == "t"


async def test_quota_is_taken_at_the_beginning_and_given_back(tmp_path: Path) -> None:
    async with running(tmp_path / "data", {"vospace": {"home_quota_bytes": 1000}}) as space:

        async def free() -> int:
            return int((await space.node("/home/ada")).properties[f"{CORE}availableSpace"])

        assert (await begin(space, "/home/ada/a", 1001)).fault == "QuotaExceeded"
        url = (await begin(space, "/home/ada/a", 900)).headers["Location"]
        assert await free() == 100
        assert (await space.upload("/home/ada/b", b"x" * 101)).status == 507
        await space("DELETE", url, headers=TUS)
        assert await free() == 1000
        url = (await begin(space, "/home/ada/a", 900)).headers["Location"]
        later = time.time() + resuming.LIFETIME_S + 1
        with patch.object(resuming.time, "time", return_value=later):
            assert (await space("HEAD", url, headers=TUS)).status == 404


async def test_sweep_takes_what_died_and_leaves_what_can_be_resumed(space: Space) -> None:
    url = (await begin(space, "/home/ada/f", 6)).headers["Location"]
    await go_on(space, url, 0, b"abc")
    [kept] = leftovers(space)
    space.write("/home/ada/.dead.astrocloud-0123456789abcdef")
    space.make("/home/ada/.half.astrocloud-0123456789abcdef")
    assert (await space.node("/home/ada")).names == []
    home = os.open(space.posix("/home/ada"), os.O_RDONLY)
    try:
        assert sweep(home, older_than_s=3600, keep=frozenset({kept.encode()})) == 0
        assert sweep(home, older_than_s=0, keep=frozenset({kept.encode()})) == 2
    finally:
        os.close(home)
    assert os.listdir(space.posix("/home/ada")) == [kept]


async def test_sweep_leaves_an_upload_that_began_while_it_walked(space: Space) -> None:
    await begin(space, "/home/ada/f", 6)
    [late] = leftovers(space)
    home = os.open(space.posix("/home/ada"), os.O_RDONLY)
    try:
        assert sweep(home, older_than_s=0, resumable=lambda: frozenset({late.encode()})) == 0
        assert leftovers(space) == [late]
        assert sweep(home, older_than_s=0) == 1
    finally:
        os.close(home)


async def test_whole_but_not_put_in_place_it_is_by_an_empty_request(space: Space) -> None:
    url = (await begin(space, "/home/ada/f", 3, replace="false")).headers["Location"]
    await space.upload("/home/ada/f", b"of somebody who was faster")
    assert (await go_on(space, url, 0, b"abc")).status == 412
    assert await offset_of(space, url) == 3
    answer = await space("GET", "/api/uploads", headers={"Accept": "application/json"})
    assert [told["replaces"] for told in json.loads(answer.text)["uploads"]] == [False]
    assert (await space("DELETE", "/nodes/home/ada/f")).status == 200
    assert (await go_on(space, url, 3, b"")).status == 204
    assert space.posix("/home/ada/f").read_bytes() == b"abc"


async def test_service_that_ends_closes_no_file_that_is_being_written(tmp_path: Path) -> None:
    writing, closed, early = threading.Event(), threading.Event(), []
    append, close = Resuming.append, Upload.close

    def slowly(self: Resuming, *args: object) -> None:
        writing.set()
        early.append(closed.wait(3))  # longer than the service lets a request go on at its end
        append(self, *args)  # type: ignore[arg-type]

    def told(self: Upload) -> None:
        if writing.is_set():
            closed.set()
        close(self)

    with patch.object(Resuming, "append", slowly), patch.object(Upload, "close", told):
        async with running(tmp_path / "data") as space:
            url = (await begin(space, "/home/ada/f", 6)).headers["Location"]
            head = (
                f"PATCH {url.removeprefix(space.url)} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ada\r\n"
                "Tus-Resumable: 1.0.0\r\nUpload-Offset: 0\r\nContent-Type: application/offset+octet-stream\r\n"
                "Content-Length: 3\r\n\r\nabc"
            )
            # A connection of its own: the other is closed before the service ends.
            host, port = space.url.removeprefix("http://").split(":")
            _reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(head.encode())
            assert await asyncio.to_thread(writing.wait, 10)
        assert await asyncio.to_thread(closed.wait, 10)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
    assert early == [False]


async def test_what_took_the_place_of_an_uploads_bytes_is_not_touched(space: Space) -> None:
    url = (await begin(space, "/home/ada/f", 6)).headers["Location"]
    await go_on(space, url, 0, b"abc")
    [name] = leftovers(space)
    hidden = space.posix(f"/home/ada/{name}")
    hidden.unlink()
    os.mkfifo(hidden)
    os.chown(hidden, 20001, 20001)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        assert (await go_on(space, url, 3, b"def")).status == 404
    assert len(os.listdir("/proc/self/fd")) <= before
    hidden.unlink()
    # Another's file that ada may write, by a second name.
    theirs = space.write("/home/ada/theirs", b"abcdef", who="bob", mode=0o666)
    os.link(theirs, hidden)
    assert (await go_on(space, url, 6, b"")).status == 404
    assert theirs.stat().st_uid == 20002
    assert not space.posix("/home/ada/f").exists()


async def test_part_that_is_compressed_on_its_way_is_not_taken(space: Space) -> None:
    url = (await begin(space, "/home/ada/f", 6)).headers["Location"]
    headers = {**TUS, "Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
    answer = await space("PATCH", url, data=b"abc", headers={**headers, "Content-Encoding": "gzip"})
    assert (answer.status, answer.fault) == (400, "InvalidArgument")


async def test_client_that_went_without_a_word_does_not_keep_the_upload(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one whose network is gone: its connection looks open for hours."""
    monkeypatch.setattr(api_uploads, "IDLE_S", 0.5)
    url = (await begin(space, "/home/ada/f", 10)).headers["Location"]
    host, port = space.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        f"PATCH {url.removeprefix(space.url)} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ada\r\n"
        "Tus-Resumable: 1.0.0\r\nUpload-Offset: 0\r\nContent-Type: application/offset+octet-stream\r\n"
        "Content-Length: 10\r\n\r\n01234".encode()
    )
    async with asyncio.timeout(20):
        told = await reader.readuntil(b"\r\n")
    assert told.startswith(b"HTTP/1.1 400 ")
    assert await offset_of(space, url) == 5
    assert (await go_on(space, url, 5, b"56789")).status == 204
    assert space.posix("/home/ada/f").read_bytes() == b"0123456789"
    writer.close()
