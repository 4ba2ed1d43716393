"""What clients send, and how large a file is, does not show in the memory of the service's process."""

import asyncio
import base64
import os
import zlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest

from tests.services.vospace.platform import Answer, Space, node_xml, uri
from tests.services.vospace.serving import Watched, serving
from tests.services.vospace.test_documents import BOMB
from tests.services.vospace.test_resumable import TUS
from tests.services.vospace.test_transfers import transfer_xml

LARGE = 128 << 20
FEW = 24 << 20
"""Nothing of a size that clients choose fits into this."""

DOCUMENTS = [
    ("PUT", "/nodes/home/ada/x"),
    ("POST", "/nodes/home/ada"),
    ("POST", "/transfers"),
    ("POST", "/synctrans"),
    ("POST", "/async-setprops"),
]
FORMS = [("POST", "/async-delete"), ("POST", "/transfers/none/phase")]
JSON = [("POST", f"/api/{name}") for name in ("work", "exists", "folder", "rename", "share", "links", "archive")]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int, Path]]:
    folder = tmp_path_factory.mktemp("memory") / "data"
    with serving(folder) as (url, pid):
        yield url, pid, folder / "tree"


@pytest.fixture
async def watched(service: tuple[str, int, Path]) -> AsyncIterator[Watched]:
    url, pid, tree = service
    timeout = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as session:
        space = Space(url, tree, session)
        if not (tree / "home" / "ada").exists():
            await warm(space)
        yield Watched(space, pid)
        await space("DELETE", "/nodes/home/ada/t")


async def warm(space: Space) -> None:
    """Do everything once, so that what is imported and kept for ever is there before anything is measured."""
    await space.upload("/home/ada/f", os.urandom(5_000_000))
    await space.get("/files/home/ada/f")
    await space.get("/files/home/ada?view=zip")
    document = "<a>" * 50
    for method, path in (*DOCUMENTS, *FORMS):
        await space(method, path, data=document, headers={"Content-Type": "text/xml"})
    for method, path in JSON:
        await space(method, path, data='{"paths": []}', headers={"Content-Type": "application/json"})


async def sent(space: Space, method: str, path: str, piece: bytes, kind: str) -> int:
    """Send 100 MB of `piece`; return the status, or 0 when the connection was cut before there was one."""

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(100_000_000 // len(piece)):
            yield piece

    try:
        answer = await space(method, path, data=pieces(), headers={"Content-Type": kind})
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError):
        return 0
    assert answer.status in {400, 401, 403, 404, 413}, answer.text
    return answer.status


@pytest.mark.parametrize(
    ("targets", "piece", "kind"),
    [
        (DOCUMENTS, b"<a>" + b" " * 65533, "text/xml"),
        (DOCUMENTS, b"<a/>" * 16384, "text/xml"),
        (FORMS, b"a=b&" * 16384, "application/x-www-form-urlencoded"),
        (FORMS, b"\r\n--x\r\nContent-Disposition: form-data; name=a\r\n\r\n" * 1000, "multipart/form-data; boundary=x"),
        (JSON, b'{"paths": [' + b"[]," * 16384, "application/json"),
    ],
    ids=["blanks", "elements", "fields", "parts", "json"],
)
@pytest.mark.parametrize("who", ["ada", None])
async def test_100_mb_where_a_document_belongs(
    watched: Watched, targets: list[tuple[str, str]], piece: bytes, kind: str, who: str | None
) -> None:
    space = watched.space.as_(who)
    # What lists a hundred thousand files is held while it is read.
    with watched.growing_at_most(FEW * 2 if (who, kind) == ("ada", "application/json") else FEW):
        for method, path in targets:
            await sent(space, method, path, piece, kind)
        if who is None or kind != "application/json":  # many at once, too; one person may send sixteen times a megabyte
            method, path = targets[0]
            await asyncio.gather(*(sent(space, method, path, piece, kind) for _ in range(4)))
    assert (await space.as_(None).get("/availability")).status == 200


def bombs() -> dict[str, str]:
    plain = node_xml("/home/ada/x", "DataNode", {"title": "t"})
    return {
        "entities": BOMB + plain.replace(">t<", ">&j;<"),
        "entities in an attribute": BOMB + plain.replace('uri="vos:', 'odd="&j;" uri="vos:'),
        "entities in a transfer": BOMB + transfer_xml("/home/ada/f", "pullFromVoSpace", "&j;"),
        "a quadratic one": f'<!DOCTYPE x [<!ENTITY a "{"a" * 100_000}">]>' + plain.replace(">t<", f">{'&a;' * 9000}<"),
        "an attribute": plain.replace('uri="vos:', f'odd="{"a" * 900_000}" uri="vos:'),
        "attributes": plain.replace('uri="vos:', " ".join(f'a{n}="{n}"' for n in range(30_000)) + ' uri="vos:'),
        "namespaces": plain.replace("xmlns:vos", " ".join(f'xmlns:n{n}="u{n}"' for n in range(30_000)) + " xmlns:vos"),
        "references": plain.replace(">t<", f">{'&#65;' * 180_000}<"),
        "elements": plain.replace("<vos:properties>", "<vos:properties>" + "<vos:property/>" * 30_000),
        "properties": plain.replace(
            "<vos:properties>",
            "<vos:properties>" + "".join(f'<vos:property uri="a:{n}">x</vos:property>' for n in range(19_000)),
        ),
        "depth": "<a>" * 250_000,
        "a comment": plain.replace("<vos:properties>", f"<!--{'x' * 900_000}--><vos:properties>"),
        "instructions": plain.replace("<vos:properties>", "<?a b?>" * 100_000 + "<vos:properties>"),
    }


NEVER = ("entities", "entities in an attribute", "entities in a transfer", "a quadratic one", "elements", "depth")
"""Bombs that are refused by every handler. Others may be taken for what they are besides: what is odd is dropped."""


async def test_bombs_are_refused_and_take_no_memory(watched: Watched) -> None:
    with watched.growing_at_most(FEW * 2):  # a document of a megabyte may become a tree of twenty
        for name, document in bombs().items():
            for method, path in DOCUMENTS:
                answer = await watched.space(method, path, data=document, headers={"Content-Type": "text/xml"})
                allowed = {400, 413} if name in NEVER else {201, 303, 400, 404, 413}
                assert answer.status in allowed, (name, path, answer.status, answer.text[:300])
                assert len(answer.body) < 2000, name
                if answer.status == 201:
                    assert (await watched.space("DELETE", "/nodes/home/ada/x")).status == 200
    assert (await watched.space.node("/home/ada/x")).status == 404


@pytest.mark.parametrize("inner", ["[],", "{},", '"ab",', "[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]],"])
async def test_a_document_of_very_many_values_is_refused(watched: Watched, inner: str) -> None:
    body = ('{"paths": [' + inner * (15_000_000 // len(inner)) + "0]}").encode()
    with watched.growing_at_most(FEW * 2):
        for name in ("work", "exists"):
            answer = await watched.space(
                "POST", f"/api/{name}", data=body, headers={"Content-Type": "application/json"}
            )
            assert answer.status == 413
        answer = await watched.space.as_(None)("POST", "/api/exists", data=body[:100_000])
        assert answer.status == 413


async def test_headers_are_limited(watched: Watched) -> None:
    def of(size: int) -> dict[str, str]:
        value = base64.b64encode(b"x" * size).decode()
        return {**TUS, "Upload-Length": "5", "Upload-Metadata": f"uri {value},note {value}"}

    with watched.growing_at_most(FEW):
        for size in (3000, 20_000, 5_000_000):
            try:
                answer = await watched.space("POST", "/uploads", headers=of(size))
            except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError):
                continue
            assert answer.status == 400
        many = {**TUS, "Upload-Length": "5", "Upload-Metadata": ",".join(f"n{n} eA==" for n in range(500))}
        assert (await watched.space("POST", "/uploads", headers=many)).status == 400


def sparse(space: Space, path: str) -> bytes:
    """Make a large file that takes no room; return what is in its middle."""
    mark = os.urandom(1000)
    file = space.write(path)
    with file.open("r+b") as opened:
        opened.truncate(LARGE)
        opened.seek(LARGE // 2)
        opened.write(mark)
    return mark


async def received(space: Space, path: str, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    """Take an answer without keeping it: its size, and what is in its middle."""
    size, middle = 0, b""
    sent_headers = {"Authorization": "Bearer ada", **(headers or {})}
    async with space.session.get(space.base + path, headers=sent_headers) as response:
        assert response.status in {200, 206}
        async for chunk in response.content.iter_any():
            if size <= LARGE // 2 < size + len(chunk):
                middle = chunk[LARGE // 2 - size :]
            size += len(chunk)
    return size, middle


@pytest.mark.parametrize("ask", ["whole", "range", "zip", "tar"])
async def test_a_large_file_is_sent_without_being_held(watched: Watched, ask: str) -> None:
    watched.space.make("/home/ada/t")
    mark = sparse(watched.space, "/home/ada/t/large")
    path = "/files/home/ada/t" + (f"?view={ask}" if ask in {"zip", "tar"} else "/large")
    with watched.growing_at_most(FEW):
        size, middle = await received(watched.space, path, {"Range": "bytes=0-"} if ask == "range" else None)
    assert size - LARGE in range(100_000)
    if ask in {"whole", "range"}:
        assert (size, middle[:10]) == (LARGE, mark[: len(middle)][:10])


async def pieces() -> AsyncIterator[bytes]:
    piece = bytes(1 << 20)
    for _ in range(LARGE >> 20):
        yield piece


async def put(space: Space, path: str, **headers: str) -> Answer:
    return await space("PUT", path, data=pieces(), headers=headers)


async def begun(space: Space) -> str:
    value = base64.b64encode(uri("/home/ada/t/parts").encode()).decode()
    headers = {**TUS, "Upload-Length": str(LARGE), "Upload-Metadata": f"uri {value}"}
    return (await space("POST", "/uploads", headers=headers)).headers["Location"]


@pytest.mark.parametrize("way", ["announced", "unannounced", "resumable", "copy"])
async def test_a_large_file_is_taken_without_being_held(watched: Watched, way: str) -> None:
    space = watched.space
    space.make("/home/ada/t")
    with watched.growing_at_most(FEW * 2):
        if way == "resumable":
            kind = "application/offset+octet-stream"
            headers = {**TUS, "Upload-Offset": "0", "Content-Type": kind}
            answer = await space("PATCH", await begun(space), data=pieces(), headers=headers)
            assert answer.status == 204
            target = "/home/ada/t/parts"
        elif way == "copy":
            sparse(space, "/home/ada/t/large")
            target = "/home/ada/t/copied"
            url = (
                await space(
                    "POST", "/transfers?PHASE=RUN", data=transfer_xml("/home/ada/t/large", uri(target), keep=True)
                )
            ).headers["Location"]
            assert "COMPLETED" in (await space.get(f"{url}?WAIT=50&PHASE=EXECUTING")).text
        else:
            target = "/home/ada/t/new"
            length = {"Content-Length": str(LARGE)} if way == "announced" else {}
            assert (await put(space, f"/files{target}", **length)).status == 201
    assert space.posix(target).stat().st_size == LARGE


async def test_a_large_listing_is_told_without_being_held(watched: Watched) -> None:
    folder = watched.space.make("/archive/many")
    for number in range(30_000):
        os.close(os.open(folder / f"f{number:06d}", os.O_CREAT | os.O_WRONLY, 0o644))
    with watched.growing_at_most(FEW):
        size, _middle = await received(watched.space, "/nodes/archive/many?detail=max")
    assert size > 30_000 * 500


def test_the_measure_tells_of_memory(tmp_path: Path) -> None:
    """So that the tests above can fail."""
    watched = Watched(Space("", tmp_path, None), os.getpid())  # type: ignore[arg-type]

    def hold() -> None:
        with watched.growing_at_most(FEW):
            bytearray(os.urandom(1 << 20) * 60)

    with pytest.raises(AssertionError, match="MiB more"):
        hold()


async def test_name_of_an_archive_tells_no_more_than_fits(watched: Watched) -> None:
    """It is packed: a few thousand letters of an address could be millions of things to hold."""
    packed = zlib.compress(b'{"paths": [' + b"[]," * 2_000_000 + b"[]]}", 9)
    name = base64.urlsafe_b64encode(packed).decode().rstrip("=")
    assert len(name) < 8000
    with watched.growing_at_most(FEW):
        answer = await watched.space.as_(None).get(f"/api/archive/.{name}")
    assert (answer.status, answer.fault) == (404, "NodeNotFound")
