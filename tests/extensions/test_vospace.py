"""``vos://`` addresses in the environment: fsspec's own tests, ours, and the libraries that people use.

They run with the environment's Python against a real service; pytest itself is lent to it.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.services.vospace.platform import running
from tests.support.looping import event_loop_in_a_thread

pytestmark = pytest.mark.slow
INSIDE = Path(__file__).parent / "inside"
START = "import sys; sys.path.append(sys.argv.pop(1)); import pytest; sys.exit(pytest.main(sys.argv[1:]))"


@pytest.fixture(scope="module")
def variables(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What a server's environment says of a running service, to ada."""
    folder = tmp_path_factory.mktemp("vospace")
    with event_loop_in_a_thread() as run:
        service = running(folder / "data")
        space = run(service.__aenter__())
        run(space.node("/home/ada"))
        try:
            yield {
                "ASTROCLOUD_VOSPACE": "astrocloud.local~vospace",
                "ASTROCLOUD_VOSPACE_URL": space.base,
                "ASTROCLOUD_TOKEN": "ada",
                "TREE": str(space.root),
            }
        finally:
            run(service.__aexit__(None, None, None))


@pytest.mark.parametrize("module", ["abstract", "files", "libraries"])
def test_inside_the_environment(lab_python: Path, variables: dict[str, str], tmp_path: Path, module: str) -> None:
    lent = Path(pytest.__file__).parents[1]
    program = INSIDE / f"{module}.py"
    options = ["-q", "--noconftest", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", str(INSIDE)]
    done = subprocess.run(
        [str(lab_python), "-c", START, str(lent), *options, f"--basetemp={tmp_path / 'inside'}", str(program)],
        cwd=INSIDE,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(INSIDE),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            **variables,
        },
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-12000:] + done.stderr[-3000:]
