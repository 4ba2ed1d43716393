"""Fixtures of the hub's tests."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hub.harness import Platform


@pytest.fixture(scope="module")
def start_platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Platform]]:
    """Starts platforms that end with the module, with the people ada and ben and the administrator chief."""
    started: list[Platform] = []

    def start(**options: Any) -> Platform:
        root: Path = tmp_path_factory.mktemp("platform")
        # People's servers run as other users and must get to their homes.
        for folder in (root, *root.parents):
            if folder.owner() == "root" and folder != Path("/"):
                folder.chmod(folder.stat().st_mode | 0o011)
        platform = Platform(root, **options)
        started.append(platform)
        platform.services.add("ada", 20001, groups=[{"name": "survey", "gid": 30001}])
        platform.services.add("ben", 20002)
        platform.services.add("chief", 20003, admin=True)
        return platform.start()

    yield start
    for platform in started:
        platform.stop()


@pytest.fixture(scope="module")
def platform(start_platform: Callable[..., Platform]) -> Platform:
    """A platform as most tests need it."""
    return start_platform()
