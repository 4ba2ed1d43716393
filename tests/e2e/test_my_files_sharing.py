"""My files in a browser: sharing with people and groups, and by public links."""

from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, expect

from astrocloud.core import words
from tests.e2e.cast import needs_root
from tests.e2e.my_files import (
    WITHIN_MS,
    enter,
    go,
    row,
    said_in,
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
