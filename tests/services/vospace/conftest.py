"""Fixtures: a running service."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.services.vospace.platform import Space, running


@pytest.fixture
async def space(tmp_path: Path) -> AsyncIterator[Space]:
    """A service, spoken to as ada."""
    async with running(tmp_path / "data") as running_space:
        yield running_space
