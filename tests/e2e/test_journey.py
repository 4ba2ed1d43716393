"""The main job, start to end, as people do it in a browser, in both languages."""

import contextlib
import json
import os
import re
import signal
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import Page, expect

from tests.e2e.browsing import (
    choose_password,
    fill_sign_in,
    notebook,
    open_tutorial,
    run_all,
    said,
    sign_in,
    start_button,
)
from tests.support.platform import Platform, running_platform, wait_until

PASSWORD = "quiet-nebula-72"


def end_servers(platform: Platform, name: str) -> None:
    """Stop what a test started, so that the next one has the machine to itself."""
    wait_until(lambda: platform.run("status").returncode == 0, within_s=60, what="all parts to answer")
    token = platform.run_json("token", name)["token"]
    request = urllib.request.Request(
        f"{platform.url}/hub/api/users/{name}/servers/", method="DELETE", headers={"Authorization": f"token {token}"}
    )
    # 400 and 404: it has ended already.
    with contextlib.suppress(urllib.error.HTTPError):
        urllib.request.urlopen(request, timeout=30).close()


@pytest.mark.parametrize("language", ["en", "zh"])
def test_set_up_link_makes_the_first_administrator_who_invites_a_person(
    tmp_path: Path, chromium: object, language: str
) -> None:
    with running_platform(tmp_path) as fresh:
        link = wait_until(
            lambda: re.search(r"http://\S+/services/passport/link\?key=\S+", fresh.output),
            within_s=10,
            what="set-up link",
        )
        locale = {"en": "en-US", "zh": "zh-CN"}[language]
        context = chromium.new_context(base_url=fresh.url, locale=locale)  # type: ignore[attr-defined]
        page = context.new_page()
        choose_password(page, link[0], PASSWORD, username="ada")
        page.wait_for_load_state("networkidle")
        assert page.locator("input[name=again]").count() == 0, page.inner_text("body")
        sign_in_if_asked(page, "ada", language)
        page.goto("/services/passport/people")
        page.locator("form[action='/services/passport/people'] input[name=username]").fill("ben")
        page.locator("form[action='/services/passport/people'] button").click()
        invite = page.locator("#new-link").inner_text()

        other = chromium.new_context(base_url=fresh.url, locale=locale).new_page()  # type: ignore[attr-defined]
        choose_password(other, invite, PASSWORD)
        other.wait_for_load_state("networkidle")
        sign_in_if_asked(other, "ben", language)
        # The link worked once; a second try says so and changes nothing.
        again = chromium.new_context(base_url=fresh.url, locale=locale).new_page()  # type: ignore[attr-defined]
        answer = again.goto(invite)
        assert answer is not None
        assert 400 <= answer.status < 500


def sign_in_if_asked(page: Page, name: str, language: str) -> None:
    """Reach the front page signed in, whether or not choosing the password has signed in already."""
    page.goto("/services/portal/home")
    page.wait_for_load_state("networkidle")
    if page.locator("input[name=password]").count():
        fill_sign_in(page, name, PASSWORD)
    page.goto("/")
    expect(page.get_by_role("heading", name=said("portal.welcome", language, user=name))).to_be_visible()


@pytest.mark.parametrize("language", ["en", "zh"])
def test_wrong_password_is_said_in_the_persons_language(
    platform: Platform, open_browser: Callable[..., Page], language: str
) -> None:
    name = f"wrong-{language}"
    platform.add(name, PASSWORD)
    page = open_browser(language)
    page.goto("/")
    page.get_by_role("link", name=said("common.sign-in", language)).first.click()
    fill_sign_in(page, name, "not the password")
    expect(page.get_by_role("alert")).to_be_visible()
    assert page.locator("html").get_attribute("lang") == {"en": "en", "zh": "zh-CN"}[language]
    assert page.locator("input[name=password]").input_value() == ""


@pytest.mark.slow
@pytest.mark.parametrize("language", ["en", "zh"])
def test_first_look_runs_to_the_last_cell(platform: Platform, open_browser: Callable[..., Page], language: str) -> None:
    name = f"first-{language}"
    platform.add(name, PASSWORD)
    page = open_browser(language)
    sign_in(page, name, PASSWORD, language=language)
    open_tutorial(page, "first-look", language)
    expect(page.locator(".lm-MenuBar-item").first).to_have_text({"en": "File", "zh": "文件"}[language])
    run_all(page)
    copy = platform.data / f"tree/home/{name}/tutorials/first-look.{language}.ipynb"

    def saved() -> list[nbformat.NotebookNode] | None:
        page.keyboard.press("Control+s")
        try:
            document = json.loads(copy.read_text(encoding="utf-8"))
        except json.JSONDecodeError:  # caught while it is being written
            return None
        cells = [cell for cell in document["cells"] if cell["cell_type"] == "code"]
        return cells if all(cell["execution_count"] for cell in cells) else None

    cells = wait_until(saved, within_s=30, what="the saved notebook with all cells run")
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 2
    end_servers(platform, name)


@pytest.mark.slow
def test_start_stop_and_sign_out_everywhere(platform: Platform, open_browser: Callable[..., Page]) -> None:
    platform.add("stopper", PASSWORD)
    page = open_browser()
    sign_in(page, "stopper", PASSWORD)
    start_button(page).click()
    page.wait_for_url(re.compile(r"/user/stopper/.*lab"), timeout=120_000)
    page.goto("/")
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name=re.compile(said("portal.stop", "en"))).first.click()
    expect(page.get_by_text(said("portal.ended-title", "en"))).to_be_visible()
    page.goto("/services/portal/sign-out")
    page.locator("#content form[action='/services/portal/sign-out'] button").click()
    page.wait_for_load_state("networkidle")
    for address in ("/services/portal/home", "/hub/token", "/services/passport/account"):
        page.goto(address)
        page.wait_for_load_state("networkidle")
        assert page.locator("input[name=password]").count() == 1, f"{address} still lets in: {page.url}"


@pytest.mark.slow
def test_two_people_at_once_reach_nothing_of_each_other(platform: Platform, open_browser: Callable[..., Page]) -> None:
    people = {name: open_browser(language) for name, language in (("jing", "zh"), ("kim", "en"))}
    for name, page in people.items():
        platform.add(name, PASSWORD)
        sign_in(page, name, PASSWORD, language="zh" if name == "jing" else "en")
        start_button(page).click(no_wait_after=True)
    for name, page in people.items():
        page.wait_for_url(re.compile(rf"/user/{name}/.*lab"), timeout=120_000)
    answer = people["kim"].goto("/user/jing/lab")
    assert answer is not None
    assert answer.status in {403, 404}
    assert people["kim"].request.get("/user/jing/api/contents/home/jing").status in {403, 404}
    for name in people:
        end_servers(platform, name)


@pytest.mark.slow
@pytest.mark.parametrize("part", ["hub", "proxy"])
def test_a_cells_result_arrives_though_a_part_is_killed_meanwhile(
    platform: Platform, open_browser: Callable[..., Page], part: str
) -> None:
    name = f"kill-{part}"
    platform.add(name, PASSWORD)
    home = platform.data / f"tree/home/{name}"
    page = open_browser()
    sign_in(page, name, PASSWORD)
    start_button(page).click()
    page.wait_for_url(re.compile(rf"/user/{name}/.*lab"), timeout=120_000)
    book = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell("import time\nfor i in range(80): time.sleep(0.1)\nprint('arrived', 6 * 7)")],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
    )
    target = home / "long.ipynb"
    nbformat.write(book, target)
    os.chown(target, home.stat().st_uid, home.stat().st_gid)
    page.goto(f"/user/{name}/lab/tree/home/{name}/long.ipynb")
    panel = notebook(page)
    panel.locator(".jp-CodeCell .cm-content").first.click()
    page.keyboard.press("Shift+Enter")
    expect(panel.locator(".jp-InputPrompt", has_text="[*]")).to_have_count(1, timeout=30_000)
    before = platform.part(part)
    os.kill(before, signal.SIGKILL)
    expect(panel.locator(".jp-OutputArea-output", has_text="arrived 42")).to_be_visible(timeout=60_000)
    wait_until(lambda: platform.part(part) != before, within_s=30, what=f"the {part} to run again")
    end_servers(platform, name)
