"""Build the server: what is imported, which extensions wait, what is asked later."""

from __future__ import annotations

import asyncio
import gc
import importlib
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from astrocloud_lab.lean import curtain, settings

if TYPE_CHECKING:
    from jupyter_server.serverapp import ServerApp

IMPORTED_FIRST = (
    "jupyterhub.singleuser.extension",
    "jupyterlab.labapp",
    "jupyter_server_terminals.app",
)
"""Modules whose imports are shortened; everything else is imported as usual."""

NODE_PROGRAMS = ("node", "nodejs", "npm")


@contextmanager
def without_node() -> Iterator[None]:
    """Hide Node's programs while the Lab is imported.

    ``jupyterlab.commands`` runs ``node yarn config`` at import to learn of a
    registry that only a build of the Lab would use (a third of a second).
    """
    import shutil

    found = os.environ.get("PATH", "")
    kept = [
        folder
        for folder in found.split(os.pathsep)
        if not any(os.access(os.path.join(folder, name), os.X_OK) for name in NODE_PROGRAMS)
    ]
    which = shutil.which
    os.environ["PATH"] = os.pathsep.join(kept)
    try:
        yield
    finally:
        os.environ["PATH"] = found
        assert shutil.which is which


@contextmanager
def without_collection() -> Iterator[None]:
    """Import without garbage collection, then take what is there out of its sight.

    Modules live as long as the process: searching them again and again while
    more are loaded finds nothing.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@cache
def import_server() -> None:
    """Import the server's modules, shortened; once, be it in a process that this one was forked from."""
    with curtain.lowered(), without_node():
        for name in IMPORTED_FIRST:
            importlib.import_module(name)


def without_sessions(record: logging.LogRecord) -> bool:
    """Drop the one message of JupyterHub (6.1) that tells the id of a browser's session at the hub."""
    return not str(record.msg).startswith("Setting new xsrf cookie")


def check_hub_later(single_user: Any) -> None:
    """Make the single-user extension ask for the hub's version after listening.

    Stock asks while it initialises, and does not listen before the answer.  The
    check itself, its retries and its exit are stock's.
    """
    check = single_user.check_hub_version

    async def start_check(self: Any) -> None:
        # Kept on the object: the loop holds tasks only weakly.
        self._astrocloud_hub_check = asyncio.ensure_future(check(self))

    single_user.check_hub_version = start_check


def build(argv: Sequence[str]) -> ServerApp:
    """Return the server, initialised and with its port bound.

    Parameters
    ----------
    argv
        The arguments of ``jupyterhub-singleuser``.
    """
    with without_collection():
        import_server()
        from jupyter_server.extension.application import _preparse_for_stopping_flags, _preparse_for_subcommand
        from jupyterhub.singleuser.extension import JupyterHubSingleUser
        from traitlets.config import Config

        from astrocloud_lab.lean.deferred import DeferringServerApp

        # As launch_instance does: --help and --version are the single-user server's.
        if _preparse_for_subcommand(JupyterHubSingleUser, list(argv)):
            raise RuntimeError("a subcommand is asked for")
        _preparse_for_stopping_flags(JupyterHubSingleUser, list(argv))
        logging.getLogger("tornado.application").addFilter(without_sessions)
        config = Config(settings.default_config())
        # `hubclient` knows whom to believe: JupyterHub would read all authorities there are for each question.
        config.HubAuth.keyfile = config.HubAuth.certfile = ""
        check_hub_later(JupyterHubSingleUser)
        JupyterHubSingleUser.serverapp_class = DeferringServerApp
        app: ServerApp = JupyterHubSingleUser.initialize_server(argv=list(argv), config=config)
    return app
