"""The catalogue says what there is, and what is wrong with a file of it."""

import json
from pathlib import Path

import pytest

from astrocloud.environments import CatalogueError, Environment, UnknownEnvironment, load_catalogue, load_tutorials
from astrocloud.environments.catalogue import locked_versions
from tests.services.environments.conftest import DESCRIPTION, write_environment

LOCK = "tinystar==1.0 \\\n    --hash=sha256:00\n"


def test_the_shipped_environment_names_all_that_it_promises() -> None:
    astro = load_catalogue(default="astro").default
    assert astro.id == "astro"
    promised = (
        "jupyterlab ipykernel numpy scipy matplotlib pandas pyarrow astropy pyvo astroquery vos s3fs fsspec photutils "
        "specutils reproject regions healpy mocpy dask distributed dask-labextension bokeh ipympl ipywidgets papermill "
        "jupyterlab-language-pack-zh-CN"
    )
    assert set(promised.split()) <= set(astro.software)
    assert astro.software["jupyterhub"].startswith("6.1.")
    assert f"\nastropy=={astro.software['astropy']} " in astro.lock.read_text(encoding="utf-8")


def test_no_lock_holds_an_address_or_lacks_a_hash(repository: Path) -> None:
    locks = [*repository.glob("images/*/requirements.txt"), repository / "extensions" / "build.txt"]
    for lock in locks:
        text = lock.read_text(encoding="utf-8")
        assert "://" not in text, lock
        # Left out of environments because its import takes half of a server's start; the hub may have it.
        assert "rfc3987" not in text or not (lock.parent / "environment.yaml").exists(), lock
        for entry in text.split("\n    --hash", 1)[0].splitlines():
            assert not entry.startswith("-"), lock
        pinned = [line for line in text.splitlines() if line and not line.startswith((" ", "#"))]
        assert all("==" in line and line.endswith("\\") for line in pinned), lock


def test_sizes_are_read_in_bytes_and_the_first_is_the_default(tmp_path: Path) -> None:
    catalogue = load_catalogue(write_environment(tmp_path, LOCK).parents[1])
    assert catalogue.resources("tiny").id == "small"
    large = catalogue.resources("tiny", "large")
    assert (large.memory, large.cpus, large.processes) == (2 * 2**30, 2, 128)
    with pytest.raises(UnknownEnvironment, match="no size called huge; there are: small, large") as caught:
        catalogue.resources("tiny", "huge")
    assert caught.value.status == 400


def test_an_unknown_environment_is_refused_with_those_there_are(tmp_path: Path) -> None:
    folder = write_environment(tmp_path, LOCK).parents[1]
    with pytest.raises(UnknownEnvironment, match=r"called \.\./x; there are: tiny") as caught:
        load_catalogue(folder).get("../x")
    assert caught.value.status == 404
    with pytest.raises(UnknownEnvironment, match="called astro"):
        load_catalogue(folder, default="astro")


def test_a_folder_without_environments_is_said(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match=str(tmp_path)):
        load_catalogue(tmp_path)


def test_a_version_is_the_one_for_linux_and_the_python_asked_for() -> None:
    lock = (
        "one==1.0 ; sys_platform == 'win32' \\\n    --hash=sha256:00\n    # via x\n"
        "Two.Words==2.0 ; python_full_version < '3.12' \\\n    --hash=sha256:00\n"
        "two-words==3.0 ; python_full_version >= '3.12' \\\n    --hash=sha256:00\n"
    )
    assert locked_versions(lock) == {"two-words": "2.0"}
    assert locked_versions(lock, python_version="3.12") == {"two-words": "3.0"}


@pytest.mark.parametrize(
    ("old", "new", "key", "allowed"),
    [
        ("id: tiny", "id: other", "id", "name of its folder, tiny"),
        ("software: [tinystar]", "software: [tinystar, absent]", "software.1", "a package of requirements.txt"),
        ("memory: 512MiB", "memory: 1MiB", "resources.0.memory", "greater than or equal to 268435456"),
        ("memory: 512MiB", "memory: much", "resources.0.memory", "could not parse value and unit from byte string"),
        ("cpus: 0.5", "cpus: 0", "resources.0.cpus", "greater than 0"),
        ("id: large", "id: small", "resources.1.id", "no other size has"),
        ("name: {en: Tiny, zh: 微小}", "name: {en: Tiny}", "name.zh", "required"),
        ("software: [tinystar]", "softwares: [tinystar]", "software", "required"),
        ("id: tiny", "id: tiny\nextra: 1", "extra", "no such key; the keys are id, name"),
        ("id: tiny", 'id: tiny\npython: "about 3"', "python", "a version specifier"),
        ("id: tiny", "id: [", "line 4, column 1", "YAML"),
    ],
)
def test_a_wrong_file_is_told_by_file_key_value_and_what_is_allowed(
    tmp_path: Path, old: str, new: str, key: str, allowed: str
) -> None:
    assert old in DESCRIPTION
    file = write_environment(tmp_path, LOCK, DESCRIPTION.replace(old, new))
    with pytest.raises(CatalogueError) as caught:
        load_catalogue(tmp_path)
    assert caught.value.code == "environment-file"
    assert str(file) in str(caught.value)
    assert f"`{key}" in str(caught.value)
    assert allowed in str(caught.value)


def test_an_environment_without_a_lock_is_told(tmp_path: Path) -> None:
    file = write_environment(tmp_path, LOCK)
    (file.parent / "requirements.txt").unlink()
    with pytest.raises(CatalogueError, match=r"requirements\.txt"):
        load_catalogue(tmp_path)


def test_a_deprecated_environment_says_what_to_take_instead(tmp_path: Path) -> None:
    text = DESCRIPTION + "deprecated: {reason: {en: Old., zh: 已过时。}, until: 2027-01-31, replacement: astro}\n"
    environment: Environment = load_catalogue(write_environment(tmp_path, LOCK, text).parents[1]).get("tiny")
    assert environment.deprecated is not None
    assert environment.deprecated.replacement == "astro"
    assert environment.deprecated.until is not None


def test_tutorials_are_told_by_their_notebooks(repository: Path) -> None:
    first = load_tutorials(repository / "notebooks")["first-look"]
    assert first.title.in_language("zh") == "初识平台"
    assert first.notebooks["en"].name == "first-look.en.ipynb"
    assert first.minutes == 10
    assert load_tutorials(repository / "no-such-folder") == {}


def test_a_tutorial_in_one_language_is_refused(tmp_path: Path) -> None:
    told = {"metadata": {"astrocloud": {"title": "Alone", "summary": "Alone.", "minutes": 1}}}
    (tmp_path / "alone.en.ipynb").write_text(json.dumps(told), encoding="utf-8")
    with pytest.raises(CatalogueError, match=r"alone\.zh\.ipynb"):
        load_tutorials(tmp_path)
