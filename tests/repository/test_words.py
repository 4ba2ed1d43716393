"""Every text in both languages, every text that is asked for, and no text that nobody asks for."""

import ast
import re
import string
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import jinja2
import pytest
import yaml
from jinja2 import nodes

from astrocloud.core import words
from tests.repository.files import REPOSITORY, files, name_of

WORDS = REPOSITORY / "services/src/astrocloud/core/words"
CODE = ("services/src", "hub/src", "extensions")


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


class Use(NamedTuple):
    """One place where the code asks for a text."""

    place: str
    key: str
    """The whole key, or what it begins with."""
    whole: bool
    given: frozenset[str] | None
    """The parameters given, or `None` when they cannot be seen."""


def _keywords(call: ast.Call) -> frozenset[str] | None:
    names = [keyword.arg for keyword in call.keywords]
    return None if None in names else frozenset(str(name) for name in names)


def _literals(value: ast.expr) -> Iterator[tuple[str, bool]]:
    """Yield the text of an expression: whole, or what it begins with."""
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        yield value.value, True
    elif isinstance(value, ast.JoinedStr) and value.values and isinstance(value.values[0], ast.Constant):
        yield str(value.values[0].value), False
    elif isinstance(value, ast.IfExp):
        yield from _literals(value.body)
        yield from _literals(value.orelse)


@cache
def trees() -> tuple[tuple[Path, ast.Module], ...]:
    return tuple((path, ast.parse(path.read_text(encoding="utf-8"))) for path in files(*CODE, suffix=".py"))


def uses_in_code() -> Iterator[Use]:
    """Yield every call of ``words.text`` and of the functions named after it."""
    for path, tree in trees():
        # In the terminal's modules `text` and `_text` put `terminal.` in front themselves.
        terminal = path.name in {"cli.py", "up.py"}
        for call in ast.walk(tree):
            if not isinstance(call, ast.Call) or not call.args:
                continue
            function = call.func
            if isinstance(function, ast.Name) and function.id in {"t", "text", "_text"}:
                prefix = "terminal." if terminal else ""
            elif isinstance(function, ast.Attribute) and ast.unparse(function) == "words.text":
                prefix = ""
            else:
                continue
            for literal, whole in _literals(call.args[0]):
                yield Use(f"{name_of(path)}:{call.lineno}", prefix + literal, whole, _keywords(call))


def uses_in_templates() -> Iterator[Use]:
    """Yield every ``t(...)`` of the page templates."""
    environment = jinja2.Environment(extensions=["jinja2.ext.do"])
    for path in files("services/src", "hub/src", suffix=".html"):
        tree = environment.parse(path.read_text(encoding="utf-8"))
        for call in tree.find_all(nodes.Call):
            if not (isinstance(call.node, nodes.Name) and call.node.name == "t" and call.args):
                continue
            given = None if call.dyn_kwargs else frozenset(keyword.key for keyword in call.kwargs)
            first, whole = call.args[0], True
            if isinstance(first, nodes.Concat):
                first, whole = first.nodes[0], False
            if isinstance(first, nodes.Const):
                yield Use(f"{name_of(path)}:{call.lineno}", str(first.value), whole, given)


def error_classes() -> set[str]:
    """Return the names of all classes of errors that carry a code, found in the code itself."""
    bases = {"PlatformError"}
    while True:
        found = {
            node.name
            for _, tree in trees()
            for node in ast.walk(tree)
            if isinstance(node, ast.ClassDef) and bases & {ast.unparse(base).rpartition(".")[2] for base in node.bases}
        }
        if found <= bases:
            return bases
        bases |= found


def errors_in_code() -> Iterator[Use]:
    """Yield every place where an error is made with a code."""
    classes = error_classes()
    for path, tree in trees():
        for call in ast.walk(tree):
            if not isinstance(call, ast.Call) or ast.unparse(call.func).rpartition(".")[2] not in classes:
                continue
            for literal, whole in _literals(call.args[0]) if call.args else ():
                yield Use(f"{name_of(path)}:{call.lineno}", literal, whole, _keywords(call))


@pytest.mark.parametrize("file", sorted(WORDS.glob("*.yaml")), ids=lambda file: file.stem)
def test_every_text_is_there_in_both_languages(file: Path):
    text = file.read_text(encoding="utf-8")
    document = yaml.safe_load(text)
    keys = re.findall(r"^([A-Za-z0-9_-]+):", text, re.MULTILINE)
    assert sorted(keys) == sorted(set(keys)), "a key is there twice"
    for key, entry in document.items():
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", key), key
        parts = [entry, entry["title"]] if file.stem == "errors" else [entry]
        for part in parts:
            for language in words.LANGUAGES:
                assert isinstance(part[language], str), key
                assert part[language].strip(), key
        expected = {"status", "title", *words.LANGUAGES} if file.stem == "errors" else set(words.LANGUAGES)
        assert set(entry) == expected, key


def test_both_texts_have_the_same_placeholders():
    different = [
        key for key, texts in words.catalogue().items() if len({frozenset(placeholders(t)) for t in texts.values()}) > 1
    ]
    assert not different


def test_no_text_is_left_in_the_other_language():
    chinese = re.compile(r"[\u4e00-\u9fff]")
    english = [key for key, texts in words.catalogue().items() if chinese.search(texts["en"])]
    # A name of a program, a unit or a line for programs is the same in both.
    same = {key for key, texts in words.catalogue().items() if not chinese.search(texts["zh"])}
    untranslated = [
        key for key in same if re.search(r"[a-z]{4,} [a-z]{3,}", re.sub(r"`[^`]*`", "", words.catalogue()[key]["zh"]))
    ]
    assert [key for key in english if not re.search(r"language|\bzh\b|lang-", key)] == []
    # A link to the other language is written in it, and one line is for programs too.
    assert [key for key in untranslated if "other-language" not in key and key != "terminal.ready"] == []


def test_every_text_that_is_asked_for_is_there():
    known = words.catalogue()
    missing = []
    for use in (*uses_in_code(), *uses_in_templates()):
        if "." in use.key and use.key.split(".")[0] in {file.stem for file in WORDS.glob("*.yaml")}:
            good = use.key in known if use.whole else any(key.startswith(use.key) for key in known)
            if not good:
                missing.append(f"{use.place}: {use.key}")
    assert not missing


def test_every_text_gets_the_values_it_names():
    known = words.catalogue()
    lacking = []
    for use in (*uses_in_code(), *uses_in_templates()):
        if use.whole and use.given is not None and use.key in known:
            wanted = placeholders(known[use.key]["en"])
            if wanted - use.given:
                lacking.append(f"{use.place}: {use.key} lacks {', '.join(sorted(wanted - use.given))}")
    assert not lacking


def test_every_text_is_used():
    everything = "\n".join(
        path.read_text(encoding="utf-8")
        for path in files(*CODE)
        if path.suffix in {".py", ".html", ".js"} and path.parent != WORDS
    )
    literals = set(re.findall(r"""["'`]([a-z0-9-]+(?:\.[a-z0-9-]+)?)["'`]""", everything))
    begun = {use.key for use in (*uses_in_code(), *uses_in_templates()) if not use.whole}
    begun |= {
        literal
        for _, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for literal, _whole in _literals(node)
        if re.match(r"[a-z]+\.[a-z]", literal)
    }
    begun = {each for each in begun if not each.endswith(".")}  # a whole domain says nothing
    # Scripts name texts without the domain, and some by what they begin with.
    in_scripts = set(re.findall(r"""`([a-z]+(?:-[a-z]+)*-)\$\{""", everything))
    unused = []
    for key in words.catalogue():
        domain, _, name = key.partition(".")
        if domain == "errors":
            continue
        if domain == "files" and any(name.startswith(each) for each in in_scripts):
            continue
        if (
            key not in literals
            and name not in literals
            and not any(key.startswith(each) for each in begun if len(each) > 3)
        ):
            unused.append(key)
    assert not unused, unused


def test_every_error_that_is_raised_is_in_the_catalogue_and_gets_its_values():
    codes, known = set(words.error_codes()), words.catalogue()
    wrong = []
    for use in errors_in_code():
        if not use.whole:
            if not any(code.startswith(use.key) for code in codes):
                wrong.append(f"{use.place}: no error begins with {use.key}")
        elif use.key not in codes:
            wrong.append(f"{use.place}: {use.key} is not in the catalogue")
        elif use.given is not None and (lacks := placeholders(known[f"errors.{use.key}"]["en"]) - use.given):
            wrong.append(f"{use.place}: {use.key} lacks {', '.join(sorted(lacks))}")
    assert not wrong


def test_every_error_in_the_catalogue_is_used():
    literals = {
        node.value
        for _, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    begun = {use.key for use in errors_in_code() if not use.whole}
    unused = [
        code
        for code in words.error_codes()
        if code not in literals and not any(code.startswith(each) for each in begun)
    ]
    assert not unused


def test_every_error_says_what_to_do_next():
    # More than one sentence, or one with a semicolon: what was wrong, and what is allowed or to be done.
    short = [
        code for code in words.error_codes() if not re.search(r"[.;:,].*\S", words.catalogue()[f"errors.{code}"]["en"])
    ]
    assert not short


def test_a_status_is_one_of_http():
    assert not [code for code in words.error_codes() if not 400 <= words.error_status(code) <= 599]
