"""What the hub asks of the passport, and what the passport ends at the hub."""

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from astrocloud.config import Config, parse_config
from tests.services.passport.harness import PASSWORD, PREFIX, Platform, run_platform, until

ISSUER = "https://id.example/realm"


async def ask(platform: Platform, method: str, path: str, *, secret: str | None = None, **more: Any) -> tuple[int, Any]:
    given = platform.secrets.get("internal").get_secret_value() if secret is None else secret
    headers = {"Authorization": f"Bearer {given}"}
    address = f"{platform.base}{PREFIX}/api/internal/{path}"
    async with aiohttp.ClientSession() as http, http.request(method, address, headers=headers, **more) as got:
        return got.status, await got.json(content_type=None)


async def enter(platform: Platform, subject: str, issuer: str = ISSUER, **claims: Any) -> tuple[int, Any]:
    return await ask(platform, "POST", "sign-in", json={"issuer": issuer, "subject": subject, "claims": claims})


def external(**more: Any) -> Config:
    passport = {"kind": "oidc", "issuer": ISSUER, "client_id": "x", "client_secret": {"env": "NONE"}, **more}
    return parse_config({"passport": passport}, source="test")


# what the hub asks


async def test_person_of_the_embedded_passport_enters(platform: Platform) -> None:
    status, found = await enter(platform, "ada", platform.issuer)
    assert status == 200
    wanted = {"username": "ada", "uid": 200_000, "gid": 200_000, "groups": [], "admin": True, "status": "active"}
    assert wanted.items() <= found.items()
    assert found["sessions_valid_after"] == 0


async def test_disabled_and_unknown_people_do_not_enter(platform: Platform) -> None:
    await asyncio.to_thread(platform.directory.disable, "bob")
    for subject in ("bob", "ghost", "../ada", "Ada"):
        status, found = await enter(platform, subject, platform.issuer)
        assert (status, found["code"]) == (403, "account-disabled")


async def test_strangers_with_a_foreign_issuer_do_not_enter_the_embedded_passport(platform: Platform) -> None:
    status, found = await enter(platform, "ada")
    assert (status, found["code"]) == (403, "sign-up-closed")


@pytest.mark.parametrize("secret", ["", "wrong", "x" * 5000])
async def test_internal_api_needs_its_secret(platform: Platform, secret: str) -> None:
    assert (await ask(platform, "GET", "people/ada", secret=secret))[0] == 401
    assert (await ask(platform, "POST", "sign-in", secret=secret, json={}))[0] == 401


async def test_state_of_a_person_is_told_after_removal_too(platform: Platform) -> None:
    assert (await ask(platform, "GET", "people/bob"))[1]["status"] == "active"
    await asyncio.to_thread(platform.directory.disable, "bob")
    assert (await ask(platform, "GET", "people/bob"))[1]["status"] == "disabled"
    await asyncio.to_thread(platform.directory.remove, "bob")
    found = (await ask(platform, "GET", "people/bob"))[1]
    assert (found["status"], found["email"], found["admin"]) == ("removed", "", False)
    status, found = await ask(platform, "GET", "people/ghost")
    assert (status, found["code"]) == (404, "person-unknown")


async def test_sessions_from_before_a_new_password_are_over(platform: Platform) -> None:
    browser = platform.new_browser()
    await browser.sign_in("bob")
    page = await browser.get(f"{PREFIX}/account")
    new = "a fresh staple in the sky"
    await browser.fill(page, f"{PREFIX}/account/password", old=PASSWORD, password=new, again=new)
    after = (await ask(platform, "GET", "people/bob"))[1]["sessions_valid_after"]
    assert platform.clock().timestamp() <= after <= platform.clock().timestamp() + 1


@pytest.mark.parametrize(
    "document",
    [
        {},
        [],
        {"issuer": "x"},
        {"issuer": "", "subject": "x"},
        {"issuer": "x", "subject": 5},
        {"issuer": "x", "subject": "y" * 300},
        {"issuer": "x", "subject": "y", "more": 1},
    ],
)
async def test_damaged_sign_in_is_refused(platform: Platform, document: Any) -> None:
    status, found = await ask(platform, "POST", "sign-in", json=document)
    assert (status, found["code"]) == (400, "bad-request")


# other passports


async def test_first_sign_in_gives_a_name_that_stays(tmp_path: Path) -> None:
    async with run_platform(tmp_path / "data", external(sign_up="open", admins=["7"])) as platform:
        _, first = await enter(platform, "7", preferred_username="Li.Wei", name="李伟", email="li@cstnet.cn")
        assert (first["username"], first["display_name"], first["admin"]) == ("li-wei", "李伟", True)
        _, again = await enter(platform, "7", preferred_username="other", email="not an address")
        assert (again["username"], again["email"]) == ("li-wei", "li@cstnet.cn")
        _, second = await enter(platform, "8", preferred_username="li.wei", email="li@cstnet.cn")
        assert (second["username"], second["admin"], second["uid"]) == ("li-wei-2", False, first["uid"] + 1)
        _, other_issuer = await enter(platform, "7", "https://other.example", name="王芳")
        assert other_issuer["username"] == "u1"


async def test_many_first_sign_ins_at_once_get_one_account_each(tmp_path: Path) -> None:
    async with run_platform(tmp_path / "data", external(sign_up="open")) as platform:
        found = await asyncio.gather(*(enter(platform, str(n % 4), name="Same Name") for n in range(12)))
        assert {status for status, _ in found} == {200}
        assert len({document["uid"] for _, document in found}) == 4
        assert len({document["username"] for _, document in found}) == 4


async def test_only_invited_people_enter_where_it_is_closed(tmp_path: Path) -> None:
    async with run_platform(tmp_path / "data", external(sign_up="invited", admins=["1"])) as platform:
        status, found = await enter(platform, "9", name="Eva")
        assert (status, found["code"]) == (403, "sign-up-closed")
        assert "9" in found["detail"]
        await asyncio.to_thread(platform.directory.add, "eva", subject="9")
        assert (await enter(platform, "9"))[1]["username"] == "eva"
        assert (await enter(platform, "9", ISSUER + "/"))[1]["username"] == "eva"
        assert (await enter(platform, "1", name="First Admin"))[1]["admin"] is True
        await asyncio.to_thread(platform.directory.remove, "eva")
        assert (await enter(platform, "9"))[1]["code"] == "account-disabled"


async def test_external_passport_has_no_pages_of_ours(tmp_path: Path) -> None:
    async with run_platform(tmp_path / "data", external()) as platform:
        browser = platform.new_browser()
        for path in ("sign-in", "account", "register", "link?key=x"):
            page = await browser.get(f"{PREFIX}/{path}")
            assert page.status == 404, path
            assert "another passport" in page.text
        assert (await browser.get(f"{PREFIX}/authorize")).status == 404


# what is ended at the hub


async def test_disabled_person_loses_servers_and_tokens(platform: Platform) -> None:
    platform.hub.add("bob", servers=("", "second"), tokens={"a1": None, "a2": "session"})
    platform.hub.slow_stops = 3
    await asyncio.to_thread(platform.directory.disable, "bob")
    await until(lambda: not platform.hub.users["bob"]["servers"] and not platform.hub.users["bob"]["tokens"])


async def test_hub_that_is_away_is_asked_again(platform: Platform) -> None:
    platform.hub.add("bob", servers=("",), tokens={"a1": None})
    platform.hub.away = True
    await asyncio.to_thread(platform.directory.disable, "bob")
    await until(lambda: platform.hub.asked_in_vain)
    platform.hub.away = False
    await until(lambda: not platform.hub.users["bob"]["servers"] and not platform.hub.users["bob"]["tokens"])


async def test_removed_person_is_removed_at_the_hub(platform: Platform) -> None:
    platform.hub.add("bob", servers=("",))
    await asyncio.to_thread(platform.directory.remove, "bob")
    await until(lambda: "bob" not in platform.hub.users)


async def test_new_password_ends_what_browsers_hold_and_nothing_else(platform: Platform) -> None:
    platform.hub.add("bob", servers=("",), tokens={"program": None, "server": None, "portal": "session"})
    browser = platform.new_browser()
    await browser.sign_in("bob")
    page = await browser.get(f"{PREFIX}/account")
    new = "a fresh staple in the sky"
    await browser.fill(page, f"{PREFIX}/account/password", old=PASSWORD, password=new, again=new)
    await until(lambda: set(platform.hub.users["bob"]["tokens"]) == {"program", "server"})
    assert platform.hub.users["bob"]["servers"]
