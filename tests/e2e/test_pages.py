"""Every page that people see, in both languages and appearances, wide and narrow; and what they do between pages."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import pytest
from playwright.sync_api import ConsoleMessage, Page, expect

from astrocloud.core import words
from tests.e2e.browsing import choose_password, fill_sign_in, said, sign_in
from tests.support.platform import Platform

PASSWORD: Final = "wide-nebula-1054"
WIDTHS: Final = (1440, 360)
WITHIN_MS: Final = 30_000

PUBLIC: Final = {
    "/": 200,
    "/services/passport/sign-in": 200,
    "/services/passport/link?key=used": 410,
    "/services/portal/sign-out": 200,
    "/nowhere": 404,
    "/hub/nowhere": 404,
}
"""What everybody may open, and the status of the answer."""

OWN: Final = {
    "/": 200,
    "/services/portal/home": 200,
    "/services/passport/account": 200,
    "/hub/token": 200,
    "/user/paula/": 424,
    "/services/portal/admin/servers": 200,
    "/services/portal/admin/announcements": 200,
    "/services/portal/admin/events": 200,
    "/services/passport/people": 200,
    "/services/passport/people/paula": 200,
    "/services/passport/people/nobody": 404,
}
"""What an administrator may open besides."""


@dataclass
class Looked:
    """What was wrong with the pages that one browser showed."""

    page: Page
    language: str
    wrong: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.wrong.append(f"{self.page.url}: {error}"))

    def _console(self, message: ConsoleMessage) -> None:
        # The browser also complains of the status of the page itself, which is looked at anyway.
        if message.type in {"error", "warning"} and message.location.get("url") != self.page.url:
            self.wrong.append(f"{self.page.url}: {message.text}")

    def look(self, path: str, status: int, *, heading: str = "h1") -> None:
        """Open `path` and look at it in every width."""
        answer = self.page.goto(path)
        assert answer is not None
        if answer.status != status:
            self.wrong.append(f"{path}: status {answer.status} instead of {status}")
        expect(self.page.locator(heading).locator("visible=true")).to_have_count(1, timeout=WITHIN_MS)
        language = self.page.evaluate("document.documentElement.lang")
        if language != words.HTML_LANGUAGE[self.language]:
            self.wrong.append(f"{path}: language {language}")
        # A script that comes by two addresses runs twice, and asks twice.
        scripts = self.page.evaluate("performance.getEntriesByType('resource').map((each) => each.name.split('?')[0])")
        twice = {each for each in scripts if each.endswith(".js") and scripts.count(each) > 1}
        if twice:
            self.wrong.append(f"{path}: loaded twice: {twice}")
        for width in WIDTHS:
            self.page.set_viewport_size({"width": width, "height": 900})
            wide = self.page.evaluate("document.documentElement.scrollWidth")
            if wide > width:
                self.wrong.append(f"{path}: {wide} wide in a window of {width}")


@pytest.fixture(scope="session")
def paula(platform: Platform) -> str:
    """An administrator."""
    platform.add("paula", PASSWORD, "--admin")
    return "paula"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_page_is_whole_in_both_languages_and_appearances(
    open_browser: Callable[..., Page], paula: str, language: str, dark: bool
) -> None:
    page = open_browser(language, dark=dark)
    looked = Looked(page, language)
    for path, status in PUBLIC.items():
        looked.look(path, status)
    page.set_viewport_size({"width": WIDTHS[0], "height": 900})
    sign_in(page, paula, PASSWORD, language=language)
    for path, status in OWN.items():
        looked.look(path, status)
    assert looked.wrong == []


def test_a_new_token_stands_in_the_list_at_once_and_a_revoked_one_no_more(
    open_browser: Callable[..., Page], paula: str
) -> None:
    page = open_browser()
    sign_in(page, paula, PASSWORD)
    page.goto("/hub/token")
    page.locator("#token-note").fill("telescope control")
    page.get_by_role("button", name=said("hub.token-make", "en")).click()
    expect(page.locator("#token-result")).to_be_focused(timeout=WITHIN_MS)
    row = page.get_by_role("row", name="telescope control")
    expect(row).to_be_visible(timeout=WITHIN_MS)
    expect(page.locator("#token-result")).not_to_be_empty()
    page.on("dialog", lambda dialog: dialog.accept())
    row.get_by_role("button").click()
    expect(row).to_have_count(0, timeout=WITHIN_MS)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_why_a_token_was_not_made_is_said_in_the_persons_language(
    open_browser: Callable[..., Page], paula: str, language: str
) -> None:
    page = open_browser(language)
    sign_in(page, paula, PASSWORD, language=language)
    page.goto("/hub/token")
    told: list[str] = []
    page.on("dialog", lambda dialog: (told.append(dialog.message), dialog.accept()))
    page.locator("#token-scopes").fill("no-such-scope")
    with page.expect_event("dialog"):
        page.get_by_role("button", name=said("hub.token-make", language)).click()
    assert told == [said("hub.failed", language, reason=said("hub.token-failed-scopes", language))]


def test_who_starts_at_localhost_is_signed_in_as_well(
    open_browser: Callable[..., Page], platform: Platform, paula: str
) -> None:
    page = open_browser()
    page.goto(platform.url.replace("127.0.0.1", "localhost") + "/services/portal/home")
    fill_sign_in(page, paula, PASSWORD)
    expect(page.get_by_role("heading", name=said("portal.welcome", "en", user=paula))).to_be_visible(timeout=WITHIN_MS)
    assert page.url.startswith(platform.url)


def test_an_invite_leads_to_ones_own_front_page_and_the_account_page_back_out(
    open_browser: Callable[..., Page], platform: Platform
) -> None:
    page = open_browser("zh")
    choose_password(page, platform.run_json("user", "add", "quentin")["invite"], PASSWORD)
    expect(page.get_by_role("heading", name=said("portal.welcome", "zh", user="quentin"))).to_be_visible(
        timeout=WITHIN_MS
    )
    page.goto("/services/passport/account")
    page.get_by_role("button", name=said("common.sign-out", "zh"), exact=True).click()
    page.wait_for_url(re.compile(r"/$"))
    expect(page.locator("#hero-title")).to_be_visible(timeout=WITHIN_MS)


def test_a_form_that_comes_back_has_the_focus_where_something_is_wrong(
    open_browser: Callable[..., Page], platform: Platform
) -> None:
    page = open_browser()
    page.goto(platform.run_json("user", "add", "rosa")["invite"])
    page.locator("input[name=password]").fill(PASSWORD)
    page.locator("input[name=again]").fill("something else")
    page.locator("input[name=again]").press("Enter")
    expect(page.locator("input[name=again]")).to_be_focused(timeout=WITHIN_MS)
    expect(page.locator("input[name=again]")).to_have_attribute("aria-invalid", "true")
