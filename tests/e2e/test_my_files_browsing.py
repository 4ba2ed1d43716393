"""My files in a browser: looking at folders of any size, and how the page looks."""

import os
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
    go,
    row,
    said_in,
    tool,
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
    page = enter(open_browser(), "fiona")
    computed = page.context.new_cdp_session(page)
    computed.send("Performance.enable", {"timeDomain": "threadTicks"})
    go(page, "/home/fiona/many")
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
    # What the page's own thread computed for all this, whatever else the machine does: a person sees no pause.
    spent = {each["name"]: each["value"] for each in computed.send("Performance.getMetrics")["metrics"]}
    assert spent["TaskDuration"] < 5, spent


def test_folder_is_sorted_searched_and_left_by_what_is_clicked(
    open_browser: Callable[..., Page], felt: dict[str, Path]
) -> None:
    home = felt["fiona"]
    for name, length in (("b.txt", 5), ("a.txt", 50), ("c.dat", 500), ("in/deep/a-deeper.txt", 5000)):
        write(home, f"walk/{name}", b"x" * length)
    page = enter(open_browser(), "fiona", "?path=/home/fiona/walk")
    names = page.locator(".fi-window .fi-there .fi-label")
    expect(names).to_have_text(["in", "a.txt", "b.txt", "c.dat"])
    for column, expected in (
        ("column-size", ["in", "c.dat", "a.txt", "b.txt"]),
        ("column-size", ["in", "b.txt", "a.txt", "c.dat"]),
        ("column-name", ["in", "a.txt", "b.txt", "c.dat"]),
        ("column-name", ["in", "c.dat", "b.txt", "a.txt"]),
    ):
        page.locator(".fi-head").get_by_role("button", name=said_in(column)).click()
        expect(names).to_have_text(expected, timeout=WITHIN_MS)
    # What is below is found, shown in its folder, and left by the way back up.
    page.get_by_label(said_in("search-below")).check()
    page.locator("#fi-q").fill("DEEPER")
    found = row(page, "a-deeper.txt")
    expect(found).to_contain_text("/home/fiona/walk/in/deep", timeout=WITHIN_MS)
    found.locator("input[type=checkbox]").click()
    tool(page, "show-folder")
    expect(page.locator("#fi-crumbs [aria-current=page]")).to_have_text("deep", timeout=WITHIN_MS)
    expect(row(page, "a-deeper.txt")).to_be_visible(timeout=WITHIN_MS)
    page.locator("#fi-crumbs").get_by_role("link", name="walk").click()
    expect(page.locator("#fi-crumbs [aria-current=page]")).to_have_text("walk", timeout=WITHIN_MS)
    # Beside its name a row is chosen by one click, and opened by two.
    row(page, "in").locator(".fi-date").click()
    expect(page.locator("#fi-tools .fi-count")).to_have_text(said_in("selected", count="1"))
    row(page, "in").locator(".fi-date").dblclick()
    expect(row(page, "deep")).to_be_visible(timeout=WITHIN_MS)
    row(page, "deep").locator(".fi-label").click()
    row(page, "a-deeper.txt").locator(".fi-date").dblclick()
    expect(page.locator("#fi-preview").get_by_role("heading", name="a-deeper.txt")).to_be_visible(timeout=WITHIN_MS)
    expect(page.locator("#fi-quota")).to_contain_text(re.compile(r"of 200 GiB used"))


def test_folders_of_any_name_are_gone_into_loaded_again_and_gone_back_to(
    open_browser: Callable[..., Page], felt: dict[str, Path]
) -> None:
    home = felt["fiona"]
    odd = {"�": b"\xff", "%FF": b"%FF", "a&b+c #1?.d;=": b"a&b+c #1?.d;=", "天 50%": "天 50%".encode()}
    for number, name in enumerate(odd.values()):
        write(home, f"odd-names/{os.fsdecode(name)}/inside-{number}")
    page = enter(open_browser(), "fiona", "?path=/home/fiona/odd-names")
    for number, shown in enumerate(odd):
        row(page, shown).locator(".fi-label").click()
        inside = row(page, f"inside-{number}")
        expect(inside).to_be_visible(timeout=WITHIN_MS)
        page.reload()
        expect(inside).to_be_visible(timeout=WITHIN_MS)
        page.locator("#fi-crumbs").get_by_role("link", name="odd-names").click()
        expect(row(page, shown)).to_be_visible(timeout=WITHIN_MS)
        page.go_back()
        expect(inside).to_be_visible(timeout=WITHIN_MS)
        page.go_forward()
        expect(row(page, shown)).to_be_visible(timeout=WITHIN_MS)


def test_click_counts_though_the_rows_are_drawn_anew_meanwhile(
    open_browser: Callable[..., Page], felt: dict[str, Path]
) -> None:
    home = felt["fiona"]
    write(home, "clicked/one.txt")
    page = enter(open_browser(), "fiona", "?path=/home/fiona/clicked")
    box = row(page, "one.txt").locator(".fi-label").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    # As when the list is scrolled, and when a notice takes some of its room.
    page.evaluate(
        """() => new Promise((drawn) => {
          const list = document.querySelector(".fi-scroller");
          list.dispatchEvent(new Event("scroll"));
          list.style.maxHeight = `${list.clientHeight - 60}px`;
          requestAnimationFrame(() => requestAnimationFrame(drawn));
        })"""
    )
    page.mouse.up()
    expect(page.locator("#fi-preview").get_by_role("heading", name="one.txt")).to_be_visible()


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
