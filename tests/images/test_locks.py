"""The images of the platform's own parts hold the same versions as a machine that runs it by one command."""

import re
import tomllib
from pathlib import Path

import pytest


def locked(file: Path) -> dict[str, str]:
    """Return package -> version of a lock file."""
    return dict(re.findall(r"^([a-z0-9._-]+)==([^ \\;]+)", file.read_text(encoding="utf-8"), re.MULTILINE))


@pytest.mark.parametrize("lock", ["hub/requirements.txt", "services/requirements.txt", "base/build.txt"])
def test_an_image_s_lock_agrees_with_the_platform_s(repository: Path, lock: str) -> None:
    platform = locked(repository / "requirements" / "run.txt")
    image = locked(repository / "images" / lock)

    assert image
    assert {name: image[name] for name in image.keys() & platform.keys()} == {
        name: platform[name] for name in image.keys() & platform.keys()
    }


def declared(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9._-]", requirement.strip(), maxsplit=1)[0].lower()


@pytest.mark.parametrize("part", ["hub", "services"])
def test_an_image_holds_what_its_part_declares(repository: Path, part: str) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = {declared(r) for r in [*project["dependencies"], *project["optional-dependencies"][part]]}

    assert wanted <= locked(repository / "images" / part / "requirements.txt").keys()


@pytest.mark.parametrize("lock", ["hub/requirements.txt", "services/requirements.txt", "base/build.txt"])
def test_no_lock_names_a_host(repository: Path, lock: str) -> None:
    assert "://" not in (repository / "images" / lock).read_text(encoding="utf-8")
