"""What a person's own Python can do inside a real server, beyond computing."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from tests.e2e.cast import with_server
from tests.support.looping import Run
from tests.support.person import Person
from tests.support.platform import Platform

pytestmark = pytest.mark.slow
NAME, OTHER = "pyla", "pylo"

WHEEL = """
import zipfile
with zipfile.ZipFile("tinyquasar-VERSION-py3-none-any.whl", "w") as wheel:
    wheel.writestr("tinyquasar.py", "REDSHIFT = VERSION")
    wheel.writestr("numpy.py", "raise ImportError('not the environment')")
    info = "tinyquasar-VERSION.dist-info/"
    wheel.writestr(info + "METADATA", "Metadata-Version: 2.1\\nName: tinyquasar\\nVersion: VERSION\\nNEEDS")
    wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
    wheel.writestr(info + "RECORD", "")
%pip install --no-index tinyquasar-VERSION-py3-none-any.whl
"""

CLUSTER = """
import distributed, json
cluster = distributed.LocalCluster(n_workers=1, threads_per_worker=1, processes=PROCESSES)
client = distributed.Client(cluster)
assert client.submit(sum, [1, 2, 3]).result(30) == 6
worker = next(iter(client.scheduler_info()["workers"].values()))
dashboard = next(iter(cluster.scheduler.http_server._sockets.values())).getsockname()[1]
print(json.dumps([cluster.scheduler_address, dashboard, worker["services"]["dashboard"]]))
"""

VISIT = """
import http.client
def visit(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status
    except (http.client.HTTPException, OSError) as error:
        return type(error).__name__
"""


@pytest.fixture(scope="module")
def person(platform: Platform, run: Run) -> Iterator[Person]:
    """Whose Python it is."""
    with with_server(platform, run, NAME) as made:
        yield made


@dataclass
class Kernel:
    """A running kernel."""

    run: Run
    person: Person
    id: str

    @property
    def base(self) -> str:
        return f"{self.person.url}/user/{self.person.username}/"

    def __call__(self, code: str, *, within_s: float = 90) -> str:
        """Return what `code` prints."""
        result = self.run(self.person.run_cell(self.base, self.id, code, within_s=within_s), within_s=within_s + 30)
        assert not result["error"], result
        return str(result["text"]).strip()


@contextmanager
def kernel(run: Run, person: Person) -> Iterator[Kernel]:
    """A new kernel of `person`."""
    base = f"{person.url}/user/{person.username}/"
    made = Kernel(run, person, run(person.start_kernel(base, path=f"home/{person.username}")))
    try:
        yield made
    finally:
        run(person.server_api(base, "DELETE", f"api/kernels/{made.id}"))


def cell(run: Run, person: Person, code: str, *, within_s: float = 90) -> str:
    """Return what `code` prints in a new kernel."""
    with kernel(run, person) as one:
        return one(code, within_s=within_s)


def test_files_have_addresses_in_a_notebook(person: Person, run: Run) -> None:
    address = f"vos://astrocloud.local~vospace/home/{NAME}/t.csv"
    code = f"""
import pandas as pd, pathlib
pd.DataFrame({{"a": [1, 2]}}).to_csv("{address}", index=False)
print(pathlib.Path("/home/{NAME}/t.csv").read_text().split(), pd.read_csv("{address}").a.sum())
"""
    assert cell(run, person, code) == "['a', '1', '2'] 3"


def test_packages_of_ones_own_go_into_the_home(platform: Platform, person: Person, run: Run) -> None:
    def install(version: str, needs: str = "") -> str:
        return cell(run, person, WHEEL.replace("VERSION", version).replace("NEEDS", needs))

    assert "Successfully installed tinyquasar-1.0" in install("1.0")
    assert "Successfully uninstalled tinyquasar-1.0" in install("7.5")
    own = f"/home/{NAME}/.local/astrocloud/astro/lib/python3."
    told = cell(run, person, "import tinyquasar, numpy; print(tinyquasar.REDSHIFT, tinyquasar.__file__, numpy.pi > 3)")
    assert told.startswith(f"7.5 {own}")
    # The environment's own comes first, so that nothing that is installed breaks it.
    assert told.endswith("True")
    # What another Python installs is its own affair: a kernel hands it no folder.
    assert cell(run, person, "import os; print(os.environ.get('PIP_PREFIX'))") == "None"
    # What needs other versions than the environment's is refused, with the reason.
    refused = install("8.5", "Requires-Dist: numpy>99\\n")
    assert "constraint" in refused
    assert "Successfully" not in refused
    assert "Successfully uninstalled" in cell(run, person, "%pip uninstall -y tinyquasar")


@pytest.mark.parametrize("processes", [True, False])
def test_nobody_else_gets_into_a_dask_cluster(platform: Platform, person: Person, run: Run, processes: bool) -> None:
    with kernel(run, person) as one:
        address, dashboard, worker = json.loads(one(CLUSTER.replace("PROCESSES", str(processes))).splitlines()[-1])
        assert address.startswith("tls://")
        assert one(f"{VISIT}\nprint(visit({dashboard}), visit({worker}))") == "200 200"
        # By JupyterLab, as the Dask panel shows it.
        status, _ = run(person.server_api(one.base, "GET", f"proxy/{dashboard}/health"))
        assert status == 200
        with with_server(platform, run, f"{OTHER}-{'p' if processes else 't'}") as other, kernel(run, other) as theirs:
            assert "200" not in theirs(f"{VISIT}\nprint(visit({dashboard}), visit({worker}))")
            for scheme in ("tls", "tcp"):
                target = scheme + address[3:]
                # Their own credentials, or none and no wish for any.
                wish = f"dask.config.set({{'distributed.comm.require-encryption': {scheme == 'tls'}}})"
                told = theirs(
                    f"import dask, distributed\n{wish}\n"
                    f"try:\n    distributed.Client({target!r}, timeout=8, security=distributed.Security())\n"
                    "    print('in')\n"
                    "except (OSError, RuntimeError) as error:\n"
                    "    print('refused', type(error).__name__)\n"
                )
                assert "refused" in told.splitlines()[-1], told
        assert one("print(client.submit(sum, [1, 2]).result(30))") == "3"
