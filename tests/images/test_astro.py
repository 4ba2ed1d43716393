"""The environment `astro` holds what its lock and its description say, and it runs."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from astrocloud.environments import BuiltEnvironment, Environment, load_catalogue
from astrocloud.environments.catalogue import locked_versions

# What is imported under another name than that of the package, or by more than its top.
MODULES = {
    "dask": "dask.array dask.dataframe",
    "jupyterhub": "jupyterhub.singleuser.app",
    "jupyterlab-language-pack-zh-CN": "jupyterlab_language_pack_zh_CN",
    "jupyterlab": "jupyterlab.labapp",
    "photutils": "photutils.detection photutils.aperture photutils.psf",
    "astroquery": "astroquery.simbad astroquery.vizier astroquery.gaia",
    "pyarrow": "pyarrow.parquet",
    "xarray": "xarray",
    "zarr": "zarr",
    "scipy": "scipy.optimize scipy.ndimage",
}


@pytest.fixture(scope="module")
def environment(repository: Path) -> Environment:
    return load_catalogue(repository / "images").get("astro")


def say(python: Path, code: str, home: Path) -> str:
    """Return what a program prints that the environment's Python runs with an empty home and no network."""
    surroundings = {
        "HOME": str(home),
        "PATH": "/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "http_proxy": "http://127.0.0.1:9",
        "https_proxy": "http://127.0.0.1:9",
    }
    command = [python, "-c", code]
    done = subprocess.run(command, cwd=home, env=surroundings, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_every_package_of_the_description_can_be_imported(
    environment: Environment, astro_python: Path, tmp_path: Path
) -> None:
    modules = [
        name for package in environment.software for name in MODULES.get(package, package.replace("-", "_")).split()
    ]
    code = f"""
import importlib, json
wrong = {{}}
for name in {modules!r}:
    try:
        importlib.import_module(name)
    except Exception as error:
        wrong[name] = repr(error)
print("\\n" + json.dumps(wrong))
"""
    assert json.loads(say(astro_python, code, tmp_path).splitlines()[-1]) == {}


def test_just_what_is_locked_is_installed(environment: Environment, astro: BuiltEnvironment, tmp_path: Path) -> None:
    code = "import importlib.metadata as m, json; print(json.dumps({d.name: d.version for d in m.distributions()}))"
    installed = {
        re.sub(r"[-_.]+", "-", name).lower(): version
        for name, version in json.loads(say(astro.python, code, tmp_path)).items()
    }
    installed.pop("astrocloud-lab", None)
    python_version = ".".join(astro.python_version.split(".")[:2])
    locked = locked_versions(environment.lock.read_text(encoding="utf-8"), python_version=python_version)
    assert installed == locked
    for name, version in environment.software.items():
        assert installed[name.lower()] == version


def test_nothing_that_a_package_needs_is_missing_but_what_is_left_out_on_purpose(
    repository: Path, astro_python: Path, tmp_path: Path
) -> None:
    code = """
import importlib.metadata as m, json
from packaging.requirements import Requirement
have = {d.name.lower().replace("_", "-").replace(".", "-"): d.version for d in m.distributions()}
missing = set()
def walk(distribution, extras):
    for text in distribution.requires or ():
        need = Requirement(text)
        if need.marker and not any(need.marker.evaluate({"extra": extra}) for extra in (extras or [""])):
            continue
        name = need.name.lower().replace("_", "-").replace(".", "-")
        if name not in have or not need.specifier.contains(have[name], prereleases=True):
            missing.add(name)
        elif need.extras and (name, frozenset(need.extras)) not in seen:
            seen.add((name, frozenset(need.extras)))
            walk(m.distribution(need.name), sorted(need.extras))
seen = set()
for each in m.distributions():
    walk(each, [])
print(json.dumps(sorted(missing)))
"""
    excluded = [
        line.strip()
        for line in (repository / "images" / "astro" / "exclude.txt").read_text(encoding="utf-8").splitlines()
        if line.strip() and not line.startswith("#")
    ]
    assert json.loads(say(astro_python, code, tmp_path)) == sorted(excluded)


def test_a_server_can_check_its_events_without_what_is_left_out(astro_python: Path, tmp_path: Path) -> None:
    code = """
import io, json, logging
from jupyter_events import EventLogger
out = io.StringIO()
events = EventLogger(handlers=[logging.StreamHandler(out)])
events.register_event_schema({
    "$id": "http://example.org/star", "version": "1", "title": "Star", "type": "object",
    "properties": {"name": {"type": "string"}, "seen": {"type": "string", "format": "date-time"}},
})
events.emit(schema_id="http://example.org/star", data={"name": "M13", "seen": "2026-01-01T00:00:00Z"})
print(json.loads(out.getvalue())["name"])
"""
    assert say(astro_python, code, tmp_path).strip() == "M13"


def test_a_kernel_computes(astro_python: Path, tmp_path: Path) -> None:
    code = """
from jupyter_client.manager import start_new_kernel
manager, client = start_new_kernel(kernel_name="python3")
try:
    printed = []
    def hook(message):
        if message["msg_type"] == "stream":
            printed.append(message["content"]["text"])
    code = "import sys, numpy, astropy.units as u; print((1 * u.pc).to(u.au).round(3), sys.executable)"
    reply = client.execute_interactive(code, timeout=120, output_hook=hook)
    print(reply["content"]["status"], "".join(printed))
finally:
    client.stop_channels()
    manager.shutdown_kernel(now=True)
"""
    said = say(astro_python, code, tmp_path).split()
    assert said == ["ok", "206264.806", "AU", str(astro_python)]


def test_the_lab_has_its_extensions_and_its_chinese(astro: BuiltEnvironment, tmp_path: Path) -> None:
    shared = astro.path / "share" / "jupyter" / "labextensions"
    found = {str(path.parent.relative_to(shared)) for path in shared.glob("**/package.json")}
    assert {"jupyter-matplotlib", "dask-labextension", "@jupyter-widgets/jupyterlab-manager"} <= found
    code = "from jupyterlab_server.translation_utils import get_language_packs as g; print(sorted(g()[0]))"
    assert "zh_CN" in say(astro.python, code, tmp_path)


def test_the_image_is_made_from_the_same_lock_and_runs_as_nobody_special(repository: Path) -> None:
    text = (repository / "images" / "astro" / "Containerfile").read_text(encoding="utf-8")
    assert "://" not in text
    stages = re.findall(r"^FROM (\S+)", text, re.M)
    assert len(stages) == 2
    assert re.findall(r"^USER (\S+)", text, re.M)[-1] == "1000:1000"
    for label in ("title", "description", "licenses", "version", "revision"):
        assert f"org.opencontainers.image.{label}=" in text
    for source in re.findall(r"^COPY (?!--from)(\S+) ", text, re.M):
        assert list(repository.glob(source)), source
    assert "COPY images/astro/requirements.txt" in text
    assert "uv pip sync" in text
    assert "--require-hashes" in text
