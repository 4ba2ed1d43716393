"""Servers for the tests of astrocloud_lab."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.extensions.servers import Server, StandInHub, running, stand_in_hub


@pytest.fixture(scope="session")
def lab_python(request: pytest.FixtureRequest) -> Path:
    """The Python of an environment that has astrocloud_lab: the one named, else ``astro``."""
    named = os.environ.get("ASTROCLOUD_TEST_ENV_PYTHON")
    return Path(named) if named else Path(request.getfixturevalue("astro_python"))


@pytest.fixture(scope="session")
def hub() -> Iterator[StandInHub]:
    """A stand-in for the hub."""
    with stand_in_hub() as one:
        yield one


@pytest.fixture(scope="session")
def tutorials(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one tutorial in two languages, one in English only."""
    folder = tmp_path_factory.mktemp("tutorials")
    for name in ("first-look.en", "first-look.zh", "files.en"):
        (folder / f"{name}.ipynb").write_text('{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}')
    return folder


@pytest.fixture(scope="session")
def server(
    lab_python: Path, hub: StandInHub, tutorials: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A lean server that the tests share."""
    folder = tmp_path_factory.mktemp("lean")
    with running(lab_python, folder, hub, ASTROCLOUD_TUTORIALS=str(tutorials)) as one:
        yield one
