"""What every service shares over HTTP: errors, languages, headers, limits, request ids, metrics, sign-in."""

import asyncio
import contextlib
import json
import logging
import re
from collections.abc import AsyncIterator
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest
import structlog
import yarl
from aiohttp import web
from pydantic import SecretStr

from astrocloud.config import Config
from astrocloud.core.auth import HubLogin, current, require
from astrocloud.core.errors import RequestError
from astrocloud.core.runtime import Runtime
from astrocloud.core.web import (
    BODY_LIMIT_BYTES,
    FORM_LIMIT_BYTES,
    Service,
    build_app,
    page,
    read_form,
    read_json,
    safe_next,
)

PAGE = {"Accept": "text/html"}
BASE = "/services/probe"


@contextlib.asynccontextmanager
async def serving(app: web.Application) -> AsyncIterator[str]:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    try:
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


async def _echo(request: web.Request) -> web.Response:
    return web.json_response(await read_json(request))


async def _form(request: web.Request) -> web.Response:
    return web.json_response({key: str(value) for key, value in (await read_form(request)).items()})


async def _fails(_request: web.Request) -> web.Response:
    password = "correct-horse"  # noqa: F841 - must not come out in the log
    raise ZeroDivisionError("never say this to anybody")


async def _waits(_request: web.Request) -> web.Response:
    raise RequestError("too-many-requests", wait_s=7)


async def _moves(_request: web.Request) -> web.Response:
    raise web.HTTPFound("/elsewhere")


async def _who(request: web.Request) -> web.Response:
    principal = await current(request)
    return web.json_response(
        {"name": principal.name if principal else None, "csrf": principal.csrf if principal else ""}
    )


async def _member(request: web.Request) -> web.Response:
    return web.json_response({"name": (await require(request, scope="custom:portal:use")).name})


async def _admin(request: web.Request) -> web.Response:
    return web.json_response({"name": (await require(request, admin=True)).name})


async def _page(request: web.Request) -> web.Response:
    return page(request, "base.html")


ROUTES = [
    web.post(f"{BASE}/echo", _echo),
    web.post(f"{BASE}/form", _form),
    web.get(f"{BASE}/fails", _fails),
    web.get(f"{BASE}/waits", _waits),
    web.get(f"{BASE}/moves", _moves),
    web.get(f"{BASE}/who", _who),
    web.get(f"{BASE}/member", _member),
    web.post(f"{BASE}/member", _member),
    web.get(f"{BASE}/admin", _admin),
    web.get(f"{BASE}/page", _page),
]


class Hub:
    """A stand-in hub that knows a few tokens and codes."""

    def __init__(self) -> None:
        self.people: dict[str, dict] = {}
        self.asked: list[str] = []
        self.forms: list[dict[str, str]] = []
        self.status = 200

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/hub/api/user", self._user)
        app.router.add_post("/hub/api/oauth2/token", self._token)
        return app

    def add(self, token: str, name: str, *scopes: str, admin: bool = False, kind: str = "user") -> None:
        # Every token that may enter a service carries the scope to do so.
        entry = ["access:services!service=probe", *scopes]
        self.people[token] = {"name": name, "kind": kind, "admin": admin, "groups": ["stars"], "scopes": entry}

    async def _user(self, request: web.Request) -> web.Response:
        token = request.headers["Authorization"].partition(" ")[2]
        self.asked.append(token)
        if self.status != 200:
            return web.Response(status=self.status)
        if token not in self.people:
            return web.json_response({"status": 403, "message": "no"}, status=403)
        return web.json_response(self.people[token])

    async def _token(self, request: web.Request) -> web.Response:
        form = {key: str(value) for key, value in (await request.post()).items()}
        self.forms.append(form)
        if form["code"] != "good-code":
            return web.json_response({"error": "invalid_grant"}, status=400)
        return web.json_response({"access_token": "ada-token", "token_type": "Bearer", "scope": "self"})


@pytest.fixture
async def hub() -> AsyncIterator[tuple[Hub, int]]:
    stand_in = Hub()
    async with serving(stand_in.app()) as address:
        yield stand_in, urlsplit(address).port


@pytest.fixture
async def site(hub: tuple[Hub, int]) -> AsyncIterator[str]:
    runtime = Runtime("127.0.0.1", 8000, "http://127.0.0.1:8000", 1, hub[1], 1)
    login = HubLogin(service="probe", runtime=runtime, api_token=SecretStr("service-token"))

    async def health() -> dict[str, str]:
        return {"store": "ok" if hub[0].status == 200 else "away"}

    service = Service(name="probe", routes=ROUTES, login=login, health=health)
    portal = Service(name="portal", routes=[])
    async with serving(build_app([service, portal], config=Config())) as address:
        yield address


@pytest.fixture
async def client(site: str) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(site, cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        yield session


@pytest.fixture
def events() -> list[dict]:
    """What is logged while a test runs."""
    with structlog.testing.capture_logs() as captured:
        yield captured


@pytest.mark.parametrize(
    ("host", "accept", "status"),
    [
        ("localhost:8000", "text/html", 302),
        ("[::1]:8000", "text/html,*/*", 302),
        ("127.0.0.1:8000", "text/html", 404),
        # A program, a tunnel from another port, and a name that is not this machine's are answered where they are.
        ("localhost:8000", "application/json", 404),
        ("localhost:9000", "text/html", 404),
        ("platform.example:8000", "text/html", 404),
        ("localhost:port", "text/html", 404),
    ],
)
async def test_a_person_at_another_name_of_this_machine_is_led_to_the_platforms_address(
    host: str, accept: str, status: int
) -> None:
    app = build_app([Service(name="portal", routes=[])], config=Config(), public_url="http://127.0.0.1:8000")
    async with serving(app) as address, aiohttp.ClientSession() as session:
        for path in ("/nothing?a=b%20c", "//evil.example/"):
            url = yarl.URL(f"{address}{path}", encoded=True)
            headers = {"Host": host, "Accept": accept}
            async with session.get(url, headers=headers, allow_redirects=False) as answer:
                assert answer.status == status
                wanted = f"http://127.0.0.1:8000{path}" if status == 302 else None
                assert answer.headers.get("Location") == wanted


async def problem(answer: aiohttp.ClientResponse, status: int, code: str) -> dict:
    assert answer.status == status, await answer.text()
    assert answer.content_type == "application/problem+json"
    document = await answer.json(content_type=None)
    assert document["code"] == code
    assert document["status"] == status
    assert document["type"] == f"urn:astrocloud:error:{code}"
    return document


class TestErrors:
    async def test_a_program_gets_a_problem_document(self, client: aiohttp.ClientSession):
        async with client.get("/services/nothing/here") as answer:
            document = await problem(answer, 404, "not-found")
        assert "/services/nothing/here" in document["detail"]
        assert answer.headers["Content-Language"] == "en"
        assert "Accept-Language" in answer.headers["Vary"]

    @pytest.mark.parametrize("accept", ["zh-CN,zh;q=0.9,en;q=0.8", "zh"])
    async def test_it_follows_accept_language(self, client: aiohttp.ClientSession, accept: str):
        async with client.get("/nothing", headers={"Accept-Language": accept}) as answer:
            document = await problem(answer, 404, "not-found")
        assert answer.headers["Content-Language"] == "zh-CN"
        assert document["title"] == "未找到"

    async def test_the_chosen_language_wins_over_accept_language(self, client: aiohttp.ClientSession):
        headers = {"Accept-Language": "en", "Cookie": "astrocloud-lang=zh"}
        async with client.get("/nothing", headers=headers) as answer:
            assert (await problem(answer, 404, "not-found"))["title"] == "未找到"

    async def test_a_person_gets_a_page_that_says_the_same(self, client: aiohttp.ClientSession):
        path = "/services/probe/%3Cscript%3Ealert(1)%3C/script%3E"
        async with client.get(path, headers={**PAGE, "Accept-Language": "zh"}) as answer:
            text = await answer.text()
        assert answer.status == 404
        assert answer.content_type == "text/html"
        assert '<html lang="zh-CN"' in text
        assert "<script>alert" not in text
        assert answer.headers["X-Request-ID"] in text

    async def test_a_method_that_is_not_there_is_answered_with_those_that_are(self, client: aiohttp.ClientSession):
        async with client.delete(f"{BASE}/member") as answer:
            document = await problem(answer, 405, "method-not-allowed")
        assert answer.headers["Allow"] == "GET, HEAD, POST"
        assert "DELETE" in document["detail"]

    async def test_too_much_is_refused(self, client: aiohttp.ClientSession):
        limits = {"application/json": BODY_LIMIT_BYTES, "application/x-www-form-urlencoded": FORM_LIMIT_BYTES}
        for kind, limit_bytes in limits.items():
            path = f"{BASE}/echo" if kind.endswith("json") else f"{BASE}/form"
            body = b"a" * (limit_bytes + 1)
            async with client.post(path, data=body, headers={"Content-Type": kind}) as answer:
                assert str(limit_bytes) in (await problem(answer, 413, "too-large"))["detail"]

    async def test_a_field_given_twice_is_refused(self, client: aiohttp.ClientSession):
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        async with client.post(f"{BASE}/form", data=b"name=a&name=b", headers=headers) as answer:
            assert "twice" in (await problem(answer, 400, "bad-request"))["detail"]

    async def test_waiting_is_told_in_the_header_too(self, client: aiohttp.ClientSession):
        async with client.get(f"{BASE}/waits") as answer:
            await problem(answer, 429, "too-many-requests")
        assert answer.headers["Retry-After"] == "7"

    async def test_the_unexpected_is_logged_once_and_told_without_its_words(
        self, client: aiohttp.ClientSession, events: list[dict]
    ):
        async with client.get(f"{BASE}/fails") as answer:
            document = await problem(answer, 500, "internal")
        assert "never say this" not in json.dumps(document)
        assert answer.headers["X-Request-ID"] in document["detail"]
        assert [event["event"] for event in events].count("request-failed") == 1

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"{",
            b"[]",
            b"1",
            b'"\xff"',
            b"[" * 50_000,
            b'{"a": ' + b"1" * 5000 + b"}",
            b'{"a": "\\ud800"}',
            b"\xff\xfe",
        ],
        ids=["empty", "open", "list", "number", "not-utf8", "deep", "long-number", "half-character", "bytes"],
    )
    async def test_a_body_that_is_no_object_is_refused(self, client: aiohttp.ClientSession, body: bytes):
        async with client.post(f"{BASE}/echo", data=body, headers={"Content-Type": "application/json"}) as answer:
            await problem(answer, 400, "bad-request")

    async def test_an_unknown_charset_is_refused(self, client: aiohttp.ClientSession):
        headers = {"Content-Type": "application/json; charset=klingon"}
        async with client.post(f"{BASE}/echo", data=b"{}", headers=headers) as answer:
            await problem(answer, 400, "bad-request")

    @pytest.mark.parametrize(
        ("kind", "body"),
        [
            ("application/x-www-form-urlencoded", b"a=\xff\xfe"),
            ("application/x-www-form-urlencoded; charset=klingon", b"a=b"),
            ("multipart/form-data", b"a=b"),
            ("multipart/form-data; boundary=x", b"no boundary here"),
            ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data\r\n\r\nv\r\n--x--\r\n"),
        ],
    )
    async def test_a_form_that_cannot_be_read_is_refused(self, client: aiohttp.ClientSession, kind: str, body: bytes):
        async with client.post(f"{BASE}/form", data=body, headers={"Content-Type": kind}) as answer:
            await problem(answer, 400, "bad-request")

    async def test_a_form_is_read(self, client: aiohttp.ClientSession):
        async with client.post(f"{BASE}/form", data={"name": "天文", "b": ""}) as answer:
            assert await answer.json() == {"name": "天文", "b": ""}


class TestEveryAnswer:
    @pytest.mark.parametrize("path", ["/nothing", f"{BASE}/health", f"{BASE}/page", f"{BASE}/moves", f"{BASE}/fails"])
    async def test_has_the_closed_headers(self, client: aiohttp.ClientSession, path: str):
        async with client.get(path, headers=PAGE, allow_redirects=False) as answer:
            await answer.read()
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'self'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "same-origin"
        assert answer.headers["Cache-Control"] == "no-store"
        assert "Access-Control-Allow-Origin" not in answer.headers

    async def test_has_no_inline_script_or_style(self, client: aiohttp.ClientSession):
        async with client.get(f"{BASE}/page", headers=PAGE) as answer:
            text = await answer.text()
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=", text)

    async def test_carries_the_request_id_it_was_given_if_that_is_harmless(self, client: aiohttp.ClientSession):
        async with client.get(f"{BASE}/health", headers={"X-Request-ID": "my-id_1.2"}) as answer:
            assert answer.headers["X-Request-ID"] == "my-id_1.2"
        for bad in ("a b", "x" * 65, "<script>", "日"):
            async with client.get(f"{BASE}/health", headers={"X-Request-ID": bad}) as answer:
                assert re.fullmatch(r"[0-9a-f]{16}", answer.headers["X-Request-ID"])

    async def test_is_logged_once_without_its_query(self, client: aiohttp.ClientSession, events: list[dict]):
        for path, status in ((f"{BASE}/health?code=hunter2", 200), (f"{BASE}/moves", 302), ("/nothing", 404)):
            events.clear()
            async with client.get(path, allow_redirects=False) as answer:
                await answer.read()
            lines = [event for event in events if event["event"] == "request"]
            assert [line["status"] for line in lines] == [status]
            assert "hunter2" not in str(events)

    async def test_is_logged_with_a_question_mark_that_is_no_query(
        self, client: aiohttp.ClientSession, events: list[dict]
    ):
        async with client.get(f"{BASE}/why%3F.txt?code=hunter2") as answer:
            await answer.read()
        [line] = [event for event in events if event["event"] == "request"]
        assert line["path"] == f"{BASE}/why%3F.txt"

    @pytest.mark.parametrize("below", ["", "/folder/a.fits"])
    async def test_is_logged_without_the_token_of_a_link(
        self, client: aiohttp.ClientSession, events: list[dict], below: str
    ):
        async with client.get(f"/services/vospace/link/abcdefhunter2{below}") as answer:
            await answer.read()
        [line] = [event for event in events if event["event"] == "request"]
        assert line["path"] == f"/services/vospace/link/abcdef…{below}"
        assert "hunter2" not in str(events)

    async def test_is_counted_by_service_method_and_status(self, client: aiohttp.ClientSession):
        for path in (f"{BASE}/health", f"{BASE}/moves", "/services/made-up-by-a-scanner/x"):
            async with client.get(path, allow_redirects=False) as answer:
                await answer.read()
        async with client.get(f"{BASE}/metrics") as answer:
            text = await answer.text()
        assert re.search(r'astrocloud_requests_total\{method="GET",service="probe",status="302"\} [1-9]', text)
        assert "astrocloud_request_seconds_bucket" in text
        assert "made-up-by-a-scanner" not in text


class TestHealth:
    async def test_a_service_that_can_work_is_ready(self, client: aiohttp.ClientSession):
        async with client.get(f"{BASE}/ready") as answer:
            assert answer.status == 200
            assert await answer.json() == {"status": "ok", "service": "probe", "parts": {"store": "ok"}}

    async def test_one_that_cannot_is_alive_all_the_same(self, client: aiohttp.ClientSession, hub: tuple[Hub, int]):
        hub[0].status = 500
        async with client.get(f"{BASE}/ready") as answer:
            assert answer.status == 503
            assert (await answer.json())["parts"] == {"store": "away"}
        async with client.get(f"{BASE}/health") as answer:
            assert answer.status == 200

    async def test_background_work_that_fails_is_logged_and_does_not_end_the_service(self, events: list[dict]):
        failed = asyncio.Event()

        async def work() -> None:
            failed.set()
            raise ValueError("once")

        service = Service(name="probe", routes=[], background=[work])
        async with serving(build_app([service], config=Config())) as address, aiohttp.ClientSession() as session:
            await asyncio.wait_for(failed.wait(), 10)
            async with session.get(f"{address}{BASE}/health") as answer:
                assert answer.status == 200
        assert [event["event"] for event in events].count("background-failed") == 1


class TestTokens:
    def bearer(self, token: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {token}"}

    async def test_nobody_is_refused_and_a_browser_is_sent_to_sign_in(self, client: aiohttp.ClientSession):
        async with client.get(f"{BASE}/member") as answer:
            await problem(answer, 401, "not-signed-in")
        async with client.get(f"{BASE}/member?a=1&b=%2F", headers=PAGE, allow_redirects=False) as answer:
            assert answer.status == 302
        where = urlsplit(answer.headers["Location"])
        assert where.path == f"{BASE}/sign-in/hub"
        assert urlsplit(parse_qs(where.query)["next"][0]).path == f"{BASE}/member"
        async with client.post(f"{BASE}/member", headers=PAGE) as answer:
            assert answer.status == 401

    @pytest.mark.parametrize(
        "header",
        [
            "Bearer nonsense",
            "Bearer",
            "Basic YWRhOmFkYQ==",
            "Bearer a b",
            "ada-token",
            "Bearer " + "x" * 600,
            "Bearer é",
        ],
    )
    async def test_a_header_that_is_no_token_of_the_hub_is_refused(
        self, client: aiohttp.ClientSession, hub: tuple[Hub, int], header: str
    ):
        hub[0].add("ada-token", "ada", "custom:portal:use!user=ada")
        async with client.get(f"{BASE}/member", headers={"Authorization": header}) as answer:
            await problem(answer, 401, "not-signed-in")

    @pytest.mark.parametrize(
        ("scopes", "status"),
        [
            ((), 403),
            (("custom:portal:use!user=bob",), 403),
            (("custom:vospace:read",), 403),
            (("custom:portal:use!user=ada",), 200),
            (("custom:portal:use",), 200),
        ],
    )
    async def test_a_token_is_let_in_by_its_scopes(
        self, client: aiohttp.ClientSession, hub: tuple[Hub, int], scopes: tuple[str, ...], status: int
    ):
        hub[0].add("ada-token", "ada", *scopes)
        async with client.post(f"{BASE}/member", headers=self.bearer("ada-token")) as answer:
            assert answer.status == status

    async def test_an_administrators_page_is_for_administrators(
        self, client: aiohttp.ClientSession, hub: tuple[Hub, int]
    ):
        hub[0].add("ada-token", "ada", "custom:portal:use")
        hub[0].add("root-token", "grace", admin=True)
        async with client.get(f"{BASE}/admin", headers=self.bearer("ada-token")) as answer:
            assert "ada" in (await problem(answer, 403, "forbidden"))["detail"]
        async with client.get(f"{BASE}/admin", headers=self.bearer("root-token")) as answer:
            assert answer.status == 200

    async def test_the_hub_is_asked_once_for_many_requests(self, client: aiohttp.ClientSession, hub: tuple[Hub, int]):
        hub[0].add("ada-token", "ada", "custom:portal:use")
        for _ in range(5):
            async with client.get(f"{BASE}/member", headers=self.bearer("ada-token")) as answer:
                assert answer.status == 200
        assert len(hub[0].asked) == 1

    async def test_a_hub_that_is_away_is_said_to_be(self, client: aiohttp.ClientSession, hub: tuple[Hub, int]):
        hub[0].status = 500
        async with client.get(f"{BASE}/member", headers=self.bearer("ada-token")) as answer:
            await problem(answer, 503, "unavailable")


class TestBrowser:
    async def begin(self, client: aiohttp.ClientSession, following: str = f"{BASE}/member") -> dict[str, str]:
        async with client.get(f"{BASE}/sign-in/hub", params={"next": following}, allow_redirects=False) as answer:
            assert answer.status == 302
            cookie = answer.cookies["astrocloud-probe-state"]
            assert (cookie["path"], cookie["samesite"], cookie["httponly"]) == (f"{BASE}/", "Lax", True)
        where = urlsplit(answer.headers["Location"])
        assert where.path == "/hub/api/oauth2/authorize"
        return {key: values[0] for key, values in parse_qs(where.query).items()}

    async def sign_in(self, client: aiohttp.ClientSession, hub: Hub, *scopes: str) -> str:
        hub.add("ada-token", "ada", *scopes)
        query = await self.begin(client)
        callback = {"code": "good-code", "state": query["state"]}
        async with client.get(f"{BASE}/oauth_callback", params=callback, allow_redirects=False) as answer:
            assert answer.status == 302, await answer.text()
            cookie = answer.cookies["astrocloud-probe"]
            assert (cookie["path"], cookie["samesite"], cookie["httponly"]) == (f"{BASE}/", "Lax", True)
            assert "ada-token" not in cookie.value
        async with client.get(f"{BASE}/who") as answer:
            document = await answer.json()
        assert document["name"] == "ada"
        return document["csrf"]

    async def test_a_person_signs_in_by_code_with_pkce_and_state(
        self, client: aiohttp.ClientSession, hub: tuple[Hub, int]
    ):
        query = await self.begin(client)
        assert query["code_challenge_method"] == "S256"
        assert len(query["state"]) >= 24
        await self.sign_in(client, hub[0])
        assert hub[0].forms[-1]["code_verifier"]

    async def test_the_page_asked_for_first_is_shown_at_the_end(
        self, client: aiohttp.ClientSession, hub: tuple[Hub, int]
    ):
        for following, ends_at in ((f"{BASE}/member?a=1", f"{BASE}/member?a=1"), ("//evil.example.org", "/")):
            query = await self.begin(client, following)
            callback = {"code": "good-code", "state": query["state"]}
            async with client.get(f"{BASE}/oauth_callback", params=callback, allow_redirects=False) as answer:
                assert answer.headers["Location"] == ends_at

    @pytest.mark.parametrize("state", ["", "wrong", "é", "a" * 5000])
    async def test_a_forged_state_is_refused(self, client: aiohttp.ClientSession, state: str):
        await self.begin(client)
        async with client.get(f"{BASE}/oauth_callback", params={"code": "good-code", "state": state}) as answer:
            await problem(answer, 403, "sign-in-state")

    async def test_a_state_from_another_browser_is_refused(self, client: aiohttp.ClientSession, site: str):
        query = await self.begin(client)
        async with aiohttp.ClientSession(site) as other:
            callback = {"code": "good-code", "state": query["state"]}
            async with other.get(f"{BASE}/oauth_callback", params=callback) as answer:
                await problem(answer, 403, "sign-in-state")

    @pytest.mark.parametrize("code", ["", "used-up"])
    async def test_a_code_that_the_hub_refuses_is_refused(self, client: aiohttp.ClientSession, code: str):
        query = await self.begin(client)
        async with client.get(f"{BASE}/oauth_callback", params={"code": code, "state": query["state"]}) as answer:
            await problem(answer, 403, "sign-in-refused")

    async def test_one_cookie_is_nothing_in_the_place_of_the_other(
        self, client: aiohttp.ClientSession, hub: tuple[Hub, int], site: str
    ):
        await self.sign_in(client, hub[0])
        session = client.cookie_jar.filter_cookies(yarl.URL(f"{site}{BASE}/"))["astrocloud-probe"].value
        async with client.get(f"{BASE}/sign-in/hub", allow_redirects=False) as answer:
            state = answer.cookies["astrocloud-probe-state"].value
        async with aiohttp.ClientSession(site, cookie_jar=aiohttp.DummyCookieJar()) as other:
            async with other.get(f"{BASE}/who", headers={"Cookie": f"astrocloud-probe={state}"}) as answer:
                assert (answer.status, (await answer.json())["name"]) == (200, None)
            cookies, callback = {"Cookie": f"astrocloud-probe-state={session}"}, {"code": "good-code", "state": "x"}
            async with other.get(f"{BASE}/oauth_callback", params=callback, headers=cookies) as answer:
                await problem(answer, 403, "sign-in-state")

    @pytest.mark.parametrize("cookie", ["", "nonsense", "gAAAAA==", "a" * 4000, "\udcff"])
    async def test_a_cookie_that_is_not_ours_is_nobody(self, client: aiohttp.ClientSession, cookie: str):
        async with client.get(f"{BASE}/who", headers={"Cookie": f"astrocloud-probe={cookie}"}) as answer:
            assert answer.status == 200
            assert (await answer.json())["name"] is None

    async def test_a_change_needs_the_token_of_our_own_page(self, client: aiohttp.ClientSession, hub: tuple[Hub, int]):
        csrf = await self.sign_in(client, hub[0])
        path = f"{BASE}/member"
        async with client.post(path, headers={"X-CSRF-Token": csrf}) as answer:
            assert answer.status == 200
        async with client.post(path, data={"_csrf": csrf}) as answer:
            assert answer.status == 200
        refused = [
            {},
            {"X-CSRF-Token": "wrong"},
            {"X-CSRF-Token": csrf[:-1]},
            {"X-CSRF-Token": "\udcff"},
            {"X-CSRF-Token": csrf, "Sec-Fetch-Site": "cross-site"},
            {"X-CSRF-Token": csrf, "Sec-Fetch-Site": "same-site"},
            {"X-CSRF-Token": csrf, "Referer": "http://127.0.0.1:8000/user/eve/lab"},
        ]
        for headers in refused:
            async with client.post(path, headers=headers) as answer:
                await problem(answer, 403, "csrf")
        async with client.post(path, data={"_csrf": "wrong"}) as answer:
            await problem(answer, 403, "csrf")

    async def test_a_bearer_token_wins_over_the_cookie(self, client: aiohttp.ClientSession, hub: tuple[Hub, int]):
        await self.sign_in(client, hub[0])
        hub[0].add("bob-token", "bob", "custom:portal:use")
        async with client.post(f"{BASE}/member", headers={"Authorization": "token bob-token"}) as answer:
            assert (await answer.json())["name"] == "bob"
        async with client.get(f"{BASE}/member", headers={"Authorization": "token revoked"}) as answer:
            await problem(answer, 401, "not-signed-in")

    async def test_the_cookie_is_for_https_alone_where_the_platform_is(self, hub: tuple[Hub, int]):
        runtime = Runtime("127.0.0.1", 8000, "https://astro.example.org", 1, hub[1], 1)
        login = HubLogin(service="probe", runtime=runtime, api_token=SecretStr("x"))
        app = build_app([Service(name="probe", routes=[], login=login)], config=Config())
        async with (
            serving(app) as address,
            aiohttp.ClientSession(address) as session,
            session.get(f"{BASE}/sign-in/hub", allow_redirects=False) as answer,
        ):
            assert answer.cookies["astrocloud-probe-state"]["secure"]


@pytest.mark.parametrize(
    ("path", "safe"),
    [
        ("/", True),
        ("/services/portal/home?a=1#b", True),
        ("/user/ada/lab/tree/天文.ipynb", True),
        ("/hub/../x//y", True),
        ("", False),
        ("x", False),
        ("//evil.example.org", False),
        ("///evil.example.org", False),
        ("/\\evil.example.org", False),
        ("\\\\evil.example.org", False),
        ("/a\\b", False),
        ("http://evil.example.org", False),
        ("https:evil", False),
        ("javascript:alert(1)", False),
        (" //evil.example.org", False),
        ("/\t/evil.example.org", False),
        ("/\n/evil.example.org", False),
        ("/\r\nSet-Cookie: a=b", False),
        ("/\x00", False),
        ("/\x7f", False),
        ("/\x85/x", False),
        ("/\udcff", False),
        ("/" + "a" * 2000, False),
    ],
)
def test_a_way_back_stays_on_the_platform(path: str, safe: bool):
    assert safe_next(path, default="/home") == (path if safe else "/home")


class TestLogs:
    def lines(self, capsys: pytest.CaptureFixture[str]) -> list[dict]:
        return [json.loads(line) for line in capsys.readouterr().err.splitlines()]

    @pytest.fixture(autouse=True)
    def logging_as_before(self):
        root = logging.getLogger()
        handlers, level = root.handlers, root.level
        yield
        root.handlers, root.level = handlers, level
        structlog.reset_defaults()

    def test_a_line_is_json_with_part_level_and_time(self, capsys: pytest.CaptureFixture[str]):
        from astrocloud.core.logs import configure_logs

        configure_logs(level="info", part="services")
        structlog.get_logger().info("request", user="天文")
        structlog.get_logger().debug("not told")
        logging.getLogger("some.library").warning("watch %s", "out")
        ours, theirs = self.lines(capsys)
        assert ours["event"] == "request"
        assert (ours["user"], ours["part"], ours["level"]) == ("天文", "services", "info")
        assert ours["timestamp"].endswith("Z")
        assert (theirs["event"], theirs["part"], theirs["level"]) == ("watch out", "services", "warning")

    def test_secrets_are_hidden_and_tracebacks_hold_no_values(self, capsys: pytest.CaptureFixture[str]):
        from astrocloud.core.logs import configure_logs

        configure_logs(part="services")

        def fail(word: str) -> None:
            raise ValueError(len(word))

        try:
            fail("correct-horse")
        except ValueError:
            structlog.get_logger().exception("failed", api_token="correct-horse", Cookie="correct-horse")
            logging.getLogger("some.library").exception("failed too")
        text = capsys.readouterr().err
        assert "correct-horse" not in text
        assert text.count("ValueError") >= 2
        assert text.count("(hidden)") == 2
