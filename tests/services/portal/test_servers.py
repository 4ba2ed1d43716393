"""Seeing, starting and stopping servers on the front page."""

from html import unescape

import aiohttp
import pytest

from astrocloud.portal.models import REASONS
from tests.services.portal.conftest import Portal
from tests.services.portal.fake_hub import FakeServer
from tests.services.portal.test_front import csrf_in

SMALL = {"environment": "astro", "resources": "small"}


async def home(browser: aiohttp.ClientSession) -> str:
    async with browser.get("/services/portal/home") as answer:
        assert answer.status == 200
        return unescape(await answer.text())


async def send(browser: aiohttp.ClientSession, path: str, **fields: str) -> aiohttp.ClientResponse:
    """Send a form of the home page as its own script or a plain browser would."""
    fields = {"_csrf": csrf_in(await home(browser)), **fields}
    return await browser.post(f"/services/portal/{path}", data=fields, allow_redirects=False)


def ended(reason: str, **more: object) -> FakeServer:
    end = {"reason": reason, "by": "", "at": "2026-01-02T03:04:05+00:00", "exit_code": 1, "code": "", **more}
    return FakeServer("", ready=False, user_options=SMALL, state={"last_end": end})


async def test_one_click_starts_the_default_server_and_goes_there(portal: Portal) -> None:
    browser = await portal.signed_in("ana")
    assert "Start Astronomy" in await home(browser)
    answer = await send(browser, "servers/start", environment="astro")
    assert answer.status == 303
    assert answer.headers["Location"] == "/user/ana/"
    assert portal.hub.people["ana"].servers[""].user_options == SMALL
    assert portal.hub.calls == [("POST", "/users/ana/server", "ana")]


async def test_slow_start_shows_its_stages(portal: Portal) -> None:
    portal.hub.start_takes.clear()
    browser = await portal.signed_in("ana")
    answer = await send(browser, "servers/start", environment="astro", resources="medium")
    assert answer.headers["Location"] == "/hub/spawn-pending/ana"
    text = await home(browser)
    assert "Watch it start" in text
    assert "data-busy" in text
    portal.hub.start_takes.set()


async def test_second_server_is_a_named_one(portal: Portal) -> None:
    portal.hub.add("ana", servers=(FakeServer("", user_options=SMALL),))
    browser = await portal.signed_in("ana")
    assert "Start another Astronomy" in await home(browser)
    answer = await send(browser, "servers/start", environment="astro")
    assert answer.headers["Location"] == "/user/ana/astro/"


async def test_title_names_the_server(portal: Portal) -> None:
    browser = await portal.signed_in("ana")
    answer = await send(browser, "servers/start", environment="astro", title="  M31 — Photometry ")
    assert answer.headers["Location"] == "/user/ana/m31-photometry/"
    assert portal.hub.people["ana"].servers["m31-photometry"].display_name == "M31 — Photometry"


async def test_limit_is_told_before_and_after_the_click(portal: Portal) -> None:
    servers = tuple(FakeServer(name, user_options=SMALL) for name in ("", "one", "two"))
    portal.hub.add("ana", servers=servers)
    browser = await portal.signed_in("ana")
    assert "You run as many servers as you may (3)" in await home(browser)
    answer = await send(browser, "servers/start", environment="astro")
    assert answer.status == 409
    assert "server-limit" in await answer.text()
    assert portal.hub.calls == []


async def test_refusal_of_the_hub_is_told(portal: Portal) -> None:
    portal.hub.refuse_start = "no disk left"
    browser = await portal.signed_in("ana")
    answer = await send(browser, "servers/start", environment="astro")
    assert answer.status == 409
    assert "no disk left" in await answer.text()


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"environment": "nope"}, 404, "environment-unknown"),
        ({"environment": "astro", "resources": "huge"}, 400, "environment-resources"),
        ({"environment": "astro", "title": "x" * 61}, 400, "server-title"),
        ({"environment": "astro", "title": "a\x00b"}, 400, "server-title"),
        ({"environment": "x" * 5000}, 400, "bad-request"),
    ],
)
async def test_start_of_what_is_not_there_is_refused(
    portal: Portal, fields: dict[str, str], status: int, code: str
) -> None:
    browser = await portal.signed_in("ana")
    answer = await send(browser, "servers/start", **fields)
    assert answer.status == status
    assert code in await answer.text()
    assert portal.hub.calls == []


@pytest.mark.parametrize("path", ["servers/start", "servers/stop", "servers/forget", "tutorials/open", "files/open"])
async def test_forms_need_their_token(portal: Portal, path: str) -> None:
    browser = await portal.signed_in("ana")
    async with browser.post(f"/services/portal/{path}", data={"_csrf": "wrong"}) as answer:
        assert answer.status == 403
    async with portal.browser().post(f"/services/portal/{path}", data={}) as answer:
        assert answer.status == 401
    assert portal.hub.calls == []


async def test_form_sent_from_a_page_of_somebodys_server_is_refused(portal: Portal) -> None:
    browser = await portal.signed_in("ana")
    token = csrf_in(await home(browser))
    headers = {"Referer": f"{portal.url}/user/bo/lab"}
    async with browser.post("/services/portal/servers/start", data={"_csrf": token}, headers=headers) as answer:
        assert answer.status == 403


async def test_stop_from_the_page_answers_with_the_servers(portal: Portal) -> None:
    portal.hub.add("ana", servers=(FakeServer("", user_options=SMALL),))
    browser = await portal.signed_in("ana")
    token = csrf_in(await home(browser))
    data, headers = {"_csrf": token, "server": ""}, {"X-Fragment": "1"}
    async with browser.post("/services/portal/servers/stop", data=data, headers=headers) as answer:
        text = await answer.text()
    assert "<html" not in text
    assert "You stopped it." in text
    assert "No server runs now." in text


async def test_stop_without_scripts_goes_back_to_the_page(portal: Portal) -> None:
    portal.hub.add("ana", servers=(FakeServer("", user_options=SMALL),))
    browser = await portal.signed_in("ana")
    answer = await send(browser, "servers/stop", server="", next="/services/portal/home")
    assert answer.status == 303
    assert answer.headers["Location"] == "/services/portal/home"


async def test_running_server_is_not_forgotten(portal: Portal) -> None:
    portal.hub.add("ana", servers=(FakeServer("one", user_options=SMALL),))
    browser = await portal.signed_in("ana")
    assert (await send(browser, "servers/forget", server="one")).status == 409
    assert (await send(browser, "servers/stop", server="one")).status == 303
    assert (await send(browser, "servers/forget", server="one")).status == 303
    assert portal.hub.people["ana"].servers == {}


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("reason", REASONS)
async def test_every_end_has_a_reason_and_a_next_step(portal: Portal, reason: str, language: str) -> None:
    from astrocloud.core import words

    portal.hub.add("ana", servers=(ended(reason, by="bo"),))
    browser = await portal.signed_in("ana", **{"Accept-Language": language})
    text = await home(browser)
    assert words.text("portal.start-again", language) in text
    for key in (f"portal.end-{reason}", f"portal.next-{reason}"):
        begin = words.catalogue()[key][language].split("{", 1)[0]
        assert begin in text


async def test_failed_start_names_its_error(portal: Portal) -> None:
    portal.hub.add("ana", servers=(ended("failed", code="environment-disk"),))
    text = await home(await portal.signed_in("ana"))
    assert "It did not start: No space for the environment." in text
    assert "environment-disk" in text


async def test_unheard_of_end_is_told_as_unknown(portal: Portal) -> None:
    portal.hub.add("ana", servers=(ended("<script>", code="<b>"),))
    text = await home(await portal.signed_in("ana"))
    assert "nobody saw why" in text
    assert '<script>"' not in text


async def test_server_of_a_vanished_environment_still_shows(portal: Portal) -> None:
    portal.hub.add("ana", servers=(FakeServer("", user_options={"environment": "gone"}),))
    text = await home(await portal.signed_in("ana"))
    assert "gone" in text
    assert 'href="/user/ana/"' in text


async def test_hostile_titles_are_only_text(portal: Portal) -> None:
    portal.hub.add("ana", servers=(FakeServer("x", "<img src=x onerror=alert(1)>", user_options=SMALL),))
    browser = await portal.signed_in("ana")
    async with browser.get("/services/portal/home") as answer:
        text = await answer.text()
    assert "<img src=x" not in text
    assert "&lt;img src=x" in text


async def test_page_says_when_the_hub_is_away(portal: Portal) -> None:
    browser = await portal.signed_in("ana")
    await home(browser)
    portal.hub.away = True
    async with browser.get("/services/portal/home/servers", headers={"X-Fragment": "1"}) as answer:
        assert answer.status == 503


async def test_tutorial_opens_in_the_running_server(portal: Portal) -> None:
    portal.hub.add("ana", servers=(FakeServer("", user_options=SMALL),))
    browser = await portal.signed_in("ana")
    answer = await send(browser, "tutorials/open", tutorial="first-look", lang="zh")
    assert answer.headers["Location"] == "/user/ana/astrocloud/tutorials/open?tutorial=first-look&lang=zh"
    assert portal.hub.calls == []


async def test_tutorial_starts_a_server_when_none_runs(portal: Portal) -> None:
    browser = await portal.signed_in("ana")
    answer = await send(browser, "tutorials/open", tutorial="first-look", lang="en")
    assert answer.headers["Location"] == "/user/ana/astrocloud/tutorials/open?tutorial=first-look&lang=en"
    assert portal.hub.calls == [("POST", "/users/ana/server", "ana")]


async def test_tutorial_waits_for_a_server_on_its_way(portal: Portal) -> None:
    portal.hub.add("ana", servers=(FakeServer("", ready=False, pending="spawn", user_options=SMALL),))
    browser = await portal.signed_in("ana")
    answer = await send(browser, "tutorials/open", tutorial="first-look", lang="en")
    where = answer.headers["Location"]
    assert where.startswith("/hub/spawn-pending/ana?next=%2Fuser%2Fana%2Fastrocloud%2Ftutorials%2Fopen")
    assert portal.hub.calls == []


async def test_unknown_tutorial_is_refused(portal: Portal) -> None:
    browser = await portal.signed_in("ana")
    answer = await send(browser, "tutorials/open", tutorial="../../etc", lang="en")
    assert answer.status == 404
    assert "tutorial-unknown" in await answer.text()


async def test_files_open_at_the_readers_home(portal: Portal) -> None:
    portal.hub.add("ana", servers=(FakeServer("one", user_options=SMALL),))
    browser = await portal.signed_in("ana")
    answer = await send(browser, "files/open")
    assert answer.headers["Location"] == "/user/ana/one/lab/tree/home/ana"
