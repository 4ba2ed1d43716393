"""What a person's own Python can do inside a real server, beyond computing."""

from collections.abc import Iterator

import pytest

from tests.e2e.cast import PASSWORD
from tests.support.looping import Run
from tests.support.person import Person
from tests.support.platform import Platform

pytestmark = pytest.mark.slow
NAME = "pyla"


@pytest.fixture(scope="module")
def person(platform: Platform, run: Run) -> Iterator[Person]:
    """Somebody with a running server."""
    platform.add(NAME, PASSWORD)
    made = run(Person(platform.url, NAME, PASSWORD).__aenter__())
    try:
        run(made.sign_in())
        run(made.start_server())
        run(made.enter_server())
        yield made
        run(made.hub_api("DELETE", f"/users/{NAME}/servers/"))
    finally:
        run(made.__aexit__())


def cell(run: Run, person: Person, code: str, *, within_s: float = 90) -> str:
    """Return what `code` prints in a new kernel."""

    async def work() -> str:
        base = f"{person.url}/user/{NAME}/"
        kernel = await person.start_kernel(base, path=f"home/{NAME}")
        try:
            result = await person.run_cell(base, kernel, code, within_s=within_s)
        finally:
            await person.server_api(base, "DELETE", f"api/kernels/{kernel}")
        assert not result["error"], result
        return str(result["text"]).strip()

    return run(work(), within_s=within_s + 30)


def test_files_have_addresses_in_a_notebook(person: Person, run: Run) -> None:
    address = f"vos://astrocloud.local~vospace/home/{NAME}/t.csv"
    code = f"""
import pandas as pd, pathlib
pd.DataFrame({{"a": [1, 2]}}).to_csv("{address}", index=False)
print(pathlib.Path("/home/{NAME}/t.csv").read_text().split(), pd.read_csv("{address}").a.sum())
"""
    assert cell(run, person, code) == "['a', '1', '2'] 3"
