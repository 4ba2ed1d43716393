"""Faults by the names that clients compare, where no test of an operation meets them; and what the service tells."""

import asyncio
import errno
import json
from pathlib import Path
from xml.etree import ElementTree

import aiohttp
import pytest

from astrocloud.vospace import posix
from astrocloud.vospace.models import PROPERTIES, READ_ONLY
from tests.services.vospace.platform import CORE, VOS, Answer, Space, node_xml, running, uri
from tests.services.vospace.test_resumable import TUS, begin, go_on


async def test_what_nobody_foresaw_is_an_internal_fault(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    await space.upload("/home/ada/f", b"hello")

    def bad_disk(*_arguments: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(posix, "open_beneath", bad_disk)
        for method, path in (("GET", "/nodes/home/ada"), ("GET", "/files/home/ada/f"), ("DELETE", "/nodes/home/ada/f")):
            answer = await space(method, path, headers={"X-Request-ID": "number-7"})
            assert (answer.status, answer.fault) == (500, "InternalFault")
            assert "number-7" in answer.text
            # What it was stands in the log alone.
            assert "Input/output" not in answer.text
        answer = await space("PUT", "/nodes/home/ada/d", data=node_xml("/home/ada/d"))
        assert (answer.status, answer.fault) == (500, "InternalFault")
        answer = await space.get("/nodes/home/ada", headers={"Accept": "application/json"})
        told = json.loads(answer.body)
        assert (told["fault"], told["code"], told["status"]) == ("InternalFault", "vospace-unexpected", 500)
    assert (await space.get("/files/home/ada/f")).body == b"hello"


async def test_a_file_that_is_being_sent_in_parts_is_busy(space: Space) -> None:
    url = (await begin(space, "/home/ada/f", 10)).headers["Location"]
    let = asyncio.Event()

    async def pieces():  # type: ignore[no-untyped-def]
        yield b"hello"
        await let.wait()
        yield b"world"

    headers = {**TUS, "Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}

    def begin_first() -> "asyncio.Task[Answer]":
        return asyncio.create_task(space("PATCH", url, data=pieces(), headers=headers))

    first = begin_first()
    async with asyncio.timeout(20):
        # Until the first has it, the second is told that its offset is wrong.
        while "Upload-Offset" in (busy := await go_on(space, url, 7, b"other")).headers:
            assert busy.status == 409
            if first.done():  # the other one had it just then
                assert first.result().fault == "NodeBusy"
                first = begin_first()
    assert (busy.status, busy.fault) == (409, "NodeBusy")
    let.set()
    assert (await first).status == 204
    assert space.posix("/home/ada/f").read_bytes() == b"helloworld"


@pytest.mark.parametrize("wanted", ["bytes=5-", "bytes=-0", "bytes=9-12"])
async def test_a_range_behind_the_end_is_not_satisfiable(space: Space, wanted: str) -> None:
    await space.upload("/home/ada/f", b"hello")
    answer = await space.get("/files/home/ada/f", headers={"Range": wanted})
    assert (answer.status, answer.fault) == (416, "RangeNotSatisfiable")
    assert answer.headers["Content-Range"] == "bytes */5"
    assert wanted in answer.text


async def told(space: Space, path: str) -> ElementTree.Element:
    answer = await space.as_(None).get(path)
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/xml; charset=utf-8"
    return answer.xml


def uris(root: ElementTree.Element, name: str) -> list[str]:
    return [element.get("uri", "") for element in root.find(f"{VOS}{name}") or []]


async def test_protocols_that_are_told_are_those_that_are_spoken(space: Space) -> None:
    root = await told(space, "/protocols")
    assert root.tag == f"{VOS}protocols"
    spoken = [CORE + name for name in ("httpget", "httpput", "httpsget", "httpsput")]
    assert sorted(uris(root, "accepts")) == sorted(uris(root, "provides")) == spoken


async def test_views_that_are_told_are_given(space: Space) -> None:
    root = await told(space, "/views")
    assert root.tag == f"{VOS}views"
    assert uris(root, "accepts") == [CORE + "defaultview", CORE + "anyview"]
    provided = uris(root, "provides")
    assert provided[:2] == [CORE + "defaultview", CORE + "binaryview"]
    await space.mkdir("/home/ada/d")
    await space.upload("/home/ada/f", b"hello")
    for path, views in (("/home/ada/f", provided[:2]), ("/home/ada/d", provided[2:])):
        for view in views:
            query = f"TARGET={uri(path)}&DIRECTION=pullFromVoSpace&VIEW={view.replace('#', '%23')}&REQUEST=redirect"
            answer = await space.get(f"/synctrans?{query}&PROTOCOL={CORE.replace('#', '%23')}httpget")
            assert answer.status == 303, (view, answer.text)
            assert (await space.as_(None).get(answer.headers["Location"])).status == 200


async def test_properties_that_are_told_are_taken_or_read_only(space: Space) -> None:
    root = await told(space, "/properties")
    assert root.tag == f"{VOS}properties"
    accepts, provides, contains = (uris(root, name) for name in ("accepts", "provides", "contains"))
    assert set(provides) == set(contains) == set(PROPERTIES)
    assert set(accepts) == set(PROPERTIES) - set(READ_ONLY)
    fixed = {e.get("uri") for e in root.iter(f"{VOS}property") if e.get("readOnly") == "true"}
    assert fixed == set(READ_ONLY) & set(PROPERTIES)
    await space.upload("/home/ada/f", b"hello")
    for name in provides:
        if name in READ_ONLY:
            answer = await space.set("/home/ada/f", {name: "1"})
            assert (answer.status, answer.fault) == (403, "PermissionDenied"), name
    plain = next(name for name in accepts if name.endswith("#title"))
    assert (await space.set("/home/ada/f", {plain: "a title"})).properties[plain] == "a title"


async def test_availability_says_whether_the_files_can_be_reached(tmp_path: Path) -> None:
    name = "{http://www.ivoa.net/xml/VOSIAvailability/v1.0}available"
    async with running(tmp_path / "data") as space:
        (tmp_path / "data" / "tree").rename(tmp_path / "away")
        assert (await told(space, "/availability")).findtext(name) == "false"
        (tmp_path / "away").rename(tmp_path / "data" / "tree")
        assert (await told(space, "/availability")).findtext(name) == "true"


async def test_each_address_that_the_capabilities_tell_answers(space: Space) -> None:
    root = await told(space, "/capabilities")
    found = {cap.get("standardID", ""): cap.findtext("interface/accessURL") or "" for cap in root.iter("capability")}
    assert len(found) == 12
    for standard, address in found.items():
        assert address.startswith(f"{space.base}/"), standard
        answer = await space.get(address + ("/home/ada" if address.endswith(("/nodes", "/files")) else ""))
        # The bytes of a folder, and a transfer without a target, are refused by their own handlers.
        wants = {"files": (400, "TypeNotSupported"), "synctrans": (400, "InvalidURI")}.get(address.split("/")[-1])
        assert answer.status == 200 if wants is None else (answer.status, answer.fault) == wants, (standard, answer)


async def test_a_connection_is_no_fault(space: Space) -> None:
    """Who goes away in the middle leaves the service as it was."""

    async def endless():  # type: ignore[no-untyped-def]
        while True:
            yield bytes(1 << 16)
            await asyncio.sleep(0)

    with pytest.raises((TimeoutError, aiohttp.ClientError)):
        await space("PUT", "/files/home/ada/f", data=endless(), timeout=aiohttp.ClientTimeout(total=1))
    assert (await space.get("/files/home/ada/f")).status == 404


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /services/vospace/nodes/home HTTP/1.1\r\nAuthorization: Basic \xff", b"401"),
        (b"GET /services/vospace/nodes/home HTTP/1.1\r\nAuthorization: Basic AAAA\xff", b"401"),
        (
            b"POST /services/vospace/uploads HTTP/1.1\r\nAuthorization: Bearer ada\r\nTus-Resumable: 1.0.0\r\n"
            b"Upload-Length: 5\r\nUpload-Metadata: uri \xff",
            b"400",
        ),
    ],
)
async def test_headers_that_are_no_text_are_no_fault_of_ours(space: Space, head: bytes, status: bytes) -> None:
    host, port = space.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(head + b"\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
    async with asyncio.timeout(20):
        assert (await reader.readuntil(b"\r\n")).split()[1] == status
    writer.close()
    await writer.wait_closed()
