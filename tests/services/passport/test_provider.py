"""The embedded provider, driven by an independent client (oauthlib) and its tokens checked by joserfc."""

import asyncio
import base64
import hashlib
import json
import secrets
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import aiohttp
import pytest
from joserfc import jwt
from joserfc.jwk import KeySet, OctKey
from oauthlib.oauth2 import WebApplicationClient

from tests.services.passport.harness import PREFIX, Browser, Page, Platform, path_of


@dataclass
class Relying:
    """The hub, as the provider's client."""

    platform: Platform
    http: aiohttp.ClientSession

    def __post_init__(self) -> None:
        self.client = WebApplicationClient("hub")
        self.redirect_uri = f"{self.platform.base}/hub/oauth_callback"
        self.verifier = secrets.token_urlsafe(48)
        self.state = secrets.token_urlsafe(16)
        self.nonce = secrets.token_urlsafe(16)
        self.secret = self.platform.secrets.get("passport-client").get_secret_value()

    def authorize_path(self, **changes: str | None) -> str:
        digest = hashlib.sha256(self.verifier.encode()).digest()
        address = self.client.prepare_request_uri(
            f"{self.platform.issuer}/authorize",
            redirect_uri=self.redirect_uri,
            scope=["openid", "profile", "email"],
            state=self.state,
            nonce=self.nonce,
            code_challenge=base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
            code_challenge_method="S256",
        )
        given = {**dict(parse_qsl(urlsplit(address).query)), **changes}
        return f"{PREFIX}/authorize?" + urlencode({name: value for name, value in given.items() if value is not None})

    def code(self, page: Page) -> str:
        assert page.status == 303, page.text
        assert page.location.startswith(self.redirect_uri + "?"), page.location
        found = self.client.parse_request_uri_response(page.location, state=self.state)
        assert found["iss"] == self.platform.issuer
        return str(found["code"])

    async def token(self, **form: str) -> tuple[int, dict[str, Any]]:
        address = f"{self.platform.issuer}/token"
        async with self.http.post(address, data=form, headers=self.basic()) as got:
            assert got.headers["Cache-Control"] == "no-store"
            return got.status, await got.json()

    def basic(self) -> dict[str, str]:
        return {"Authorization": "Basic " + base64.b64encode(f"hub:{self.secret}".encode()).decode()}

    async def exchange(self, given_code: str, **changes: str) -> tuple[int, dict[str, Any]]:
        form = {"grant_type": "authorization_code", "code": given_code, "redirect_uri": self.redirect_uri}
        return await self.token(**{**form, "code_verifier": self.verifier, **changes})

    async def refresh(self, token: str, **changes: str) -> tuple[int, dict[str, Any]]:
        return await self.token(grant_type="refresh_token", refresh_token=token, **changes)

    async def userinfo(self, token: str) -> tuple[int, dict[str, Any]]:
        headers = {"Authorization": f"Bearer {token}"}
        async with self.http.get(f"{self.platform.issuer}/userinfo", headers=headers) as got:
            return got.status, (await got.json() if got.content_type == "application/json" else {})

    async def keys(self) -> KeySet:
        async with self.http.get(f"{self.platform.issuer}/jwks") as got:
            document = await got.json()
        assert all("d" not in key for key in document["keys"])
        return KeySet.import_key_set(document)

    async def sign_in(self, browser: Browser, name: str = "ada", **changes: str | None) -> dict[str, Any]:
        """Go all the way and return the token reply."""
        page = await browser.get(self.authorize_path(**changes))
        if page.location.startswith(PREFIX):
            form = (await browser.get(page.location)).forms[f"{PREFIX}/sign-in"]
            page = await browser.post(
                f"{PREFIX}/sign-in", {**form, "username": name, "password": "correct horse battery"}
            )
            page = await browser.get(page.location)
        status, reply = await self.exchange(self.code(page))
        assert status == 200, reply
        self.client.parse_request_body_response(json.dumps(reply), scope=reply["scope"].split())
        return reply


@pytest.fixture
async def relying(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")
    async with aiohttp.ClientSession() as http:
        yield Relying(platform, http)


def error_of(page: Page, relying: Relying) -> str:
    """Return the error that the client is told, its redirect URI and state being right."""
    assert page.status == 303
    assert page.location.startswith(relying.redirect_uri + "?")
    found = parse_qs(urlsplit(page.location).query)
    assert found["state"] == [relying.state]
    assert found["iss"] == [relying.platform.issuer]
    assert "code" not in found
    return found["error"][0]


# conformance


async def test_discovery_says_what_there_is(platform: Platform, relying: Relying) -> None:
    async with relying.http.get(f"{platform.issuer}/.well-known/openid-configuration") as got:
        found = await got.json()
    assert found["issuer"] == platform.issuer
    assert found["response_types_supported"] == ["code"]
    assert found["code_challenge_methods_supported"] == ["S256"]
    assert found["grant_types_supported"] == ["authorization_code", "refresh_token"]
    assert "none" not in found["token_endpoint_auth_methods_supported"]
    for name, address in found.items():
        if name.endswith(("_endpoint", "_uri")):
            assert address.startswith(platform.issuer + "/"), name


async def test_person_signs_in_and_the_client_learns_who_it_is(relying: Relying, browser: Browser) -> None:
    reply = await relying.sign_in(browser)
    claims = jwt.decode(reply["id_token"], await relying.keys(), algorithms=["RS256"])
    now = relying.platform.clock().timestamp()
    assert claims.header["alg"] == "RS256"
    assert claims.claims["iss"] == relying.platform.issuer
    assert claims.claims["aud"] == "hub"
    assert claims.claims["sub"] == "ada"
    assert claims.claims["nonce"] == relying.nonce
    assert claims.claims["auth_time"] == int(now)
    assert claims.claims["iat"] <= now < claims.claims["exp"]
    digest = hashlib.sha256(reply["access_token"].encode()).digest()[:16]
    assert claims.claims["at_hash"] == base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    status, info = await relying.userinfo(reply["access_token"])
    assert (status, info["sub"], info["preferred_username"]) == (200, "ada", "ada")


async def test_second_sign_in_needs_no_password(relying: Relying, browser: Browser) -> None:
    await relying.sign_in(browser)
    assert relying.code(await browser.get(relying.authorize_path()))


async def test_prompt_none_without_a_session_is_told_to_the_client(relying: Relying, browser: Browser) -> None:
    assert error_of(await browser.get(relying.authorize_path(prompt="none")), relying) == "login_required"
    await browser.sign_in("ada")
    assert relying.code(await browser.get(relying.authorize_path(prompt="none")))
    page = await browser.get(relying.authorize_path(prompt="none login"))
    assert error_of(page, relying) == "invalid_request"


@pytest.mark.parametrize("changes", [{"prompt": "login"}, {"max_age": "60"}, {"max_age": "0"}])
async def test_client_can_ask_for_the_password_again(
    relying: Relying, browser: Browser, changes: dict[str, str | None]
) -> None:
    first = await relying.sign_in(browser)
    relying.platform.clock.forward(minutes=5)
    page = await browser.get(relying.authorize_path(**changes))
    assert page.location.startswith(f"{PREFIX}/sign-in?")
    # Coming back without having typed it gets nowhere.
    back = parse_qs(urlsplit(page.location).query)["next"][0]
    assert (await browser.get(back)).location.startswith(f"{PREFIX}/sign-in?")
    second = await relying.sign_in(browser, **changes)
    keys = await relying.keys()
    before, after = (jwt.decode(r["id_token"], keys).claims["auth_time"] for r in (first, second))
    assert after >= before + 300


async def test_max_age_zero_without_a_session_asks_once(relying: Relying, browser: Browser) -> None:
    assert await relying.sign_in(browser, max_age="0")


async def test_unfit_max_age_is_an_error(relying: Relying, browser: Browser) -> None:
    await browser.sign_in("ada")
    for value in ("soon", "-1"):
        assert error_of(await browser.get(relying.authorize_path(max_age=value)), relying) == "invalid_request"


async def test_scope_tells_no_more_than_was_asked(relying: Relying, browser: Browser) -> None:
    await asyncio.to_thread(relying.platform.directory.add, "eva", password="correct horse battery", email="e@x.org")
    reply = await relying.sign_in(browser, "eva", scope="openid unknown")
    assert reply["scope"] == "openid"
    assert (await relying.userinfo(reply["access_token"]))[1] == {"sub": "eva"}
    relying.client.scope = None
    status, answer = await relying.refresh(reply["refresh_token"], scope="openid email")
    assert (status, answer["error"]) == (400, "invalid_scope")


# what is refused


UNFIT_REQUESTS = [
    ({"code_challenge": None}, "invalid_request"),
    ({"code_challenge_method": None}, "invalid_request"),
    ({"code_challenge_method": "plain"}, "invalid_request"),
    ({"code_challenge": "short"}, "invalid_request"),
    ({"response_type": "token"}, "unsupported_response_type"),
    ({"response_type": "code id_token"}, "unsupported_response_type"),
    ({"response_type": 'x"\\'}, "unsupported_response_type"),
    ({"response_type": None}, "unsupported_response_type"),
    ({"response_mode": "fragment"}, "invalid_request"),
    ({"scope": "profile"}, "invalid_scope"),
    ({"scope": None}, "invalid_scope"),
    ({"request": "eyJ"}, "request_not_supported"),
    ({"request_uri": "https://evil.example"}, "request_uri_not_supported"),
]


async def test_unfit_request_is_refused_before_anybody_signs_in(relying: Relying, browser: Browser) -> None:
    for changes, error in UNFIT_REQUESTS:
        assert error_of(await browser.get(relying.authorize_path(**changes)), relying) == error


FOREIGN_URIS = [
    None,
    "",
    "https://evil.example/",
    "{base}/hub/oauth_callback/",
    "{base}/hub/oauth_callback?x=1",
    "{base}/hub/oauth_callback#x",
    "{base}/hub/oauth_callback/../../user/bob",
    "{base}/hub/OAUTH_CALLBACK",
    "{base}@evil.example/hub/oauth_callback",
    "{base}.evil.example/hub/oauth_callback",
    "javascript:alert(1)",
    'http://127.0.0.1"\\',
]


async def test_foreign_redirect_uri_gets_a_page_and_no_redirect(relying: Relying, browser: Browser) -> None:
    await browser.sign_in("ada")
    for uri in FOREIGN_URIS:
        wanted = uri.format(base=relying.platform.base) if uri else uri
        page = await browser.get(relying.authorize_path(redirect_uri=wanted))
        assert page.status == 400
        assert page.location == ""
        assert "evil.example" not in page.text.split("</head>")[1].replace(wanted or "-", "")
        chinese = await browser.get(relying.authorize_path(redirect_uri=wanted), **{"Accept-Language": "zh"})
        assert "没有跳转" in chinese.text


async def test_loopback_is_one_place_by_any_of_its_names(relying: Relying, browser: Browser) -> None:
    await browser.sign_in("ada")
    wanted = relying.redirect_uri.replace("127.0.0.1", "localhost")
    page = await browser.get(relying.authorize_path(redirect_uri=wanted))
    assert page.location.startswith(wanted + "?code=")
    other_port = "http://localhost:1/hub/oauth_callback"
    assert (await browser.get(relying.authorize_path(redirect_uri=other_port))).status == 400


async def test_unknown_client_gets_a_page_and_no_redirect(relying: Relying, browser: Browser) -> None:
    for client_id in ("other", "", None, "x" * 1000):
        page = await browser.get(relying.authorize_path(client_id=client_id))
        assert (page.status, page.location) == (400, "")


async def test_parameter_given_twice_is_refused(relying: Relying, browser: Browser) -> None:
    page = await browser.get(relying.authorize_path() + "&state=other")
    assert (page.status, page.location) == (400, "")


@pytest.mark.parametrize("name", ["state", "nonce"])
async def test_over_long_parameter_is_refused(relying: Relying, browser: Browser, name: str) -> None:
    assert (await browser.get(relying.authorize_path(**{name: "x" * 3000}))).status == 400


async def test_code_works_once_and_a_replay_takes_everything_back(relying: Relying, browser: Browser) -> None:
    await browser.sign_in("ada")
    code = relying.code(await browser.get(relying.authorize_path()))
    _, reply = await relying.exchange(code)
    assert (await relying.userinfo(reply["access_token"]))[0] == 200
    status, answer = await relying.exchange(code)
    assert (status, answer["error"]) == (400, "invalid_grant")
    assert (await relying.userinfo(reply["access_token"]))[0] == 401
    assert (await relying.refresh(reply["refresh_token"]))[0] == 400


async def test_of_many_who_bring_one_code_none_keeps_a_token(relying: Relying, browser: Browser) -> None:
    await browser.sign_in("ada")
    code = relying.code(await browser.get(relying.authorize_path()))
    replies = await asyncio.gather(*(relying.exchange(code) for _ in range(6)))
    given = [reply["access_token"] for status, reply in replies if status == 200]
    assert len(given) <= 1
    for token in given:
        assert (await relying.userinfo(token))[0] == 401


@pytest.mark.parametrize(
    "changes",
    [
        {"code_verifier": "x" * 64},
        {"code_verifier": ""},
        {"redirect_uri": "https://evil.example/"},
        {"code": "made-up"},
    ],
)
async def test_code_needs_its_verifier_and_redirect_uri(
    relying: Relying, browser: Browser, changes: dict[str, str]
) -> None:
    await browser.sign_in("ada")
    code = relying.code(await browser.get(relying.authorize_path()))
    status, answer = await relying.exchange(code, **changes)
    assert status == 400
    assert "access_token" not in answer
    assert (await relying.exchange(code))[0] == (200 if "code" in changes else 400)


async def test_code_grows_old(relying: Relying, browser: Browser) -> None:
    await browser.sign_in("ada")
    code = relying.code(await browser.get(relying.authorize_path()))
    relying.platform.clock.forward(seconds=61)
    assert (await relying.exchange(code))[1]["error"] == "invalid_grant"


async def test_client_must_show_its_secret(relying: Relying, browser: Browser) -> None:
    await browser.sign_in("ada")
    code = relying.code(await browser.get(relying.authorize_path()))
    right, relying.secret = relying.secret, "wrong"
    assert (await relying.exchange(code))[0] == 401
    form = {"grant_type": "authorization_code", "code": code, "client_id": "hub", "code_verifier": relying.verifier}
    async with relying.http.post(f"{relying.platform.issuer}/token", data=form) as got:
        assert got.status == 401
    relying.secret = right
    assert (await relying.exchange(code))[0] == 200


@pytest.mark.parametrize("grant_type", ["password", "client_credentials", "implicit", "", 'x"'])
async def test_no_other_grant_is_offered(relying: Relying, grant_type: str) -> None:
    status, answer = await relying.token(grant_type=grant_type, username="ada", password="correct horse battery")
    assert (status, answer["error"]) == (400, "unsupported_grant_type")


@pytest.mark.parametrize("header", ["", "Basic", "Basic !!!", "Basic " + "A" * 5000, "Basic /////w==", "Bearer x"])
async def test_damaged_client_authentication_is_refused(relying: Relying, header: str) -> None:
    form = {"grant_type": "authorization_code", "code": "x"}
    headers = {"Authorization": header}
    async with relying.http.post(f"{relying.platform.issuer}/token", data=form, headers=headers) as got:
        assert got.status == 401


# refresh and revocation


async def test_refresh_token_is_replaced_each_time(relying: Relying, browser: Browser) -> None:
    first = await relying.sign_in(browser)
    status, second = await relying.refresh(first["refresh_token"])
    assert status == 200
    assert second["refresh_token"] != first["refresh_token"]
    claims = jwt.decode(second["id_token"], await relying.keys()).claims
    assert (claims["sub"], claims["nonce"]) == ("ada", relying.nonce)
    assert (await relying.userinfo(second["access_token"]))[0] == 200


async def test_refresh_token_used_twice_ends_the_sign_in(relying: Relying, browser: Browser) -> None:
    first = await relying.sign_in(browser)
    _, second = await relying.refresh(first["refresh_token"])
    assert (await relying.refresh(first["refresh_token"]))[1]["error"] == "invalid_grant"
    assert (await relying.refresh(second["refresh_token"]))[1]["error"] == "invalid_grant"
    assert (await relying.userinfo(second["access_token"]))[0] == 401


async def test_tokens_grow_old(relying: Relying, browser: Browser) -> None:
    reply = await relying.sign_in(browser)
    relying.platform.clock.forward(minutes=11)
    assert (await relying.userinfo(reply["access_token"]))[0] == 401
    relying.platform.clock.forward(days=31)
    assert (await relying.refresh(reply["refresh_token"]))[0] == 400


async def test_revoked_token_is_of_no_use(relying: Relying, browser: Browser) -> None:
    async def revoke(token: str, **more: str) -> int:
        form = {"token": token, **more}
        async with relying.http.post(f"{relying.platform.issuer}/revoke", data=form, headers=relying.basic()) as got:
            return got.status

    reply = await relying.sign_in(browser)
    assert await revoke(reply["access_token"], token_type_hint="something") == 200
    assert (await relying.userinfo(reply["access_token"]))[0] == 401
    _, second = await relying.refresh(reply["refresh_token"])
    assert await revoke(second["refresh_token"]) == 200
    assert (await relying.userinfo(second["access_token"]))[0] == 401
    assert (await relying.refresh(second["refresh_token"]))[0] == 400
    assert await revoke("made-up") == 200


@pytest.mark.parametrize("token", ["", "made-up", "x" * 5000, "a b"])
async def test_userinfo_needs_a_good_token(relying: Relying, token: str) -> None:
    assert (await relying.userinfo(token))[0] == 401


async def test_refresh_token_opens_no_userinfo(relying: Relying, browser: Browser) -> None:
    reply = await relying.sign_in(browser)
    assert (await relying.userinfo(reply["refresh_token"]))[0] == 401


async def test_disabled_person_has_no_use_of_codes_and_tokens(relying: Relying, browser: Browser) -> None:
    reply = await relying.sign_in(browser, "bob")
    code = relying.code(await browser.get(relying.authorize_path()))
    await asyncio.to_thread(relying.platform.directory.disable, "bob")
    assert (await relying.userinfo(reply["access_token"]))[0] == 401
    assert (await relying.refresh(reply["refresh_token"]))[0] == 400
    assert (await relying.exchange(code))[0] == 400
    assert (await browser.get(relying.authorize_path())).location.startswith(f"{PREFIX}/sign-in")


# signing out


async def test_client_signs_its_person_out(relying: Relying, browser: Browser) -> None:
    reply = await relying.sign_in(browser)
    after = f"{relying.platform.base}/hub/login"
    asked = urlencode({"id_token_hint": reply["id_token"], "post_logout_redirect_uri": after, "state": "s&1"})
    relying.platform.clock.forward(hours=3)  # an id token that expired is a good hint
    page = await browser.get(f"{PREFIX}/logout?{asked}")
    assert (page.status, page.location) == (303, after + "?state=s%261")
    assert (await browser.get(relying.authorize_path())).location.startswith(f"{PREFIX}/sign-in")
    assert (await relying.refresh(reply["refresh_token"]))[0] == 400


@pytest.mark.parametrize(
    "address", ["https://evil.example/", "{base}/hub/login/", "//evil.example", "{base}.evil.example/"]
)
async def test_signing_out_never_leads_off_the_platform(relying: Relying, browser: Browser, address: str) -> None:
    reply = await relying.sign_in(browser)
    wanted = address.format(base=relying.platform.base)
    asked = urlencode({"id_token_hint": reply["id_token"], "post_logout_redirect_uri": wanted})
    page = await browser.get(f"{PREFIX}/logout?{asked}")
    assert (page.status, page.location) == (200, "")
    assert "signed out" in page.text


def _forged(claims: dict[str, Any], kind: str) -> str:
    def part(document: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(document).encode()).rstrip(b"=").decode()

    if kind == "none":
        return f"{part({'alg': 'none'})}.{part(claims)}."
    key = OctKey.import_key("0" * 64)
    return jwt.encode({"alg": "HS256"}, claims, key)


@pytest.mark.parametrize("kind", ["none", "HS256", "garbage", "absent"])
async def test_forged_hint_signs_nobody_out_without_asking(relying: Relying, browser: Browser, kind: str) -> None:
    reply = await relying.sign_in(browser)
    claims = jwt.decode(reply["id_token"], await relying.keys()).claims
    hint = {"garbage": "a.b.c", "absent": ""}.get(kind) or _forged(claims, kind)
    page = await browser.get(f"{PREFIX}/logout?" + urlencode({"id_token_hint": hint if kind != "absent" else ""}))
    assert page.status == 200
    assert (await browser.get(f"{PREFIX}/account")).status == 200
    # No other page can answer the question for the person.
    stolen = {**page.forms[f"{PREFIX}/logout"], "_csrf": "0" * 64}
    assert (await browser.post(f"{PREFIX}/logout", stolen)).status == 403
    assert (await browser.fill(page, f"{PREFIX}/logout")).status == 200
    assert (await browser.get(f"{PREFIX}/account")).status == 302


async def test_hint_from_another_browser_of_the_same_person_is_good(relying: Relying, platform: Platform) -> None:
    first, second = platform.new_browser(), platform.new_browser()
    await relying.sign_in(first)
    reply = await relying.sign_in(second)
    await first.get(f"{PREFIX}/logout?" + urlencode({"id_token_hint": reply["id_token"]}))
    assert (await first.get(f"{PREFIX}/account")).status == 302
    assert (await second.get(f"{PREFIX}/account")).status == 200


async def test_hint_of_another_person_asks_first(relying: Relying, platform: Platform) -> None:
    theirs = await relying.sign_in(platform.new_browser(), "bob")
    browser = platform.new_browser()
    await browser.sign_in("ada")
    await browser.get(f"{PREFIX}/logout?" + urlencode({"id_token_hint": theirs["id_token"]}))
    assert (await browser.get(f"{PREFIX}/account")).status == 200


# keys


async def test_keys_take_turns_and_are_published_before_they_sign(relying: Relying, browser: Browser) -> None:
    async def kid(reply: dict[str, Any]) -> str:
        return str(jwt.decode(reply["id_token"], await relying.keys()).header["kid"])

    first = await relying.sign_in(browser)
    published = {key.kid for key in (await relying.keys()).keys}
    assert len(published) == 2
    first_kid = await kid(first)
    relying.platform.clock.forward(days=30, minutes=2)
    second = await relying.sign_in(platform_browser := relying.platform.new_browser())
    second_kid = await kid(second)
    assert second_kid in published
    assert second_kid != first_kid
    assert await kid(first) == first_kid  # still believed
    relying.platform.clock.forward(days=31)
    await relying.sign_in(platform_browser)
    assert first_kid not in {key.kid for key in (await relying.keys()).keys}


async def test_private_keys_are_kept_encrypted(relying: Relying, browser: Browser) -> None:
    from sqlalchemy import text

    await relying.sign_in(browser)
    with relying.platform.engine.connect() as connection:
        kept = list(connection.execute(text("SELECT sealed FROM passport_keys")).scalars())
    assert kept
    assert all('"d"' not in sealed and sealed.startswith("gAAAA") for sealed in kept)


async def test_tokens_are_in_no_log(
    relying: Relying, browser: Browser, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level("DEBUG"):
        reply = await relying.sign_in(browser)
        _, second = await relying.refresh(reply["refresh_token"])
    said = caplog.text + capsys.readouterr().out
    for name in ("access_token", "refresh_token", "id_token"):
        assert reply[name] not in said
        assert second[name] not in said
    assert relying.verifier not in said


async def test_address_for_localhost_callback_path_is_kept(relying: Relying, browser: Browser) -> None:
    page = await browser.get(relying.authorize_path())
    back = parse_qs(urlsplit(path_of(page.location)).query)["next"][0]
    assert back.startswith(f"{PREFIX}/authorize?")
    assert parse_qs(urlsplit(back).query)["state"] == [relying.state]
