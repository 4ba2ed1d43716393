"""What tests in more than one folder need."""

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from astrocloud.environments import BuiltEnvironment, EnvironmentBuilder, load_catalogue

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def repository() -> Path:
    """The project's source tree."""
    return REPOSITORY


@pytest.fixture(scope="session")
def astro() -> BuiltEnvironment:
    """The environment ``astro``, made once below ASTROCLOUD_TEST_CACHE and kept there for the next run."""
    folder = Path(os.environ.get("ASTROCLOUD_TEST_CACHE") or REPOSITORY / ".cache" / "environments")
    lab = REPOSITORY / "extensions"
    builder = EnvironmentBuilder(folder=folder, lab=lab if (lab / "pyproject.toml").exists() else None)
    environment = load_catalogue(REPOSITORY / "images").get("astro")
    # In a thread of its own, because the loop of an asynchronous test may be this thread's.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(builder.ensure(environment))).result()


@pytest.fixture(scope="session")
def astro_python(astro: BuiltEnvironment) -> Path:
    """The Python of the environment ``astro``."""
    return astro.python
