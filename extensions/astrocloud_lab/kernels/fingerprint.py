"""Tell whether what the parent has imported is still what a new process would import."""

from __future__ import annotations

import os
import site
import sys
from collections.abc import Mapping

READ_AT_IMPORT = (
    "ASTROPY",
    "BLIS_",
    "GLIBC_TUNABLES",
    "HOME",
    "IPYTHON",
    "JUPYTER_CONFIG",
    "JUPYTER_DATA",
    "JUPYTER_NO_CONFIG",
    "JUPYTER_PATH",
    "JUPYTER_PLATFORM_DIRS",
    "JUPYTER_PREFER_ENV_PATH",
    "KMP_",
    "LANG",
    "LC_",
    "LD_",
    "MALLOC_",
    "MATPLOTLIB",
    "MKL_",
    "MPL",
    "NPY_",
    "NUMEXPR",
    "NUMPY",
    "OMP_",
    "OPENBLAS",
    "PYDEVD",
    "PYTHON",
    "XDG_",
)
"""Beginnings of the names of variables that a package or the interpreter reads once."""

Fingerprint = tuple[tuple[str, int], ...]


def sensitive(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that must be the same in the parent and in a kernel.

    Any other variable is simply set in the child.
    """
    return {name: value for name, value in environ.items() if name.startswith(READ_AT_IMPORT)}


def _modified_ns(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return -1


def watched_paths() -> list[str]:
    """Return the files and folders whose change makes the parent stale.

    The folders that packages are installed into change when one is installed,
    upgraded or removed; the others decide how matplotlib, astropy and IPython
    start, and are read once by the parent.
    """
    home = os.path.expanduser("~")
    config = os.environ.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
    folders = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    folders += [site.getusersitepackages(), *site.getsitepackages()]
    files = [
        os.path.join(os.environ.get("MPLCONFIGDIR") or os.path.join(config, "matplotlib"), name)
        for name in ("matplotlibrc", "stylelib")
    ]
    files.append(os.path.join(home, ".matplotlib", "matplotlibrc"))
    files.append(os.path.join(sys.prefix, "pyvenv.cfg"))
    return sorted(set(folders + files))


def take() -> Fingerprint:
    """Return the state of all watched paths: each with its time of change, -1 if absent."""
    return tuple((path, _modified_ns(path)) for path in watched_paths())


def has_settings(folder: str) -> bool:
    """Return whether a folder has settings that matplotlib reads if it is imported there."""
    return os.path.exists(os.path.join(folder, "matplotlibrc"))
