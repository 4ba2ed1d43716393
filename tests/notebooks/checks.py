"""What a tutorial's outputs must say, wherever it was run: by the tests in a bare kernel, or in a real server.

::

    expected = expected_numbers(astro_python)["first-look"]
    check_outputs("first-look", notebook_document, expected)
"""

import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).parent
LANGUAGES: Final = ("en", "zh")
TUTORIALS: Final = ("first-look", "files", "tables-and-coordinates")

# A number in the outputs: (the text before it, its name among the expected numbers, how far off it may be).
NUMBERS: Final[Mapping[str, tuple[tuple[str, str, float], ...]]] = {
    "first-look": (
        (r"pixel scale +", "pixel scale", 1e-4),
        (r"field +", "field", 1e-3),
        (r"centre of light +", "centre ra", 1e-4),
        (r"centre of light +\S+ ", "centre dec", 1e-4),
        (r"from published +", "from published", 0.1),
        # Another way to find stars finds nearly as many.
        (r"sources +(?=\d+\n)", "sources", 25),
        (r"redshift +", "redshift", 1e-4),
        (r"velocity width +", "velocity width", 3),
        (r"H-beta excess +", "h-beta excess", 0.2),
        (r"H I sources +", "h i sources", 0),
        (r"optical galaxies +", "optical galaxies", 0),
        (r"matched +", "matched", 0),
        (r"as published +", "as published", 0),
        (r"median separation +", "median separation", 0.01),
        (r"largest separation +", "largest separation", 0.01),
        (r"without a galaxy +", "without a galaxy", 0),
        (r"of which ", "without a galaxy", 0),
        (r"their velocities +", "slowest without", 0.5),
        (r"with a galaxy      ", "slowest with", 0.5),
    ),
    "files": (
        (r"rows +", "rows", 0),
        (r"target 4 +", "target 4", 0),
        (r"mean flux ", "mean flux", 1e-5),
        (r"bright +", "bright", 0),
    ),
    "tables-and-coordinates": (
        (r"systems +", "systems", 0),
        (r"with a position +", "with a position", 0),
        (r"planets of a star +", "planets of a star", 0),
        (r"planets +", "planets", 0),
        (r"median ratio +", "median ratio", 1e-4),
        (r"within 5 percent +", "within 5 percent", 2e-3),
        (r"transit +", "transit planets", 0),
        (r"transit +\d+ planets, median distance +", "transit distance", 0.01),
        (r"systems in it +", "in kepler's field", 0),
        (r"systems in it +\d+ of ", "usable places", 0),
        (r"Kepler's field +l = ", "kepler's field l", 1e-3),
        (r"Kepler's field +l = \S+ b = ", "kepler's field b", 1e-3),
        (r"within 10 pc +", "within 10 pc", 0),
        (r"distance +", "distance", 1e-4),
        (r"proper motion +", "proper motion", 1e-4),
        (r"speed across +", "speed across", 0.01),
        (r"as it stands +", "as it stands", 0.002),
        (r"with its motion +", "with its motion", 0.05),
        # By the general precession alone; the quasar is 4 degrees from the ecliptic.
        (r"the numbers differ by ", "precession", 0.2),
        *(
            number
            for year in (1950, 2000, 2050)
            for number in (
                (rf"J{year} +", f"ra {year}", 2e-6),
                (rf"J{year} +\S+ ", f"dec {year}", 2e-6),
                (rf"J{year} +\S+ \S+ deg, ", f"perspective {year}", 0.003),
            )
        ),
    ),
}

# What must be said besides numbers.
TEXTS: Final[Mapping[str, tuple[str, ...]]] = {
    "first-look": ("39627866878514741",),
    "files": (
        "spectra.fits       same numbers: True, flux unit: True",
        "spectra.parquet    same numbers: True, flux unit: True",
        "same pixels        True",
        "afterwards         False",
        "removed            True",
    ),
    "tables-and-coordinates": ("set aside:         HAT-P-15, HD 136418, HD 159868, Kepler-22, WASP-70",),
}

FIGURES: Final[Mapping[str, int]] = {"first-look": 5, "files": 0, "tables-and-coordinates": 3}


def expected_numbers(python: Path) -> dict[str, dict[str, float]]:
    """Return tutorial -> name -> value, computed another way with the environment's Python at `python`."""
    done = subprocess.run([python, HERE / "independent.py"], capture_output=True, text=True, check=True, timeout=120)
    numbers: dict[str, dict[str, float]] = json.loads(done.stdout)
    return numbers


def run_tutorial(python: Path, notebook: Path, *, home: Path) -> dict[str, Any]:
    """Return `notebook` with its outputs, run in a bare kernel of the environment with `home` as the home."""
    target = home / f"{notebook.stem}.out.ipynb"
    surroundings = {
        "PATH": f"{python.parent}:/usr/bin:/bin",
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        # No network: what is not in the packages must not be asked for.
        "http_proxy": "http://127.0.0.1:9",
        "https_proxy": "http://127.0.0.1:9",
    }
    command = [python, HERE / "run_notebook.py", notebook, target]
    done = subprocess.run(command, check=False, cwd=home, env=surroundings, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    document: dict[str, Any] = json.loads(target.read_text(encoding="utf-8"))
    return document


def printed(document: Mapping[str, Any]) -> str:
    """Return all that the cells of a notebook printed."""
    return "".join(
        "".join(output["text"])
        for cell in document["cells"]
        for output in cell.get("outputs", ())
        if output["output_type"] == "stream" and output["name"] == "stdout"
    )


def complaints(document: Mapping[str, Any]) -> list[str]:
    """Return the errors and warnings among a notebook's outputs."""
    return [
        "".join(output.get("text") or output.get("traceback") or "")
        for cell in document["cells"]
        for output in cell.get("outputs", ())
        if output["output_type"] == "error" or output.get("name") == "stderr"
    ]


def figures(document: Mapping[str, Any]) -> int:
    """Return how many pictures are among a notebook's outputs."""
    outputs = [output for cell in document["cells"] for output in cell.get("outputs", ())]
    return sum("image/png" in output.get("data", {}) for output in outputs)


def check_outputs(tutorial: str, document: Mapping[str, Any], expected: Mapping[str, float]) -> None:
    """Hold the outputs of a tutorial against numbers computed another way, and fail with all that differs."""
    text = printed(document)
    wrong = list(complaints(document))
    for before, name, tolerance in NUMBERS[tutorial]:
        match = re.search(rf"(?:^|, ){before}([+-]?\d+(?:\.\d+)?)", text, re.M)
        if match is None:
            wrong.append(f"no number after {before!r}")
        elif abs(float(match[1]) - expected[name]) > tolerance:
            wrong.append(f"{name}: {match[1]}, not {expected[name]} within {tolerance}")
    wrong += [f"does not say {part!r}" for part in TEXTS[tutorial] if part not in text]
    unrun = [
        cell["id"] for cell in document["cells"] if cell["cell_type"] == "code" and not cell.get("execution_count")
    ]
    wrong += [f"cell {name} was not run" for name in unrun]
    if figures(document) != FIGURES[tutorial]:
        wrong.append(f"{figures(document)} figures, not {FIGURES[tutorial]}")
    assert not wrong, "\n".join([*wrong, "", text])
