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
    folders = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    folders += [site.getusersitepackages(), *site.getsitepackages()]
    return sorted({*folders, *personal_settings(), os.path.join(sys.prefix, "pyvenv.cfg")})


def personal_settings() -> list[str]:
    """Return the person's own files that matplotlib reads when it is imported."""
    home = os.path.expanduser("~")
    config = os.environ.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
    own = os.environ.get("MPLCONFIGDIR") or os.path.join(config, "matplotlib")
    return [
        os.path.join(own, "matplotlibrc"),
        os.path.join(own, "stylelib"),
        os.path.join(home, ".matplotlib", "matplotlibrc"),
    ]


def differs_from_others() -> bool:
    """Return whether this person's packages start otherwise than everybody's: by settings, or fonts, of their own."""
    home = os.path.expanduser("~")
    data = os.environ.get("XDG_DATA_HOME") or os.path.join(home, ".local", "share")
    fonts = [os.path.join(home, ".fonts"), os.path.join(data, "fonts")]
    astropy = os.path.join(os.environ.get("XDG_CONFIG_HOME") or os.path.join(home, ".astropy"), "config", "astropy.cfg")
    others = [astropy, os.path.join(home, ".config", "astropy", "astropy.cfg")]
    return any(os.path.exists(path) for path in (*personal_settings(), *fonts, *others))


def take() -> Fingerprint:
    """Return the state of all watched paths: each with its time of change, -1 if absent."""
    return tuple((path, _modified_ns(path)) for path in watched_paths())


def has_settings(folder: str) -> bool:
    """Return whether a folder has settings that matplotlib reads if it is imported there."""
    return os.path.exists(os.path.join(folder, "matplotlibrc"))
