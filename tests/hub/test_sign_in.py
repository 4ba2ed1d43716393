"""Signing in at the embedded passport, by its contract: what is accepted, and everything that is not."""

import base64
import hmac
import json
import re
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from tests.hub.harness import Answer, Browser, Platform, until


@pytest.fixture
def passport(platform: Platform) -> Iterator[Platform]:
    """The platform, whose passport is honest again afterwards."""
    yield platform
    platform.services.claims = {}
    platform.services.header = {}
    platform.services.away = False
    platform.services.passport_user = "ada"
    platform.services.add("ada", 20001, groups=[{"name": "survey", "gid": 30001}])


def begin(platform: Platform, browser: Browser, *, following: str = "") -> dict[str, str]:
    """Start a sign-in; return the query the passport gets."""
    answer = browser.open(f"/hub/oauth_login?{urlencode({'next': following})}", follow=False)
    assert answer.status == 302
    return {name: values[0] for name, values in parse_qs(urlsplit(answer.headers["Location"]).query).items()}


def attempt(platform: Platform, *, language: str = "en", **claims: Any) -> tuple[Answer, Browser]:
    platform.services.claims = claims
    browser = Browser(platform.url, language=language)
    return browser.open("/hub/login"), browser


def is_signed_in(browser: Browser) -> bool:
    return browser.open("/hub/token", follow=False).status == 200


def test_the_passport_gets_state_nonce_and_a_pkce_challenge(platform: Platform) -> None:
    query = begin(platform, Browser(platform.url))
    assert query["code_challenge_method"] == "S256"
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", query["code_challenge"])
    assert len(query["state"]) >= 43
    assert len(query["nonce"]) >= 32
    assert query["redirect_uri"] == f"{platform.url}/hub/oauth_callback"
    other = begin(platform, Browser(platform.url))
    assert not {query["state"], query["nonce"], query["code_challenge"]} & set(other.values())


def test_a_person_comes_back_where_they_wanted_to_go(platform: Platform) -> None:
    browser = Browser(platform.url)
    assert browser.open("/hub/token").status == 200
    assert browser.trail[-1] == f"{platform.url}/hub/token"


@pytest.mark.parametrize(
    "evil", ["https://evil.example/", "//evil.example/", "/\\evil.example", "///evil.example", "javascript:1"]
)
def test_nobody_is_sent_off_the_platform(platform: Platform, evil: str) -> None:
    browser = Browser(platform.url)
    browser.open(f"/hub/login?{urlencode({'next': evil})}")
    assert all(urlsplit(url).netloc == urlsplit(platform.url).netloc for url in browser.trail)
    assert is_signed_in(browser)


@pytest.mark.parametrize(
    "claims",
    [
        {"nonce": "another"},
        {"nonce": None},
        {"aud": "somebody-else"},
        {"aud": ["hub", "somebody-else"]},
        {"iss": "https://evil.example"},
        {"exp": 1_000_000_000},
        {"exp": None},
        {"iat": 4_000_000_000},
        {"sub": ""},
        {"sub": 7},
    ],
    ids=str,
)
def test_an_id_token_that_is_not_for_this_sign_in_is_refused(passport: Platform, claims: dict[str, Any]) -> None:
    answer, browser = attempt(passport, **claims)
    assert answer.status == 403
    assert "id-token" in answer.text
    assert not is_signed_in(browser)


@pytest.mark.parametrize("header", [{"alg": "none"}, {"alg": "HS256"}, {"kid": "unknown"}], ids=str)
def test_an_id_token_with_another_signature_is_refused(
    passport: Platform, header: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    services = passport.services
    services.header = header
    if header.get("alg") == "HS256":
        # The public key as the secret of a symmetric signature: accepted by those who trust the token's own header.
        public = services.key.as_pem(private=False)

        def encoded(data: bytes) -> str:
            return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

        def signed(claims: dict[str, Any]) -> str:
            header = encoded(json.dumps({"alg": "HS256", "kid": "one"}).encode())
            text = f"{header}.{encoded(json.dumps(claims).encode())}"
            return f"{text}.{encoded(hmac.digest(public, text.encode(), 'sha256'))}"

        monkeypatch.setattr(services, "sign", signed)
    answer, browser = attempt(passport)
    assert answer.status == 403
    assert "id-token" in answer.text
    assert not is_signed_in(browser)


def test_a_token_of_a_stranger_with_the_right_key_id_is_refused(
    passport: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    from joserfc.jwk import RSAKey

    honest = passport.services.key
    stranger = RSAKey.generate_key(2048, parameters={"kid": "one"})
    monkeypatch.setattr(passport.services, "_jwks_key", honest, raising=False)
    sign = passport.services.sign

    def forged(claims: dict[str, Any]) -> str:
        passport.services.key = stranger
        try:
            return sign(claims)
        finally:
            passport.services.key = honest

    monkeypatch.setattr(passport.services, "sign", forged)
    answer, browser = attempt(passport)
    assert answer.status == 403
    assert not is_signed_in(browser)


def test_a_forged_state_is_refused(platform: Platform) -> None:
    browser = Browser(platform.url)
    begin(platform, browser)
    for state in ("", "x", "A" * 43, "../../etc"):
        answer = browser.open(f"/hub/oauth_callback?{urlencode({'code': 'c', 'state': state})}")
        assert (answer.status, "sign-in-state" in answer.text) == (403, True)


def test_a_sign_in_that_another_browser_began_is_refused(platform: Platform) -> None:
    query = begin(platform, Browser(platform.url))
    victim = Browser(platform.url)
    code = Browser(platform.url).open(
        f"/services/passport/authorize?{urlencode(query)}", follow=False
    ).headers["Location"]  # fmt: skip
    assert victim.open(code).status == 403
    assert not is_signed_in(victim)


def test_a_sign_in_cannot_be_replayed(platform: Platform) -> None:
    browser = platform.sign_in("ada")
    callback = next(url for url in browser.trail if "/hub/oauth_callback" in url)
    again = browser.open(callback)
    assert (again.status, "sign-in-state" in again.text) == (403, True)


def test_a_code_that_was_used_is_refused_by_name(platform: Platform) -> None:
    browser = Browser(platform.url)
    query = begin(platform, browser)
    answer = browser.open(
        f"/hub/oauth_callback?{urlencode({'code': 'used', 'state': query['state'], 'iss': platform.services.issuer})}"
    )
    assert (answer.status, "sign-in-code" in answer.text) == (403, True)


@pytest.mark.parametrize("issuer", ["https://evil.example", None])
def test_an_answer_of_another_passport_is_refused(platform: Platform, issuer: str | None) -> None:
    browser = Browser(platform.url)
    query = begin(platform, browser)
    answer = {"code": "c", "state": query["state"], **({"iss": issuer} if issuer else {})}
    assert browser.open(f"/hub/oauth_callback?{urlencode(answer)}").status == 403


def test_one_who_declines_is_told_so_in_their_language(platform: Platform) -> None:
    for language, words in (("en", "declined"), ("zh-CN", "取消")):
        browser = Browser(platform.url, language=language)
        query = begin(platform, browser)
        answer = browser.open(f"/hub/oauth_callback?{urlencode({'error': 'access_denied', 'state': query['state']})}")
        assert answer.status == 403
        assert words in answer.text
        assert "sign-in-denied" in answer.text


def test_what_the_passport_says_is_never_put_into_the_page_as_it_is(platform: Platform) -> None:
    browser = Browser(platform.url)
    query = begin(platform, browser)
    text = "<script>alert(1)</script>"
    answer = browser.open(
        f"/hub/oauth_callback?{urlencode({'error': text, 'error_description': text, 'state': query['state']})}"
    )
    assert answer.status == 502
    assert "alert(1)" not in answer.text


@pytest.mark.parametrize("status", ["disabled", "pending"])
def test_one_whom_the_directory_refuses_is_told_why(passport: Platform, status: str) -> None:
    passport.services.people["ada"]["status"] = status
    answer, browser = attempt(passport)
    assert answer.status == 403
    assert f"account-{status}" in answer.text
    assert not is_signed_in(browser)


def test_a_stranger_is_refused_where_nobody_may_sign_up(passport: Platform) -> None:
    passport.services.passport_user = "mallory"
    answer, _ = attempt(passport)
    assert (answer.status, "sign-up-closed" in answer.text) == (403, True)


def test_nobody_gets_in_while_the_directory_is_away(passport: Platform) -> None:
    passport.services.away = True
    answer, browser = attempt(passport, language="zh")
    assert (answer.status, "directory-away" in answer.text) == (503, True)
    assert "用户目录" in answer.text
    passport.services.away = False
    assert not is_signed_in(browser) or browser.trail


def test_administrators_are_still_ones_after_a_restart_of_the_hub(passport: Platform) -> None:
    passport.services.add("boss", 20009, admin=True)
    passport.sign_in("boss")
    passport.services.add("former", 20010, admin=True)
    passport.sign_in("former")
    passport.services.add("former", 20010, admin=False)
    passport.kill_hub()
    passport.start_hub()

    assert set(passport.api("GET", "/users/boss").json()["roles"]) == {"user", "admin", "platform-admin"}
    # Who is none any more is found out when they ask for something.
    passport.sign_in("former")
    assert passport.api("GET", "/users/former").json()["roles"] == ["user"]


def test_groups_and_administrators_follow_the_directory(passport: Platform) -> None:
    passport.sign_in("ada")
    assert passport.api("GET", "/users/ada").json()["groups"] == ["survey"]
    passport.services.add("ada", 20001, admin=True, groups=[{"name": "photometry", "gid": 30002}])
    passport.sign_in("ada")
    model = passport.api("GET", "/users/ada").json()
    assert (model["groups"], model["admin"]) == (["photometry"], True)
    assert set(model["roles"]) == {"user", "admin", "platform-admin"}
    passport.services.add("ada", 20001, groups=[])
    passport.sign_in("ada")
    model = passport.api("GET", "/users/ada").json()
    assert (model["groups"], model["admin"], model["roles"]) == ([], False, ["user"])


def test_one_who_is_disabled_is_out_everywhere_within_30_seconds(start_platform: Callable[..., Platform]) -> None:
    platform = start_platform()
    browser = platform.sign_in("ada")
    platform.start_server("ada")
    token = platform.api("POST", "/users/ada/tokens", body={"note": "a program"}).json()["token"]
    assert platform.api("GET", "/user", token=token).status == 200
    platform.services.people["ada"]["status"] = "disabled"
    until(lambda: platform.api("GET", "/user", token=token).status == 403, seconds=30, what="the token is refused")
    until(lambda: not is_signed_in(browser), seconds=30, what="the browser is signed out")
    until(lambda: platform.server("ada").get("stopped"), seconds=30, what="the server is stopped")
    assert platform.server("ada")["state"]["last_end"]["reason"] == "disabled"


def test_a_directory_that_is_away_for_a_moment_throws_nobody_out(passport: Platform) -> None:
    browser = passport.sign_in("ada")
    passport.services.away = True
    # Longer than what the hub believes without asking.
    deadline = time.monotonic() + 11
    while time.monotonic() < deadline:
        assert is_signed_in(browser)


def test_a_new_password_ends_the_sessions_that_were_there(passport: Platform) -> None:
    old = passport.sign_in("ada")
    token = passport.api("POST", "/users/ada/tokens", body={"note": "a program"}).json()["token"]
    passport.services.people["ada"]["sessions_valid_after"] = int(time.time())
    new = passport.sign_in("ada")
    assert is_signed_in(new)
    assert not is_signed_in(old)
    assert passport.api("GET", "/user", token=token).status == 200


def test_signing_out_goes_by_the_passport_to_the_front_page(platform: Platform) -> None:
    browser = platform.sign_in("ada")
    answer = browser.open("/hub/logout", follow=False)
    url = urlsplit(answer.headers["Location"])
    query = parse_qs(url.query)
    assert f"{url.scheme}://{url.netloc}{url.path}" == f"{platform.url}/services/passport/logout"
    assert query["post_logout_redirect_uri"] == [f"{platform.url}/"]
    assert query["client_id"] == ["hub"]
    assert query["id_token_hint"][0].count(".") == 2
    assert not is_signed_in(browser)
    # Who is not signed in has nobody to sign out at the passport.
    assert Browser(platform.url).open("/hub/logout", follow=False).headers["Location"] == "/"


def test_cookies_never_reach_peoples_servers(platform: Platform) -> None:
    browser = platform.sign_in("ada")
    for line in browser.set_cookies:
        parts = {part.strip().lower() for part in line.split(";")[1:]}
        name, _, value = line.partition(";")[0].partition("=")
        if value.strip('"') == "":
            continue  # one that is taken back
        assert "samesite=lax" in parts, line
        if name != "_xsrf":
            assert "httponly" in parts, line
        if name != "jupyterhub-session-id":  # an id that opens nothing by itself; services compare it
            assert "path=/hub/" in parts, line


def test_no_secret_is_in_the_log(platform: Platform) -> None:
    browser = platform.sign_in("ada")
    platform.start_server("ada")
    token = platform.run("ada", "import os; print(os.environ['JUPYTERHUB_API_TOKEN'])")
    platform.stop_server("ada")
    log = platform.hub_log()
    names = (
        "internal",
        "hub-cookie",
        "hub-crypt",
        "proxy-token",
        "passport-client",
        "service-portal",
        "service-operator",
        "service-monitoring",
    )
    secrets = [platform.secrets.get(name).get_secret_value() for name in names]
    secrets += [token, *browser.jar.values()]
    assert not [value for value in secrets if len(value) > 8 and value in log]
    for line in log.splitlines():
        assert json.loads(line)["part"] == "hub"


def test_prometheus_reads_metrics_and_nothing_else(platform: Platform) -> None:
    token = platform.secrets.get("service-monitoring").get_secret_value()
    request = urllib.request.Request(f"{platform.url}/hub/metrics", headers={"Authorization": f"token {token}"})

    with urllib.request.urlopen(request, timeout=10) as answer:
        assert "jupyterhub_running_servers" in answer.read().decode()

    assert platform.api("GET", "/users", token=token).status == 403
    assert platform.api("GET", "/proxy", token=token).status == 403
