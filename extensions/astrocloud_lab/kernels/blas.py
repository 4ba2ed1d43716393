"""How many threads numpy's linear algebra uses, where numpy was imported before that could be known."""

from __future__ import annotations

import ctypes
import glob
import os
import sys
from collections.abc import Mapping

VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")
"""What OpenBLAS reads when it is loaded, the first one that is there."""

SETTERS = ("scipy_openblas_set_num_threads64_", "scipy_openblas_set_num_threads", "openblas_set_num_threads")


def wanted(environ: Mapping[str, str]) -> int:
    """Return the number of threads that a fresh process would use."""
    for name in VARIABLES:
        value = environ.get(name, "")
        if value.isdigit() and int(value) > 0:
            return int(value)
    return len(os.sched_getaffinity(0))


def use_threads(environ: Mapping[str, str]) -> bool:
    """Let the OpenBLAS of an imported numpy use as many threads as `environ` says; tell whether there is one."""
    import astrocloud_lab.forked

    numpy = sys.modules.get("numpy")
    if numpy is None or not astrocloud_lab.forked.KERNELS_ARE_PREPARED:
        return False
    folder = os.path.join(os.path.dirname(os.path.dirname(numpy.__file__ or "")), "numpy.libs")
    for path in glob.glob(os.path.join(glob.escape(folder), "lib*openblas*")):
        try:
            # Only if it is loaded already.
            library = ctypes.CDLL(path, mode=os.RTLD_NOLOAD | os.RTLD_NOW)
        except OSError:
            continue
        for name in SETTERS:
            if hasattr(library, name):
                getattr(library, name)(wanted(environ))
                return True
    return False
