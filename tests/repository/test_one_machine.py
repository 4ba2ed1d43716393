"""What of the end-to-end tests is left out on a cluster is listed, and the list is true."""

import ast
from pathlib import Path

import yaml


def names_of(file: Path) -> set[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    functions = [each for each in tree.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)]
    return {file.name} | {f"{file.name}::{each.name}" for each in functions if each.name.startswith("test_")}


def test_every_test_left_out_on_a_cluster_is_there_and_has_a_reason(repository: Path) -> None:
    folder = repository / "tests" / "e2e"
    there = set().union(*(names_of(file) for file in folder.glob("test_*.py")))
    listed: dict[str, str] = yaml.safe_load((folder / "one_machine.yaml").read_text(encoding="utf-8"))

    assert not set(listed) - there, "no such test any more"
    assert all(len(reason) > 20 for reason in listed.values())
