"""Killed at any of its steps, an operation was done or was not, and nothing of it stays behind."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

D = {"d": "/", "d/1": "1", "d/2": "2", "d/e": "/", "d/e/3": "e/3"}
BEFORE = {"f": "old", **D}


def moved(name: str) -> dict[str, str]:
    return {name + key[1:]: value for key, value in D.items()}


AFTER = {
    "put": {"f": "new", **D},
    "put-new": {"f": "old", "n": "", **D},
    "resumed": {"f": "new", **D},
    "move": {"f": "old", **moved("moved")},
    "copy": {"f": "old", **D, **moved("copied")},
    "delete": {"f": "old"},
}


@pytest.fixture(scope="module")
def kills(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> list[dict[str, object]]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.services.vospace.crashing", str(tmp_path_factory.mktemp("crash"))],
        cwd=repository,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("operation", AFTER)
def test_killed_at_any_step_it_was_done_or_was_not(kills: list[dict[str, object]], operation: str) -> None:
    lines = [line for line in kills if line["operation"] == operation]
    assert len(lines) > 4
    for line in lines:
        assert line["before"] == BEFORE
        assert line["visible"] in (BEFORE, AFTER[operation]), line
        # Nothing that was told to be done is undone, and nothing hidden is left.
        assert line["swept"] == line["visible"]
    assert lines[-1]["done"]
    assert lines[-1]["visible"] == AFTER[operation]
