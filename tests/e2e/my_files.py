"""What a person does in My files, in a browser, and who they are."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.e2e.browsing import fill_sign_in, said
from tests.support.platform import Platform, wait_until

PASSWORD: Final = "quiet-quasar-3273"
WITHIN_MS: Final = 30_000


@pytest.fixture(scope="session")
def felt(platform: Platform) -> dict[str, Path]:
    """Two people of one group, and the homes they have as soon as VOSpace hears of them: name -> home."""
    found = {}
    for name in ("fiona", "felix"):
        platform.add(name, PASSWORD, "--group", "field")
        token = platform.run_json("token", name)["token"]
        places = f"{platform.url}/services/vospace/api/places"
        command = ["curl", "-sf", "-H", f"Authorization: Bearer {token}", places]
        subprocess.run(command, check=True, capture_output=True)
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
            # Their umask is 007: what everybody may read is shown without a sign-in where the home may be passed.
            folder.chmod(0o770)
            os.chown(folder, owner.st_uid, owner.st_gid)
    file.write_bytes(data)
    file.chmod(0o660)
    os.chown(file, owner.st_uid, owner.st_gid)
    return file


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


def preview(page: Page, name: str) -> Locator:
    row(page, name).locator(".fi-label").click()
    place = page.locator("#fi-preview")
    expect(place.get_by_role("heading", name=name)).to_be_visible()
    expect(place.locator("[aria-busy]")).to_have_count(0, timeout=WITHIN_MS)
    return place


def drop_from_disk(page: Page, *files: Path, onto: str = ".fi-scroller") -> None:
    """Drop files and folders as somebody drags them out of a file manager."""
    box = page.locator(onto).first.bounding_box()
    assert box is not None
    session = page.context.new_cdp_session(page)
    for kind in ("dragEnter", "dragOver", "drop"):
        data = {"items": [], "files": [str(file) for file in files], "dragOperationsMask": 1}
        at = {"x": box["x"] + box["width"] / 2, "y": box["y"] + min(box["height"] / 2, 300)}
        session.send("Input.dispatchDragEvent", {"type": kind, **at, "data": data})
    session.detach()
