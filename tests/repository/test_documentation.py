"""The documentation says what is so."""

import argparse
import importlib.util
import json
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from astrocloud.config import Config, json_schema, parse_config
from astrocloud.core import words
from astrocloud.core.layout import BIND_VARIABLE, DATA_VARIABLE, PORT_VARIABLE
from helm.values_schema import Values
from tests.repository.files import REPOSITORY, code_blocks, files, name_of

DOCS = REPOSITORY / "docs"
PAGES = [path for path in files(suffix=".md") if path.is_relative_to(DOCS) or path.parent == REPOSITORY]


@cache
def reference() -> ModuleType:
    """Return the module that makes the reference pages."""
    spec = importlib.util.spec_from_file_location("reference", DOCS / "_ext/reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def leaves(parser: argparse.ArgumentParser) -> set[str]:
    return {each.prog for each in reference().commands() if each is not parser}


def test_every_folder_that_the_architecture_names_exists():
    text = (DOCS / "architecture.md").read_text(encoding="utf-8").split("## What is planned")[0]
    named = {name for name in re.findall(r"`([A-Za-z0-9_./-]+/)`", text) if not name.startswith("/")}
    assert len(named) > 15
    assert not [name for name in sorted(named) if not (REPOSITORY / name).is_dir()]


def test_every_folder_of_the_project_is_named_in_the_architecture():
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    top = {path.relative_to(REPOSITORY).parts[0] for path in files() if path.parent != REPOSITORY}
    packages = {
        f"services/src/astrocloud/{path.parent.name}"
        for path in files("services/src", suffix="__init__.py")
        if path.parent.parent.name == "astrocloud"
    }
    missing = [name for name in sorted(top | packages) if f"`{name}/`" not in text and not name.startswith(".")]
    assert not missing


def test_the_configuration_reference_names_every_key_with_its_description():
    page = reference().configuration()
    for name, block in {"Config": json_schema(), **json_schema()["$defs"]}.items():
        for key in block["properties"]:
            assert re.search(rf"^\| `{key}` \|.*\| [^|]{{10,}} \|$", page, re.MULTILINE), f"{name}.{key}"


def test_the_error_reference_has_every_sentence_in_both_languages():
    page = reference().errors()
    for code in words.error_codes():
        assert f"\n## {code}\n" in page
    assert page.count('<p lang="zh-CN">') == page.count('<p lang="en">') == len(words.error_codes())


def test_the_command_reference_has_every_subcommand_and_the_guide_most():
    page = reference().command_line()
    guide = "".join(path.read_text(encoding="utf-8") for path in (DOCS / "operator").glob("*.md"))
    progs = [parser.prog for parser in reference().commands()]
    assert len(progs) > 12
    for prog in progs:
        assert f"\n## {prog}\n" in page
        if prog not in {"astrocloud", "astrocloud user"}:
            assert prog in guide, f"the operator guide does not mention `{prog}`"


def test_every_command_that_is_shown_is_one():
    parsers = {parser.prog: parser for parser in reference().commands()}
    wrong = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        blocks = [block.replace("\\\n", " ") for block in code_blocks(text, "shell")]
        shown = [line.partition("#")[0].strip() for block in blocks for line in block.splitlines()]
        shown += re.findall(r"`((?:\.venv/bin/)?astrocloud [^`]+)`", text)
        for line in shown:
            tokens = [token for token in shlex.split(line) if not re.match(r"[A-Z_]+=", token)]
            if not tokens or tokens[0].rpartition("/")[2] != "astrocloud":
                continue
            tokens[0] = "astrocloud"
            depth = next(n for n in (3, 2, 1) if " ".join(tokens[:n]) in parsers)
            parser, rest = parsers[" ".join(tokens[:depth])], tokens[depth:]
            options = {option for action in parser._actions for option in action.option_strings}
            unknown = [token for token in rest if token.startswith("--") and token not in options]
            if unknown or (depth == 1 and rest and not rest[0].startswith("-")):
                wrong.append(f"{name_of(page)}: {line}")
    assert not wrong


def test_every_make_target_that_is_shown_is_one():
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    documented = set(
        re.findall(r"^([a-z-]+):.*## ", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    )
    assert {"run", "test", "lint", "docs", "bench", "clean", "help"} <= documented
    wrong = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        shown = [line for block in code_blocks(text, "shell") for line in block.splitlines()]
        shown += re.findall(r"`(make [^`]+)`", text)
        for line in shown:
            found = re.match(r"(?:[A-Z_]+=\S+ )*make ((?:[a-z][a-z-]*\s?)+)", line.partition("#")[0])
            if found and not set(found[1].split()) <= targets:
                wrong.append(f"{name_of(page)}: {line}")
    assert not wrong


def test_every_variable_that_is_named_is_read():
    known = {DATA_VARIABLE, PORT_VARIABLE, BIND_VARIABLE}
    code = "".join(path.read_text(encoding="utf-8") for path in files("services", "hub", "tests", suffix=".py"))
    for page in PAGES:
        named = set(re.findall(r"\bASTROCLOUD_[A-Z_]+\b", page.read_text(encoding="utf-8")))
        examples = {"ASTROCLOUD_OIDC_SECRET"}
        assert not [name for name in named - known - examples if f'"{name}"' not in code], page.name


def merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Return `above` over `below`, as Helm lays values over a chart's own."""
    return {
        **below,
        **{
            key: merged(below[key], value) if isinstance(value, dict) and isinstance(below.get(key), dict) else value
            for key, value in above.items()
        },
    }


def test_every_configuration_that_is_shown_is_good():
    checked = 0
    defaults = yaml.safe_load((REPOSITORY / "helm/astrocloud/values.yaml").read_text(encoding="utf-8"))
    for page in (path for path in PAGES if "operator" in path.parts):
        for block in code_blocks(page.read_text(encoding="utf-8"), "yaml"):
            document = yaml.safe_load(block)
            if page.name == "kubernetes.md":  # the chart's values, of which every one has a default
                Values.model_validate(merged(defaults, document))
                continue
            if "client_secret" in document:  # a part of one, to show where a secret is
                document = {
                    "passport": {"kind": "oidc", "issuer": "https://id.example.org", "client_id": "x", **document}
                }
            assert isinstance(parse_config(document, source=name_of(page)), Config)
            checked += 1
    assert checked >= 4


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_somewhere(page: Path):
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path = target.partition("#")[0]
        if not path or re.match(r"[a-z]+:", path) or "/_generated/" in path:
            continue
        there = page.parent / path
        if not (there.exists() or there.with_suffix(".md").exists()):
            broken.append(target)
    assert not broken


def test_the_routes_page_says_of_every_route_what_it_does():
    rows = [line for line in reference().routes().splitlines() if line.startswith("| `/")]
    assert rows
    assert [row for row in rows if row.endswith("|  |")] == []


def test_generated_pages_that_are_linked_are_generated():
    linked = {name for page in PAGES for name in re.findall(r"_generated/([a-z-]+)", page.read_text(encoding="utf-8"))}
    assert linked == set(reference().PAGES)


def test_every_page_of_the_user_guide_is_there_in_both_languages():
    english = {path.name for path in (DOCS / "user").glob("*.md")}
    assert english == {path.name for path in (DOCS / "zh/user").glob("*.md")}
    for name in english:
        texts = [(folder / name).read_text(encoding="utf-8") for folder in (DOCS / "user", DOCS / "zh/user")]
        outlines = [[len(mark) for mark in re.findall(r"^(#+) ", text, re.MULTILINE)] for text in texts]
        assert outlines[0] == outlines[1], name


def test_the_two_readmes_have_one_outline():
    texts = [(REPOSITORY / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh.md")]
    assert len({tuple(len(mark) for mark in re.findall(r"^(#+) ", text, re.MULTILINE)) for text in texts}) == 1
    assert code_blocks(texts[0], "text") == code_blocks(texts[1], "text")


def test_the_figures_are_those_that_were_measured():
    page = (DOCS / "performance.md").read_text(encoding="utf-8")
    quoted = re.search(r"<!-- figures: begin -->\n(.*?)<!-- figures: end -->", page, re.DOTALL)
    assert quoted is not None
    measured = DOCS / "performance.json"
    if not measured.exists():
        assert not re.search(r"\d", quoted[1]), "figures are quoted that nobody measured"
        return
    numbers = set(_numbers(json.loads(measured.read_text(encoding="utf-8"))))
    made_up = [
        text
        for text in re.findall(r"(?<![\w.])\d+(?:\.\d+)?(?![\w.]*\d)", quoted[1])
        if not any(f"{number:.{len(text.partition('.')[2])}f}" == text for number in numbers)
    ]
    assert not made_up


def _numbers(document: Any) -> list[float]:
    if isinstance(document, dict):
        return [number for value in document.values() for number in _numbers(value)]
    if isinstance(document, list):
        return [number for value in document for number in _numbers(value)]
    if isinstance(document, str):
        return [float(text) for text in re.findall(r"\d+(?:\.\d+)?", document)]
    return [float(document)] if isinstance(document, int | float) and not isinstance(document, bool) else []


@pytest.mark.slow
def test_it_builds_without_a_warning(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", str(DOCS), str(tmp_path / "html")],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    chinese = (tmp_path / "html/zh/user/files.html").read_text(encoding="utf-8")
    english = (tmp_path / "html/user/files.html").read_text(encoding="utf-8")
    assert 'lang="zh-CN"' in chinese[:400]
    assert 'href="../../user/files.html"' in chinese
    assert 'href="../zh/user/files.html"' in english
