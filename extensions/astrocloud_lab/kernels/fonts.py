"""Give people matplotlib's list of fonts with the environment.

Matplotlib looks at every font once for each person, which takes a second of their
first plot.  ``python -m astrocloud_lab.kernels.fonts`` makes the list when an
environment is made, where people cannot write; :func:`offer` hands out copies.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

PATTERN = "fontlist-*.json"


def shipped() -> Path:
    """Return the folder of the environment's list."""
    return Path(sys.prefix, "share", "astrocloud", "matplotlib")


def cache(environ: Mapping[str, str], home: Path) -> Path:
    """Return the folder where matplotlib looks for a person's list."""
    if environ.get("MPLCONFIGDIR"):
        return Path(environ["MPLCONFIGDIR"])
    return Path(environ.get("XDG_CACHE_HOME") or home / ".cache", "matplotlib")


def offer(environ: Mapping[str, str], home: Path) -> bool:
    """Copy the environment's list to a person who has none; tell whether that was done.

    Not to those who have fonts of their own, which only a list made for them names.
    """
    data = Path(environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    if any(folder.exists() for folder in (home / ".fonts", data / "fonts")):
        return False
    folder = cache(environ, home)
    found = next(shipped().glob(PATTERN), None)
    if found is None or next(folder.glob(PATTERN), None) is not None:
        return False
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as copy:
            copy.write(found.read_bytes())
        os.replace(copy.name, folder / found.name)
        return True
    return False


def main() -> None:
    """Make the environment's list, if it has matplotlib."""
    folder = shipped()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    os.environ["MPLCONFIGDIR"] = str(folder)
    with contextlib.suppress(ModuleNotFoundError):
        import matplotlib.font_manager  # noqa: F401


if __name__ == "__main__":
    main()
