"""People and groups, for programs and on the administrator's pages."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

from tests.services.passport.harness import PASSWORD, PREFIX, Browser, Page, Platform, path_of

SCOPE = "custom:people:admin"


@dataclass
class Program:
    """A program with a token of the hub's."""

    platform: Platform
    http: aiohttp.ClientSession

    async def __call__(self, method: str, path: str, document: Any = None, *, token: str = "ada-token") -> Any:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        address = f"{self.platform.base}{PREFIX}/api/{path}"
        async with self.http.request(method, address, json=document, headers=headers) as got:
            return got.status, (await got.json(content_type=None) if got.status != 204 else None)


@pytest.fixture
async def call(platform: Platform) -> AsyncIterator[Program]:
    platform.hub.give_token("ada-token", "ada", scopes=(SCOPE,))
    platform.hub.give_token("ada-plain", "ada")
    platform.hub.give_token("bob-token", "bob", scopes=(SCOPE,))
    platform.hub.give_token("service-token", "backup", kind="service", scopes=(SCOPE,))
    async with aiohttp.ClientSession() as http:
        yield Program(platform, http)


async def test_program_adds_changes_and_removes_a_person(call: Program) -> None:
    assert (await call("POST", "groups", {"name": "stars"}))[0] == 201
    status, eva = await call("POST", "people", {"username": "eva", "groups": ["stars"], "language": "zh"})
    assert status == 201
    assert eva["groups"] == [{"name": "stars", "gid": 400_000}]
    browser = call.platform.new_browser()
    page = await browser.get(path_of(eva["invite"]))
    assert (await browser.fill(page, f"{PREFIX}/link", password=PASSWORD, again=PASSWORD)).status == 303
    assert "invite" not in (await call("GET", "people/eva"))[1]
    status, changed = await call("PATCH", "people/eva", {"admin": True, "groups": [], "display_name": "Eva"})
    assert (status, changed["admin"], changed["groups"], changed["display_name"]) == (200, True, [], "Eva")
    status, changed = await call("PATCH", "people/eva", {"status": "disabled"})
    assert (status, changed["status"]) == (200, "disabled")
    assert (await browser.get(f"{PREFIX}/account")).status == 302
    assert (await call("PATCH", "people/eva", {"status": "active"}))[1]["status"] == "active"
    assert (await call("DELETE", "people/eva"))[0] == 204
    assert (await call("GET", "people/eva"))[0] == 404
    assert (await call("POST", "people", {"username": "eva"}))[1]["code"] == "username-taken"
    assert [p["username"] for p in (await call("GET", "people"))[1]["people"]] == ["ada", "bob"]


async def test_reset_ends_the_old_password_and_sessions(call: Program) -> None:
    browser = call.platform.new_browser()
    await browser.sign_in("bob")
    status, answer = await call("POST", "people/bob/reset")
    assert status == 200
    assert (await browser.get(f"{PREFIX}/account")).status == 302
    assert (await browser.sign_in("bob")).status == 403
    page = await browser.get(path_of(answer["link"]))
    new = "a fresh staple in the sky"
    assert (await browser.fill(page, f"{PREFIX}/link", password=new, again=new)).status == 303
    assert (await browser.get(f"{PREFIX}/account")).status == 200


async def test_groups_have_members_and_their_names_are_not_reused(call: Program) -> None:
    assert (await call("POST", "groups", {"name": "stars"}))[1] == {"name": "stars", "gid": 400_000, "members": []}
    assert (await call("PATCH", "groups/stars", {"members": ["bob", "ada"]}))[1]["members"] == ["ada", "bob"]
    assert (await call("PATCH", "groups/stars", {"members": ["ada"]}))[1]["members"] == ["ada"]
    assert (await call("PATCH", "groups/stars", {"members": ["ghost"]}))[1]["code"] == "person-unknown"
    assert (await call("DELETE", "groups/stars"))[0] == 204
    assert (await call("POST", "groups", {"name": "stars"}))[1]["code"] == "group-taken"
    assert (await call("POST", "groups", {"name": "dust"}))[1]["gid"] == 400_001
    assert [g["name"] for g in (await call("GET", "groups"))[1]["groups"]] == ["dust"]
    assert (await call("DELETE", "groups/ghost"))[1]["code"] == "group-unknown"


@pytest.mark.parametrize(
    ("token", "status"), [("", 401), ("made-up", 401), ("ada-plain", 403), ("bob-token", 403), ("service-token", 200)]
)
async def test_people_are_for_administrators_with_the_scope(call: Program, token: str, status: int) -> None:
    assert (await call("GET", "people", token=token))[0] == status
    assert (await call("GET", "groups", token=token))[0] == status
    if status != 200:
        assert (await call("POST", "people", {"username": "eva"}, token=token))[0] == status
        assert (await call("DELETE", "people/bob", token=token))[0] == status


async def test_who_is_no_administrator_any_more_is_refused_at_once(call: Program) -> None:
    assert (await call("GET", "people", token="ada-token"))[0] == 200
    await asyncio.to_thread(call.platform.directory.add, "eva", admin=True, password=PASSWORD)
    assert (await call("PATCH", "people/ada", {"admin": False}))[0] == 200
    assert (await call("GET", "people"))[0] == 403


async def test_last_administrator_cannot_go(call: Program) -> None:
    for method, document in [("DELETE", None), ("PATCH", {"admin": False}), ("PATCH", {"status": "disabled"})]:
        status, answer = await call(method, "people/ada", document)
        assert (status, answer["code"]) == (409, "last-admin")


UNFIT_PEOPLE = [
    ({}, "bad-request"),
    ([], "bad-request"),
    ({"username": 5}, "bad-request"),
    ({"username": "x" * 5000}, "bad-request"),
    ({"username": "eva", "root": True}, "bad-request"),
    ({"username": "eva", "admin": "yes"}, "bad-request"),
    ({"username": "eva", "language": "fr"}, "bad-request"),
    ({"username": "../eva"}, "username-refused"),
    ({"username": "天文"}, "username-refused"),
    ({"username": "a\x00"}, "username-refused"),
    ({"username": "root"}, "username-reserved"),
    ({"username": "ada"}, "username-taken"),
    ({"username": "eva", "email": "x y@z"}, "email-refused"),
    ({"username": "eva", "groups": ["ghost"]}, "group-unknown"),
]


async def test_unfit_person_is_refused_and_leaves_nothing(call: Program) -> None:
    for document, code in UNFIT_PEOPLE:
        status, answer = await call("POST", "people", document)
        assert 400 <= status < 500
        assert answer["code"] == code
        assert len((await call("GET", "people"))[1]["people"]) == 2


async def test_hostile_names_in_paths_are_not_found(call: Program) -> None:
    for name in ("..%2f..%2fetc", "%00", "%E5%A4%A9", "x" * 3000, "%ff"):
        assert (await call("GET", f"people/{name}"))[0] in {400, 404}


# the administrator's pages


class AdminBrowser(Browser):
    """A browser that is signed in at the passport service through the hub."""

    async def forms_of(self, path: str) -> Page:
        page = await self.get(path)
        assert page.status == 200, page.text
        return page


@pytest.fixture
async def admin(call: Program) -> AdminBrowser:
    """Ada's browser with the cookie that the hub's OAuth ends in."""
    from astrocloud.core.auth import HubLogin
    from astrocloud.core.runtime import Runtime

    platform = call.platform
    runtime = Runtime("127.0.0.1", 1, platform.base, 1, platform.hub.port, 1)
    login = HubLogin(service="passport", runtime=runtime, api_token=platform.secrets.get("service-passport"))
    sealed = login._seal({"token": "ada-token", "csrf": "c" * 32})
    browser = platform.new_browser()
    browser.session.cookie_jar.update_cookies({"astrocloud-passport": sealed})
    return AdminBrowser(browser.base, browser.session)


async def test_administrator_adds_a_person_and_sees_the_link_once(admin: AdminBrowser) -> None:
    page = await admin.forms_of(f"{PREFIX}/people")
    made = await admin.fill(page, f"{PREFIX}/people", username="eva", display_name="Eva", groups="", email="")
    assert made.status == 201
    link = made.text.split('id="new-link">')[1].split("<")[0]
    assert "/services/passport/link?key=" in link
    assert 'id="new-link"' not in (await admin.get(f"{PREFIX}/people")).text
    assert "eva" in (await admin.get(f"{PREFIX}/people")).text


async def test_errors_stand_at_their_fields_and_what_was_typed_stays(admin: AdminBrowser) -> None:
    page = await admin.forms_of(f"{PREFIX}/people")
    wrong = await admin.fill(page, f"{PREFIX}/people", username="Eva!", display_name="Eva <b>", groups="ghost")
    assert wrong.status == 400
    assert 'id="field-username-error"' in wrong.text
    assert 'value="Eva!"' in wrong.text
    assert "Eva &lt;b&gt;" in wrong.text
    wrong = await admin.fill(page, f"{PREFIX}/people", username="eva", groups="ghost")
    assert 'id="field-groups-error"' in wrong.text


async def test_administrator_disables_enables_resets_and_removes(admin: AdminBrowser, platform: Platform) -> None:
    here = f"{PREFIX}/people/bob"
    bob = platform.new_browser()
    await bob.sign_in("bob")
    answer = await admin.fill(await admin.forms_of(here), f"{here}/disable")
    assert answer.location == f"{here}?done=disabled"
    assert (await bob.get(f"{PREFIX}/account")).status == 302
    await admin.fill(await admin.forms_of(here), f"{here}/enable")
    assert platform.directory.get("bob").status == "active"
    reset = await admin.fill(await admin.forms_of(here), f"{here}/reset")
    assert 'id="new-link">' in reset.text
    page = await admin.forms_of(here)
    changed = await admin.fill(page, here, admin="1", display_name="Bob", email="", groups="")
    assert changed.status == 303
    assert platform.directory.get("bob").admin
    await admin.fill(await admin.forms_of(here), f"{here}/disable")
    removed = await admin.fill(await admin.forms_of(here), f"{here}/remove")
    assert removed.location == f"{PREFIX}/people?done=removed"
    assert (await admin.get(here)).status == 404


async def test_last_administrator_is_told_on_the_page(admin: AdminBrowser) -> None:
    here = f"{PREFIX}/people/ada"
    answer = await admin.fill(await admin.forms_of(here), f"{here}/disable")
    assert answer.status == 409
    assert "last active administrator" in answer.text


async def test_administrator_keeps_groups(admin: AdminBrowser, platform: Platform) -> None:
    page = await admin.forms_of(f"{PREFIX}/people")
    assert (await admin.fill(page, f"{PREFIX}/groups", name="Not A Name")).status == 400
    assert (await admin.fill(page, f"{PREFIX}/groups", name="stars")).status == 303
    here = f"{PREFIX}/people/bob"
    await admin.fill(await admin.forms_of(here), here, groups="stars", display_name="", email="")
    assert platform.directory.get("bob").groups == ("stars",)
    page = await admin.forms_of(f"{PREFIX}/people")
    assert (await admin.fill(page, f"{PREFIX}/groups/stars/remove")).status == 303
    assert platform.directory.get("bob").groups == ()


async def test_pages_are_for_administrators(platform: Platform, browser: Browser) -> None:
    page = await browser.get(f"{PREFIX}/people")
    assert page.status == 302
    assert page.location.startswith(f"{PREFIX}/sign-in/hub?")
    # The passport's own session of an administrator is not enough: the hub says who acts.
    await browser.sign_in("ada")
    assert (await browser.get(f"{PREFIX}/people")).status == 302
    assert (await browser.post(f"{PREFIX}/people", {"username": "eva"})).status == 401
    del platform


@pytest.mark.parametrize("path", ["people", "people/bob", "people/bob/disable", "people/bob/remove", "groups"])
async def test_administrators_forms_need_their_token(admin: AdminBrowser, platform: Platform, path: str) -> None:
    answer = await admin.post(f"{PREFIX}/{path}", {"username": "eva", "name": "stars", "_csrf": "wrong"})
    assert answer.status == 403
    assert platform.directory.get("bob").status == "active"


async def test_pages_are_there_in_chinese(admin: AdminBrowser) -> None:
    page = await admin.get(f"{PREFIX}/people", **{"Accept-Language": "zh"})
    assert "添加用户" in page.text
    page = await admin.get(f"{PREFIX}/people/bob", **{"Accept-Language": "zh"})
    assert "停用该账户" in page.text
