"""The conformance table names tests that exist, and every fault that the service can answer."""

import re
from pathlib import Path

from astrocloud.vospace.errors import NAMES

PAGE = "docs/reference/vospace-conformance.md"


def test_every_test_that_the_table_names_exists(repository: Path) -> None:
    text = (repository / PAGE).read_text(encoding="utf-8")
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", text)
    assert len(named) > 50
    missing = []
    for file, name in named:
        found = [repository / "tests" / folder / file for folder in ("services/vospace", "interop")]
        if not any(path.exists() and f"def {name}(" in path.read_text(encoding="utf-8") for path in found):
            missing.append(f"{file}::{name}")
    assert missing == []
    rows = [line for line in text.splitlines() if line.startswith("| ") and "| Test" not in line]
    assert all("::test_" in row or "not built" in row for row in rows)


def test_the_standards_faults_are_all_in_it(repository: Path) -> None:
    text = (repository / PAGE).read_text(encoding="utf-8")
    assert {name for name in NAMES.values() if name not in text} == set()
