"""What the parent imports: all that a server needs up to the Lab's first page, and a kernel up to its first plot."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

SERVER_MODULES = (
    "astrocloud_lab.contents",
    "astrocloud_lab.handlers",
    "astrocloud_lab.kernels.provisioner",
    "astrocloud_lab.lean.deferred",
    "astrocloud_lab.lean.versions",
    "astrocloud_lab.server_extension",
    "jupyter_core.migrate",
    "jinja2.ext",
    "tornado.platform.asyncio",
    "jupyter_server.services.api.handlers",
    "jupyter_server.services.config.handlers",
    "jupyter_server.services.contents.handlers",
    "jupyter_server.services.events.handlers",
    "jupyter_server.services.kernels.handlers",
    "jupyter_server.services.kernelspecs.handlers",
    "jupyter_server.services.nbconvert.handlers",
    "jupyter_server.services.security.handlers",
    "jupyter_server.services.sessions.handlers",
    "jupyter_server.services.shutdown",
    "jupyter_server.kernelspecs.handlers",
    "jupyter_server.nbconvert.handlers",
    "jupyter_server.view.handlers",
    "anyio._backends._asyncio",
    "ipykernel.kernelspec",
    "notebook_shim.nbserver",
    "jupyter_server_proxy",
    "jupyterlab_language_pack_zh_CN",
)
"""What a server imports up to the Lab's first page, besides what :mod:`astrocloud_lab.lean.app` imports first."""

KERNEL_MODULES = ("faulthandler", "runpy", "IPython.core.pylabtools", "matplotlib.backends.backend_agg")
"""What a kernel imports with its first plot, besides what :mod:`astrocloud_lab.kernels.forkserver` imports."""


def import_everything() -> None:
    """Import what servers need, then what kernels need; what is missing is left to them."""
    from astrocloud_lab.kernels import fonts, forkserver, network
    from astrocloud_lab.lean import app

    # First: the server's modules are imported with a few names hidden, which kernels need.
    app.import_server()
    for name in SERVER_MODULES:
        forkserver.import_quietly(name)
    fonts.offer(os.environ, Path.home())
    if network.is_shared(os.environ):
        forkserver.import_without_debugger()
    forkserver.inline_backend()
    for name in (*forkserver.FIRST, *forkserver.wanted_modules(), *KERNEL_MODULES):
        forkserver.import_quietly(name)
    del os.environ["MPLBACKEND"]
    for name in ("astrocloud_lab.forked.child", "astrocloud_lab.kernels.child", "astrocloud_lab.serve"):
        importlib.import_module(name)
    from astrocloud_lab.forked import homes

    homes.remember()
