"""My files in a browser: looking at folders of any size, and how the page looks."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.browsing import LAB_TIMEOUT_MS
from tests.e2e.cast import needs_root
from tests.e2e.my_files import (
    WITHIN_MS,
    enter,
    row,
    said_in,
    write,
)

pytestmark = needs_root


MANY: Final = 100_000
MOST_ROWS: Final = 80
"""How many rows the page may hold, whatever the folder does."""


def test_folder_of_100000_is_scrolled_to_its_end_with_few_rows_in_the_page(
    open_browser: Callable[..., Page], felt: dict[str, Path]
) -> None:
    home = felt["fiona"]
    write(home, "many/first")
    for number in range(MANY - 1):
        (home / "many" / f"frame{number}.fits").touch()
    subprocess.run(["chown", "-R", "--reference", str(home), str(home / "many")], check=True)
    page = enter(open_browser(), "fiona", "?path=/home/fiona/many")
    expect(page.locator("#fi-total")).to_have_text(said_in("entries", count="100,000"), timeout=WITHIN_MS)
    rows = page.locator(".fi-window .fi-row")
    assert rows.count() <= MOST_ROWS
    page.locator("#fi-grid").focus()
    page.keyboard.press("End")
    expect(row(page, "frame99998.fits")).to_be_visible(timeout=WITHIN_MS)
    assert rows.count() <= MOST_ROWS
    for part in (0.1, 0.9, 0.5):
        page.evaluate(
            "(part) => { const s = document.querySelector('.fi-scroller'); s.scrollTop = part * s.scrollHeight; }", part
        )
        expect(page.locator(".fi-window .fi-there").first).to_be_visible(timeout=WITHIN_MS)
        assert rows.count() <= MOST_ROWS
    expect(page.locator("#fi-grid")).to_have_attribute("aria-rowcount", str(MANY + 1))
    # By its name it is found at once, and all of it can be chosen without being fetched.
    page.locator("#fi-q").fill("frame9999")
    expect(page.locator("#fi-total")).to_have_text(said_in("entries", count="10"), timeout=WITHIN_MS)
    page.locator("#fi-q").fill("")
    expect(page.locator("#fi-total")).to_have_text(said_in("entries", count="100,000"), timeout=WITHIN_MS)
    page.locator("#fi-grid").focus()
    page.keyboard.press("Control+a")
    expect(page.locator("#fi-tools .fi-count")).to_have_text(said_in("selected", count="100,000"))


def test_open_in_jupyterlab_starts_a_server_and_shows_the_folder(
    open_browser: Callable[..., Page], felt: dict[str, Path]
) -> None:
    write(felt["felix"], "lab here/data.txt")
    page = enter(open_browser(), "felix", "?path=/home/felix/lab here")
    page.locator("#fi-tools").get_by_role("link", name=said_in("open-lab")).click()
    page.wait_for_url(re.compile(r"/user/felix/.*lab/tree/home/felix/lab%20here"), timeout=LAB_TIMEOUT_MS)
    expect(page.locator(".jp-DirListing-item", has_text="data.txt")).to_be_visible(timeout=LAB_TIMEOUT_MS)


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_page_is_whole_in_every_width(
    open_browser: Callable[..., Page], felt: dict[str, Path], language: str, dark: bool
) -> None:
    write(
        felt["felix"], "a very long name that goes on and on, as names of observations do, until nobody reads it.fits"
    )
    page = open_browser(language, dark=dark)
    wrong: list[str] = []
    page.on("console", lambda m: wrong.append(m.text) if m.type in {"error", "warning"} else None)
    enter(page, "felix")
    for width in (1440, 900, 360):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        expect(page.locator(".fi-window .fi-there").first).to_be_visible(timeout=WITHIN_MS)
    unnamed = page.evaluate(
        "[...document.querySelectorAll('button, a, input, select')].filter(e => !(e.innerText?.trim() || "
        "e.getAttribute('aria-label') || e.labels?.length || e.title || e.type === 'hidden' || e.hidden))"
        ".map(e => e.outerHTML)"
    )
    assert unnamed == []
    assert wrong == []
