"""Documents: ours as the standards say (each answer in these tests is validated), clients' read without trust."""

import asyncio
import os
import time
from contextlib import suppress
from random import Random
from urllib.parse import quote
from xml.etree import ElementTree

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from astrocloud.vospace import parsing
from astrocloud.vospace.errors import Fault
from astrocloud.vospace.models import Authority, NodePath, encode_name
from astrocloud.vospace.writing import escape
from tests.services.vospace.platform import CORE, Space, node_xml, validate
from tests.services.vospace.test_transfers import transfer_xml

AUTHORITY = Authority("astrocloud.local", aliases=("cadc.nrc.ca~arc",))


async def test_capabilities_are_as_the_client_vos_needs_them(space: Space) -> None:
    root = (await space.as_(None).get("/capabilities")).xml
    found = {cap.get("standardID"): cap for cap in root.findall("capability")}
    for standard, path in {
        "ivo://ivoa.net/std/VOSpace/v2.0#nodes": "nodes",
        "ivo://ivoa.net/std/VOSpace/v2.0#transfers": "transfers",
        "ivo://ivoa.net/std/VOSpace#sync-2.1": "synctrans",
        "ivo://ivoa.net/std/VOSpace#files-proto": "files",
        "ivo://ivoa.net/std/VOSI#availability": "availability",
    }.items():
        interface = found[standard].find("interface")
        assert interface.findtext("accessURL") == f"{space.base}/{path}"
        assert interface.find("securityMethod").get("standardID") is None
    answer = await space.get(f"{space.url}/reg/resource-caps")
    assert f"ivo://astrocloud.local/vospace = {space.base}/capabilities" in answer.text.splitlines()
    assert f"ivo://cadc.nrc.ca/arc = {space.base}/capabilities" in answer.text.splitlines()


def test_schema_refuses_what_is_wrong() -> None:
    with pytest.raises(Exception, match="nodes"):
        validate(
            node_xml("/home/ada").encode()  # a container without its list of nodes
        )


BOMB = (
    '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">'
    + "".join(f'<!ENTITY {chr(98 + n)} "{f"&{chr(97 + n)};" * 10}">' for n in range(9))
    + "]>"
)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x00\x01",
        b"<node",
        b"<node/>",
        b"not xml",
        (BOMB + node_xml("/home/ada/x").replace("<vos:properties>", "<vos:properties>&j;")).encode(),
        (BOMB + node_xml("/home/ada/x")).encode("utf-16"),
        b'<!DOCTYPE x SYSTEM "http://127.0.0.1:1/x.dtd"><x/>',
        b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><x>&e;</x>',
        b"<a>" * 5000,
        b"<a>" * 300 + b"</a>" * 300,
    ],
)
async def test_bad_document_is_refused_at_once(space: Space, body: bytes) -> None:
    started = time.monotonic()
    for method, path in (("PUT", "/nodes/home/ada/x"), ("POST", "/transfers"), ("POST", "/async-setprops")):
        answer = await space(method, path, data=body, headers={"Content-Type": "text/xml"})
        assert (answer.status, answer.fault) == (400, "InvalidArgument")
        assert "root:" not in answer.text
    assert time.monotonic() - started < 30


async def test_body_of_100_mb_is_refused_before_it_is_read(space: Space) -> None:
    sent = 0

    async def endless():
        nonlocal sent
        for _ in range(1600):
            sent += 65536
            yield b"<a>" + b" " * 65533

    for method, path in (("PUT", "/nodes/home/ada/x"), ("POST", "/synctrans")):
        sent = 0
        try:
            answer = await space(method, path, data=endless(), headers={"Content-Type": "text/xml"})
            assert (answer.status, answer.fault) == (413, "RequestEntityTooLarge")
        except aiohttp.ClientError:
            pass  # the connection was cut while the rest was on its way
        assert sent < 50_000_000


@settings(max_examples=300, deadline=None)
@given(st.binary(min_size=1, max_size=40).filter(lambda n: b"/" not in n and b"\0" not in n and n not in {b".", b".."}))
def test_every_file_name_has_a_uri_that_leads_back_to_it(name: bytes) -> None:
    path = NodePath((b"home", name))
    text = AUTHORITY.uri(path)
    ElementTree.fromstring(f'<a uri="{escape(text)}"/>')
    assert AUTHORITY.parse(text) == path
    assert all(char.isprintable() and char != " " for char in encode_name(name))


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=60))
def test_every_text_can_stand_in_a_document(text: str) -> None:
    ElementTree.fromstring(f'<a b="{escape(text)}">{escape(text)}</a>'.encode("utf-8", "surrogatepass"))


@settings(max_examples=500, deadline=None)
@given(st.one_of(st.text(max_size=80), st.text(alphabet="/.%2Fef0\\~!:?#", max_size=40)))
def test_every_path_is_taken_or_refused(text: str) -> None:
    try:
        path = NodePath.from_url(text)
    except Fault as fault:
        path, name = NodePath(), fault.name
    else:
        name = "InvalidURI"
    assert name == "InvalidURI"
    assert all(part not in {b"", b".", b".."} and b"/" not in part and b"\0" not in part for part in path.parts)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=200), st.integers(0, 400), st.integers(0, 40))
def test_mangled_documents_are_faults_and_nothing_else(noise: bytes, at: int, cut: int) -> None:
    good = node_xml("/home/ada/x", "DataNode", {"title": "t", "description": None}).encode()
    for body in (good[:at] + noise + good[at + cut :], good.replace(b"home/ada", noise)):
        with suppress(Fault):
            parsing.node(body, AUTHORITY)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=200), st.integers(0, 700), st.integers(0, 60), st.text(max_size=30))
def test_mangled_transfers_are_faults_and_nothing_else(noise: bytes, at: int, cut: int, text: str) -> None:
    plain = transfer_xml(
        "/home/ada/f", "pushToVoSpace", "httpput", view="v", keep=True, endpoint="http://x/", method="m"
    )
    good = plain.encode()
    mangled = [good[:at] + noise + good[at + cut :], good.replace(b"home/ada", noise), good.replace(b"true", noise)]
    mangled += [good.replace(b"pushToVoSpace", escape(text).encode("utf-8", "surrogatepass"))]
    for body in mangled:
        with suppress(Fault):
            parsing.transfer(body, AUTHORITY)


async def test_nothing_that_is_sent_is_an_internal_fault(space: Space) -> None:
    """Over HTTP: mangled documents, paths, queries and headers are refused or taken, and the service goes on."""
    random = Random(20261122)  # the same each time
    node = node_xml("/home/ada/x", "DataNode", {"title": "t", "description": None}).encode()
    transfer = transfer_xml(
        "/home/ada/f", "pushToVoSpace", "httpput", view="v", keep=True, endpoint="http://x/"
    ).encode()
    await space.upload("/home/ada/f", b"hello")
    letters = "/.%2Fef0\\~!:?#&=;,\"' 天\u202e"
    for turn in range(150):
        base = (node, transfer)[turn % 2]
        at, noise = random.randrange(len(base)), random.randbytes(random.randrange(30))
        body = base[:at] + noise + base[at + random.randrange(20) :]
        method, path = random.choice(
            [
                ("PUT", "/nodes/home/ada/x"),
                ("POST", "/nodes/home/ada/f"),
                ("POST", "/synctrans"),
                ("POST", "/transfers"),
            ]
        )
        answer = await space(method, path, data=body, headers={"Content-Type": "text/xml"})
        assert answer.status < 500, (method, path, body)
        odd = quote("".join(random.choices(letters, k=random.randrange(1, 25))), safe="/%?&=;#:")
        for below in ("nodes", "files", "transfers", "uploads"):
            answer = await space("GET", f"/{below}/home/ada/{odd}")
            assert answer.status < 500, (below, odd)
        name, value = (
            random.choice(HEADERS),
            "".join(random.choices('0123456789-,=*";abcMWF :/', k=random.randrange(25))),
        )
        for verb in ("GET", "PUT"):
            kwargs = {"data": b"hello"} if verb == "PUT" else {}
            answer = await space(verb, "/files/home/ada/f", headers={name: value.strip()}, **kwargs)
            assert answer.status < 500, (verb, name, value)
        query = random.choice(["limit", "uri", "detail", "sort", "order", "view", "WAIT", "PHASE", "LAST", "AFTER"])
        for below in ("nodes/home/ada", "transfers", "files/home/ada/f"):
            answer = await space("GET", f"/{below}?{query}={odd.replace('#', '%23')}")
            assert answer.status < 500, (below, query, odd)
    assert (await space.node("/home/ada")).status == 200


HEADERS = ["Range", "If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since", "If-Range", "Digest"]
HEADERS += ["Content-MD5", "Repr-Digest", "Want-Repr-Digest", "Accept-Language", "x-total-length", "X-Request-ID"]


@pytest.mark.parametrize(
    "raw",
    [
        "/home/ada/../bob",
        "/home/ada/%2e%2e/bob",
        "/home/ada/a%2Fb",
        "/home/ada/a%00b",
        "/home/ada//b",
        "/home/ada/./b",
        "/home/ada/" + "x" * 256,
        "/home/ada" + "/x" * 200,
        "/home/ada/.x.astrocloud-0123456789abcdef",
    ],
)
async def test_hostile_paths_are_invalid(space: Space, raw: str) -> None:
    host, port = space.url.removeprefix("http://").split(":")
    for method, below in (("GET", "nodes"), ("GET", "files"), ("PUT", "files"), ("DELETE", "nodes")):
        reader, writer = await asyncio.open_connection(host, int(port))
        head = f"{method} /services/vospace/{below}{raw} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ada\r\n"
        writer.write(f"{head}Connection: close\r\nContent-Length: 0\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        assert answer.startswith(b"HTTP/1.1 400"), answer[:300]
        assert b"InvalidURI" in answer


async def test_names_of_every_kind_can_be_read(space: Space) -> None:
    await space.node("/home/ada")
    names = [
        b"\xff\xfe",
        "天文".encode(),
        "e\N{COMBINING ACUTE ACCENT}".encode(),
        "\N{LATIN SMALL LETTER E WITH ACUTE}".encode(),
    ]
    names += [b"a b", b"100%", b"a?b#c", b"line\nbreak", b"<&>\"'"]
    for name in names:
        file = space.posix("/home/ada").as_posix().encode() + b"/" + name
        with open(file, "wb") as opened:
            opened.write(name)
        os.chown(file, 20001, 20001)
    answer = await space.node("/home/ada")
    assert len(answer.children) == len(names)
    found = set()
    for child in answer.children:
        below = child.removeprefix("vos://astrocloud.local~vospace")
        body = await space.get(f"/files{below}")
        assert body.status == 200, child
        found.add(body.body)
        assert (await space.node(below)).properties[f"{CORE}length"] == str(len(body.body))
    assert found == set(names)


@pytest.mark.parametrize("name", ["a%0Ab", "%FF", "a%7Fb", ".auto", ".null"])
async def test_new_names_that_nobody_should_give_are_refused(space: Space, name: str) -> None:
    for answer in (await space.upload(f"/home/ada/{name}", b"x"), await space.mkdir(f"/home/ada/{name}")):
        assert (answer.status, answer.fault) == (400, "InvalidURI")
