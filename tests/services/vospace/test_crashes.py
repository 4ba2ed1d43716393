"""Killed at any of its steps, an operation was done or was not, and nothing of it stays behind."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

D = {"": "/", "/1": "1 kept", "/2": "2", "/e": "/", "/e/3": "e/3", "/l": "-> e/3"}
OTHER = {"": "/", "/new": "new"}
TRASH = "home/ada/.trash"


def tree(where: str, what: dict[str, str] = D) -> dict[str, str]:
    return {where + name: value for name, value in what.items()}


REST = {"home": "/", "home/ada": "/", "home/ada/x": "/", **tree("home/ada/x/d", OTHER)}
REST |= {"project": "/", "project/team": "/"}
F = {"home/ada/f": "old kept"}
BEFORE = {**REST, **F, **tree("home/ada/d")}
THROWN = {**REST, **F, TRASH: "/", **tree(f"{TRASH}/d")}
BEGINS = {"restore": THROWN, "purge": THROWN}
"""What is there before; by default `BEFORE`."""

AFTER = {
    "put": {**BEFORE, "home/ada/f": "new kept"},
    "put-new": {**BEFORE, "home/ada/n": "fresh"},
    "resumed": {**BEFORE, "home/ada/f": "new kept"},
    "link": {**BEFORE, "home/ada/n": "-> vos:x"},
    "move": {**REST, **F, **tree("home/ada/moved")},
    "other-file-system": {**REST, **F, **tree("project/team/d")},
    "copy": {**BEFORE, **tree("home/ada/copied")},
    "delete": {**REST, **F},
    "delete-one": {**REST, **tree("home/ada/d")},
    "trash": THROWN,
    "restore": {**BEFORE, TRASH: "/"},
    "purge": {**REST, **F, TRASH: "/"},
}
BETWEEN = {
    # Two file systems have no step in common: for a moment all of it is at both places.
    "other-file-system": [{**BEFORE, **tree("project/team/d")}],
    "trash": [{**BEFORE, TRASH: "/"}],
}
"""What may be seen besides what was there before and what is there after."""


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


def of(kills: list[dict[str, object]], operation: str) -> list[dict[str, object]]:
    lines = [line for line in kills if line["operation"] == operation]
    assert len(lines) > 2
    for line in lines:
        assert line["before"] == BEGINS.get(operation, BEFORE)
        # Nothing that was told to be done is undone, and nothing hidden is left.
        assert line["swept"] == line["visible"], line
    assert lines[-1]["done"]
    return lines


@pytest.mark.parametrize("operation", AFTER)
def test_killed_at_any_step_it_was_done_or_was_not(kills: list[dict[str, object]], operation: str) -> None:
    lines = of(kills, operation)
    states = [BEGINS.get(operation, BEFORE), AFTER[operation], *BETWEEN.get(operation, [])]
    for line in lines:
        assert line["visible"] in states, line
    assert lines[-1]["visible"] == AFTER[operation]


def test_a_removal_one_by_one_leaves_every_other_node_whole(kills: list[dict[str, object]]) -> None:
    lines = of(kills, "delete-all")
    for line in lines:
        visible = line["visible"]
        assert isinstance(visible, dict)
        assert visible.items() <= BEFORE.items(), line
        assert visible.items() >= {**REST, **F}.items(), line
    sizes = [len(line["visible"]) for line in lines]
    assert sizes == sorted(sizes, reverse=True)
    assert lines[-1]["visible"] == {**REST, **F}


def test_what_a_killed_replacement_took_away_is_in_the_trash(kills: list[dict[str, object]]) -> None:
    lines = of(kills, "replace")
    for line in lines:
        visible = line["visible"]
        assert isinstance(visible, dict)
        # The old one is at its place or in the trash, and what is copied stays as it is.
        assert any(tree(place).items() <= visible.items() for place in ("home/ada/d", f"{TRASH}/d")), line
        assert visible.items() >= {**REST, **F}.items(), line
        # What is at the place is one of the two, whole.
        there = {name: value for name, value in visible.items() if f"{name}/".startswith("home/ada/d/")}
        assert there in ({}, tree("home/ada/d"), tree("home/ada/d", OTHER)), line
        if not there:  # then the new one is whole beside it
            assert "new" in [value for name, value in visible.items() if ".d.replacing-" in name], line
    last = {**REST, **F, TRASH: "/", **tree(f"{TRASH}/d"), **tree("home/ada/d", OTHER)}
    assert lines[-1]["visible"] == last
