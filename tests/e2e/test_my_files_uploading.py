"""My files in a browser: uploading, with what goes wrong on the way."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, Route, expect

from tests.e2e.cast import needs_root
from tests.e2e.my_files import (
    DROP,
    WITHIN_MS,
    choose_upload,
    drop_from_disk,
    enter,
    pick,
    row,
    said_in,
    slow,
    task,
    tool,
    wait_for_part,
    write,
)
from tests.support.platform import Platform

pytestmark = needs_root


def test_upload_is_paused_resumed_and_outlives_a_lost_connection(
    open_browser: Callable[..., Page], platform: Platform, felt: dict[str, Path], tmp_path: Path
) -> None:
    home = felt["fiona"]
    write(home, "up/here")
    big = tmp_path / "big.dat"
    big.write_bytes(os.urandom(8_000_000))
    page = enter(open_browser(), "fiona", "?path=/home/fiona/up")
    offsets: list[int] = []
    page.on(
        "request", lambda r: offsets.append(int(r.headers.get("upload-offset", 0))) if r.method == "PATCH" else None
    )
    slow(page, 1_000_000)
    choose_upload(page, [big])
    wait_for_part(page, 0.05)
    task(page, "big.dat").get_by_role("button", name=said_in("pause")).click()
    expect(task(page, "big.dat")).to_contain_text("Paused at")
    # Nobody sees half a file.
    assert not (home / "up/big.dat").exists()
    task(page, "big.dat").get_by_role("button", name=said_in("resume")).click()
    wait_for_part(page, 0.2)
    # What had come before the pause is not sent again.
    assert offsets[0] == 0 < offsets[1]
    # The way to the platform breaks in the middle of the request, and comes back.
    os.kill(platform.part("proxy"), signal.SIGKILL)
    expect(task(page, "big.dat")).to_contain_text("Connection lost", timeout=WITHIN_MS)
    expect(row(page, "big.dat")).to_be_visible(timeout=60_000)
    assert (home / "up/big.dat").read_bytes() == big.read_bytes()
    assert offsets[1] < offsets[2], offsets


def test_upload_goes_on_after_the_tab_was_closed(
    open_browser: Callable[..., Page], felt: dict[str, Path], tmp_path: Path
) -> None:
    home = felt["fiona"]
    write(home, "tab/here")
    big = tmp_path / "night.dat"
    # More than one piece: whatever of the first is still sent while the tab closes, nobody asks for the second.
    big.write_bytes(os.urandom(40_000_000))
    page = enter(open_browser(), "fiona", "?path=/home/fiona/tab")
    slow(page, 300_000)
    choose_upload(page, [big])
    wait_for_part(page, 0.01)
    browser = page.context
    page.close()
    again = browser.new_page()
    again.goto("/services/vospace/my-files?path=/home/fiona/tab")
    left = task(again, "night.dat")
    expect(left).to_contain_text("are here, kept until", timeout=WITHIN_MS)
    # Another file with this name is not mixed with the first half of the old one.
    other = tmp_path / "other/night.dat"
    other.parent.mkdir()
    other.write_bytes(b"other")
    again.locator("input[data-upload='night.dat']").set_input_files(other)
    expect(left).to_contain_text("another file")
    sent: list[int] = []
    again.on("request", lambda r: sent.append(int(r.headers.get("upload-offset", 0))) if r.method == "PATCH" else None)
    again.locator("input[data-upload='night.dat']").set_input_files(big)
    expect(row(again, "night.dat")).to_be_visible(timeout=WITHIN_MS)
    assert (home / "tab/night.dat").read_bytes() == big.read_bytes()
    assert sent[0] > 0, "it began anew"


def test_upload_is_done_when_the_service_says_so_and_not_before(
    open_browser: Callable[..., Page], felt: dict[str, Path], tmp_path: Path
) -> None:
    home = felt["fiona"]
    write(home, "end/here")
    big = tmp_path / "big.dat"
    big.write_bytes(os.urandom(2_000_000))
    page = enter(open_browser(), "fiona", "?path=/home/fiona/end")
    taken = home / "end/big.dat"

    def too_late(route: Route) -> None:
        if not taken.exists():
            taken.write_bytes(b"a notebook was faster")
        route.continue_()

    # All bytes come, and then the name is taken: they are not in their place, and nobody is told that they are.
    page.route("**/uploads/*", too_late, times=1)
    choose_upload(page, [big])
    retry = task(page, "big.dat").get_by_role("button", name=said_in("retry"))
    expect(retry).to_be_visible(timeout=WITHIN_MS)
    retry.click()
    expect(retry).to_be_visible(timeout=WITHIN_MS)
    assert taken.read_bytes() == b"a notebook was faster"
    taken.unlink()
    retry.click()
    expect(row(page, "big.dat")).to_be_visible(timeout=WITHIN_MS)
    assert taken.read_bytes() == big.read_bytes()
    # They are in their place, and only the answer is lost: nothing is sent again.
    other = tmp_path / "other.dat"
    other.write_bytes(os.urandom(2_000_000))
    asked: list[tuple[str, str]] = []
    page.on(
        "request",
        lambda r: asked.append((r.method, r.headers.get("upload-offset", ""))) if "/vospace/uploads" in r.url else None,
    )

    def loses_the_answer(route: Route) -> None:
        route.fetch()
        route.abort()

    page.route("**/uploads/*", loses_the_answer, times=1)
    choose_upload(page, [other])
    expect(task(page, "other.dat")).to_contain_text(said_in("upload-done"), timeout=WITHIN_MS)
    assert (home / "end/other.dat").read_bytes() == other.read_bytes()
    assert asked == [("POST", ""), ("PATCH", "0"), ("HEAD", ""), ("PATCH", "2000000")]


def test_files_are_dropped_and_names_that_are_taken_asked_about(
    open_browser: Callable[..., Page], felt: dict[str, Path]
) -> None:
    home = felt["fiona"]
    write(home, "drop/old.txt", b"old")
    page = enter(open_browser(), "fiona", "?path=/home/fiona/drop")
    page.evaluate(DROP, [[["old.txt", "new"], ["fresh.txt", "fresh"]], ".fi-scroller"])
    dialog = page.locator("dialog")
    expect(dialog).to_contain_text("old.txt", timeout=WITHIN_MS)
    dialog.get_by_text(said_in("conflict-overwrite")).click()
    dialog.get_by_role("button", name=said_in("conflict-go")).click()
    expect(row(page, "fresh.txt")).to_be_visible(timeout=WITHIN_MS)
    expect(page.locator("#fi-tasks li", has_text="old.txt")).to_contain_text(said_in("upload-done"), timeout=WITHIN_MS)
    assert (home / "drop/old.txt").read_bytes() == b"new"
    assert (home / "drop/fresh.txt").read_bytes() == b"fresh"


def test_folder_is_uploaded_with_all_in_it(
    open_browser: Callable[..., Page], felt: dict[str, Path], tmp_path: Path
) -> None:
    home = felt["fiona"]
    write(home, "whole/here")
    for number in range(40):
        file = tmp_path / f"night/sub{number % 4}/f{number}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(str(number))
    page = enter(open_browser(), "fiona", "?path=/home/fiona/whole")
    tool(page, "upload")
    with page.expect_file_chooser() as chooser:
        page.get_by_role("menuitem", name=said_in("upload-folder")).click()
    chooser.value.set_files(tmp_path / "night")
    expect(page.locator("#fi-tasks")).to_contain_text(
        said_in("upload-summary", done="40", total="40"), timeout=WITHIN_MS
    )
    found = {path.relative_to(home / "whole").as_posix() for path in (home / "whole/night").rglob("*.txt")}
    assert found == {f"night/sub{number % 4}/f{number}.txt" for number in range(40)}
    expect(row(page, "night")).to_be_visible(timeout=WITHIN_MS)
    with page.expect_download() as download:
        pick(page, "night")
        tool(page, "download-zip")
    assert download.value.suggested_filename == "night.zip"


def test_small_file_is_uploaded_though_the_answer_is_lost(
    open_browser: Callable[..., Page], felt: dict[str, Path], tmp_path: Path
) -> None:
    home = felt["fiona"]
    write(home, "small/here")
    small = tmp_path / "small.txt"
    small.write_bytes(b"these bytes")
    page = enter(open_browser(), "fiona", "?path=/home/fiona/small")

    def loses_the_answer(route: Route) -> None:
        route.fetch(post_data=small.read_bytes())  # the bytes of a file are not told to who stands in the way
        route.abort()

    page.route("**/files/home/**", loses_the_answer, times=1)
    choose_upload(page, [small])
    expect(task(page, "small.txt")).to_contain_text(said_in("upload-done"), timeout=WITHIN_MS)
    assert sorted(path.name for path in (home / "small").iterdir()) == ["here", "small.txt"]
    # Something else that took the name meanwhile is not taken for it.
    other = tmp_path / "other.txt"
    other.write_bytes(b"those bytes")

    def is_taken(route: Route) -> None:
        write(home, "small/other.txt", b"older bytes")
        route.abort()

    page.route("**/files/home/**", is_taken, times=1)
    choose_upload(page, [other])
    expect(task(page, "other.txt").get_by_role("button", name=said_in("retry"))).to_be_visible(timeout=WITHIN_MS)
    assert (home / "small/other.txt").read_bytes() == b"older bytes"


def test_replacement_that_failed_is_not_told_as_done(
    open_browser: Callable[..., Page], felt: dict[str, Path], tmp_path: Path
) -> None:
    home = felt["fiona"]
    big = tmp_path / "same-size.dat"
    big.write_bytes(os.urandom(1_500_000))
    there = write(home, "replace/same-size.dat", b"o" * 1_500_000)
    page = enter(open_browser(), "fiona", "?path=/home/fiona/replace")

    def breaks(route: Route) -> None:
        for hidden in there.parent.glob(".*astrocloud-*"):
            hidden.unlink()
        route.abort()

    page.route("**/uploads/*", breaks, times=1)
    choose_upload(page, [big])
    dialog = page.locator("dialog")
    dialog.get_by_text(said_in("conflict-overwrite")).click(timeout=WITHIN_MS)
    dialog.get_by_role("button", name=said_in("conflict-go")).click()
    expect(task(page, "same-size.dat")).to_contain_text(said_in("upload-done"), timeout=WITHIN_MS)
    assert there.read_bytes() == big.read_bytes()


def test_one_odd_name_does_not_keep_the_others_back(open_browser: Callable[..., Page], felt: dict[str, Path]) -> None:
    home = felt["fiona"]
    write(home, "odd/here")
    page = enter(open_browser(), "fiona", "?path=/home/fiona/odd")
    page.evaluate(DROP, [[["Icon\r", "1"], [".auto", "2"], ["fine.txt", "fine"]], ".fi-scroller"])
    expect(row(page, "fine.txt")).to_be_visible(timeout=WITHIN_MS)
    expect(page.locator("#fi-tasks").get_by_role("button", name=said_in("retry"))).to_have_count(2, timeout=WITHIN_MS)
    expect(page.locator("#fi-tasks")).to_contain_text(said_in("upload-bad-name"))
    assert sorted(path.name for path in (home / "odd").iterdir()) == ["fine.txt", "here"]


def test_nothing_is_uploaded_into_the_trash(open_browser: Callable[..., Page], felt: dict[str, Path]) -> None:
    home = felt["felix"]
    write(home, "thrown/in.txt")
    write(home, "stays.txt")
    page = enter(open_browser(), "felix")
    pick(page, "thrown")
    tool(page, "delete")
    expect(row(page, "thrown")).to_have_count(0, timeout=WITHIN_MS)
    page.locator("#fi-places").get_by_role("link", name=said_in("place-trash")).click()
    expect(row(page, "thrown")).to_be_visible(timeout=WITHIN_MS)
    asked: list[str] = []
    page.on("request", lambda r: asked.append(r.url) if r.method != "GET" else None)
    page.evaluate(DROP, [[["new.txt", "new"]], ".fi-window .fi-row"])
    page.locator("#fi-places").get_by_role("link", name=said_in("place-home")).click()
    expect(page.locator(".fi-window .fi-there").first).to_be_visible(timeout=WITHIN_MS)
    assert asked == []
    assert [path.name for path in (home / ".trash/thrown").iterdir()] == ["in.txt"]


def test_folders_are_dropped_as_they_are_and_again_with_what_is_missing(
    open_browser: Callable[..., Page], felt: dict[str, Path], tmp_path: Path
) -> None:
    home = felt["fiona"]
    write(home, "dropped/here")
    for name in ("night /a.txt", "night /sub/b.txt", "night /sub/c.txt"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    (tmp_path / "night /empty").mkdir()
    page = enter(open_browser(), "fiona", "?path=/home/fiona/dropped")
    drop_from_disk(page, tmp_path / "night ")
    expect(page.locator("#fi-tasks")).to_contain_text(said_in("upload-summary", done="3", total="3"), timeout=WITHIN_MS)
    there = home / "dropped/night "
    assert sorted(path.relative_to(there).as_posix() for path in there.rglob("*")) == [
        "a.txt", "empty", "sub", "sub/b.txt", "sub/c.txt",
    ]  # fmt: skip
    # As after a tab that was closed: what came is left out, the rest comes, what differs is kept beside.
    (there / "sub/b.txt").unlink()
    (tmp_path / "night /a.txt").write_text("longer than before")
    page.reload()
    expect(row(page, "night ")).to_be_visible(timeout=WITHIN_MS)
    drop_from_disk(page, tmp_path / "night ")
    dialog = page.locator("dialog")
    expect(dialog.get_by_label(said_in("conflict-same", count="1"))).to_be_checked(timeout=WITHIN_MS)
    dialog.get_by_role("button", name=said_in("conflict-go")).click()
    expect(page.locator("#fi-tasks")).to_contain_text(said_in("upload-summary", done="2", total="2"), timeout=WITHIN_MS)
    assert sorted(path.name for path in there.rglob("*.txt")) == ["a (2).txt", "a.txt", "b.txt", "c.txt"]
