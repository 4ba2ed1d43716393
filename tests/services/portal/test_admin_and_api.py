"""The administrators' pages and the JSON API."""

import aiohttp
import pytest

from tests.services.portal.conftest import Portal
from tests.services.portal.fake_hub import FakeServer
from tests.services.portal.test_front import csrf_in

SMALL = {"environment": "astro", "resources": "small"}
FORM = {
    "severity": "critical",
    "title_en": "Storage is full",
    "title_zh": "存储空间已满",
    "text_en": "Delete what you need no more.",
    "text_zh": "请删除不再需要的文件。",
    "starts_at": "",
    "ends_at": "",
}
API = "/services/portal/api"
PAGE = "/services/portal/admin/announcements"


async def send(browser: aiohttp.ClientSession, path: str, fields: dict[str, str]) -> aiohttp.ClientResponse:
    async with browser.get(PAGE) as answer:
        token = csrf_in(await answer.text())
    return await browser.post(path, data={"_csrf": token, **fields}, allow_redirects=False)


@pytest.mark.parametrize("path", ["", "/servers", "/announcements", "/announcements/1", "/events"])
async def test_pages_for_administrators_are_closed_to_others(portal: Portal, path: str) -> None:
    browser = await portal.signed_in("ana")
    async with browser.get(f"/services/portal/admin{path}") as answer:
        assert answer.status == 403


async def test_announcement_is_previewed_published_changed_and_removed(portal: Portal) -> None:
    browser = await portal.signed_in("root")
    answer = await send(browser, PAGE, {**FORM, "action": "preview"})
    assert "This is how it will look" in await answer.text()
    async with portal.browser().get("/") as front:
        assert "Storage is full" not in await front.text()

    answer = await send(browser, PAGE, {**FORM, "action": "publish"})
    assert answer.status == 303
    async with portal.browser().get("/") as front:
        assert "Storage is full" in await front.text()

    async with browser.get(f"{PAGE}/1") as answer:
        assert "存储空间已满" in await answer.text()
    answer = await send(browser, f"{PAGE}/1", {**FORM, "title_en": "Storage is nearly full", "action": "publish"})
    assert answer.status == 303
    async with portal.browser().get("/") as front:
        assert "Storage is nearly full" in await front.text()

    answer = await send(browser, f"{PAGE}/1/remove", {})
    assert answer.status == 303
    async with portal.browser().get("/") as front:
        assert "Storage is nearly full" not in await front.text()
    async with browser.get(f"{PAGE}/1") as answer:
        assert answer.status == 404


async def test_wrong_announcement_comes_back_with_what_was_typed(portal: Portal) -> None:
    browser = await portal.signed_in("root")
    answer = await send(browser, PAGE, {**FORM, "title_zh": "", "action": "publish"})
    text = await answer.text()
    assert answer.status == 400
    assert "title_zh" in text
    assert "Delete what you need no more." in text


async def test_administrator_sees_and_stops_everybodys_servers(portal: Portal) -> None:
    portal.hub.add("bo", servers=(FakeServer("", user_options=SMALL), FakeServer("old", ready=False)))
    browser = await portal.signed_in("root")
    async with browser.get("/services/portal/admin/servers") as answer:
        text = await answer.text()
    assert "1 servers of 1 people" in text
    assert ">bo</th>" in text
    answer = await send(browser, "/services/portal/admin/servers/stop", {"owner": "bo", "server": ""})
    assert answer.status == 303
    assert portal.hub.calls == [("DELETE", "/users/bo/server", "root")]
    async with browser.get("/services/portal/admin/servers") as answer:
        assert "No server runs." in await answer.text()


async def test_nobody_else_stops_somebodys_server(portal: Portal) -> None:
    portal.hub.add("bo", servers=(FakeServer("", user_options=SMALL),))
    browser = await portal.signed_in("ana")
    async with browser.get("/services/portal/home") as answer:
        token = csrf_in(await answer.text())
    fields = {"_csrf": token, "owner": "bo", "server": ""}
    async with browser.post("/services/portal/admin/servers/stop", data=fields) as answer:
        assert answer.status == 403
    assert portal.hub.people["bo"].servers[""].ready


async def test_program_starts_lists_and_stops_its_owners_servers(portal: Portal) -> None:
    program = portal.program(portal.hub.token_of("ana"))
    async with program.post(f"{API}/servers", json={"resources": "medium", "title": "Batch"}) as answer:
        assert answer.status == 201
        started = await answer.json()
    assert started["name"] == "batch"
    assert started["url"] == "/user/ana/batch/"
    async with program.get(f"{API}/servers") as answer:
        (listed,) = await answer.json()
    assert (listed["state"], listed["title"], listed["resources"]) == ("running", "Batch", "medium")
    async with program.delete(f"{API}/servers/batch") as answer:
        assert answer.status == 204
    async with program.get(f"{API}/servers") as answer:
        (listed,) = await answer.json()
    assert listed["state"] == "stopped"
    assert listed["last_end"]["reason"] == "stopped"
    async with program.delete(f"{API}/servers/batch", params={"forget": "true"}) as answer:
        assert answer.status == 204
    async with program.get(f"{API}/servers") as answer:
        assert await answer.json() == []


async def test_token_that_may_only_look_starts_nothing(portal: Portal) -> None:
    program = portal.program(portal.hub.token_of("ana", "custom:portal:use!user=ana"))
    async with program.get(f"{API}/servers") as answer:
        assert answer.status == 200
    async with program.post(f"{API}/servers", json={}) as answer:
        assert answer.status == 409
        assert (await answer.json())["code"] == "server-refused"
    assert portal.hub.people["ana"].servers == {}


async def test_token_without_the_scope_sees_nothing(portal: Portal) -> None:
    program = portal.program(portal.hub.token_of("ana", "custom:vospace:read!user=ana"))
    for path in ("servers", "environments", "tutorials"):
        async with program.get(f"{API}/{path}") as answer:
            assert answer.status == 403


async def test_api_tells_environments_and_tutorials_in_both_languages(portal: Portal) -> None:
    program = portal.program(portal.hub.token_of("ana"))
    async with program.get(f"{API}/environments") as answer:
        (astro,) = await answer.json()
    assert astro["name"] == {"en": "Astronomy", "zh": "天文学"}
    assert astro["software"]["astropy"]
    assert astro["resources"][0]["memory_bytes"] == 2 * 2**30
    async with program.get(f"{API}/tutorials") as answer:
        assert [each["id"] for each in await answer.json()] == ["first-look", "files"]


@pytest.mark.parametrize(
    ("body", "code"),
    [(b"[1]", "bad-request"), (b"{", "bad-request"), (b'{"title": 7}', "bad-request"), (b"\xff", "bad-request")],
)
async def test_bad_bodies_are_refused(portal: Portal, body: bytes, code: str) -> None:
    program = portal.program(portal.hub.token_of("ana"))
    headers = {"Content-Type": "application/json"}
    async with program.post(f"{API}/servers", data=body, headers=headers) as answer:
        assert answer.status == 400
        assert answer.content_type == "application/problem+json"
        assert (await answer.json())["code"] == code


async def test_announcements_by_api(portal: Portal) -> None:
    body = {"severity": "info", "title": {"en": "A", "zh": "甲"}, "text": {"en": "B", "zh": "乙"}}
    admin = portal.program(portal.hub.token_of("root"))
    async with admin.post(f"{API}/announcements", json=body) as answer:
        assert answer.status == 201
        made = await answer.json()
    async with portal.browser().get(f"{API}/announcements") as answer:
        assert await answer.json() == [made]
    async with admin.put(f"{API}/announcements/{made['id']}", json={**body, "severity": "warning"}) as answer:
        assert (await answer.json())["severity"] == "warning"
    async with admin.delete(f"{API}/announcements/{made['id']}") as answer:
        assert answer.status == 204
    async with admin.delete(f"{API}/announcements/{made['id']}") as answer:
        assert answer.status == 404
    async with admin.put(f"{API}/announcements/{made['id']}", json=body) as answer:
        assert answer.status == 404


async def test_only_announcers_announce(portal: Portal) -> None:
    body = {"title": {"en": "A", "zh": "甲"}, "text": {"en": "B", "zh": "乙"}}
    for token in (portal.hub.token_of("ana"), portal.hub.token_of("root", "custom:portal:use")):
        async with portal.program(token).post(f"{API}/announcements", json=body) as answer:
            assert answer.status == 403
    async with portal.browser().post(f"{API}/announcements", json=body) as answer:
        assert answer.status == 401


async def test_problems_follow_the_language(portal: Portal) -> None:
    program = portal.program(portal.hub.token_of("ana"), **{"Accept-Language": "zh"})
    async with program.post(f"{API}/servers", json={"environment": "nope"}) as answer:
        assert answer.status == 404
        assert "没有名为 nope 的环境" in (await answer.json())["detail"]
