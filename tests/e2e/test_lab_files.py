"""The platform's own entries in the context menu of JupyterLab's file browser."""

import os
import re
from collections.abc import Callable, Iterator
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.e2e.browsing import LAB_TIMEOUT_MS, sign_in, start_button
from tests.e2e.cast import PASSWORD
from tests.support.looping import Run
from tests.support.person import Person
from tests.support.platform import Platform

pytestmark = pytest.mark.slow
AUTHORITY = "vos://astrocloud.local~vospace"
FILES = ("a.fits", "b 50%.txt", "天.csv")
LABELS = {"en": ("Share…", "Copy VOSpace Address"), "zh": ("共享…", "复制 VOSpace 地址")}


@pytest.fixture(scope="module", params=["en", "zh"])
def lab(request: pytest.FixtureRequest, platform: Platform, run: Run) -> Iterator[str]:
    """Somebody's language; they are called ``files-LANGUAGE``, and their server ends at the end."""
    language: str = request.param
    platform.add(f"files-{language}", PASSWORD)
    yield language
    person = run(Person(platform.url, f"files-{language}", PASSWORD).__aenter__())
    try:
        run(person.sign_in())
        run(person.hub_api("DELETE", f"/users/files-{language}/servers/"))
    finally:
        run(person.__aexit__())


def item(page: Page, name: str) -> Locator:
    """Return a file in the file browser."""
    return page.locator(".jp-DirListing-item", has=page.get_by_text(name, exact=True))


def command(page: Page, name: str) -> Locator:
    """Return an entry of the open context menu."""
    return page.locator(f".lm-Menu-item[data-command='{name}']:not(.lm-mod-hidden)")


def copied(page: Page) -> str:
    """Copy by the open context menu and return what the clipboard then holds."""
    command(page, "astrocloud:copy-vospace-address").click()
    expect(page.locator(".Toastify__toast").last).to_be_visible()
    text: str = page.evaluate("navigator.clipboard.readText()")
    return text


def test_share_and_copy_the_address_of_files(platform: Platform, open_browser: Callable[..., Page], lab: str) -> None:
    name = f"files-{lab}"
    page = open_browser(lab)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    sign_in(page, name, PASSWORD, language=lab)
    start_button(page).click()
    page.wait_for_url(re.compile(rf"/user/{name}/.*lab"), timeout=LAB_TIMEOUT_MS)
    home = platform.data / "tree" / "home" / name
    owner = home.stat()
    for each in FILES:
        (home / each).write_text("x", encoding="utf-8")
        os.chown(home / each, owner.st_uid, owner.st_gid)
    (home / "folder").mkdir()
    page.goto(f"/user/{name}/lab/tree/home/{name}")
    expect(item(page, "a.fits")).to_be_visible(timeout=LAB_TIMEOUT_MS)

    item(page, "a.fits").click(button="right")
    share, copy = LABELS[lab]
    expect(command(page, "astrocloud:share")).to_have_text(share)
    expect(command(page, "astrocloud:copy-vospace-address")).to_have_text(copy)
    # Stock's link leads into this server, which nobody else may enter: it would share nothing.
    expect(command(page, "filebrowser:share-main")).to_have_count(0)
    assert copied(page) == f"{AUTHORITY}/home/{name}/a.fits"
    expect(page.locator(".Toastify__toast").last).to_contain_text(f"{AUTHORITY}/home/{name}/a.fits")

    # As the service itself writes them, one a line.
    item(page, "b 50%.txt").click()
    item(page, "天.csv").click(modifiers=["Control"])
    item(page, "folder").click(modifiers=["Control"])
    item(page, "天.csv").click(button="right")
    expect(command(page, "astrocloud:share")).to_have_class(re.compile("lm-mod-disabled"))
    assert sorted(copied(page).split("\n")) == [
        f"{AUTHORITY}/home/{name}/b%2050%25.txt",
        f"{AUTHORITY}/home/{name}/folder",
        f"{AUTHORITY}/home/{name}/天.csv",
    ]

    item(page, "b 50%.txt").click()
    item(page, "b 50%.txt").click(button="right")
    with page.context.expect_page() as opened:
        command(page, "astrocloud:share").click()
    opened.value.wait_for_url(re.compile("share=1"))
    address = urlsplit(opened.value.url)
    assert f"{address.scheme}://{address.netloc}" == platform.url
    assert address.path == "/services/vospace/my-files"
    assert parse_qs(address.query) == {"path": [f"/home/{name}/b 50%.txt"], "share": ["1"]}
    expect(opened.value.get_by_role("dialog")).to_contain_text("b 50%.txt", timeout=LAB_TIMEOUT_MS)


def test_entries_without_a_chinese_name_get_one(
    platform: Platform, open_browser: Callable[..., Page], lab: str
) -> None:
    page = open_browser(lab)
    sign_in(page, f"files-{lab}", PASSWORD, language=lab)
    page.goto(f"/user/files-{lab}/lab")
    expect(page.locator(".jp-DirListing-content")).to_be_visible(timeout=LAB_TIMEOUT_MS)
    page.keyboard.press("Control+Shift+c")
    page.locator(".lm-CommandPalette-input").fill("Dask")
    entry = page.locator(".lm-CommandPalette-item[data-command='dask:launch-layout']")
    expect(entry).to_contain_text({"en": "Launch Dask Dashboard Layout", "zh": "打开 Dask 仪表盘布局"}[lab])


def test_what_vospace_does_not_have_gets_no_address(
    platform: Platform, open_browser: Callable[..., Page], lab: str
) -> None:
    name = f"files-{lab}"
    page = open_browser(lab)
    sign_in(page, name, PASSWORD, language=lab)
    page.goto(f"/user/{name}/lab/tree/tutorials")
    expect(item(page, f"first-look.{lab}.ipynb")).to_be_visible(timeout=LAB_TIMEOUT_MS)
    item(page, f"first-look.{lab}.ipynb").click(button="right")
    expect(command(page, "filebrowser:copy-path")).to_be_visible()
    expect(command(page, "astrocloud:share")).to_have_count(0)
    expect(command(page, "astrocloud:copy-vospace-address")).to_have_count(0)
