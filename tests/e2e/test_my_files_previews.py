"""My files in a browser: previews of real files, of large ones, and of hostile ones."""

import gzip
import json
import re
import struct
import subprocess
import textwrap
import zlib
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
from tests.support.platform import wait_until

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
    shown = {pixels(page)}
    for label, value in (("fits-stretch", "log"), ("fits-cut", "90"), ("fits-stretch", "linear")):
        image.get_by_label(said_in(label)).select_option(value)
        shown.add(pixels(page))
    image.get_by_label(said_in("fits-invert")).check()
    shown.add(pixels(page))
    assert len(shown) == 5, "a choice changes nothing"
    image.get_by_label(said_in("fits-grid")).uncheck()
    assert drawn(page, 1) == 1, "the grid stays"
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


def pixels(page: Page) -> str:
    """Return the image of the preview, as it is drawn."""
    text: str = page.evaluate("document.querySelector('#fi-preview canvas').toDataURL()")
    return text


def fits(side: int) -> bytes:
    """Return the header of an image of 4-byte numbers."""
    cards = [("SIMPLE", "T"), ("BITPIX", "-32"), ("NAXIS", "2"), ("NAXIS1", str(side)), ("NAXIS2", str(side))]
    text = "".join(f"{name:<8}= {value:>20}".ljust(80) for name, value in cards) + "END".ljust(80)
    return text.ljust(-(-len(text) // 2880) * 2880).encode()


COMPRESS: Final = """
    import sys
    from pathlib import Path
    import astropy, numpy
    from astropy.io import fits
    place = Path(sys.argv[1])
    plain = fits.getdata(Path(astropy.__file__).parent / "io/fits/hdu/compressed/tests/data/m13.fits")
    numbers = plain.astype("f4") + numpy.float32(0.25)
    numbers[100:110, 50:60] = numpy.nan
    large = numpy.add.outer(numpy.arange(2500), numpy.arange(2200)).astype("i4") * 1000
    def write(name, data, compressed=True, **how):
        hdu = fits.CompImageHDU(data, **how) if compressed else fits.ImageHDU(data)
        fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(place / name)
    write("plain.fits", plain, False)
    write("rice.fits.fz", plain, compression_type="RICE_1")
    write("tiles.fits.fz", plain, compression_type="RICE_1", tile_shape=(70, 90))
    write("gzip1.fits.fz", plain, compression_type="GZIP_1")
    write("gzip2.fits.fz", plain, compression_type="GZIP_2", tile_shape=(50, 300))
    write("unsigned.fits.fz", plain.astype("u2"), compression_type="RICE_1")
    write("byte-plain.fits", (plain % 251).astype("u1"), False)
    write("byte.fits.fz", (plain % 251).astype("u1"), compression_type="RICE_1")
    write("float-plain.fits", numbers, False)
    write("float.fits.fz", numbers, compression_type="GZIP_2", quantize_level=0)
    write("dither1.fits.fz", numbers, compression_type="RICE_1", quantize_level=-0.01, quantize_method=1)
    write("dither2.fits.fz", numbers, compression_type="RICE_1", quantize_level=-0.01, quantize_method=2)
    write("large-plain.fits", large, False)
    write("large.fits.fz", large, compression_type="RICE_1")
    write("large-tiles.fits.fz", large, compression_type="RICE_1", tile_shape=(256, 256))
    write("cube.fits.fz", numpy.stack([plain, plain[::-1]]), compression_type="RICE_1", tile_shape=(1, 300, 300))
    write("other.fits.fz", plain, compression_type="HCOMPRESS_1", tile_shape=(100, 100))
    (place / "broken.fits.fz").write_bytes((place / "rice.fits.fz").read_bytes()[:-2880 * 8])
"""


def test_compressed_image_is_shown_as_it_was_before(
    open_browser: Callable[..., Page], felt: dict[str, Path], astro: BuiltEnvironment
) -> None:
    home = felt["fiona"]
    write(home, "packed/here")
    command = [str(astro.path / "bin/python"), "-c", textwrap.dedent(COMPRESS), str(home / "packed")]
    subprocess.run(command, check=True, capture_output=True)
    subprocess.run(["chown", "-R", "--reference", str(home), str(home / "packed")], check=True)
    page = enter(open_browser(), "fiona", "?path=/home/fiona/packed")

    def drawing(name: str) -> str:
        expect(preview(page, name).locator("canvas[role=img]"), name).to_be_visible()
        return pixels(page)

    same = {
        "plain.fits": ("rice.fits.fz", "tiles.fits.fz", "gzip1.fits.fz", "gzip2.fits.fz", "unsigned.fits.fz"),
        "byte-plain.fits": ("byte.fits.fz",),
        "float-plain.fits": ("float.fits.fz",),
        "large-plain.fits": ("large.fits.fz", "large-tiles.fits.fz"),
    }
    for plain, packed in same.items():
        expected = drawing(plain)
        assert {name for name in packed if drawing(name) != expected} == set()
    # Rounded to a hundredth, with what was added before taken away: the same but for the last digits.
    drawing("float-plain.fits")
    expected = values(page)
    for name in ("dither1.fits.fz", "dither2.fits.fz"):
        drawing(name)
        found = values(page)
        assert max(abs(a - b) for a, b in zip(expected, found, strict=True)) <= 1, name
    expect(preview(page, "cube.fits.fz")).to_contain_text("300 × 300 × 2")
    first = pixels(page)
    page.locator("#fi-preview input[type=number]").fill("2")
    page.locator("#fi-preview input[type=number]").press("Enter")
    wait_until(lambda: pixels(page) != first, within_s=20, what="the other plane")
    expect(preview(page, "other.fits.fz")).to_contain_text(said_in("fits-compressed", type="HCOMPRESS_1"))
    expect(preview(page, "broken.fits.fz")).to_contain_text(said_in("preview-broken"))


def values(page: Page) -> list[int]:
    """Return the grey of each pixel of the preview, and -1 where there is none."""
    found: list[int] = page.evaluate(
        """() => {
          const canvas = document.querySelector('#fi-preview canvas');
          const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
          return Array.from({ length: data.length / 4 }, (_, at) => (data[at * 4 + 3] ? data[at * 4] : -1));
        }"""
    )
    return found


def test_preview_says_what_it_leaves_out(open_browser: Callable[..., Page], felt: dict[str, Path]) -> None:
    home = felt["fiona"]
    cell = {"cell_type": "code", "metadata": {}, "source": "1", "outputs": []}
    error = {"output_type": "error", "ename": "E", "evalue": "v", "traceback": "one text\x1b[31m in red"}
    outputs = [error, {"output_type": "error", "ename": "Bad", "evalue": "value"}, {"output_type": "display_data"}]
    first = {**cell, "source": "x" * 150_000, "outputs": [*outputs, *[{"output_type": "stream", "text": "s"}] * 200]}
    document = {"cells": [first, *[cell] * 499], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    write(home, "left-out/long.ipynb", json.dumps(document).encode())
    # A third of the rows is there; of the other, packed, as much as is unpacked for a preview.
    write(home, "left-out/short.fits", fits(300) + numbers(300 * 100))
    packed = write(home, "left-out/large.fits.gz")
    with gzip.open(packed, "wb", compresslevel=1) as file:
        file.write(fits(9000))
        line = numbers(9000)
        for _row in range(9000):
            file.write(line)
    page = enter(open_browser(), "fiona", "?path=/home/fiona/left-out")
    place = preview(page, "long.ipynb")
    expect(place).to_contain_text(said_in("notebook-some", shown="400", total="500"))
    expect(place).to_contain_text(said_in("notebook-outputs", shown="100", total="203"))
    expect(place).to_contain_text(said_in("notebook-cut", shown="100,000", total="150,000"))
    expect(place.locator("pre", has_text=re.compile("^one text in red$"))).to_be_visible()
    expect(place.locator("pre", has_text=re.compile("^Bad: value$"))).to_be_visible()
    place = preview(page, "short.fits")
    expect(place).to_contain_text(said_in("fits-short"))
    assert opaque(page) == 300 * 100
    place = preview(page, "large.fits.gz")
    expect(place).to_contain_text(re.compile("Only the first 256"))
    assert 0.75 < opaque(page) / 1000**2 < 0.9


def numbers(many: int) -> bytes:
    return struct.pack(">2f", 1, 2) * (many // 2)


def opaque(page: Page) -> int:
    """Return how many pixels the image of the preview has something at."""
    found: int = page.evaluate(
        """() => {
          const canvas = document.querySelector('#fi-preview canvas');
          const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
          let many = 0;
          for (let at = 3; at < data.length; at += 4) many += data[at] === 255;
          return many;
        }"""
    )
    return found


def test_preview_of_hostile_files_does_not_freeze_the_page(
    open_browser: Callable[..., Page], felt: dict[str, Path]
) -> None:
    home = felt["fiona"]
    many = 1_000_000
    html = [text * (many // len(text)) for text in ("<table>", "<!--", "<", "<table><tr><td", "&#1", "<td ")]
    prose = [text * (many // len(text)) for text in ("[", "[x](", "*a", "**a", "`", "# #", "![")]
    prose.append("# " + "#" * many + "x")
    cells = [
        *({"cell_type": "code", "source": "", "outputs": [{"output_type": "display_data", "data": {"text/html": each}}]}
          for each in html),
        *({"cell_type": "markdown", "source": each} for each in prose),
        # Signs that no font has.
        *({"cell_type": "code", "source": "", "outputs": [{"output_type": "stream", "text": each * (many // 4)}] * 3}
          for each in ("\x1b[", "\u0378[")),
    ]  # fmt: skip
    write(home, "hostile/head.csv", b"\x01[" * (many // 4) + b",b\n1,2\n")
    write(home, "hostile/log.txt", b"\x1b[" * (many // 2))
    write(home, "hostile/n.ipynb", json.dumps({"cells": cells}).encode())
    begins = "<VOTABLE><TABLE><FIELD name='a' datatype='char'/><DATA><TABLEDATA>"
    inner = ("<!--", "<TR>", "<TR><TD>", "<TR><TD><![CDATA[", "<TR><TD", "<TR ", "<FIELD ", "<FIELD a", "a" * 99 + " ")
    for number, text in enumerate(inner):
        write(home, f"hostile/{number}.vot", (begins + text * (many // len(text))).encode())
        write(home, f"hostile/h{number}.vot", ("<VOTABLE><TABLE><FIELD " + text * (many // len(text))).encode())
    page = enter(open_browser(), "fiona", "?path=/home/fiona/hostile")
    computed = page.context.new_cdp_session(page)
    computed.send("Performance.enable", {"timeDomain": "threadTicks"})
    for name in (
        "n.ipynb",
        "log.txt",
        "head.csv",
        *(f"{kind}{number}.vot" for kind in ("", "h") for number in range(len(inner))),
    ):
        expect(preview(page, name)).not_to_contain_text(said_in("preview-large", size="").split("(")[0])
        spent = {each["name"]: each["value"] for each in computed.send("Performance.getMetrics")["metrics"]}
        assert spent["TaskDuration"] < 20, name


def test_preview_of_an_image(open_browser: Callable[..., Page], felt: dict[str, Path]) -> None:
    home = felt["fiona"]
    line = b"\0" + bytes(range(7)) * 3
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", 7, 3, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(line * 3)),
        (b"IEND", b""),
    )
    data = b"".join(struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks)
    write(home, "images/天 #1.png", b"\x89PNG\r\n\x1a\n" + data)
    write(home, "images/broken.png", b"\x89PNG\r\n\x1a\n")
    page = enter(open_browser(), "fiona", "?path=/home/fiona/images")
    place = preview(page, "天 #1.png")
    expect(place).to_contain_text("7 × 3")
    expect(place.get_by_role("img", name="天 #1.png")).to_be_visible()
    expect(preview(page, "broken.png")).to_contain_text(said_in("preview-broken"))


def test_preview_of_a_large_image_fetches_only_what_it_shows(
    open_browser: Callable[..., Page], felt: dict[str, Path]
) -> None:
    side = 20_000
    file = write(felt["fiona"], "large/sky.fits", fits(side))
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
