"""A package index on disk and an environment of its one package: the real builder, the real uv, but no network."""

import base64
import hashlib
import textwrap
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from astrocloud.environments import Environment, EnvironmentBuilder, load_environment

DESCRIPTION = """
id: tiny
name: {en: Tiny, zh: 微小}
description: {en: One package., zh: 一个软件包。}
software: [tinystar]
resources:
  - id: small
    name: {en: Small, zh: 小}
    memory: 512MiB
    cpus: 0.5
    processes: 64
  - id: large
    name: {en: Large, zh: 大}
    memory: 2GiB
    cpus: 2
    processes: 128
"""


def make_wheel(folder: Path, name: str, version: str, modules: dict[str, str]) -> Path:
    """Write a wheel of pure Python and return it."""
    info = f"{name}-{version}.dist-info"
    files = dict(modules)
    files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    files[f"{info}/WHEEL"] = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record = ""
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record += f"{path},sha256={digest},{len(text.encode())}\n"
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n"
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    return wheel


def locked(wheel: Path) -> str:
    """Return the lines that lock a wheel."""
    name, version, *_ = wheel.name.split("-")
    return f"{name}=={version} \\\n    --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"


def write_environment(folder: Path, lock: str, description: str = DESCRIPTION) -> Path:
    """Write an environment's folder below `folder` and return its file."""
    home = folder / "tiny"
    home.mkdir(parents=True, exist_ok=True)
    (home / "requirements.txt").write_text(lock, encoding="utf-8")
    file = home / "environment.yaml"
    file.write_text(description, encoding="utf-8")
    return file


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of wheels that uv installs from, and nothing else."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("UV_NO_INDEX", "1")
    monkeypatch.setenv("UV_FIND_LINKS", str(folder))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def tiny(tmp_path: Path, index: Path) -> Environment:
    """An environment of one package."""
    modules = {"tinystar/__init__.py": "MAGNITUDE = 4.74\n", "tinystar/test_it.py": "raise SystemExit\n"}
    wheel = make_wheel(index, "tinystar", "1.0", modules)
    return load_environment(write_environment(tmp_path / "images", locked(wheel)))


@pytest.fixture
def builder(tmp_path: Path) -> EnvironmentBuilder:
    """A builder below an empty folder."""
    return EnvironmentBuilder(folder=tmp_path / "environments", lab=None)


@pytest.fixture
def fake_uv(tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that makes a stand-in for uv: its `venv` works, and its `pip` does what the text says."""

    def make(pip: str) -> Path:
        program = tmp_path / "fake-uv"
        # The last argument of venv is its folder.
        script = """\
            #!/bin/sh
            if [ "$1" = venv ]; then
                for folder in "$@"; do :; done
                mkdir -p "$folder/bin" "$folder/lib/python3/site-packages"
                touch "$folder/pyvenv.cfg"
                exit 0
            fi
            """
        program.write_text(textwrap.dedent(script) + textwrap.dedent(pip), encoding="utf-8")
        program.chmod(0o755)
        return program

    return make
