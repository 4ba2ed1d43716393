"""What everybody sees, and signing in and out."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from astrocloud.core.database import open_database, sqlite_url
from astrocloud.portal.models import Announcement
from astrocloud.portal.storage import DatabaseAnnouncements
from tests.services.portal.conftest import Portal


def announce(portal: Portal, **changes: object) -> Announcement:
    engine = open_database(sqlite_url(portal.data.databases))
    now = datetime.now(UTC)
    values = {
        "id": 0,
        "severity": "warning",
        "title_en": "Maintenance",
        "title_zh": "停机维护",
        "text_en": "On <Thursday>.\n\nSee https://example.org/x",
        "text_zh": "周四。",
        "starts_at": now - timedelta(hours=1),
        "ends_at": now + timedelta(hours=1),
        "author": "root",
        **changes,
    }
    try:
        return DatabaseAnnouncements(engine=engine).save(Announcement(**values))  # type: ignore[arg-type]
    finally:
        engine.dispose()


async def test_front_page_tells_everybody_what_this_is_and_how_the_parts_are(portal: Portal) -> None:
    async with portal.browser().get("/") as answer:
        text = await answer.text()
        assert answer.status == 200
        assert "Set-Cookie" not in answer.headers
    assert "Astronomy in your browser" in text
    assert "/services/portal/sign-in/hub?next=/" in text
    assert "Everything works." in text
    assert "Environment Astronomy" in text


async def test_front_page_is_in_chinese_for_a_browser_that_asks_for_it(portal: Portal) -> None:
    async with portal.browser(**{"Accept-Language": "zh-CN,zh;q=0.9"}).get("/") as answer:
        text = await answer.text()
    assert '<html lang="zh-CN"' in text
    assert "在浏览器里做天文研究" in text
    assert "天文云" in text


async def test_chosen_language_wins_over_what_the_browser_asks_for(portal: Portal) -> None:
    browser = portal.browser(**{"Accept-Language": "en"})
    async with browser.get("/services/portal/language", params={"set": "zh", "next": "/"}) as answer:
        assert answer.status == 200
        assert '<html lang="zh-CN"' in await answer.text()


async def test_theme_is_remembered_for_every_page(portal: Portal) -> None:
    browser = portal.browser()
    async with browser.get("/services/portal/theme", params={"set": "dark", "next": "/"}) as answer:
        assert 'data-theme="dark"' in await answer.text()


@pytest.mark.parametrize(
    "target", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)"]
)
async def test_switches_lead_nowhere_else(portal: Portal, target: str) -> None:
    query = {"set": "zh", "next": target}
    async with portal.browser().get("/services/portal/language", params=query, allow_redirects=False) as answer:
        assert answer.headers["Location"] == "/"


@pytest.mark.parametrize(("switch", "value"), [("language", "fr"), ("theme", "pink"), ("theme", "")])
async def test_switch_refuses_what_it_does_not_know(portal: Portal, switch: str, value: str) -> None:
    async with portal.browser().get(f"/services/portal/{switch}", params={"set": value}) as answer:
        assert answer.status == 400


async def test_announcement_shows_to_everybody_in_their_language_while_it_lasts(portal: Portal) -> None:
    announce(portal)
    announce(portal, title_en="Long gone", ends_at=datetime.now(UTC) - timedelta(minutes=1))
    announce(portal, title_en="Not yet", starts_at=datetime.now(UTC) + timedelta(minutes=30))
    async with portal.browser().get("/") as answer:
        text = await answer.text()
    assert "Maintenance" in text
    assert "On &lt;Thursday&gt;." in text
    assert 'href="https://example.org/x"' in text
    assert "Long gone" not in text
    assert "Not yet" not in text
    async with portal.browser(**{"Accept-Language": "zh"}).get("/") as answer:
        assert "停机维护" in await answer.text()


@pytest.mark.parametrize(
    "path", ["/", "/services/portal/home", "/services/portal/sign-out", "/services/portal/nothing"]
)
async def test_every_page_says_when_people_are_not_kept_apart(
    portal: Portal, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = await portal.signed_in("ana")
    monkeypatch.setenv("PATH", str(tmp_path))  # no bubblewrap here
    async with browser.get(path) as answer:
        text = await answer.text()
    assert "People are not kept apart" in text
    assert 'role="alert"' in text


async def test_front_page_says_when_the_hub_is_away(portal: Portal) -> None:
    portal.hub.away = True
    async with portal.browser().get("/services/portal/api/health") as answer:
        document = await answer.json()
    assert document["status"] == "degraded"
    assert document["parts"]["hub"] == "away"
    assert document["parts"]["database"] == "ok"
    async with portal.browser().get("/services/portal/ready") as answer:
        assert answer.status == 503


@pytest.mark.parametrize(("said", "told"), [("full", "full"), ("unreachable", "away")])
async def test_front_page_says_when_files_cannot_be_saved(portal: Portal, said: str, told: str) -> None:
    portal.tree["files"] = said
    async with portal.browser().get("/services/portal/api/health") as answer:
        document = await answer.json()
    assert document["parts"]["files"] == told
    assert document["status"] == "degraded"
    async with portal.browser().get("/") as answer:
        assert "Not everything works." in await answer.text()


async def test_browser_known_at_the_hub_is_told_how_to_sign_in_without_a_click(portal: Portal) -> None:
    headers = {"X-Fragment": "1"}
    browser = portal.browser()
    async with browser.get("/services/portal/home", headers=headers) as answer:
        assert "X-Sign-In" not in answer.headers
    cookies = {"jupyterhub-session-id": "0123456789abcdef"}
    async with browser.get("/services/portal/home", headers=headers, cookies=cookies) as answer:
        assert answer.status == 204
        assert answer.headers["X-Sign-In"] == "/services/portal/sign-in/hub?next=/"


async def test_nobody_signed_in_gets_no_fragment_and_no_error(portal: Portal) -> None:
    async with portal.browser().get("/services/portal/home", headers={"X-Fragment": "1"}) as answer:
        assert answer.status == 204


async def test_whole_home_page_asks_to_sign_in_and_comes_back(portal: Portal) -> None:
    portal.hub.signing_in = "ana"
    async with portal.browser().get("/services/portal/home") as answer:
        assert answer.status == 200
        assert answer.url.path == "/services/portal/home"
        assert "Welcome, ana" in await answer.text()


async def test_session_cookie_stays_below_the_portal(portal: Portal) -> None:
    browser = await portal.signed_in("ana")
    paths = {cookie.key: cookie["path"] for cookie in browser.cookie_jar}
    assert paths["astrocloud-portal"] == "/services/portal/"
    assert "/" not in paths.values()


async def test_sign_out_forgets_the_session_and_goes_on_to_the_hub(portal: Portal) -> None:
    browser = await portal.signed_in("ana")
    async with browser.get("/services/portal/sign-out") as answer:
        text = await answer.text()
    async with browser.post("/services/portal/sign-out", data={"_csrf": csrf_in(text)}) as answer:
        assert "url=/hub/logout" in await answer.text()
    async with browser.get("/services/portal/home", headers={"X-Fragment": "1"}) as answer:
        assert answer.status == 204


async def test_sign_out_from_another_services_page_asks_first(portal: Portal) -> None:
    browser = await portal.signed_in("ana")
    async with browser.post("/services/portal/sign-out", data={"_csrf": "of another page"}) as answer:
        text = await answer.text()
        assert answer.status == 200
    assert "Sign out everywhere?" in text
    assert csrf_in(text)
    async with browser.get("/services/portal/home", headers={"X-Fragment": "1"}) as answer:
        assert answer.status == 200


@pytest.mark.parametrize(("code", "words"), [(404, "Nothing is at this address"), (503, "This part does not answer")])
async def test_page_for_the_proxy_is_in_both_languages(portal: Portal, code: int, words: str) -> None:
    async with portal.browser().get(f"/services/portal/proxy-error/{code}", params={"url": "/x"}) as answer:
        text = await answer.text()
        assert answer.status == code
    assert words in text
    assert 'lang="zh-CN"' in text


async def test_unknown_page_is_told_with_a_way_on(portal: Portal) -> None:
    async with portal.browser().get("/services/portal/nothing") as answer:
        text = await answer.text()
        assert answer.status == 404
    assert "To the front page" in text
    assert "not-found" in text


def csrf_in(text: str) -> str:
    """Return the form token in a page."""
    return text.split('name="_csrf" value="', 1)[1].split('"', 1)[0]
