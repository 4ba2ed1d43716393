"""The tutorials: the same in both languages, clean, and right."""

import json
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest

from astrocloud.environments import load_catalogue, load_tutorials
from tests.notebooks import checks

NAMES = [(tutorial, language) for tutorial in checks.TUTORIALS for language in checks.LANGUAGES]
CHINESE = re.compile(r"[\u4e00-\u9fff]")


@pytest.fixture(scope="module")
def folder(repository: Path) -> Path:
    return repository / "notebooks"


@pytest.fixture(scope="module")
def expected(astro_python: Path) -> dict[str, dict[str, float]]:
    return checks.expected_numbers(astro_python)


def read(folder: Path, tutorial: str, language: str) -> Any:
    return json.loads((folder / f"{tutorial}.{language}.ipynb").read_text(encoding="utf-8"))


def source(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def test_the_tutorials_are_those_that_the_environment_names(repository: Path, folder: Path) -> None:
    environment = load_catalogue(repository / "images").get("astro")
    assert environment.tutorials == checks.TUTORIALS
    assert set(load_tutorials(folder)) == set(checks.TUTORIALS)


@pytest.mark.parametrize(("tutorial", "language"), NAMES)
def test_a_notebook_is_valid_and_clean(folder: Path, tutorial: str, language: str) -> None:
    document = read(folder, tutorial, language)
    nbformat.validate(document)
    assert (document["nbformat"], document["nbformat_minor"]) == (4, 5)
    for cell in document["cells"]:
        assert cell["metadata"] == {}
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None


@pytest.mark.parametrize(("tutorial", "language"), NAMES)
def test_a_notebook_says_what_it_is(folder: Path, tutorial: str, language: str) -> None:
    document = read(folder, tutorial, language)
    told = document["metadata"]["astrocloud"]
    assert told["language"] == language
    assert told["environment"] == "astro"
    assert source(document["cells"][0]).startswith(f"# {told['title']}\n")
    assert bool(CHINESE.search(told["title"] + told["summary"])) == (language == "zh")
    assert document["metadata"]["kernelspec"]["name"] == "python3"


@pytest.mark.parametrize("tutorial", checks.TUTORIALS)
def test_both_languages_are_the_same_notebook(folder: Path, tutorial: str) -> None:
    english, chinese = (read(folder, tutorial, language)["cells"] for language in checks.LANGUAGES)
    assert [(cell["id"], cell["cell_type"]) for cell in english] == [
        (cell["id"], cell["cell_type"]) for cell in chinese
    ]
    for one, other in zip(english, chinese, strict=True):
        if one["cell_type"] == "code":
            assert source(one) == source(other)
        else:
            assert not CHINESE.search(source(one)), one["id"]
            assert CHINESE.search(source(other)), other["id"]
            # Headings, links, figures of code and numbers of the text stand in both.
            assert re.findall(r"^#+", source(one), re.M) == re.findall(r"^#+", source(other), re.M), one["id"]
            assert re.findall(r"\]\(([^)]*)\)", source(one)) == re.findall(r"\]\(([^)]*)\)", source(other)), one["id"]


@pytest.mark.parametrize("tutorial", checks.TUTORIALS)
def test_a_link_to_another_tutorial_names_one(folder: Path, tutorial: str) -> None:
    titles = {
        language: {t.title.in_language(language) for t in load_tutorials(folder).values()} for language in ("en", "zh")
    }
    last = {language: source(read(folder, tutorial, language)["cells"][-1]) for language in ("en", "zh")}
    for named in re.findall(r"\*([A-Z][^*]+)\*[:,]? (?=\w)", last["en"]) + re.findall(r"《([^》]+)》", last["zh"]):
        assert named in titles["en"] | titles["zh"]


@pytest.mark.parametrize(("tutorial", "language"), NAMES)
def test_a_tutorial_runs_offline_and_its_numbers_are_right(
    folder: Path,
    tutorial: str,
    language: str,
    astro_python: Path,
    expected: dict[str, dict[str, float]],
    tmp_path: Path,
) -> None:
    document = checks.run_tutorial(astro_python, folder / f"{tutorial}.{language}.ipynb", home=tmp_path)
    checks.check_outputs(tutorial, document, expected[tutorial])


def test_the_check_notices_a_wrong_number(expected: dict[str, dict[str, float]], folder: Path) -> None:
    document = read(folder, "files", "en")
    lines = ["rows 39790\n", "target 4 7958 rows, mean flux 0.3\n", "bright 18 rows\n", *checks.TEXTS["files"]]
    code = [cell for cell in document["cells"] if cell["cell_type"] == "code"]
    for cell in code:
        cell["execution_count"] = 1
    code[0]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "\n".join(lines)}]
    with pytest.raises(AssertionError, match=r"mean flux: 0\.3, not 0\.24"):
        checks.check_outputs("files", document, expected["files"])
