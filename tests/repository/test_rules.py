"""The rules that the repository keeps: locks, layout, versions, what no file may hold."""

import ast
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from astrocloud import __version__
from tests.repository.files import REPOSITORY, TEXT, files, name_of

PYPROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
LOCKS = [path for path in files("requirements", "images", suffix=".txt") if "==" in path.read_text(encoding="utf-8")]
LONGEST_MODULE = 620


def test_there_are_locks():
    assert {"run.txt", "dev.txt", "uv.txt", "node.txt"} <= {path.name for path in files("requirements")}
    assert len(LOCKS) >= 5


@pytest.mark.parametrize("lock", LOCKS, ids=name_of)
def test_a_python_lock_carries_hashes_and_no_address(lock: Path):
    text = lock.read_text(encoding="utf-8")
    assert "://" not in text
    assert not re.search(r"^\s*(-i|-f|--(extra-)?index-url|--find-links|--trusted-host)\b", text, re.MULTILINE)
    entries = re.split(r"^(?=\S)", re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE), flags=re.MULTILINE)
    bare = [entry.split()[0] for entry in entries if entry.strip() and "--hash=sha256:" not in entry]
    assert not bare
    assert not [entry for entry in entries if entry.strip() and not re.match(r"[A-Za-z0-9._-]+(\[[^]]+\])?==", entry)]


@pytest.mark.parametrize("lock", files(suffix="package-lock.json"), ids=name_of)
def test_an_npm_lock_carries_integrity_and_no_address(lock: Path):
    packages = json.loads(lock.read_text(encoding="utf-8"))["packages"]
    assert not [name for name, entry in packages.items() if "resolved" in entry]
    assert not [name for name, entry in packages.items() if name and not entry.get("link") and "integrity" not in entry]


def test_no_file_names_a_registry_or_a_place_on_somebodys_machine():
    hosts = ("pypi." + "org", "python" + "hosted", "registry." + "npmjs", "npm" + "mirror", "conda-" + "forge.org")
    home = str(Path.home())
    places = [str(REPOSITORY) + "/", *([home + "/"] if home.count("/") > 1 else []), "/Us" + "ers/"]
    found = []
    for path in files():
        if path.suffix in TEXT or path.name in {"Makefile", "Containerfile"} or path.parent.name == "tools":
            text = path.read_text(encoding="utf-8")
            found += [f"{name_of(path)}: {word}" for word in (*hosts, *places) if word in text]
    assert not found


def test_no_file_holds_a_private_key_or_a_merge_mark():
    words = ("-----BEGIN " + "PRIVATE", "-----BEGIN RSA " + "PRIVATE", "<<<<<<" + "< ", ">>>>>>" + "> ")
    found = [
        name_of(path)
        for path in files()
        if path.suffix in TEXT and any(word in path.read_text(encoding="utf-8") for word in words)
    ]
    assert not found


def test_versions_agree():
    version = PYPROJECT["project"]["version"]
    assert __version__ == version, "run `make install` again"
    assert json.loads((REPOSITORY / "hub/proxy/package.json").read_text())["version"] == version
    lab = re.search(r'__version__ = "([^"]+)"', (REPOSITORY / "extensions/astrocloud_lab/_version.py").read_text())
    assert lab is not None
    assert lab[1] == version
    changes = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## (.+)$", changes, re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert all(re.fullmatch(r"\[?\d+\.\d+\.\d+\]? - \d{4}-\d{2}-\d{2}", heading) for heading in headings[1:])
    if len(headings) > 1:
        assert version in headings[1]


def test_the_layout_is_the_one_that_was_agreed():
    for name in ("hub", "services", "extensions", "images", "notebooks", "tests", "docs", "requirements"):
        assert (REPOSITORY / name).is_dir()
    for name in ("Makefile", "README.md", "README.zh.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", ".ci/run"):
        assert (REPOSITORY / name).is_file()
    assert "BSD 3-Clause" in (REPOSITORY / "LICENSE").read_text(encoding="utf-8")


def test_no_package_is_called_after_a_folder():
    packages = PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert {Path(package).name for package in packages} == {"astrocloud", "astrocloud_hub"}


def test_modules_are_of_a_size_that_can_be_read():
    long = {
        name_of(path): lines
        for path in files("services", "hub", "extensions", suffix=".py")
        if (lines := path.read_text(encoding="utf-8").count("\n")) > LONGEST_MODULE
    }
    assert not long


def test_the_lab_depends_on_no_server_code():
    wrong = []
    for path in files("extensions", suffix=".py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            wrong += [
                f"{name_of(path)}: {name}" for name in names if name.split(".")[0] in {"astrocloud", "astrocloud_hub"}
            ]
    assert not wrong


def test_every_layer_is_held_by_import_linter():
    services = {path.parent.name for path in files("services/src", suffix="factory.py")}
    contracts = PYPROJECT["tool"]["importlinter"]["contracts"]
    [independent] = [contract for contract in contracts if contract["type"] == "independence"]
    assert {f"astrocloud.{name}" for name in services} <= set(independent["modules"])


def test_hooks_download_nothing():
    hooks = yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    assert {repository["repo"] for repository in hooks["repos"]} == {"local"}
    assert all(hook["language"] == "system" for repository in hooks["repos"] for hook in repository["hooks"])


def test_tests_wait_on_conditions():
    # A fixed wait is either too short on a busy machine or too long on a fast one. Waiting loops pause for less.
    found = []
    for path in files("tests", suffix=".py"):
        if "bench" in path.parts:
            continue  # there a second may be what is measured
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            pause = re.search(r"(?<![\w\"'])(?:time|asyncio)\.sleep\((\d[\d._]*)\)", line)
            if pause and 0.5 <= float(pause[1]) < 60 and '"' not in line.partition("sleep")[0]:
                found.append(f"{name_of(path)}:{number}: {line.strip()}")
    assert not found


IMPORT_ALL = """
import importlib, pkgutil, sys
package = importlib.import_module(sys.argv[1])
for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    if not {"__main__", "migrations", "jupyterhub_config", *sys.argv[2:]} & set(found.name.split(".")):
        importlib.import_module(found.name)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("extra", "package", "foreign"),
    [
        ("hub", "astrocloud_hub", "kubespawner"),
        ("hub,kubernetes", "astrocloud_hub", "argon2"),
        ("services", "astrocloud", "oauthenticator"),
    ],
)
def test_an_extra_installs_and_imports_alone(tmp_path: Path, extra: str, package: str, foreign: str):
    uv = shutil.which("uv") or str(REPOSITORY / ".tools/bin/uv")
    if not Path(uv).exists():
        pytest.skip("uv is made by `make`")
    python = tmp_path / "venv/bin/python"

    def run(*command: str) -> None:
        done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False, cwd=tmp_path)
        assert done.returncode == 0, done.stderr[-3000:]

    run(uv, "venv", "-q", "-p", sys.executable, str(tmp_path / "venv"))
    constraints = ["-c", str(REPOSITORY / "requirements/dev.txt")]
    run(uv, "pip", "install", "-q", "-p", str(python), *constraints, f"{REPOSITORY}[{extra}]")
    left_out = [] if "kubernetes" in extra else ["kube"]
    run(str(python), "-c", IMPORT_ALL, package, *left_out)
    absent = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({foreign!r}) is not None)"
    run(str(python), "-c", absent)
