"""Whether people are kept apart: found out by trying, once, while nobody's server runs."""

import os
from pathlib import Path

import pytest

from astrocloud.core import isolation


@pytest.fixture(autouse=True)
def _nothing_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    # Set, then removed: whatever a test leaves there is gone after it.
    monkeypatch.setenv(isolation.VARIABLE, "")
    monkeypatch.delenv(isolation.VARIABLE)


def bubblewrap(folder: Path, *, status: int) -> str:
    """Put a bubblewrap into `folder` that ends with `status`; return a search path that begins there."""
    folder.mkdir()
    (folder / "bwrap").write_text(f"#!/bin/sh\nexit {status}\n")
    (folder / "bwrap").chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def test_a_bubblewrap_that_is_forbidden_keeps_nobody_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", bubblewrap(tmp_path / "forbidden", status=1))
    assert not isolation.people_are_kept_apart()
    monkeypatch.setenv("PATH", bubblewrap(tmp_path / "working", status=0))
    assert isolation.people_are_kept_apart()


@pytest.mark.parametrize("status", [0, 1])
def test_what_was_found_out_at_the_start_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int):
    monkeypatch.setenv(isolation.VARIABLE, "1" if status else "0")  # of another platform, in whose server we are
    monkeypatch.setenv("PATH", bubblewrap(tmp_path / "before", status=status))
    isolation.find_out_for_all_parts()
    monkeypatch.setenv("PATH", bubblewrap(tmp_path / "later", status=1 - status))
    assert isolation.people_are_kept_apart() is (status == 0)
