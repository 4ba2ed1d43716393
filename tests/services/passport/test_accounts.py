"""Links, passwords, sessions and asking for an account, as a browser does it."""

import asyncio
from pathlib import Path
from urllib.parse import urlencode

import pytest

from astrocloud.config import Config, parse_config
from tests.services.passport.harness import PASSWORD, PREFIX, Browser, Platform, path_of, run_platform

NEW = "a fresh staple in the sky"


async def follow(browser: Browser, link: str, **values: str) -> int:
    """Choose a password at `link`."""
    page = await browser.get(path_of(link))
    if page.status != 200:
        return page.status
    answer = await browser.fill(page, f"{PREFIX}/link", password=NEW, again=NEW, **values)
    return answer.status


# links


async def test_setup_link_makes_the_first_administrator_once(tmp_path: Path) -> None:
    async with run_platform(tmp_path / "data", Config()) as platform:
        link = await asyncio.to_thread(platform.directory.setup_link)
        assert link is not None
        first, second = platform.new_browser(), platform.new_browser()
        late = await second.get(path_of(link))
        assert await follow(first, link, username="Ada") == 400
        assert await follow(first, link, username="root") == 400
        assert await follow(first, link, username="ada") == 303
        assert (await first.get(f"{PREFIX}/account")).status == 200
        made = platform.directory.get("ada")
        assert (made.admin, made.status) == (True, "active")
        again = await second.fill(late, f"{PREFIX}/link", username="eve", password=NEW, again=NEW)
        assert again.status == 410
        assert (await second.get(path_of(link))).status == 410


async def test_invite_link_works_once(platform: Platform, browser: Browser) -> None:
    link = (await asyncio.to_thread(platform.directory.add, "eva")).invite
    assert link is not None
    assert (await browser.sign_in("eva", "")).status == 403
    page = await browser.get(path_of(link))
    assert "eva" in page.text
    for password, again, code in [
        ("tiny-1", "tiny-1", 400),
        (NEW, NEW + "x", 400),
        ("eva-eva-eva-eva", "eva-eva-eva-eva", 400),
    ]:
        refused = await browser.fill(page, f"{PREFIX}/link", password=password, again=again)
        assert refused.status == code
        assert 'aria-invalid="true"' in refused.text
        assert password not in refused.text
    assert await follow(browser, link) == 303
    assert await follow(platform.new_browser(), link) == 410
    assert (await platform.new_browser().sign_in("eva", NEW)).status == 303


async def test_link_grows_old_and_is_replaced_by_a_later_one(platform: Platform, browser: Browser) -> None:
    link = (await asyncio.to_thread(platform.directory.add, "eva")).invite
    assert link is not None
    platform.clock.forward(days=8)
    assert (await browser.get(path_of(link))).status == 410


async def test_guessing_links_makes_one_wait(browser: Browser) -> None:
    statuses = [(await browser.get(f"{PREFIX}/link?key=guess-{number}")).status for number in range(13)]
    assert statuses[0] == 410
    assert statuses[-1] == 429


# passwords and sessions


async def test_changed_password_ends_every_other_session(platform: Platform) -> None:
    here, there = platform.new_browser(), platform.new_browser()
    await here.sign_in("bob")
    await there.sign_in("bob")
    before = (await there.get(f"{PREFIX}/account")).status
    platform.clock.forward(minutes=1)
    page = await here.get(f"{PREFIX}/account")
    answer = await here.fill(page, f"{PREFIX}/account/password", old=PASSWORD, password=NEW, again=NEW)
    assert answer.location == f"{PREFIX}/account?done=password"
    assert (await here.get(f"{PREFIX}/account")).status == 200
    assert (before, (await there.get(f"{PREFIX}/account")).status) == (200, 302)
    assert (await there.sign_in("bob", PASSWORD)).status == 403
    assert (await there.sign_in("bob", NEW)).status == 303


async def test_wrong_present_password_changes_nothing_and_counts(platform: Platform, browser: Browser) -> None:
    await browser.sign_in("bob")
    page = await browser.get(f"{PREFIX}/account")
    statuses = [
        (await browser.fill(page, f"{PREFIX}/account/password", old="wrong", password=NEW, again=NEW)).status
        for _ in range(6)
    ]
    assert statuses[0] == 403
    assert statuses[-1] == 429
    platform.clock.forward(hours=1)
    assert (await platform.new_browser().sign_in("bob", PASSWORD)).status == 303


async def test_one_session_is_ended_from_another(platform: Platform) -> None:
    here, there = platform.new_browser(), platform.new_browser()
    await there.sign_in("bob")
    platform.clock.forward(minutes=1)
    await here.sign_in("bob")
    page = await here.get(f"{PREFIX}/account")
    ids = [part.split('"')[0] for part in page.text.split('name="session" value="')[1:]]
    assert len(ids) == 2
    answer = await here.fill(page, f"{PREFIX}/account/sessions/end", session=ids[1])
    assert answer.status == 303
    assert (await there.get(f"{PREFIX}/account")).status == 302
    assert (await here.get(f"{PREFIX}/account")).status == 200
    assert (await here.fill(page, f"{PREFIX}/account/sessions/end", session=ids[0])).location == "/hub/logout"
    assert (await here.get(f"{PREFIX}/account")).status == 302


async def test_nobody_ends_the_session_of_another_person(platform: Platform) -> None:
    ada, bob = platform.new_browser(), platform.new_browser()
    await ada.sign_in("ada")
    await bob.sign_in("bob")
    theirs = (await ada.get(f"{PREFIX}/account")).forms[f"{PREFIX}/account/sessions/end"]["session"]
    await bob.fill(await bob.get(f"{PREFIX}/account"), f"{PREFIX}/account/sessions/end", session=theirs)
    assert (await ada.get(f"{PREFIX}/account")).status == 200


async def test_session_ends_with_its_time(platform: Platform, browser: Browser) -> None:
    await browser.sign_in("bob")
    platform.clock.forward(days=15)
    assert (await browser.get(f"{PREFIX}/account")).status == 302


async def test_cookie_made_up_opens_nothing(browser: Browser) -> None:
    for value in ("x", "x" * 4000, "../../etc"):
        page = await browser.get(f"{PREFIX}/account", Cookie=f"astrocloud-passport-session={value}")
        assert page.status == 302


async def test_signing_in_as_another_person_ends_the_first_session(platform: Platform, browser: Browser) -> None:
    await browser.sign_in("bob")
    kept = browser.cookies()["astrocloud-passport-session"]
    page = await browser.get(f"{PREFIX}/sign-in?again=1")
    await browser.fill(page, f"{PREFIX}/sign-in", username="ada", password=PASSWORD)
    assert "ada" in (await browser.get(f"{PREFIX}/account")).text
    old = await platform.new_browser().get(f"{PREFIX}/account", Cookie=f"astrocloud-passport-session={kept}")
    assert old.status == 302


async def test_signing_out_goes_on_to_the_hub(browser: Browser) -> None:
    await browser.sign_in("bob")
    page = await browser.get(f"{PREFIX}/account")
    answer = await browser.fill(page, f"{PREFIX}/sign-out")
    assert (answer.status, answer.location) == (303, "/hub/logout")
    assert (await browser.get(f"{PREFIX}/account")).status == 302


async def test_language_of_a_person_is_kept_with_the_account(platform: Platform, browser: Browser) -> None:
    await browser.sign_in("bob")
    page = await browser.get(f"{PREFIX}/account")
    form = {"display_name": "Bob 鲍勃", "email": "bob@example.org", "language": "zh"}
    answer = await browser.fill(page, f"{PREFIX}/account/profile", **form)
    assert any(c.startswith("astrocloud-lang=zh") for c in answer.headers.getall("Set-Cookie"))
    assert "账户" in (await browser.get(f"{PREFIX}/account")).text
    fresh = await platform.new_browser().sign_in("bob@example.org")
    assert any(c.startswith("astrocloud-lang=zh") for c in fresh.headers.getall("Set-Cookie"))
    wrong = await browser.fill(page, f"{PREFIX}/account/profile", **{**form, "email": "not an address"})
    assert wrong.status == 400
    assert 'id="field-email-error"' in wrong.text


@pytest.mark.parametrize("action", ["password", "profile", "sessions/end"])
async def test_account_forms_need_a_session_and_their_token(platform: Platform, action: str) -> None:
    stranger, bob = platform.new_browser(), platform.new_browser()
    assert (await stranger.post(f"{PREFIX}/account/{action}", {"_csrf": "x"})).status == 401
    await bob.sign_in("bob")
    assert (await bob.post(f"{PREFIX}/account/{action}", {"_csrf": "x", "old": PASSWORD})).status == 403


# asking for an account


async def test_nobody_registers_where_it_is_closed(browser: Browser) -> None:
    assert (await browser.get(f"{PREFIX}/register")).status == 403
    assert "/register" not in (await browser.get(f"{PREFIX}/sign-in")).text


async def test_registration_waits_for_an_administrator(tmp_path: Path) -> None:
    config = parse_config({"passport": {"kind": "embedded", "registration": "approval"}}, source="test")
    async with run_platform(tmp_path / "data", config) as platform:
        await asyncio.to_thread(platform.directory.add, "ada", admin=True, password=PASSWORD)
        browser = platform.new_browser()
        page = await browser.get(f"{PREFIX}/register")
        form = {"username": "eva", "display_name": "Eva", "email": "", "password": NEW, "again": NEW}
        taken = await browser.fill(page, f"{PREFIX}/register", **{**form, "username": "ada"})
        assert taken.status == 409
        assert 'id="field-username-error"' in taken.text
        assert (await browser.fill(page, f"{PREFIX}/register", **form)).status == 201
        refused = await browser.sign_in("eva", NEW)
        assert refused.status == 403
        assert "approval" in refused.text
        await asyncio.to_thread(platform.directory.enable, "eva")
        assert (await browser.sign_in("eva", NEW)).status == 303


async def test_one_address_asks_for_few_accounts(tmp_path: Path) -> None:
    config = parse_config({"passport": {"kind": "embedded", "registration": "approval"}}, source="test")
    async with run_platform(tmp_path / "data", config) as platform:
        browser = platform.new_browser()
        page = await browser.get(f"{PREFIX}/register")
        statuses = []
        for number in range(5):
            form = {"username": f"eva-{number}", "password": NEW, "again": NEW}
            statuses.append((await browser.fill(page, f"{PREFIX}/register", **form)).status)
        assert statuses[0] == 201
        assert statuses[-1] == 429


async def test_link_page_keeps_its_key_from_other_sites(platform: Platform, browser: Browser) -> None:
    link = (await asyncio.to_thread(platform.directory.add, "eva")).invite
    assert link is not None
    page = await browser.get(path_of(link))
    assert page.headers["Referrer-Policy"] == "same-origin"
    assert page.headers["Cache-Control"] == "no-store"


async def test_language_switch_comes_back_to_the_same_form(browser: Browser) -> None:
    page = await browser.get(f"{PREFIX}/sign-in?{urlencode({'next': '/hub/home'})}")
    assert "next=/services/passport/sign-in%3Fnext%3D" in page.text
