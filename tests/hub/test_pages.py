"""The hub's pages and API speak the person's language, and let nothing in from elsewhere."""

import json
from collections.abc import Callable
from urllib.parse import urlencode

import pytest

from tests.hub.harness import Browser, Platform, until


@pytest.fixture(scope="module")
def ada(platform: Platform) -> Browser:
    return platform.sign_in("ada")


def test_what_is_where_behind_the_proxy(platform: Platform, ada: Browser) -> None:
    assert ada.open("/").text == "services: /"
    assert ada.open("/anything").text == "services: /anything"
    assert ada.open("/services/portal/x").text == "services: /services/portal/x"
    assert ada.open("/services/passport/x").text == "services: /services/passport/x"
    assert ada.open("/hub/", follow=False).headers["Location"] == "/"
    # A server that does not run is the hub's to answer for.
    assert ada.open("/user/ada/lab").status == 424


def test_pages_have_the_language_that_the_browser_or_the_person_asks_for(platform: Platform) -> None:
    for language, cookie, html in (("en", None, "en"), ("zh-CN,en;q=0.5", None, "zh-CN"), ("en", "zh", "zh-CN")):
        browser = Browser(platform.url, language=language)
        if cookie:
            browser.jar[("astrocloud-lang", "/")] = cookie
        answer = browser.open("/hub/nothing-here")
        assert answer.status == 404
        assert f'<html lang="{html}"' in answer.text


@pytest.mark.parametrize("path", ["/hub/token", "/hub/home", "/hub/spawn-pending/ada", "/hub/nothing", "/user/ada/"])
def test_every_page_renders_without_scripts_of_its_own(platform: Platform, ada: Browser, path: str) -> None:
    answer = ada.open(path)
    assert answer.status in {200, 404, 424}, answer.text
    policy = answer.headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in policy
    assert "unsafe-inline" not in policy
    assert "<script>" not in answer.text
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["X-Request-ID"]


def test_the_administrators_page_is_the_platforms_own(platform: Platform, ada: Browser) -> None:
    for browser in (ada, platform.sign_in("chief"), Browser(platform.url)):
        answer = browser.open("/hub/admin", follow=False)
        assert (answer.status, answer.headers["Location"]) == (302, "/services/portal/admin")


def test_another_name_of_this_machine_leads_to_the_platforms_address(platform: Platform, ada: Browser) -> None:
    port = platform.url.rpartition(":")[2]
    page = {"Accept": "text/html", "Host": f"localhost:{port}"}
    answer = ada.open("/hub/token?a=1", follow=False, headers=page)
    assert (answer.status, answer.headers["Location"]) == (302, f"{platform.url}/hub/token?a=1")
    for headers in ({**page, "Accept": "application/json"}, {**page, "Host": "localhost:1"}, {**page, "Host": "x"}):
        assert "Location" not in ada.open("/hub/nothing", follow=False, headers=headers).headers


def test_no_other_origin_may_read_or_write(platform: Platform, ada: Browser) -> None:
    answer = ada.open("/hub/api/user", headers={"Origin": "https://evil.example"})
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert not answer.headers["Access-Control-Allow-Headers"]
    for headers in ({}, {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}):
        answer = ada.open("/hub/api/users/ada/server", method="POST", data=b"{}", headers=headers)
        assert answer.status == 403, answer.text
    assert ada.open("/hub/spawn/ada", method="POST", data=b"environment=stub").status == 403


def test_an_error_of_the_api_is_a_problem_document_in_the_language_asked_for(platform: Platform) -> None:
    body = {"user_options": {"environment": "moon"}}
    platform.sign_in("ada")
    for language, words in (("en", "moon"), ("zh", "moon")):
        answer = platform.api("POST", "/users/ada/server", body=body, language=language)
        document = answer.json()
        assert document["code"] == "environment-unknown"
        assert document["message"] == document["detail"]
        assert words in document["detail"]
    english = platform.api("POST", "/users/ada/server", body=body, language="en").json()["detail"]
    assert english != platform.api("POST", "/users/ada/server", body=body, language="zh").json()["detail"]


def test_the_progress_of_a_start_shows_its_stages_in_both_languages(start_platform: Callable[..., Platform]) -> None:
    platform = start_platform()
    platform.sign_in("ada")
    home = platform.data.tree / "home" / "ada"
    platform.start_server("ada")
    platform.stop_server("ada")
    (home / "stub.json").write_text('{"sleep": 3}')
    platform.api("POST", "/users/ada/server", body={})
    told = {language: platform.api("GET", "/users/ada/server/progress", language=language) for language in ("en", "zh")}
    events = {
        language: [
            json.loads(line.removeprefix("data: ")) for line in answer.text.splitlines() if line.startswith("data:")
        ]
        for language, answer in told.items()
    }
    stages = [event["stage"] for event in events["en"] if "stage" in event]
    assert stages == [
        stage for stage in ("checking", "environment", "folders", "starting", "waiting", "ready") if stage in stages
    ]
    assert {"environment", "waiting", "ready"} <= set(stages)
    percents = [event["progress"] for event in events["en"]]
    assert percents == sorted(percents)
    assert events["en"][-1]["ready"]
    until(lambda: platform.server("ada").get("ready"))
    platform.stop_server("ada")


def test_a_failed_start_tells_code_and_reason_in_the_progress(platform: Platform) -> None:
    platform.sign_in("ada")
    if platform.server("ada").get("ready"):
        platform.stop_server("ada")
    home = platform.data.tree / "home" / "ada"
    platform.start_server("ada")
    platform.stop_server("ada")
    (home / "stub.json").write_text('{"sleep": 2, "exit": 3, "words": "a broken file"}')
    try:
        platform.api("POST", "/users/ada/server", body={})
        answer = platform.api("GET", "/users/ada/server/progress", language="zh")
        last = json.loads(
            [line for line in answer.text.splitlines() if line.startswith("data:")][-1].removeprefix("data: ")
        )
        assert (last["failed"], last["code"]) == (True, "server-exited")
        assert "退出码 3" in last["message"]
        assert "a broken file" in last["message"]
    finally:
        (home / "stub.json").unlink()


def test_hostile_names_are_refused_and_not_echoed(platform: Platform, ada: Browser) -> None:
    for name in ("a" * 5000, "%00", "%2e%2e%2f", "%3Cscript%3E", "\u0430da"):
        answer = ada.open(f"/hub/spawn/{urlencode({'': name})[1:]}")
        assert 400 <= answer.status < 500, (name, answer.status)
        assert "<script>" not in answer.text


@pytest.mark.parametrize("name", ["..", "a/b", "A", "x" * 300, "a b", "-a", "é"])
def test_a_server_with_a_hostile_name_is_refused(platform: Platform, name: str) -> None:
    from urllib.parse import quote

    platform.sign_in("ada")
    answer = platform.api("POST", f"/users/ada/servers/{quote(name, safe='')}", body={})
    assert 400 <= answer.status < 500, answer.text
