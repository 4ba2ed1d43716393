"""A running passport and a browser."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from astrocloud.config import Config
from tests.services.passport.harness import Browser, Platform, prepare, run_platform


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with ``ada`` (an administrator) and ``bob``, made once: passwords and keys take a while."""
    folder = tmp_path_factory.mktemp("prepared") / "data"
    prepare(folder)
    return folder


@pytest.fixture
async def platform(prepared: Path, tmp_path: Path) -> AsyncIterator[Platform]:
    """A passport with one administrator, ``ada``, and one person more, ``bob``."""
    shutil.copytree(prepared, tmp_path / "data")
    async with run_platform(tmp_path / "data", Config()) as running:
        yield running


@pytest.fixture
async def browser(platform: Platform) -> Browser:
    """A browser that knows nothing yet."""
    return platform.new_browser()
