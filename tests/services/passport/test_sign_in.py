"""Signing in at the embedded passport, as a browser does it."""

import asyncio
import io
import re

import aiohttp
import pytest

from tests.services.passport.harness import PASSWORD, PREFIX, Browser, Platform, path_of

FORM = {"Content-Type": "application/x-www-form-urlencoded"}


async def test_right_password_opens_a_session_for_the_passport_alone(browser: Browser) -> None:
    answer = await browser.sign_in("ada", next_path="/services/portal/home")
    assert answer.status == 303
    assert answer.location == "/services/portal/home"
    cookie = next(c for c in answer.headers.getall("Set-Cookie") if c.startswith("astrocloud-passport-session="))
    assert "Path=/services/passport/" in cookie
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    account = await browser.get(f"{PREFIX}/account")
    assert account.status == 200
    assert "ada" in account.text


async def test_wrong_password_and_unknown_person_get_the_same_page(platform: Platform) -> None:
    pages = []
    for name in ("ada", "nobody-here"):
        browser = platform.new_browser()
        page = await browser.sign_in(name, "wrong password")
        assert page.status == 403
        pages.append(re.sub(r'value="[0-9a-f]{64}"', "", page.text).replace(name, "NAME"))
    assert pages[0] == pages[1]
    assert "Username or password is wrong" in pages[0]


async def test_email_address_signs_in_when_it_is_one_persons(platform: Platform, browser: Browser) -> None:
    await asyncio.to_thread(platform.directory.add, "eva", password=PASSWORD, email="Eva@example.org")
    assert (await browser.sign_in("eva@EXAMPLE.org")).status == 303
    await asyncio.to_thread(platform.directory.add, "eve", password=PASSWORD, email="eva@example.org")
    assert (await platform.new_browser().sign_in("eva@example.org")).status == 403


async def test_password_is_the_same_however_it_is_typed(platform: Platform, browser: Browser) -> None:
    await asyncio.to_thread(platform.directory.add, "eva", password="Ａｎｇｓｔｒöｍ Ⅻ long enough")
    assert (await browser.sign_in("eva", "Angström XII long enough")).status == 303


@pytest.mark.parametrize(
    "path",
    [
        "//evil.example",
        "https://evil.example/",
        "/\\evil.example",
        "javascript:alert(1)",
        "/%0d%0aX: y",
        "\t//evil.example",
    ],
)
async def test_sign_in_never_leads_off_the_platform(browser: Browser, path: str) -> None:
    page = await browser.get(f"{PREFIX}/sign-in")
    form = page.forms[f"{PREFIX}/sign-in"]
    answer = await browser.post(f"{PREFIX}/sign-in", {**form, "next": path, "username": "ada", "password": PASSWORD})
    assert answer.status == 303
    assert re.match(r"/(?![/\\])", answer.location)
    assert "\r" not in answer.location


async def test_failed_tries_make_the_account_wait_longer_and_longer(platform: Platform, browser: Browser) -> None:
    waits = []
    for _ in range(7):
        page = await browser.sign_in("ada", "wrong password")
        if page.status == 429:
            waits.append(int(page.headers["Retry-After"]))
            # Waiting is asked even of the right password, or a guess would show.
            assert (await browser.sign_in("ada")).status == 429
            platform.clock.forward(seconds=waits[-1])
            page = await browser.sign_in("ada", "wrong password")
        assert page.status == 403
    assert waits == sorted(waits)
    assert waits[-1] > waits[0]
    platform.clock.forward(hours=1)
    assert (await browser.sign_in("ada")).status == 303
    assert (await platform.new_browser().sign_in("ada", "wrong password")).status == 403


async def test_waiting_tells_nothing_about_who_exists(platform: Platform) -> None:
    async def statuses(name: str) -> list[int]:
        browser = platform.new_browser()
        return [(await browser.sign_in(name, "wrong password")).status for _ in range(6)]

    assert await statuses("ada") == await statuses("nobody-here")


async def test_many_accounts_from_one_address_wait_too(platform: Platform, browser: Browser) -> None:
    statuses = [(await browser.sign_in(f"guess-{number}", "wrong password")).status for number in range(33)]
    assert statuses[:20] == [403] * 20
    assert statuses[-1] == 429


async def test_disabled_person_learns_it_only_with_the_right_password(platform: Platform, browser: Browser) -> None:
    await asyncio.to_thread(platform.directory.disable, "bob")
    wrong = await browser.sign_in("bob", "wrong password")
    assert "Username or password is wrong" in wrong.text
    right = await browser.sign_in("bob")
    assert right.status == 403
    assert "disabled" in right.text


async def test_form_of_another_page_signs_nobody_in(platform: Platform, browser: Browser) -> None:
    fields = {"username": "ada", "password": PASSWORD, "next": "/"}
    assert (await browser.post(f"{PREFIX}/sign-in", fields)).status == 403
    form = (await browser.get(f"{PREFIX}/sign-in")).forms[f"{PREFIX}/sign-in"]
    stranger = platform.new_browser()
    await stranger.get(f"{PREFIX}/sign-in")
    assert (await stranger.post(f"{PREFIX}/sign-in", {**form, **fields})).status == 403
    assert (await browser.post(f"{PREFIX}/sign-in", {**form, **fields})).status == 303


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"},
        {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
        {"Referer": "http://127.0.0.1/user/bob/lab"},
    ],
)
async def test_form_sent_from_elsewhere_is_refused_even_with_its_token(
    browser: Browser, headers: dict[str, str]
) -> None:
    form = (await browser.get(f"{PREFIX}/sign-in")).forms[f"{PREFIX}/sign-in"]
    answer = await browser.post(f"{PREFIX}/sign-in", {**form, "username": "ada", "password": PASSWORD}, **headers)
    assert answer.status == 403
    assert "astrocloud-passport-session" not in browser.cookies()


async def test_form_of_an_ordinary_browser_is_taken(platform: Platform, browser: Browser) -> None:
    form = (await browser.get(f"{PREFIX}/sign-in")).forms[f"{PREFIX}/sign-in"]
    said = {
        "Origin": platform.base,
        "Referer": f"{platform.base}{PREFIX}/sign-in?next=/",
        "Sec-Fetch-Site": "same-origin",
        "Sec-Fetch-Mode": "navigate",
        "Sec-Fetch-Dest": "document",
    }
    answer = await browser.post(f"{PREFIX}/sign-in", {**form, "username": "ada", "password": PASSWORD}, **said)
    assert answer.status == 303


HOSTILE_USERNAMES = [
    "",
    "..",
    "../../etc/passwd",
    "a\x00b",
    "ada\u202e",
    "\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"),
    "天文学",
    "x" * 300,
    "' OR 1=1 --",
    "{config}",
    "<script>",
]


async def test_hostile_username_is_only_wrong(browser: Browser) -> None:
    for username in HOSTILE_USERNAMES:
        page = await browser.sign_in(username, "wrong password")
        assert page.status == 403
        assert "<script>alert" not in page.text
        assert 'value="<script>' not in page.text


async def test_password_that_is_too_long_is_refused_without_work(browser: Browser) -> None:
    page = await browser.sign_in("ada", "x" * 5000)
    assert page.status == 403


@pytest.mark.parametrize("size", [20_000, 10_000_000])
async def test_large_form_is_refused(browser: Browser, size: int) -> None:
    body = io.BytesIO(b"username=" + b"x" * size)
    try:
        page = await browser.post(f"{PREFIX}/sign-in", body, **FORM)
    except (OSError, aiohttp.ClientError):
        return  # refused while it was still being sent
    assert page.status == 413


@pytest.mark.parametrize(
    "body", [b"username=%FF%FE", b"username=a&username=b", b"&".join(b"f%d=1" % n for n in range(100))]
)
async def test_form_that_is_none_is_refused(browser: Browser, body: bytes) -> None:
    page = await browser.post(f"{PREFIX}/sign-in", body, **{"Content-Type": "application/x-www-form-urlencoded"})
    assert page.status == 400


async def test_form_that_trickles_in_is_given_up(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("astrocloud.core.web.FORM_TIMEOUT_S", 0.2)
    host, port = platform.base.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"POST {PREFIX}/sign-in HTTP/1.1\r\nHost: {host}\r\nContent-Type: {FORM['Content-Type']}\r\n"
    writer.write(f"{head}Content-Length: 1000\r\n\r\nusername=a".encode())
    await writer.drain()
    assert b" 408 " in await asyncio.wait_for(reader.readline(), 20)
    writer.close()


async def test_other_body_types_are_refused(browser: Browser) -> None:
    page = await browser.post(f"{PREFIX}/sign-in", b"{}", **{"Content-Type": "application/json"})
    assert page.status == 400


async def test_chinese_reader_gets_chinese(browser: Browser) -> None:
    page = await browser.get(f"{PREFIX}/sign-in", **{"Accept-Language": "zh-CN,zh;q=0.9"})
    assert 'lang="zh-CN"' in page.text
    assert "用户名或电子邮件" in page.text


async def test_signed_in_person_is_led_on(browser: Browser) -> None:
    await browser.sign_in("ada")
    answer = await browser.get(f"{PREFIX}/sign-in?next=/hub/home")
    assert (answer.status, path_of(answer.location)) == (303, "/hub/home")


async def test_page_needs_no_script_and_ties_labels_to_fields(browser: Browser) -> None:
    page = await browser.get(f"{PREFIX}/sign-in")
    for name in ("username", "password"):
        assert f'<label for="field-{name}">' in page.text
        assert f'id="field-{name}"' in page.text
    assert 'autocomplete="current-password"' in page.text
    assert "frame-ancestors 'none'" in page.headers["Content-Security-Policy"]
    assert page.headers["Cache-Control"] == "no-store"
