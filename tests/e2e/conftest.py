"""A running platform and a real browser for the end-to-end tests.

The platform runs on this machine, or with ``ASTROCLOUD_E2E=kube`` on the test cluster: the tests are the same, but for
those that ``one_machine.yaml`` lists, each with its reason.
"""

import contextlib
import os
import shutil
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
import yaml
from playwright.sync_api import Browser, BrowserContext, Error, Page, expect, sync_playwright

from tests.e2e import on_cluster
from tests.e2e.cast import cast, run  # noqa: F401 - fixtures
from tests.e2e.my_files import felt  # noqa: F401 - a fixture
from tests.kube.conftest import cluster  # noqa: F401 - a fixture
from tests.support.platform import Platform, running_platform

# Its own five seconds are too few for a page on a machine that is busy with other tests.
expect.set_options(timeout=30_000)

CHROMIUM_OPTIONS = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PAGES = pytest.StashKey[list[Page]]()
ONE_MACHINE = Path(__file__).with_name("one_machine.yaml")
LOCALES = {"en": "en-US", "zh": "zh-CN"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything here: it needs Chromium and a running platform."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.e2e)
    # Once Playwright runs, a loop of its own runs in this thread, and asynchronous tests cannot: hence they come first.
    if on_cluster.WANTED:
        on_cluster.skip_what_is_one_machine_s(items, yaml.safe_load(ONE_MACHINE.read_text(encoding="utf-8")))
    items.sort(key=lambda item: here in item.path.parents)


@pytest.fixture(scope="session")
def platform(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Platform | on_cluster.ClusterPlatform]:
    """One platform for all tests of a run; each test brings its own people."""
    folder = tmp_path_factory.mktemp("platform")
    if on_cluster.WANTED:
        with on_cluster.cluster_platform(folder / "data", request.getfixturevalue("cluster")) as installed:
            yield installed
        return
    request.getfixturevalue("astro")  # the environment is made once for all platforms
    # People's servers run under other user ids and reach their homes through these folders.
    for above in (folder, *folder.parents):
        if above.stat().st_uid == os.getuid() and above != Path("/"):
            above.chmod(above.stat().st_mode | 0o011)
    with running_platform(folder, config={"servers": {"limit_per_person": 3, "start_timeout_s": 120}}) as running:
        yield running


@pytest.fixture(scope="module")
def chromium(request: pytest.FixtureRequest) -> Iterator[Browser]:
    """Debian's Chromium, ended with its module: while it runs so does a loop, and asynchronous tests could not."""
    program = shutil.which("chromium")
    assert program, "Chromium is not installed; `make test` installs it, or: apt-get install chromium"
    options = [*CHROMIUM_OPTIONS, *(["--no-sandbox"] if os.getuid() == 0 else [])]
    if on_cluster.WANTED:
        # Behind an ingress there would be TLS; without, browsers keep the clipboard from all but this machine's pages.
        options.append(f"--unsafely-treat-insecure-origin-as-secure={request.getfixturevalue('platform').url}")
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
