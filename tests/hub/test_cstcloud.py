"""Signing in with the CSTCloud passport, against a local one that answers exactly as it does."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
from aiohttp import web

from tests.hub.harness import Browser, Platform, free_port

ADA = {
    "umtId": 10086,
    "truename": "艾达",
    "cstnetId": "ada@cstnet.cn",
    "cstnetIdStatus": "active",
    "type": "umt",
    "securityEmail": "ada@example.cn",
    "secondaryEmails": "",
    "passwordType": "password_umt",
}


class Cstcloud:
    """A passport with CSTCloud's two endpoints: no discovery, no id token, ``userInfo`` a text that holds JSON."""

    def __init__(self) -> None:
        self.port = free_port()
        self.info: Any = json.dumps(ADA)
        self.status = 200
        self.asked: list[dict[str, str]] = []
        self._codes: set[str] = set()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> "Cstcloud":
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        app = web.Application()
        app.router.add_get("/oauth2/authorize", self._authorize)
        app.router.add_post("/oauth2/token", self._token)
        runner = web.AppRunner(app)
        self._loop.run_until_complete(runner.setup())
        self._loop.run_until_complete(web.TCPSite(runner, "127.0.0.1", self.port).start())
        self._ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())
        self._loop.close()

    async def _authorize(self, request: web.Request) -> web.Response:
        self.asked.append(dict(request.query))
        code = f"code-{len(self.asked)}"
        self._codes.add(code)
        back = urlencode({"code": code, "state": request.query["state"]})
        raise web.HTTPFound(f"{request.query['redirect_uri']}?{back}")

    async def _token(self, request: web.Request) -> web.Response:
        form = await request.post()
        self.asked.append({name: str(value) for name, value in form.items()})
        if form["client_secret"] != "s3cret" or form["code"] not in self._codes:
            return web.json_response({"error": "invalid_grant"}, status=400)
        self._codes.discard(str(form["code"]))
        reply = {"access_token": "at", "expires_in": 3600, "refresh_token": "rt", "userInfo": self.info}
        return web.json_response(reply, status=self.status)


@pytest.fixture(scope="module")
def cstcloud() -> Iterator[Cstcloud]:
    with Cstcloud() as passport:
        yield passport


@pytest.fixture(scope="module")
def platform(start_platform: Callable[..., Platform], cstcloud: Cstcloud) -> Platform:
    config = (
        "passport: {kind: cstcloud, client_id: '12345', client_secret: {env: CST_SECRET}, "
        f"base_url: '{cstcloud.url}'}}\n"
    )
    platform = start_platform(config=config, settings={"CST_SECRET": "s3cret"})
    platform.services.links[(cstcloud.url, "10086")] = "ada"
    return platform


@pytest.fixture(autouse=True)
def _honest(cstcloud: Cstcloud) -> Iterator[None]:
    yield
    cstcloud.info, cstcloud.status = json.dumps(ADA), 200


def sign_in(platform: Platform, *, language: str = "en") -> tuple[int, str, Browser]:
    browser = Browser(platform.url, language=language)
    answer = browser.open("/hub/login")
    return answer.status, answer.text, browser


def test_its_parameters_are_those_that_the_passport_knows(platform: Platform, cstcloud: Cstcloud) -> None:
    cstcloud.asked.clear()
    assert sign_in(platform)[0] == 200
    query, form = cstcloud.asked
    assert (query["response_type"], query["client_id"], query["theme"]) == ("code", "12345", "simple")
    assert query["redirect_uri"] == form["redirect_uri"] == f"{platform.url}/hub/oauth_callback"
    assert (form["grant_type"], form["client_id"], form["client_secret"]) == ("authorization_code", "12345", "s3cret")


@pytest.mark.parametrize("number", [10086, "10086"])
def test_the_account_is_keyed_on_umt_id_whatever_the_address(
    platform: Platform, cstcloud: Cstcloud, number: int | str
) -> None:
    cstcloud.info = json.dumps({**ADA, "umtId": number, "cstnetId": "ada.new@cstnet.cn"})
    status, _, browser = sign_in(platform)
    assert status == 200
    assert browser.open("/hub/token", follow=False).status == 200
    assert platform.services.asked[-1] == f"{cstcloud.url} 10086"


@pytest.mark.parametrize("state", ["temp", "lockedByAdmin", "", None])
def test_only_an_active_account_may_enter(platform: Platform, cstcloud: Cstcloud, state: str | None) -> None:
    cstcloud.info = json.dumps({**ADA, "cstnetIdStatus": state})
    for language, words in (("en", "only an active one"), ("zh", "已激活")):
        status, text, browser = sign_in(platform, language=language)
        assert (status, "cstcloud-not-active" in text, words in text) == (403, True, True)
        assert browser.open("/hub/token", follow=False).status == 302


@pytest.mark.parametrize(
    "info",
    [
        None,
        {"umtId": 10086, "cstnetIdStatus": "active"},
        "not JSON",
        "[]",
        "null",
        json.dumps({**ADA, "umtId": None}),
        json.dumps({**ADA, "umtId": ""}),
        json.dumps({**ADA, "umtId": True}),
        json.dumps({**ADA, "umtId": {"a": 1}}),
        json.dumps({key: value for key, value in ADA.items() if key != "umtId"}),
    ],
    ids=str,
)
def test_a_reply_that_is_not_as_agreed_lets_nobody_in(platform: Platform, cstcloud: Cstcloud, info: Any) -> None:
    cstcloud.info = info
    status, text, browser = sign_in(platform)
    assert (status, "passport-answer" in text) == (502, True)
    assert browser.open("/hub/token", follow=False).status == 302


def test_a_passport_that_fails_is_named(platform: Platform, cstcloud: Cstcloud) -> None:
    cstcloud.status = 500
    status, text, _ = sign_in(platform)
    assert (status, "passport-away" in text, "CSTCloud" in text) == (503, True, True)


def test_a_code_that_was_used_is_refused(platform: Platform) -> None:
    browser = Browser(platform.url)
    begun = browser.open("/hub/oauth_login", follow=False).headers["Location"]
    state = begun.partition("state=")[2].partition("&")[0]
    answer = browser.open(f"/hub/oauth_callback?code=used&state={state}")
    assert (answer.status, "sign-in-code" in answer.text) == (403, True)


def test_signing_out_ends_at_the_front_page(platform: Platform) -> None:
    _, _, browser = sign_in(platform)
    assert browser.open("/hub/logout", follow=False).headers["Location"] == "/"
