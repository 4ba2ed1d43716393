"""What hostile and broken clients send, to the whole platform by its front door: a clear 4xx, and no harm."""

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, quote, urlencode, urljoin, urlsplit

import aiohttp
import pytest
from multidict import CIMultiDict
from yarl import URL

from tests.e2e.cast import ADMIN, OTHER, OWNER, PASSWORD, Cast
from tests.support.person import forms

HOSTILE_NAMES: Final = (
    "../ada",
    "%2e%2e",
    "..x",
    "a" * 33,
    "a" * 5000,
    "ada\u202egnp",
    "\u0430da",  # a Cyrillic letter that looks like a Latin one
    "天文",
    "ada\x00",
    "ada\n",
    "ada\r\nX-Header: 1",
    "ada ",
    "ada;id",
    "-rf",
    "1ada",
    "ada/../root",
    "<script>",
)
ELSEWHERE: Final = (
    "https://evil.example/",
    "//evil.example/",
    "///evil.example/",
    "/\\evil.example/",
    "\\\\evil.example/",
    "/\t/evil.example/",
    "http:evil.example",
    "javascript:alert(1)",
    "/%0d%0aLocation:%20https://evil.example/",
    "https:/\\evil.example",
    "//evil.example\\@127.0.0.1/",
    "http://127.0.0.1@evil.example/",
)
LEADS_ON: Final = (
    "/services/portal/language?set=en&next={}",
    "/services/portal/theme?set=light&next={}",
    "/services/portal/sign-in/hub?next={}",
    "/services/passport/sign-in/hub?next={}",
    "/services/passport/sign-in?next={}",
    "/services/passport/logout?client_id=hub&post_logout_redirect_uri={}",
    "/services/passport/authorize?response_type=code&client_id=hub&scope=openid&redirect_uri={}",
    "/hub/login?next={}",
    "/hub/oauth_login?next={}",
    "/hub/spawn/rowan?next={}",
    "/hub/spawn-pending/rowan?next={}",
    "/hub/user-redirect/{}",
    "/hub/user/rowan/{}",
    "/hub/api/oauth2/authorize?response_type=code&client_id=service-portal&redirect_uri={}",
    "/user/rowan/login?next={}",
    "/user/rowan/logout-nowhere?next={}",
    "/user/rowan/lab/tree/{}",
    "/user/rowan/astrocloud/tutorials/open?tutorial=first-look&lang=en&next={}",
    "/{}",
)
"""Everything of ours that takes a place to go on to; the paths too, since some handlers add a slash or a prefix."""


def unsafe(location: str, base: str) -> str:
    """Return the host that a browser goes to from `base` by `location`; browsers drop tabs and turn backslashes."""
    read = re.sub(r"[\t\r\n]", "", location).strip().replace("\\", "/")
    target = urlsplit(urljoin(base, read))
    return target.netloc if target.scheme in {"http", "https"} else f"{target.scheme}:"


@pytest.mark.parametrize("way", LEADS_ON)
def test_no_address_leads_off_the_platform(cast: Cast, way: str) -> None:
    async def follow(elsewhere: str) -> None:
        person = cast.people[OWNER]
        address = cast.platform.url + way.format(quote(elsewhere, safe="%"))
        for _ in range(12):
            async with person.session.get(URL(address, encoded=True), allow_redirects=False) as answer:
                if answer.status not in {301, 302, 303, 307, 308}:
                    assert answer.status < 500, (way, elsewhere, answer.status)
                    assert "evil.example" not in answer.headers.get("Refresh", "")
                    return
                location = answer.headers["Location"]
                assert unsafe(location, address) == urlsplit(cast.platform.url).netloc, (way, elsewhere, location)
                address = urljoin(address, location)

    async def all_of_them() -> None:
        for elsewhere in ELSEWHERE:
            await follow(elsewhere)

    cast.run(all_of_them())


@pytest.mark.parametrize("name", HOSTILE_NAMES, ids=[ascii(name)[:24] for name in HOSTILE_NAMES])
def test_hostile_names_are_refused_wherever_one_is_taken(cast: Cast, name: str) -> None:
    async def tried() -> dict[str, int]:
        by_token = {"Authorization": f"Bearer {cast.tokens[ADMIN]}"}
        part = quote(name, safe="")
        found = {}
        async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), headers=by_token) as session:
            for method, path, body in (
                ("POST", "/services/passport/api/people", {"username": name}),
                ("GET", f"/services/passport/api/people/{part}", None),
                ("POST", "/services/passport/api/groups", {"name": name}),
                ("POST", "/hub/api/users", {"usernames": [name]}),
                ("GET", f"/hub/api/users/{part}", None),
                ("POST", f"/hub/api/users/{part}/server", {}),
                ("POST", f"/hub/api/users/{OWNER}/servers/{part}", {"environment": "nowhere"}),
                ("GET", f"/user/{part}/lab", None),
                ("GET", f"/hub/user/{part}/lab", None),
                ("DELETE", f"/services/portal/api/servers/{part}", None),
            ):
                address = URL(cast.platform.url + path, encoded=True)
                async with session.request(method, address, json=body, allow_redirects=False) as answer:
                    found[f"{method} {path[:60]}"] = answer.status
        return found

    wrong = {what: status for what, status in cast.run(tried()).items() if not 300 <= status < 500}
    assert not wrong
    done = cast.platform.run("user", "add", "--", name.replace("\x00", "\x01"))
    assert done.returncode == 2, done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["", "..", "a" * 5000, "天文\x00", "ada\u202e", "' OR 1=1 --"])
def test_hostile_names_do_not_sign_in(cast: Cast, name: str) -> None:
    async def tried() -> int:
        async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
            async with session.get(f"{cast.platform.url}/services/passport/sign-in?next=/") as answer:
                page, base = await answer.text(), str(answer.url)
            form = next(f for f in forms(page, base) if "password" in f.fields)
            filled = {**form.fields, "username": name, "password": "x"}
            headers = {"Origin": cast.platform.url, "Referer": base}
            async with session.post(form.action, data=filled, headers=headers) as answer:
                return answer.status

    assert 400 <= cast.run(tried()) < 500


def unsigned(claims: dict[str, object]) -> str:
    """Return a JWT that says it is signed by nobody."""
    parts = ({"alg": "none", "typ": "JWT"}, claims)
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts) + "."


@pytest.mark.parametrize(
    "path",
    [
        "/hub/api/user",
        "/services/portal/api/servers",
        "/services/passport/api/people",
        "/services/passport/userinfo",
        f"/user/{OWNER}/api/contents/",
    ],
)
def test_tokens_that_nobody_signed_open_nothing(cast: Cast, path: str) -> None:
    token = unsigned({"iss": f"{cast.platform.url}/services/passport", "sub": ADMIN, "aud": "hub", "admin": True})

    async def status_with(value: str) -> int:
        headers = CIMultiDict({"Authorization": value, "Accept": "application/json"})
        async with aiohttp.request("GET", cast.platform.url + path, headers=headers) as answer:
            return answer.status

    for value in (
        f"Bearer {token}",
        f"token {token}",
        "Bearer ",
        "Bearer \u00e9",
        f"Bearer {'a' * 5000}",
        "Basic YTpi",
    ):
        assert cast.run(status_with(value)) in {401, 403}, value[:40]


def test_a_sign_out_by_an_unsigned_hint_asks_first(cast: Cast) -> None:
    hint = unsigned({"iss": f"{cast.platform.url}/services/passport", "sub": OTHER, "aud": "hub"})

    async def tried() -> int:
        person = cast.people[OTHER]
        async with person.session.get(
            f"{cast.platform.url}/services/passport/logout?{urlencode({'id_token_hint': hint})}", allow_redirects=False
        ) as answer:
            assert answer.status in {200, 400}
        async with person.session.get(
            f"{cast.platform.url}/services/passport/account", allow_redirects=False
        ) as answer:
            return answer.status

    assert cast.run(tried()) == 200


@pytest.mark.parametrize("start", ["/hub/oauth_login?next=/", "/services/portal/sign-in/hub?next=/"])
def test_a_code_works_once_and_in_the_browser_that_asked(cast: Cast, start: str) -> None:
    """The last step of a sign-in, repeated, brought by another browser, and with another state."""

    async def step(session: aiohttp.ClientSession, address: str) -> tuple[int, str]:
        async with session.get(URL(address, encoded=True), allow_redirects=False) as answer:
            return answer.status, urljoin(address, answer.headers.get("Location", ""))

    async def tried() -> None:
        session = cast.people[OTHER].session
        address = cast.platform.url + start
        for _ in range(8):
            _, address = await step(session, address)
            if "_callback?" in address:
                break
        path = urlsplit(address).path
        kept = {name: cookie.value for name, cookie in session.cookie_jar.filter_cookies(URL(address)).items()}
        state = parse_qs(urlsplit(address).query)["state"][0]
        async with aiohttp.ClientSession() as stranger:
            assert (await step(stranger, address))[0] == 403, "in another browser"
        for forged in (state[:-1] + ("A" if state[-1] != "A" else "B"), "", "x" * 4000, "é"):
            forged_address = address.replace(quote(state), quote(forged))
            assert (await step(session, forged_address))[0] == 403, f"with the state {forged[:20]}"
        fresh = kept
        status, _ = await step(session, address)
        assert status == 302, f"{path} itself: {status}"
        assert (await step(session, address))[0] == 403, "again"
        async with aiohttp.ClientSession(cookies=fresh, cookie_jar=aiohttp.CookieJar(unsafe=True)) as thief:
            # Even with the cookies of the first time: the code is used up.
            assert 400 <= (await step(thief, address))[0] < 500, "again, with what the browser had"

    cast.run(tried())


def test_a_form_from_elsewhere_is_refused_though_it_has_the_token(cast: Cast) -> None:
    async def tried() -> None:
        session = cast.people[OTHER].session
        home = f"{cast.platform.url}/services/portal/home"
        async with session.get(home) as answer:
            form = next(
                f
                for f in forms(await answer.text(), home)
                if f.action.endswith("/servers/forget") or "_csrf" in f.fields
            )
        token = form.fields["_csrf"]
        address = f"{cast.platform.url}/services/portal/servers/forget"
        filled = {"server": "ghost", "_csrf": token}
        for headers, expected in (
            ({"Sec-Fetch-Site": "cross-site"}, 403),
            ({"Sec-Fetch-Site": "same-site"}, 403),
            ({"Referer": f"{cast.platform.url}/user/{OWNER}/files/home/{OWNER}/page.html"}, 403),
            ({"Referer": home, "Sec-Fetch-Site": "same-origin"}, 404),
        ):
            async with session.post(address, data=filled, headers=headers, allow_redirects=False) as answer:
                assert answer.status == expected, (headers, answer.status)
        for wrong in ("", token[:-1], token + "x", "é"):
            async with session.post(address, data={**filled, "_csrf": wrong}, headers={"Referer": home}) as answer:
                assert answer.status == 403

    cast.run(tried())


@pytest.mark.parametrize("kind", ["application/json", "text/plain", "application/x-www-form-urlencoded"])
def test_a_foreign_page_makes_no_token_with_the_hubs_cookie(cast: Cast, kind: str) -> None:
    async def tried() -> tuple[int, int]:
        person = cast.people[OTHER]
        _, before = await person.hub_api("GET", f"/users/{OTHER}/tokens")
        address = f"{cast.platform.url}/hub/api/users/{OTHER}/tokens"
        headers = {"Content-Type": kind, "Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
        async with person.session.post(address, data=b'{"note": "evil"}', headers=headers) as answer:
            assert 400 <= answer.status < 500
        _, after = await person.hub_api("GET", f"/users/{OTHER}/tokens")
        return len(before["api_tokens"]), len(after["api_tokens"])

    before, after = cast.run(tried())
    assert before == after


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/services/portal/api/servers", 401),
        ("GET", "/services/passport/api/people/x", 401),
        ("GET", "/services/portal/nothing", 404),
        ("GET", "/nothing", 404),
        ("PUT", "/services/portal/home", 405),
        ("GET", "/services/portal/theme?set=pink", 400),
        ("GET", "/hub/api/nothing", 404),
        ("GET", "/hub/api/users/nobody", 404),
    ],
)
def test_problems_have_one_shape_in_the_readers_language(cast: Cast, method: str, path: str, status: int) -> None:
    async def problem(language: str) -> dict[str, object]:
        headers = {"Accept": "application/json", "Accept-Language": language}
        if path == "/hub/api/users/nobody":
            headers["Authorization"] = f"Bearer {cast.tokens[ADMIN]}"
        async with aiohttp.request(method, cast.platform.url + path, headers=headers) as answer:
            assert answer.status == status
            document: dict[str, object] = json.loads(await answer.text())
            return document

    english, chinese = cast.run(problem("en")), cast.run(problem("zh-CN,zh;q=0.9,en;q=0.5"))
    for document in (english, chinese):
        assert document["status"] == status
        assert document["type"] == f"urn:astrocloud:error:{document['code']}"
        assert document["title"]
    assert english["code"] == chinese["code"]
    assert str(english["detail"]).isascii()
    assert re.search(r"[\u4e00-\u9fff]", str(chinese["detail"]))


# Large and slow

LARGE: Final = 10 * 2**20
PARTS: Final = ("hub", "services")


def resident(cast: Cast) -> dict[str, int]:
    """Return how much memory the parts' processes hold, in bytes."""
    pids = {f"{part} {pid}": pid for part in PARTS for pid in cast.platform.processes(part)}
    told = {name: Path(f"/proc/{pid}/status").read_text(encoding="ascii") for name, pid in pids.items()}
    return {name: int(re.search(r"VmRSS:\s+(\d+)", text)[1]) * 1024 for name, text in told.items()}  # type: ignore[index]


def grown_mib(cast: Cast, before: dict[str, int]) -> dict[str, float]:
    """Return by how much the parts' processes hold more memory than `before`."""
    return {name: (held - before[name]) / 2**20 for name, held in resident(cast).items()}


async def send_raw(cast: Cast, head: str, body: AsyncIterator[bytes]) -> int:
    """Send a request whatever the other side says meanwhile; return the status of the answer."""
    parts = urlsplit(cast.platform.url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)

    async def push() -> None:
        with suppress(ConnectionError):
            writer.write(head.encode())
            async for chunk in body:
                writer.write(chunk)
                await writer.drain()

    pushing = asyncio.create_task(push())
    try:
        line = await reader.readline()
        assert line.startswith(b"HTTP/1.1 "), line
        return int(line.split()[1])
    finally:
        pushing.cancel()
        with suppress(asyncio.CancelledError, ConnectionError):
            await pushing
        # What was not sent by now is not waited for: nobody reads it.
        writer.transport.abort()


async def many_bytes(*, chunked: bool) -> AsyncIterator[bytes]:
    piece = b"x" * 65536
    for _ in range(LARGE // len(piece)):
        yield (b"%x\r\n" % len(piece) + piece + b"\r\n") if chunked else piece
    if chunked:
        yield b"0\r\n\r\n"


TAKES_A_BODY: Final = (
    "/services/passport/sign-in",
    "/services/passport/token",
    "/services/passport/register",
    "/services/passport/link",
    "/services/passport/logout",
    "/services/passport/api/internal/sign-in",
    "/services/passport/api/people",
    "/services/portal/api/servers",
    "/services/portal/servers/start",
    "/hub/login",
    "/hub/api/oauth2/token",
    "/hub/api/users",
    "/hub/spawn",
)


@pytest.mark.slow
@pytest.mark.parametrize("chunked", [False, True], ids=["whole", "chunked"])
def test_ten_megabytes_are_refused_and_leave_no_trace_in_the_memory(cast: Cast, chunked: bool) -> None:
    def head(path: str) -> str:
        length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {LARGE}"
        kind = "application/json" if "/api/" in path and "oauth2" not in path else "application/x-www-form-urlencoded"
        token = f"Authorization: Bearer {cast.tokens[OTHER]}"
        return f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{length}\r\nContent-Type: {kind}\r\n{token}\r\n\r\n"

    async def everywhere() -> dict[str, int]:
        return {path: await send_raw(cast, head(path), many_bytes(chunked=chunked)) for path in TAKES_A_BODY}

    cast.run(everywhere())  # what is imported or kept at the first time is not what this is about
    before = resident(cast)
    for _ in range(3):
        statuses = cast.run(everywhere())
        assert all(400 <= status < 500 for status in statuses.values()), statuses
    grown = grown_mib(cast, before)
    assert all(grew < 16 for grew in grown.values()), f"MiB: {grown}"


SLOW: Final = 100


@pytest.mark.slow
def test_slow_clients_keep_nobody_waiting_and_are_told_to_hurry(cast: Cast) -> None:
    """A hundred who never finish their headers, a hundred who never finish their forms, and somebody who works."""
    path = "/services/passport/sign-in"
    form = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        "Content-Length: 1000\r\n\r\nusername=a"
    )
    headers = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "
    before = resident(cast)

    async def slow(begin: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        parts = urlsplit(cast.platform.url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        writer.write(begin.encode())
        await writer.drain()
        return reader, writer

    async def trial() -> None:
        opened = await asyncio.gather(*(slow(begin) for begin in (headers, form) for _ in range(SLOW)))
        try:
            # Everybody else is served as ever: by the portal, the passport, the hub and a person's own server.
            for url in ("/", "/services/portal/home", "/services/passport/account", "/hub/home", f"/user/{OTHER}/lab"):
                async with cast.people[OTHER].session.get(cast.platform.url + url) as answer:
                    assert answer.status == 200, url
            # The forms are answered after 20 s; the headers by the proxy, after a minute.
            for reader, _ in opened[SLOW:]:
                line = await reader.readline()
                assert line.startswith(b"HTTP/1.1 408"), line
            grown = grown_mib(cast, before)
            assert all(grew < 16 for grew in grown.values()), f"MiB: {grown}"
            for reader, _ in opened[:SLOW]:
                line = await reader.readline()
                assert line.startswith(b"HTTP/1.1 408") or line == b"", line
        finally:
            for _, writer in opened:
                writer.close()

    cast.run(trial(), within_s=180)


@pytest.fixture(scope="module", autouse=True)
def _still_there(cast: Cast) -> Iterator[None]:
    """Whatever was sent, the parts are the same processes afterwards."""
    before = {part: cast.platform.processes(part) for part in (*PARTS, "proxy")}
    yield
    assert {part: cast.platform.processes(part) for part in before} == before
    assert PASSWORD not in cast.platform.logs()
