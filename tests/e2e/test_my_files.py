"""My files in a browser, against the real platform: as people use it, with what goes wrong on the way."""

import os
import re
import signal
import subprocess
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from astrocloud.core import words
from astrocloud.environments import BuiltEnvironment
from tests.e2e.browsing import LAB_TIMEOUT_MS, fill_sign_in, said
from tests.e2e.cast import needs_root
from tests.support.platform import Platform, wait_until

PASSWORD: Final = "quiet-quasar-3273"
WITHIN_MS: Final = 30_000
MANY: Final = 100_000
MOST_ROWS: Final = 80
"""How many rows the page may hold, whatever the folder does."""

pytestmark = needs_root


@pytest.fixture(scope="module")
def people(platform: Platform) -> dict[str, Path]:
    """Two people of one group, each with a home: name -> home."""
    found = {}
    for name in ("fiona", "felix"):
        platform.add(name, PASSWORD, "--group", "field")
        found[name] = platform.data / "tree/home" / name
    return found


def said_in(key: str, language: str = "en", **values: object) -> str:
    return said(f"files.{key}", language, **values)


def enter(page: Page, name: str, query: str = "") -> Page:
    """Sign in on the way to My files."""
    page.goto(f"/services/vospace/my-files{query}")
    fill_sign_in(page, name, PASSWORD)
    expect(page.locator("#fi-grid")).to_be_visible(timeout=WITHIN_MS)
    expect(page.locator("#fi-grid[aria-busy]")).to_have_count(0, timeout=WITHIN_MS)
    return page


def go(page: Page, path: str) -> None:
    page.goto(f"/services/vospace/my-files?path={path}")
    expect(page.locator("#fi-grid")).to_be_visible(timeout=WITHIN_MS)
    expect(page.locator("#fi-grid[aria-busy]")).to_have_count(0, timeout=WITHIN_MS)


def row(page: Page, name: str) -> Locator:
    return page.locator(
        ".fi-window .fi-row", has=page.locator(".fi-label", has_text=re.compile(f"^{re.escape(name)}$"))
    )


def pick(page: Page, *names: str) -> None:
    for name in names:
        row(page, name).locator("input[type=checkbox]").click()


def tool(page: Page, key: str, language: str = "en") -> None:
    page.locator("#fi-tools").get_by_role("button", name=said_in(key, language), exact=True).click()


def write(home: Path, name: str, data: bytes = b"x") -> Path:
    """Write a file as a notebook of the home's owner would."""
    file = home / name
    owner = home.stat()
    for folder in reversed([each for each in file.parents if home in each.parents]):
        if not folder.exists():
            folder.mkdir()
            os.chown(folder, owner.st_uid, owner.st_gid)
    file.write_bytes(data)
    os.chown(file, owner.st_uid, owner.st_gid)
    return file


@pytest.fixture(scope="module")
def felt(people: dict[str, Path], platform: Platform) -> dict[str, Path]:
    """The people, whose homes are there: made as soon as VOSpace hears of them."""
    for name in people:
        token = platform.run_json("token", name)["token"]
        subprocess.run(
            ["curl", "-sf", "-H", f"Authorization: Bearer {token}", f"{platform.url}/services/vospace/api/places"],
            check=True,
            capture_output=True,
        )
    return people


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


# Uploading


def choose_upload(page: Page, files: list[Any]) -> None:
    tool(page, "upload")
    with page.expect_file_chooser() as chooser:
        page.get_by_role("menuitem", name=said_in("upload-files")).click()
    chooser.value.set_files(files)


def task(page: Page, name: str) -> Locator:
    return page.locator("#fi-tasks li", has=page.locator(".fi-task-name", has_text=re.compile(f"^{re.escape(name)}$")))


def wait_for_part(page: Page, part: float) -> None:
    """Wait until so much of the one upload has been sent."""
    bar = page.locator("#fi-tasks li progress")
    wait_until(lambda: float(bar.get_attribute("value") or 0) > part, within_s=60, what=f"{part} of the upload")


def slow(page: Page, bytes_per_s: int) -> None:
    """Slow the browser's network down, so that what happens in the middle of an upload can be seen."""
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    conditions = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": bytes_per_s}
    session.send("Network.emulateNetworkConditions", conditions)


def test_upload_is_paused_resumed_and_outlives_a_lost_connection(
    open_browser: Callable[..., Page], platform: Platform, felt: dict[str, Path], tmp_path: Path
) -> None:
    home = felt["fiona"]
    write(home, "up/here")
    big = tmp_path / "big.dat"
    big.write_bytes(os.urandom(8_000_000))
    page = enter(open_browser(), "fiona", "?path=/home/fiona/up")
    slow(page, 1_000_000)
    choose_upload(page, [big])
    wait_for_part(page, 0.05)
    task(page, "big.dat").get_by_role("button", name=said_in("pause")).click()
    expect(task(page, "big.dat")).to_contain_text("Paused at")
    # Nobody sees half a file.
    assert not (home / "up/big.dat").exists()
    task(page, "big.dat").get_by_role("button", name=said_in("resume")).click()
    wait_for_part(page, 0.2)
    # The way to the platform breaks in the middle of the request, and comes back.
    os.kill(platform.part("proxy"), signal.SIGKILL)
    expect(task(page, "big.dat")).to_contain_text("Connection lost", timeout=WITHIN_MS)
    expect(row(page, "big.dat")).to_be_visible(timeout=60_000)
    assert (home / "up/big.dat").read_bytes() == big.read_bytes()


def test_upload_goes_on_after_the_tab_was_closed(
    open_browser: Callable[..., Page], felt: dict[str, Path], tmp_path: Path
) -> None:
    home = felt["fiona"]
    write(home, "tab/here")
    big = tmp_path / "night.dat"
    big.write_bytes(os.urandom(6_000_000))
    page = enter(open_browser(), "fiona", "?path=/home/fiona/tab")
    slow(page, 300_000)
    choose_upload(page, [big])
    wait_for_part(page, 0.1)
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
    asked: list[str] = []
    page.on("request", lambda r: asked.append(r.method) if "/vospace/uploads" in r.url else None)

    def loses_the_answer(route: Route) -> None:
        route.fetch()
        route.abort()

    page.route("**/uploads/*", loses_the_answer, times=1)
    choose_upload(page, [other])
    expect(task(page, "other.dat")).to_contain_text(said_in("upload-done"), timeout=WITHIN_MS)
    assert (home / "end/other.dat").read_bytes() == other.read_bytes()
    assert asked == ["POST", "PATCH", "HEAD"]


DROP: Final = """
async ([files, onto]) => {
  const transfer = new DataTransfer();
  for (const [name, text] of files) transfer.items.add(new File([text], name));
  const target = document.querySelector(onto);
  for (const kind of ["dragenter", "dragover", "drop"]) {
    target.dispatchEvent(new DragEvent(kind, { bubbles: true, cancelable: true, dataTransfer: transfer }));
  }
}
"""


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


# Sharing


def test_share_is_seen_by_the_other_in_chinese_and_a_link_opens_without_a_login(
    open_browser: Callable[..., Page], felt: dict[str, Path]
) -> None:
    home = felt["fiona"]
    write(home, "joint/data.txt", b"for felix")
    write(home, "private.txt", b"mine")
    page = enter(open_browser(), "fiona", "?path=/home/fiona/joint&share=1")
    dialog = page.locator("dialog")
    expect(dialog).to_contain_text(said_in("share-nobody"), timeout=WITHIN_MS)
    dialog.get_by_label(said_in("share-add")).fill("felixx")
    dialog.get_by_role("button", name=said_in("share-add-person")).click()
    expect(dialog.locator("[role=alert]")).to_contain_text("felixx", timeout=WITHIN_MS)
    dialog.get_by_label(said_in("share-add")).fill("felix")
    dialog.get_by_role("button", name=said_in("share-add-person")).click()
    expect(dialog.locator(".fi-people")).to_contain_text("felix", timeout=WITHIN_MS)
    dialog.get_by_role("button", name=said_in("link-make")).click()
    address = dialog.locator(".fi-people .fi-address").first
    expect(address).to_be_visible(timeout=WITHIN_MS)
    link = address.input_value()

    other = enter(open_browser("zh"), "felix", "?view=shared")
    shared = row(other, "joint")
    expect(shared).to_contain_text(said_in("shared-by", "zh", owner="fiona", folder="/home/fiona"), timeout=WITHIN_MS)
    shared.locator(".fi-label").click()
    expect(row(other, "data.txt")).to_be_visible(timeout=WITHIN_MS)
    expect(other.locator("#fi-notes")).to_contain_text(said_in("read-only", "zh"))
    go(other, "/home/fiona")
    expect(other.locator("#fi-notes")).to_contain_text(words.text("errors.vospace-permission-denied.title", "zh")[:2])

    anybody = open_browser()
    anybody.goto(link)
    expect(anybody.get_by_role("heading", name="joint")).to_be_visible(timeout=WITHIN_MS)
    with anybody.expect_download() as download:
        anybody.get_by_role("link", name="data.txt").click()
    assert Path(download.value.path()).read_bytes() == b"for felix"
    dialog.get_by_role("button", name=said_in("link-revoke")).click()
    expect(dialog.locator(".fi-people .fi-address")).to_have_count(0, timeout=WITHIN_MS)
    answer = anybody.goto(link)
    assert answer is not None
    assert answer.status == 404


# Previews

MAKE: Final = """
    import json, shutil, sys
    from pathlib import Path
    import astropy, numpy
    from astropy.table import Table
    place = Path(sys.argv[1])
    shutil.copy(Path(astropy.__file__).parent / "io/fits/hdu/compressed/tests/data/m13.fits", place / "m13.fits")
    table = Table({"star": ["HD 1", "HD 2"], "ra": [1.5, 359.25], "mag": numpy.array([4.5, 17.25], "f4")})
    table["ra"].unit = "deg"
    for name, how in (("t.fits", {}), ("t.vot", {"format": "votable"}), ("t.csv", {})):
        table.write(place / name, **how)
    table.write(place / "b.vot", format="votable", tabledata_format="binary2")
    table.to_pandas().to_parquet(place / "t.parquet")
    hostile = "<script>window.ran = 1</script><img src=x onerror='window.ran = 1'><table><tr><td>cell</td></tr></table>"
    cells = [
        {"cell_type": "markdown", "metadata": {}, "source": "# Night log " + hostile},
        {"cell_type": "code", "metadata": {}, "execution_count": 1, "source": "1 + 1", "outputs": [
            {"output_type": "display_data", "metadata": {}, "data": {"text/html": hostile}},
            {"output_type": "display_data", "metadata": {}, "data": {"application/javascript": "window.ran = 1"}}]}]
    (place / "n.ipynb").write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    (place / "page.html").write_text(hostile)
    (place / "bad.fits").write_bytes(b"SIMPLE  = no FITS at all")
"""


def preview(page: Page, name: str) -> Locator:
    row(page, name).locator(".fi-label").click()
    place = page.locator("#fi-preview")
    expect(place.get_by_role("heading", name=name)).to_be_visible()
    expect(place.locator("[aria-busy]")).to_have_count(0, timeout=WITHIN_MS)
    return place


def test_previews_of_real_files_and_no_script_of_a_file_runs(
    open_browser: Callable[..., Page], felt: dict[str, Path], astro: BuiltEnvironment
) -> None:
    home = felt["fiona"]
    write(home, "look/notes.txt", b"plain words")
    program = textwrap.dedent(MAKE)
    subprocess.run([str(astro.path / "bin/python"), "-c", program, str(home / "look")], check=True, capture_output=True)
    subprocess.run(["chown", "-R", "--reference", str(home), str(home / "look")], check=True)
    page = enter(open_browser(), "fiona", "?path=/home/fiona/look")
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    expect(preview(page, "notes.txt")).to_contain_text("plain words")
    image = preview(page, "m13.fits")
    expect(image.locator("canvas[role=img]")).to_be_visible()
    expect(image).to_contain_text("300 × 300")
    assert drawn(page, 0) > 50, "the image is empty"
    assert drawn(page, 1) > 3, "there is no grid"
    for name, unit in (("t.fits", "deg"), ("t.vot", "deg"), ("b.vot", "deg"), ("t.csv", ""), ("t.parquet", "double")):
        table = preview(page, name).locator("table")
        expect(table.locator("tbody tr")).to_have_count(2)
        expect(table.locator("tbody tr").nth(1)).to_contain_text("HD 2")
        expect(table.locator("tbody tr").nth(1)).to_contain_text("359.25")
        expect(table.locator("thead")).to_contain_text(unit)
    notebook = preview(page, "n.ipynb")
    expect(notebook.get_by_role("heading", name=re.compile("Night log"))).to_be_visible()
    expect(notebook.locator("td")).to_have_text("cell")
    expect(preview(page, "page.html")).to_contain_text("<script>")
    expect(preview(page, "bad.fits")).to_contain_text(said_in("preview-broken"))
    assert page.evaluate("window.ran") is None
    assert wrong == []
    # Opened by its address, a page that somebody keeps is not run either.
    answer = page.request.get("/services/vospace/files/home/fiona/look/page.html")
    assert "sandbox" in answer.headers["content-security-policy"]
    assert answer.headers["content-disposition"].startswith("attachment")


def drawn(page: Page, number: int) -> int:
    """Return how many different values a canvas of the preview shows."""
    found: int = page.evaluate(
        """(number) => {
          const canvas = document.querySelectorAll('#fi-preview canvas')[number];
          const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
          const seen = new Set();
          for (let at = 0; at < data.length; at += 4) seen.add(data[at] * 256 + data[at + 3]);
          return seen.size;
        }""",
        number,
    )
    return found


def test_preview_of_a_large_image_fetches_only_what_it_shows(
    open_browser: Callable[..., Page], felt: dict[str, Path]
) -> None:
    side = 20_000
    cards = [("SIMPLE", "T"), ("BITPIX", "-32"), ("NAXIS", "2"), ("NAXIS1", str(side)), ("NAXIS2", str(side))]
    header = "".join(f"{name:<8}= {value:>20}".ljust(80) for name, value in cards) + "END".ljust(80)
    file = write(felt["fiona"], "large/sky.fits", header.ljust(2880).encode())
    with file.open("r+b") as opened:
        opened.truncate(2880 + side * side * 4)
    page = enter(open_browser(), "fiona", "?path=/home/fiona/large")
    sizes: list[int] = []

    def count(route: Route) -> None:
        answer = route.fetch()
        sizes.append(len(answer.body()))
        route.fulfill(response=answer)

    page.route(re.compile("/services/vospace/(files|api/sample)"), count)
    place = preview(page, "sky.fits")
    expect(place.locator("canvas[role=img]")).to_be_visible()
    expect(place).to_contain_text(said_in("fits-sampled", step="20"))
    assert sum(sizes) < 6_000_000, sizes


def test_open_in_jupyterlab_starts_a_server_and_shows_the_folder(
    open_browser: Callable[..., Page], felt: dict[str, Path]
) -> None:
    write(felt["felix"], "lab here/data.txt")
    page = enter(open_browser(), "felix", "?path=/home/felix/lab here")
    page.locator("#fi-tools").get_by_role("link", name=said_in("open-lab")).click()
    page.wait_for_url(re.compile(r"/user/felix/.*lab/tree/home/felix/lab%20here"), timeout=LAB_TIMEOUT_MS)
    expect(page.locator(".jp-DirListing-item", has_text="data.txt")).to_be_visible(timeout=LAB_TIMEOUT_MS)


# How it looks


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
