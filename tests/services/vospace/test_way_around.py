"""The way of bytes around the platform's proxy: who is sent there, and what it does not do."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.services.vospace.platform import Space, running, uri
from tests.services.vospace.test_transfers import endpoints, sync, transfer_xml

LARGE = 100_000


@pytest.fixture
async def space(tmp_path: Path) -> AsyncIterator[Space]:
    """A service with such a way, to which 100 kB are large, spoken to as ada."""
    config = {"vospace": {"redirect_from_bytes": LARGE}}
    async with running(tmp_path / "data", config, way_around=True) as running_space:
        yield running_space


def direct(space: Space, path: str) -> str:
    return f"{space.around}/services/vospace/files{path}"


async def test_a_large_file_is_sent_for_by_an_address_that_needs_no_login(space: Space) -> None:
    data = b"0123456789" * 20_000
    await space.upload("/home/ada/天%20f", data)
    answer = await space.get("/files/home/ada/天%20f")
    assert answer.status == 303
    there = answer.headers["Location"]
    assert there.startswith(f"{space.around}/services/vospace/files/preauth:")
    assert answer.headers["Cache-Control"] == "no-store"
    assert there in answer.text
    nobody = space.as_(None)
    assert (await nobody.get(there)).body == data
    part = await nobody.get(there, headers={"Range": "bytes=5-9"})
    assert (part.status, part.body) == (206, b"56789")
    head = await nobody("HEAD", there)
    assert (head.status, head.headers["Content-Length"]) == (200, str(len(data)))
    assert (await nobody.put(there, b"x")).status == 403


async def test_small_files_and_heads_come_at_once(space: Space) -> None:
    await space.upload("/home/ada/small", b"x" * (LARGE - 1))
    await space.upload("/home/ada/large", b"x" * LARGE)
    assert (await space.get("/files/home/ada/small")).status == 200
    assert (await space("HEAD", "/files/home/ada/large")).status == 200
    assert (await space.get("/files/home/ada/large")).status == 303


async def test_a_pages_script_is_not_sent_to_another_port(space: Space) -> None:
    await space.upload("/home/ada/f", b"x" * LARGE)
    for mode in ("cors", "same-origin", "no-cors"):
        assert (await space.get("/files/home/ada/f", headers={"Sec-Fetch-Mode": mode})).status == 200
    assert (await space.get("/files/home/ada/f?inline", headers={"Sec-Fetch-Mode": "navigate"})).status == 303


async def test_who_may_not_read_is_not_sent_anywhere(space: Space) -> None:
    await space.upload("/home/ada/f", b"x" * LARGE)
    assert (await space.as_("bob").get("/files/home/ada/f")).status == 403
    assert (await space.as_(None).get("/files/home/ada/f")).status == 403


async def test_a_bearer_token_counts_there_and_nothing_else_is_there(space: Space) -> None:
    data = b"x" * (2 * LARGE)
    assert (await space.put(direct(space, "/home/ada/f"), data)).status == 201
    assert space.posix("/home/ada/f").read_bytes() == data
    assert (await space.get(direct(space, "/home/ada/f"))).body == data  # no redirect to itself
    assert (await space.as_("bob").get(direct(space, "/home/ada/f"))).status == 403
    assert (await space.as_("nobody").get(direct(space, "/home/ada/f"))).status == 401
    assert (await space("DELETE", direct(space, "/home/ada/f"))).status == 200
    for path in ("/", "/services/vospace/nodes", "/services/vospace/synctrans", "/services/vospace/metrics", "/hub/"):
        assert (await space.get(f"{space.around}{path}")).status == 404


async def test_a_browser_is_neither_signed_in_there_nor_let_in_from_elsewhere(space: Space) -> None:
    await space.upload("/home/ada/f", b"x")
    browser = {"Accept": "text/html", "Cookie": "astrocloud-vospace=whatever", "Origin": "https://evil.example"}
    answer = await space.as_(None).get(direct(space, "/home/ada/f"), headers=browser)
    assert answer.status == 403
    assert answer.fault == "PermissionDenied"
    preflight = await space.as_(None)("OPTIONS", direct(space, "/home/ada/f"), headers=browser)
    assert preflight.status == 405
    for found in (answer, preflight):
        assert not [name for name in found.headers if name.lower().startswith("access-control")]
        assert "Set-Cookie" not in found.headers


async def test_negotiated_addresses_lead_around(space: Space) -> None:
    await space.upload("/home/ada/f", b"x")
    _url, details = await sync(space, transfer_xml("/home/ada/f", "pullFromVoSpace", "httpget"))
    assert endpoints(details)[0].startswith(f"{space.around}/services/vospace/files/preauth:")
    token, cookie = "vos://cadc.nrc.ca~vospace/CADC/std/Auth#token-1.0", "ivo://ivoa.net/sso#cookie"
    for method, base in ((token, space.around), (cookie, space.url)):
        query = {"TARGET": uri("/home/ada/f"), "DIRECTION": "pushToVoSpace", "SECURITYMETHOD": method}
        query["PROTOCOL"] = "ivo://ivoa.net/vospace/core#httpsput"
        answer = await space.get("/synctrans", params=query)
        assert endpoints(answer) == [f"{base}/services/vospace/files/home/ada/f"]


async def test_without_such_a_way_all_comes_by_the_one_there_is(tmp_path: Path) -> None:
    async with running(tmp_path / "data", {"vospace": {"redirect_from_bytes": 0}}) as space:
        await space.upload("/home/ada/f", b"hello")
        assert (await space.get("/files/home/ada/f")).body == b"hello"


async def test_the_operators_address_for_bytes_is_told(tmp_path: Path) -> None:
    elsewhere = {"vospace": {"bytes_url": "https://bytes.example.org", "redirect_from_bytes": 1}}
    async with running(tmp_path / "data", elsewhere) as space:
        await space.upload("/home/ada/f", b"hello")
        location = (await space.get("/files/home/ada/f")).headers["Location"]
        assert location.startswith("https://bytes.example.org/services/vospace/files/preauth:")


async def test_an_address_that_was_given_does_not_renew_itself(space: Space) -> None:
    from unittest.mock import patch

    import astrocloud.vospace.preauth as preauth

    await space.upload("/home/ada/f", b"x" * LARGE)
    there = (await space.get("/files/home/ada/f")).headers["Location"]
    here = there.replace(space.around, space.url)
    nobody = space.as_(None)
    now = preauth.time.time()
    with patch.object(preauth.time, "time", return_value=now + 600):
        again = await nobody.get(here)
    assert again.status == 303
    assert again.headers["Location"] == there
    assert (await nobody.get(f"{here}?inline")).headers["Location"] == f"{there}?inline"
    with patch.object(preauth.time, "time", return_value=now + 3600):
        for address in (here, there, again.headers["Location"]):
            assert (await nobody.get(address)).status == 403


async def test_a_browser_that_does_not_say_what_it_wants_stays_here(space: Space) -> None:
    await space.upload("/home/ada/f", b"x" * LARGE)
    assert (await space.get("/files/home/ada/f", headers={"Cookie": "astrocloud-lang=en"})).status == 200
    headers = {"Cookie": "astrocloud-lang=en", "Sec-Fetch-Mode": "navigate"}
    assert (await space.get("/files/home/ada/f", headers=headers)).status == 303
