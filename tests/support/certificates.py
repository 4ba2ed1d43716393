"""Keys and certificates as the chart's job makes them."""

import importlib.util
from functools import cache
from pathlib import Path
from types import ModuleType

from tests.repository.files import REPOSITORY

SERVERS = "server.astrocloud.internal"


@cache
def program() -> ModuleType:
    """Return the job's program."""
    spec = importlib.util.spec_from_file_location("make_secrets", REPOSITORY / "images/services/make_secrets.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_authority(folder: Path, name: str, domain: str = "") -> None:
    """Write an authority and its key."""
    write(folder, program().authorize(name, domain, before=b""))


def make_certificate(folder: Path, part: str, names: list[str], *, authority: str = "platform") -> None:
    """Write a certificate and its key, by an authority of the folder."""
    ca, key = ((folder / f"{authority}-{kind}").read_bytes() for kind in ("ca", "ca-key"))
    write(folder, program().certify_by(part, names, ca, key))


def write(folder: Path, made: dict[str, bytes]) -> None:
    for name, content in made.items():
        (folder / name).write_bytes(content)
