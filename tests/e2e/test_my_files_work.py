"""My files in a browser: renaming, copying, moving, downloading, deleting and bringing back."""

import re
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from playwright.sync_api import Download, Page, expect

from tests.e2e.cast import needs_root
from tests.e2e.my_files import (
    WITHIN_MS,
    enter,
    go,
    pick,
    row,
    said_in,
    tool,
    write,
)

pytestmark = needs_root


def test_keyboard_alone_makes_renames_deletes_and_brings_back(
    open_browser: Callable[..., Page], felt: dict[str, Path]
) -> None:
    home = felt["fiona"]
    for name in ("a.txt", "b.txt", "c.txt"):
        write(home, f"keys/{name}", name.encode())
    page = enter(open_browser(), "fiona", "?path=/home/fiona/keys")
    grid = page.locator("#fi-grid")
    grid.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("F2")
    field = page.locator("dialog input[type=text]")
    expect(field).to_be_focused()
    field.fill("d/e")
    page.keyboard.press("Enter")
    expect(page.locator("dialog [role=alert]")).to_contain_text("no slash")
    field.fill("renamed.txt")
    page.keyboard.press("Enter")
    expect(row(page, "renamed.txt")).to_be_visible(timeout=WITHIN_MS)
    grid.focus()
    page.keyboard.press("Home")
    page.keyboard.press("Shift+ArrowDown")
    expect(page.locator(".fi-window [aria-selected=true]")).to_have_count(2)
    page.keyboard.press("Delete")
    expect(page.locator(".fi-window .fi-there")).to_have_count(1, timeout=WITHIN_MS)
    assert sorted(path.name for path in (home / "keys").iterdir()) == ["renamed.txt"]
    page.get_by_role("button", name=said_in("undo")).click()
    expect(page.locator(".fi-window .fi-there")).to_have_count(3, timeout=WITHIN_MS)


def test_what_is_in_the_trash_is_restored_or_gone_for_good(
    open_browser: Callable[..., Page], felt: dict[str, Path]
) -> None:
    home = felt["fiona"]
    for name in ("one.txt", "two.txt"):
        write(home, f"old/{name}", name.encode())
    page = enter(open_browser(), "fiona", "?path=/home/fiona/old")
    pick(page, "one.txt", "two.txt")
    tool(page, "delete")
    expect(row(page, "one.txt")).to_have_count(0, timeout=WITHIN_MS)
    page.locator("#fi-places").get_by_role("link", name=said_in("place-trash")).click()
    expect(row(page, "one.txt")).to_contain_text("/home/fiona/old", timeout=WITHIN_MS)
    # How long it is kept is said, for all and for each.
    expect(page.locator("#fi-notes")).to_contain_text(said_in("trash-note", days=30))
    ends = [datetime.now(UTC) + timedelta(days=30, minutes=minutes) for minutes in (-10, 0)]  # midnight may be between
    until = "|".join(f"{end:%b} {end.day}, {end.year}" for end in ends)
    expect(row(page, "one.txt")).to_contain_text(re.compile(f"until ({until})"))
    pick(page, "one.txt")
    tool(page, "restore")
    expect(row(page, "one.txt")).to_have_count(0, timeout=WITHIN_MS)
    assert (home / "old/one.txt").read_bytes() == b"one.txt"
    tool(page, "empty-it")
    page.locator("dialog").get_by_role("button", name=said_in("empty-it")).click()
    expect(page.locator(".fi-empty")).to_contain_text(said_in("empty-trash"), timeout=WITHIN_MS)
    assert list((home / ".trash").iterdir()) == []


def test_copying_asks_where_names_are_taken(open_browser: Callable[..., Page], felt: dict[str, Path]) -> None:
    home = felt["fiona"]
    write(home, "from/same.txt", b"new")
    write(home, "from/other.txt", b"other")
    write(home, "from/into/same.txt", b"old")
    page = enter(open_browser(), "fiona", "?path=/home/fiona/from")
    pick(page, "same.txt", "other.txt")
    tool(page, "copy")
    dialog = page.locator("dialog")
    dialog.locator(".fi-tree").get_by_role("button", name="into").click()
    expect(dialog.locator("p", has_text="/home/fiona/from/into")).to_be_visible(timeout=WITHIN_MS)
    dialog.get_by_role("button", name=said_in("copy-here")).click()
    expect(dialog).to_contain_text("same.txt", timeout=WITHIN_MS)
    dialog.get_by_role("button", name=said_in("conflict-go")).click()
    expect(page.locator("dialog")).to_have_count(0)
    expect(page.locator("#fi-live, #ac-live").first).to_contain_text(said_in("done-copy", count="2"), timeout=WITHIN_MS)
    there = {path.name: path.read_bytes() for path in (home / "from/into").iterdir()}
    assert there == {"same.txt": b"old", "same (2).txt": b"new", "other.txt": b"other"}


def test_things_are_moved_by_asking_and_by_dragging(open_browser: Callable[..., Page], felt: dict[str, Path]) -> None:
    home = felt["fiona"]
    write(home, "moving/into/a-here")
    # The name that is taken is far behind what a page loads of itself.
    for number in range(5200):
        write(home, f"moving/f{number}")
    write(home, "moving/into/f5100", b"old")
    page = enter(open_browser(), "fiona", "?path=/home/fiona/moving")
    page.locator("#fi-grid").focus()
    page.keyboard.press("Control+a")
    row(page, "into").locator("input[type=checkbox]").click()
    tool(page, "move")
    dialog = page.locator("dialog")
    dialog.locator(".fi-tree").get_by_role("button", name="into").click()
    expect(dialog.locator("p", has_text="/home/fiona/moving/into")).to_be_visible(timeout=WITHIN_MS)
    dialog.get_by_role("button", name=said_in("move-here")).click()
    expect(dialog).to_contain_text("f5100", timeout=WITHIN_MS)
    dialog.get_by_text(said_in("conflict-replace")).click()
    dialog.get_by_role("button", name=said_in("conflict-go")).click()
    expect(page.locator("#fi-total")).to_have_text(said_in("entries-one"), timeout=2 * WITHIN_MS)
    assert ((home / "moving/into/f5100").read_bytes(), len(list((home / "moving/into").iterdir()))) == (b"x", 5201)
    # Onto a folder, and onto the way up.
    go(page, "/home/fiona/moving/into")
    row(page, "a-here").drag_to(page.locator("#fi-crumbs").get_by_role("link", name="moving"))
    expect(row(page, "a-here")).to_have_count(0, timeout=WITHIN_MS)
    assert (home / "moving/a-here").exists()
    go(page, "/home/fiona/moving")
    row(page, "a-here").drag_to(row(page, "into"))
    expect(row(page, "a-here")).to_have_count(0, timeout=WITHIN_MS)
    assert (home / "moving/into/a-here").exists()


def names_in(download: Download) -> list[str]:
    with zipfile.ZipFile(download.path()) as archive:
        return sorted(name for name in archive.namelist() if not name.endswith("/"))


def test_just_what_is_picked_is_downloaded(open_browser: Callable[..., Page], felt: dict[str, Path]) -> None:
    home = felt["fiona"]
    for number in range(1300):
        write(home, f"fetch/f{number:04}", str(number).encode())
    write(home, "fetch/sub/f0007", b"below")
    page = enter(open_browser(), "fiona", "?path=/home/fiona/fetch")
    pick(page, "f0001")
    with page.expect_download() as one:
        tool(page, "download")
    assert (one.value.suggested_filename, Path(one.value.path()).read_bytes()) == ("f0001", b"1")
    # All but one, of which most were never in the page.
    page.locator("#fi-grid").focus()
    page.keyboard.press("Control+a")
    row(page, "f0001").locator("input[type=checkbox]").click()
    with page.expect_download() as many:
        tool(page, "download-zip")
    assert names_in(many.value) == [f"fetch/f{n:04}" for n in range(1300) if n != 1] + ["fetch/sub/f0007"]
    # All that a filter shows, and all that a search found.
    page.locator("#fi-q").fill("7")
    expect(page.locator("#fi-total")).to_have_text(re.compile(r"^3\d\d "), timeout=WITHIN_MS)
    page.locator("#fi-q").fill("000")
    expect(page.locator("#fi-total")).to_have_text(said_in("entries", count="11"), timeout=WITHIN_MS)
    page.locator("#fi-grid").focus()
    page.keyboard.press("Control+a")
    with page.expect_download() as filtered:
        tool(page, "download-zip")
    assert names_in(filtered.value) == [f"fetch/f{n:04}" for n in range(10)] + ["fetch/f1000"]
    page.get_by_label(said_in("search-below")).check()
    page.locator("#fi-q").fill("f0007")
    expect(page.locator("#fi-total")).to_have_text(said_in("entries", count="2"), timeout=WITHIN_MS)
    page.locator("#fi-grid").focus()
    page.keyboard.press("Control+a")
    with page.expect_download() as searched:
        tool(page, "download-zip")
    assert names_in(searched.value) == ["fetch/f0007", "fetch/sub/f0007"]
