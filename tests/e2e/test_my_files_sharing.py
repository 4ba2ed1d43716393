"""My files in a browser: sharing with people and groups, and by public links."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from playwright.sync_api import Page, expect

from astrocloud.core import words
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


def test_group_reads_what_is_shared_and_everybody_what_is_public(
    open_browser: Callable[..., Page], felt: dict[str, Path]
) -> None:
    home = felt["fiona"]
    write(home, "for-field/a.txt", b"first")
    write(home, "for-field/b.txt", b"second")
    odd = write(home, "public #1? & 50%/天 #2?.txt", b"for all")
    write(home, "public #1? & 50%/private.txt")
    page = enter(open_browser(), "fiona", "?path=/home/fiona/for-field&share=1")
    dialog = page.locator("dialog")
    dialog.get_by_label(said_in("share-add")).fill("field")
    dialog.get_by_role("button", name=said_in("share-add-group")).click()
    expect(dialog.locator(".fi-people")).to_contain_text(said_in("share-group"), timeout=WITHIN_MS)
    other = enter(open_browser(), "felix", "?view=shared")
    shared = row(other, "for-field")
    expect(shared).to_be_visible(timeout=WITHIN_MS)
    shared.locator(".fi-label").click()
    pick(other, "a.txt", "b.txt")
    with other.expect_download() as download:
        tool(other, "download-zip")
    with zipfile.ZipFile(download.value.path()) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == {
            "for-field/a.txt": b"first",
            "for-field/b.txt": b"second",
        }
    dialog.get_by_role("button", name=said_in("share-remove", name="field")).click()
    expect(dialog).to_contain_text(said_in("share-nobody"), timeout=WITHIN_MS)

    # At its address everybody reads the file, whatever it is called and however closed the home was.
    go(page, quote(f"/home/fiona/{odd.parent.name}/{odd.name}") + "&share=1")
    dialog.get_by_label(said_in("share-public"), exact=True).check()
    address = dialog.get_by_label(said_in("share-public-address"))
    expect(address).to_be_visible(timeout=WITHIN_MS)
    url, anybody = address.input_value(), open_browser().request
    answer = anybody.get(url)
    assert (answer.status, answer.body()) == (200, b"for all")
    dialog.get_by_label(said_in("share-public"), exact=True).uncheck()
    expect(address).to_have_count(0, timeout=WITHIN_MS)
    assert anybody.get(url, headers={"Accept": "*/*"}).status in {401, 403, 404}
