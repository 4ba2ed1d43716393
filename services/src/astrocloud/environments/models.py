"""What the catalogue of environments, its builder and its readers pass between them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, ByteSize, Field, WithJsonSchema

from astrocloud.config import Block, LocalizedText
from astrocloud.core import words

IDENTIFIER: Final = r"^[a-z][a-z0-9-]{0,30}$"

Identifier = Annotated[str, Field(pattern=IDENTIFIER)]
"""A short name of ours: it stands in addresses, file names and user options."""


def _kubernetes(value: object) -> object:
    """Return a quantity of bytes as Kubernetes writes it as others do: ``2Gi`` is ``2GiB``."""
    return f"{value}B" if isinstance(value, str) and re.search(r"[0-9] *[kKMGT]i?$", value) else value


_MEMORY: Final[dict[str, Any]] = {
    "anyOf": [
        {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?([kKMGT]i?B?)?$"},
        {"type": "integer", "minimum": 256 * 2**20},
    ]
}
Memory = Annotated[ByteSize, BeforeValidator(_kubernetes), WithJsonSchema(_MEMORY)]


class ResourceChoice(Block):
    """How much of the machine a server may use; each is a limit, not a reservation."""

    id: Identifier
    """What user options and the API call it."""
    name: LocalizedText
    """What the menu calls it."""
    memory: Memory = Field(ge=256 * 2**20)
    """The most memory all of the server's processes may use together, in bytes; written ``2GiB`` in the file, or as
    Kubernetes writes it, ``2Gi``."""
    cpus: float = Field(gt=0, le=1024)
    """How many processors' worth of time, at most."""
    processes: int = Field(ge=32, le=1_000_000)
    """How many processes and threads, at most. Numerical libraries start a thread for each processor."""


class Deprecation(Block):
    """Why an environment should not be picked any more."""

    reason: LocalizedText
    """What a person should know, in one sentence."""
    until: date | None = None
    """The last day on which it can be started, or `None` when that is not decided."""
    replacement: Identifier | None = None
    """The environment to pick in its place, if there is one."""


class MenuEntry(Block):
    """What the menu says of an environment."""

    id: Identifier
    """The environment's id; also the name of its folder."""
    name: LocalizedText
    """What the menu calls it."""
    description: LocalizedText
    """What it is good for, in one or two sentences."""
    resources: tuple[ResourceChoice, ...] = Field(min_length=1)
    """The sizes that can be picked; the first is the default."""
    tutorials: tuple[Identifier, ...] = ()
    """The tutorials that run in it, in the order in which they should be read."""
    deprecated: Deprecation | None = None
    """Set when people should move to another environment."""


class EnvironmentFile(MenuEntry):
    """What ``environment.yaml`` holds."""

    python: str = ">=3.11,<3.14"
    """The Python versions that the lock was tried with (a version specifier)."""
    software: tuple[str, ...] = Field(min_length=1)
    """The packages worth telling people about, by their names in the lock; versions are read from it."""


class ImageMenu(Block):
    """What an operator says of an environment that is an image, in place of its ``environment.yaml`` if it has one."""

    name: LocalizedText | None = None
    """What the menu calls it."""
    description: LocalizedText | None = None
    """What it is good for, in one or two sentences."""
    software: dict[str, str] | None = None
    """Name -> version of the software worth telling people about."""
    resources: tuple[ResourceChoice, ...] | None = Field(default=None, min_length=1)
    """The sizes that can be picked; the first is the default."""
    tutorials: tuple[Identifier, ...] | None = None
    """The tutorials that run in it, in the order in which they should be read."""
    deprecated: Deprecation | None = None
    """Set when people should move to another environment."""


@dataclass(frozen=True, kw_only=True)
class Environment:
    """One environment of the catalogue: what the menu says of it, and where it comes from."""

    menu: MenuEntry
    """What the menu says."""
    software: Mapping[str, str]
    """Name -> version of the software worth telling, in the order in which it was written down."""
    python: str = ""
    """The Python versions that the lock was tried with (a version specifier)."""
    folder: Path | None = None
    """The folder that holds ``environment.yaml`` and ``requirements.txt``; `None` for what is an image and no more."""
    lock_hash: str = ""
    """SHA-256 of the lock, in hex; empty without one."""

    @property
    def id(self) -> str:
        """The environment's id."""
        return self.menu.id

    @property
    def name(self) -> LocalizedText:
        """What the menu calls it."""
        return self.menu.name

    @property
    def description(self) -> LocalizedText:
        """What it is good for."""
        return self.menu.description

    @property
    def resources(self) -> tuple[ResourceChoice, ...]:
        """The sizes that can be picked; the first is the default."""
        return self.menu.resources

    @property
    def tutorials(self) -> tuple[str, ...]:
        """The ids of the tutorials that run in it."""
        return self.menu.tutorials

    @property
    def deprecated(self) -> Deprecation | None:
        """Why it should not be picked any more, or `None`."""
        return self.menu.deprecated

    @property
    def lock(self) -> Path:
        """The lock: every package with its version and hashes. Raises `ValueError` for what is only an image."""
        if self.folder is None:
            raise ValueError(f"environment {self.id} is an image and has no lock")
        return self.folder / "requirements.txt"

    @property
    def key(self) -> str:
        """The name of the folder in which this environment is made: another lock, another folder."""
        return f"{self.id}-{self.lock_hash[:12]}"


Stage = Literal["waiting", "creating", "downloading", "installing", "compiling", "finishing", "ready"]
"""What is being done: `waiting` for another process that builds the same, then one after the other."""

STAGES: tuple[Stage, ...] = ("waiting", "creating", "downloading", "installing", "compiling", "finishing", "ready")


@dataclass(frozen=True)
class Progress:
    """How far the making of an environment is."""

    environment: str
    """The environment's id."""
    stage: Stage
    """What is being done now."""
    done: int = 0
    """How much of `total` is done: bytes while downloading, packages while installing, files while compiling."""
    total: int = 0
    """All of it as far as it is known; 0 when it is not known."""

    @property
    def percent(self) -> int:
        """How far all of it is, 0 to 100, never going back from one stage to the next."""
        start, end = _SHARES[self.stage]
        part = min(self.done / self.total, 1.0) if self.total else 0.0
        return round(start + (end - start) * part)

    def sentence(self, language: str) -> str:
        """Return what a person sees, in `language`."""
        counted = self.total > 0 and self.stage in {"downloading", "installing", "compiling"}
        done, total = self.done, self.total
        if self.stage == "downloading":
            done, total = round(done / 1e6), round(total / 1e6)
        key = f"environments.stage-{self.stage}" + ("-counted" if counted else "")
        return words.text(key, language, done=done, total=total)


# Measured with an empty download cache, where downloading and compiling take nearly all of the time.
_SHARES: Mapping[Stage, tuple[int, int]] = {
    "waiting": (0, 0),
    "creating": (0, 3),
    "downloading": (3, 55),
    "installing": (55, 65),
    "compiling": (65, 95),
    "finishing": (95, 100),
    "ready": (100, 100),
}


@dataclass(frozen=True)
class BuiltEnvironment:
    """An environment on this machine that servers can be started from."""

    environment: str
    """The environment's id."""
    path: Path
    """The virtual environment. A sandbox must show it at this very path, read-only."""
    python_version: str
    """The version of its Python, such as ``3.11.2``."""
    base_prefix: Path
    """Where the Python it was made from is installed (``/usr``, say). A sandbox must show this, too."""
    with_lab: bool = field(default=True)
    """Whether ``astrocloud_lab`` is in it; without, only stock ``jupyterhub-singleuser`` can be started."""

    @property
    def python(self) -> Path:
        """The interpreter to start servers and kernels with."""
        return self.path / "bin" / "python"


@dataclass(frozen=True)
class Tutorial:
    """One tutorial: a notebook in each language."""

    id: str
    """Its id; the notebooks are ``ID.LANGUAGE.ipynb``."""
    title: LocalizedText
    """What lists call it."""
    summary: LocalizedText
    """What a person learns, in one sentence."""
    minutes: int
    """How long a person needs for it."""
    notebooks: Mapping[str, Path]
    """Language -> notebook."""
