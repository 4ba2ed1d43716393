"""A running platform and a real browser for the end-to-end tests."""

import contextlib
import os
import shutil
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Error, Page, sync_playwright

from astrocloud.environments import BuiltEnvironment
from tests.e2e.cast import cast, run  # noqa: F401 - fixtures
from tests.support.platform import Platform, running_platform

CHROMIUM_OPTIONS = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PAGES = pytest.StashKey[list[Page]]()
LOCALES = {"en": "en-US", "zh": "zh-CN"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything here: it needs Chromium and a running platform."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.e2e)
    # Once Playwright runs, a loop of its own runs in this thread, and asynchronous tests cannot: hence they come first.
    items.sort(key=lambda item: here in item.path.parents)


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory, astro: BuiltEnvironment) -> Iterator[Platform]:
    """One platform for all tests of a run; each test brings its own people."""
    folder = tmp_path_factory.mktemp("platform")
    # People's servers run under other user ids and reach their homes through these folders.
    for above in (folder, *folder.parents):
        if above.stat().st_uid == os.getuid() and above != Path("/"):
            above.chmod(above.stat().st_mode | 0o011)
    with running_platform(folder, config={"servers": {"limit_per_person": 3, "start_timeout_s": 120}}) as running:
        yield running


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Debian's Chromium, ended with its module: while it runs so does a loop, and asynchronous tests could not."""
    program = shutil.which("chromium")
    assert program, "Chromium is not installed; `make test` installs it, or: apt-get install chromium"
    options = [*CHROMIUM_OPTIONS, *(["--no-sandbox"] if os.getuid() == 0 else [])]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=options)
        yield browser
        browser.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep what each open page showed when a test failed, in ``test-results``."""
    report = yield
    if report.when == "call" and report.failed:
        folder = item.config.rootpath / "test-results"
        folder.mkdir(exist_ok=True)
        for number, page in enumerate(item.stash.get(PAGES, [])):
            with contextlib.suppress(Error):
                page.screenshot(path=folder / f"{item.name}-{number}.png")
    return report


@pytest.fixture
def open_browser(
    chromium: Browser, platform: Platform, request: pytest.FixtureRequest
) -> Iterator[Callable[..., Page]]:
    """Open a fresh browser, as another person at another computer would: ``open_browser("zh", width=360)``."""
    contexts: list[BrowserContext] = []

    def open_one(language: str = "en", *, width: int = 1440, dark: bool = False) -> Page:
        context = chromium.new_context(
            base_url=platform.url,
            locale=LOCALES[language],
            viewport={"width": width, "height": 900},
            color_scheme="dark" if dark else "light",
        )
        context.set_default_timeout(60_000)
        contexts.append(context)
        page = context.new_page()
        request.node.stash.setdefault(PAGES, []).append(page)
        return page

    yield open_one
    for context in contexts:
        context.close()
