"""What the tests in here share: the service's tree, and folders of one's own in it."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import fsspec
import pytest

AUTHORITY = "vos://astrocloud.local~vospace"


@pytest.fixture(scope="session")
def fs() -> fsspec.AbstractFileSystem:
    """The filesystem, as a notebook gets it: told nothing."""
    return fsspec.filesystem("vos")


@pytest.fixture
def folder(fs: fsspec.AbstractFileSystem) -> str:
    """A folder of ada's that nobody else uses."""
    path = f"/home/ada/{uuid.uuid4().hex[:8]}"
    fs.mkdir(path)
    return path


def posix(path: str) -> Path:
    """Return where a path is on this machine."""
    return Path(os.environ["TREE"]) / path.lstrip("/")


def own(path: str) -> None:
    """Give ada what was made past the service."""
    if os.geteuid() == 0:
        status = posix("/home/ada").stat()
        os.chown(posix(path), status.st_uid, status.st_gid, follow_symlinks=False)
