"""The environments there are, read from ``images/*/environment.yaml`` and the locks beside them."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml
from packaging.markers import Marker, default_environment
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name
from pydantic import BaseModel, ValidationError

from astrocloud.config import LocalizedText
from astrocloud.core.layout import project_folder
from astrocloud.core.words import LANGUAGES
from astrocloud.environments.errors import CatalogueError, UnknownEnvironment
from astrocloud.environments.models import Environment, EnvironmentFile, ResourceChoice, Tutorial

FILE_NAME: Final = "environment.yaml"
LOCK_NAME: Final = "requirements.txt"
_LOCKED = re.compile(r"^(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[^\s;\\]+)\s*(?:;\s*(?P<marker>[^\\]+))?\\?$")


class Catalogue:
    """The environments that can be picked, in the order of their ids with the default one first."""

    def __init__(self, environments: Mapping[str, Environment], *, default: str | None = None) -> None:
        first = [default] if default in environments else []
        self._environments = {
            key: environments[key] for key in [*first, *sorted(set(environments) - set(first))] if key
        }

    def __iter__(self) -> Iterator[Environment]:
        return iter(self._environments.values())

    def __len__(self) -> int:
        return len(self._environments)

    def __contains__(self, name: object) -> bool:
        return name in self._environments

    @property
    def default(self) -> Environment:
        """The environment that is offered first."""
        return next(iter(self))

    def get(self, name: str) -> Environment:
        """Return the environment `name`. Raises `UnknownEnvironment` if there is none."""
        try:
            return self._environments[name]
        except KeyError:
            raise UnknownEnvironment(
                "environment-unknown", environment=name[:64], allowed=", ".join(self._environments)
            ) from None

    def resources(self, environment: str, choice: str | None = None) -> ResourceChoice:
        """Return the size `choice` of an environment, the first one for `None`.

        Raises
        ------
        UnknownEnvironment
            ``environment-unknown``, or ``environment-resources`` when it has no such size.
        """
        choices = self.get(environment).resources
        for each in choices:
            if choice is None or each.id == choice:
                return each
        raise UnknownEnvironment(
            "environment-resources",
            environment=environment,
            resources=str(choice)[:64],
            allowed=", ".join(each.id for each in choices),
        )


def load_catalogue(folder: Path | None = None, *, default: str | None = None) -> Catalogue:
    """Return the catalogue in `folder`, or in the project's ``images`` for `None`.

    Parameters
    ----------
    folder
        The folder whose subfolders hold an ``environment.yaml`` each; subfolders without one are passed over.
    default
        The id of the environment to offer first; by default the first by id.

    Raises
    ------
    CatalogueError
        ``environment-folder`` when there is no environment in the folder, ``environment-file`` when a file is wrong.
    """
    folder = folder or project_folder("images")
    found: dict[str, Environment] = {}
    if folder is not None and folder.is_dir():
        for file in sorted(folder.glob(f"*/{FILE_NAME}")):
            environment = load_environment(file)
            found[environment.id] = environment
    if not found:
        raise CatalogueError("environment-folder", folder=str(folder) if folder else "images")
    return catalogue_of(found, default=default)


def catalogue_of(environments: Mapping[str, Environment], *, default: str | None) -> Catalogue:
    """Return a catalogue of `environments`. Raises `UnknownEnvironment` if `default` is none of them."""
    if default is not None and default not in environments:
        allowed = ", ".join(sorted(environments))
        raise UnknownEnvironment("environment-unknown", environment=default[:64], allowed=allowed)
    return Catalogue(environments, default=default)


def load_environment(file: Path) -> Environment:
    """Return the environment that `file` (an ``environment.yaml``) describes. Raises `CatalogueError`."""
    described = _parse(file)
    if described.id != file.parent.name:
        raise _wrong(file, "id", described.id, f"the name of its folder, {file.parent.name}")
    try:
        SpecifierSet(described.python)
    except InvalidSpecifier:
        raise _wrong(file, "python", described.python, "a version specifier such as >=3.11,<3.14") from None
    identifiers = [choice.id for choice in described.resources]
    for position, identifier in enumerate(identifiers):
        if identifier in identifiers[:position]:
            raise _wrong(file, f"resources.{position}.id", identifier, "an id that no other size has")
    lock = file.parent / LOCK_NAME
    try:
        content = lock.read_bytes()
    except OSError as err:
        raise _wrong(
            lock, "(the lock)", err.strerror or "unreadable", "a readable file beside environment.yaml"
        ) from err
    locked = locked_versions(content.decode("utf-8"))
    software: dict[str, str] = {}
    for position, package in enumerate(described.software):
        version = locked.get(canonicalize_name(package))
        if version is None:
            raise _wrong(file, f"software.{position}", package, f"a package of {LOCK_NAME} that is installed on Linux")
        software[package] = version
    return Environment(
        menu=described,
        software=software,
        python=described.python,
        folder=file.parent.absolute(),
        lock_hash=hashlib.sha256(content).hexdigest(),
    )


def locked_versions(lock: str, *, python_version: str = "3.11") -> dict[str, str]:
    """Return canonical name -> version of what `lock` installs on Linux with Python `python_version` (``X.Y``)."""
    surroundings: dict[str, str] = {
        **{name: str(value) for name, value in default_environment().items()},
        "python_version": python_version,
        "python_full_version": f"{python_version}.0",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "os_name": "posix",
    }
    versions: dict[str, str] = {}
    for line in lock.splitlines():
        match = _LOCKED.match(line.rstrip())
        if match is None:
            continue
        marker = match["marker"]
        if marker is None or Marker(marker.strip()).evaluate(surroundings):
            versions[canonicalize_name(match["name"])] = match["version"]
    return versions


def load_tutorials(folder: Path | None = None) -> dict[str, Tutorial]:
    """Return id -> tutorial of `folder`, or of the project's ``notebooks`` for `None`; empty without such a folder.

    Title, summary and time needed are in each notebook's metadata, under ``astrocloud``.

    Raises
    ------
    CatalogueError
        ``tutorial-file`` when a notebook cannot be read or lacks its metadata or its other language.
    """
    folder = folder or project_folder("notebooks")
    if folder is None or not folder.is_dir():
        return {}
    names = sorted({file.name.split(".")[0] for file in folder.glob("*.*.ipynb")})
    return {name: _load_tutorial(folder, name) for name in names}


def _load_tutorial(folder: Path, name: str) -> Tutorial:
    files = {language: folder / f"{name}.{language}.ipynb" for language in LANGUAGES}
    told: dict[str, dict[str, Any]] = {}
    for language, file in files.items():
        try:
            told[language] = json.loads(file.read_text(encoding="utf-8"))["metadata"]["astrocloud"]
            for key in ("title", "summary", "minutes"):
                told[language][key]
        except (OSError, ValueError, KeyError, TypeError) as err:
            reason = err.strerror if isinstance(err, OSError) else f"{type(err).__name__} {err}"
            raise CatalogueError("tutorial-file", file=str(file), reason=str(reason)) from err
    return Tutorial(
        id=name,
        title=LocalizedText(**{language: told[language]["title"] for language in LANGUAGES}),
        summary=LocalizedText(**{language: told[language]["summary"] for language in LANGUAGES}),
        minutes=int(told["en"]["minutes"]),
        notebooks=files,
    )


def _parse(file: Path) -> EnvironmentFile:
    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as err:
        raise _wrong(file, "(the file)", str(err), "a readable UTF-8 file") from err
    except yaml.YAMLError as err:
        mark = getattr(err, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "(the file)"
        raise _wrong(file, where, "not YAML", "YAML") from err
    try:
        return EnvironmentFile.model_validate(document)
    except ValidationError as err:
        raise _wrong(file, *what_is_wrong(err, EnvironmentFile)) from None


def what_is_wrong(err: ValidationError, model: type[BaseModel]) -> tuple[str, str, str]:
    """Return key, value and what would be allowed, of the first thing that is wrong."""
    first = err.errors(include_url=False, include_context=False)[0]
    key = ".".join(str(part) for part in first["loc"]) or "(top level)"
    value = "missing" if first["type"] == "missing" else repr(first["input"])[:80]
    if first["type"] == "extra_forbidden":
        return key, value, f"no such key; the keys are {', '.join(model.model_fields)}"
    return key, value, first["msg"][:1].lower() + first["msg"][1:]


def _wrong(file: Path, key: str, value: str, allowed: str) -> CatalogueError:
    return CatalogueError("environment-file", file=str(file), key=key, value=value, allowed=allowed)
