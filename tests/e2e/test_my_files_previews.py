"""My files in a browser: previews of real files, of large ones, and of hostile ones."""

import re
import subprocess
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Final

from playwright.sync_api import Page, Route, expect

from astrocloud.environments import BuiltEnvironment
from tests.e2e.cast import needs_root
from tests.e2e.my_files import (
    enter,
    preview,
    said_in,
    write,
)

pytestmark = needs_root


MAKE: Final = """
    import json, shutil, sys
    from pathlib import Path
    import astropy, numpy
    from astropy.table import Table
    place = Path(sys.argv[1])
    shutil.copy(Path(astropy.__file__).parent / "io/fits/hdu/compressed/tests/data/m13.fits", place / "m13.fits")
    table = Table({"star": ["HD 1", "HD 2"], "ra": [1.5, 359.25], "mag": numpy.array([4.5, 17.25], "f4")})
    table["ra"].unit = "deg"
    for name, how in (("t.fits", {}), ("t.vot", {"format": "votable"}), ("t.csv", {})):
        table.write(place / name, **how)
    table.write(place / "b.vot", format="votable", tabledata_format="binary2")
    table.to_pandas().to_parquet(place / "t.parquet")
    hostile = "<script>window.ran = 1</script><img src=x onerror='window.ran = 1'><table><tr><td>cell</td></tr></table>"
    cells = [
        {"cell_type": "markdown", "metadata": {}, "source": "# Night log " + hostile},
        {"cell_type": "code", "metadata": {}, "execution_count": 1, "source": "1 + 1", "outputs": [
            {"output_type": "display_data", "metadata": {}, "data": {"text/html": hostile}},
            {"output_type": "display_data", "metadata": {}, "data": {"application/javascript": "window.ran = 1"}}]}]
    (place / "n.ipynb").write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    (place / "page.html").write_text(hostile)
    (place / "bad.fits").write_bytes(b"SIMPLE  = no FITS at all")
"""


def test_previews_of_real_files_and_no_script_of_a_file_runs(
    open_browser: Callable[..., Page], felt: dict[str, Path], astro: BuiltEnvironment
) -> None:
    home = felt["fiona"]
    write(home, "look/notes.txt", b"plain words")
    program = textwrap.dedent(MAKE)
    subprocess.run([str(astro.path / "bin/python"), "-c", program, str(home / "look")], check=True, capture_output=True)
    subprocess.run(["chown", "-R", "--reference", str(home), str(home / "look")], check=True)
    page = enter(open_browser(), "fiona", "?path=/home/fiona/look")
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    expect(preview(page, "notes.txt")).to_contain_text("plain words")
    image = preview(page, "m13.fits")
    expect(image.locator("canvas[role=img]")).to_be_visible()
    expect(image).to_contain_text("300 × 300")
    assert drawn(page, 0) > 50, "the image is empty"
    assert drawn(page, 1) > 3, "there is no grid"
    for name, unit in (("t.fits", "deg"), ("t.vot", "deg"), ("b.vot", "deg"), ("t.csv", ""), ("t.parquet", "double")):
        table = preview(page, name).locator("table")
        expect(table.locator("tbody tr")).to_have_count(2)
        expect(table.locator("tbody tr").nth(1)).to_contain_text("HD 2")
        expect(table.locator("tbody tr").nth(1)).to_contain_text("359.25")
        expect(table.locator("thead")).to_contain_text(unit)
    notebook = preview(page, "n.ipynb")
    expect(notebook.get_by_role("heading", name=re.compile("Night log"))).to_be_visible()
    expect(notebook.locator("td")).to_have_text("cell")
    expect(preview(page, "page.html")).to_contain_text("<script>")
    expect(preview(page, "bad.fits")).to_contain_text(said_in("preview-broken"))
    assert page.evaluate("window.ran") is None
    assert wrong == []
    # Opened by its address, a page that somebody keeps is not run either.
    answer = page.request.get("/services/vospace/files/home/fiona/look/page.html")
    assert "sandbox" in answer.headers["content-security-policy"]
    assert answer.headers["content-disposition"].startswith("attachment")


def drawn(page: Page, number: int) -> int:
    """Return how many different values a canvas of the preview shows."""
    found: int = page.evaluate(
        """(number) => {
          const canvas = document.querySelectorAll('#fi-preview canvas')[number];
          const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
          const seen = new Set();
          for (let at = 0; at < data.length; at += 4) seen.add(data[at] * 256 + data[at + 3]);
          return seen.size;
        }""",
        number,
    )
    return found


def test_preview_of_a_large_image_fetches_only_what_it_shows(
    open_browser: Callable[..., Page], felt: dict[str, Path]
) -> None:
    side = 20_000
    cards = [("SIMPLE", "T"), ("BITPIX", "-32"), ("NAXIS", "2"), ("NAXIS1", str(side)), ("NAXIS2", str(side))]
    header = "".join(f"{name:<8}= {value:>20}".ljust(80) for name, value in cards) + "END".ljust(80)
    file = write(felt["fiona"], "large/sky.fits", header.ljust(2880).encode())
    with file.open("r+b") as opened:
        opened.truncate(2880 + side * side * 4)
    page = enter(open_browser(), "fiona", "?path=/home/fiona/large")
    sizes: list[int] = []

    def count(route: Route) -> None:
        answer = route.fetch()
        sizes.append(len(answer.body()))
        route.fulfill(response=answer)

    page.route(re.compile("/services/vospace/(files|api/sample)"), count)
    place = preview(page, "sky.fits")
    expect(place.locator("canvas[role=img]")).to_be_visible()
    expect(place).to_contain_text(said_in("fits-sampled", step="20"))
    assert sum(sizes) < 6_000_000, sizes
