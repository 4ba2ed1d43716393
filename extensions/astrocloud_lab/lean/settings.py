"""The defaults of a person's server.

Given as the lowest layer of configuration: files of the environment, files of
the person and arguments all win over them.  What must not be changed by a
person is enforced outside of the server, by its sandbox.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

from astrocloud_lab import user_packages
from astrocloud_lab.kernels import network

CONFIG_DIR = Path(__file__).resolve().parent.parent / "config"
"""Folders for ``JUPYTER_CONFIG_PATH``: ``common``, and one a language."""

DASK_GUARD = CONFIG_DIR.parent / "preload" / "astrocloud_dask_guard.py"
"""What closes Dask's dashboards to others; by its path, so that a person's own environment can load it, too."""

LANGUAGES = ("zh_CN",)
"""Languages of the Lab besides English that have a folder in :data:`CONFIG_DIR`."""

SOCKET_PATH_LIMIT = 107
"""Bytes in a unix socket's path on Linux, without the closing zero."""

SOCKET_NAME = "kernel-00000000-0000-0000-0000-000000000000-ipc-99999"
"""As long as the name of a kernel's socket gets."""


def default_config() -> dict[str, Any]:
    """Return the server's defaults as traitlets takes them.

    The file browser's paths are the machine's and VOSpace's: the root folder is
    ``/``, of which only the platform's own folders are listed (see
    :mod:`astrocloud_lab.contents`), and the home is where it opens.
    """
    home = os.path.expanduser("~")
    # Two people share the machine's loopback, but not a folder of mode 0700.
    runtime = os.environ.get("JUPYTER_RUNTIME_DIR", "")
    kernels = {"transport": "ipc"} if runtime and ipc_fits(runtime) else {}
    return {
        "ServerApp": {
            "root_dir": "/",
            "contents_manager_class": "astrocloud_lab.contents.PlatformContentsManager",
        },
        # Hidden files can be opened; whether they are listed stays the Lab's setting.
        # The preferred folder is a path of the contents API: below the root, without a slash.
        "ContentsManager": {"allow_hidden": True, "preferred_dir": home.strip("/")},
        "FileContentsManager": {"delete_to_trash": False},
        "KernelManager": kernels,
        "KernelProvisionerFactory": {"default_provisioner_name": "astrocloud-prepared"},
        "LabApp": {
            # Packages come with the environment; the PyPI manager would also build
            # two TLS contexts at start.
            "extension_manager": "readonly",
            "check_for_updates_class": "jupyterlab.NeverCheckForUpdate",
            "news_url": None,
        },
    }


def config_path(language: str) -> list[str]:
    """Return the folders to put in front of ``JUPYTER_CONFIG_PATH`` for a language.

    They hold defaults of Lab settings, below the person's own: a language chosen
    in the Lab's menu stays chosen.

    Parameters
    ----------
    language
        ``en`` or ``zh_CN``, from ``ASTROCLOUD_LANG``; anything else means English.
    """
    names = [language] if language in LANGUAGES else []
    return [str(CONFIG_DIR / name) for name in (*names, "common")]


def prepare_environment(environ: MutableMapping[str, str], *, stock: bool = False) -> None:
    """Set what the server, its kernels and its terminals inherit.

    Parameters
    ----------
    environ
        The environment to change.
    stock
        Whether the stock server is started: it reads the defaults from a file.

    Notes
    -----
    ``JUPYTER_CONFIG_PATH``
        gets the platform's folders in front.
    ``JUPYTER_RUNTIME_DIR``
        unless set, becomes a new folder of mode 0700 in the (private) temporary
        folder: unix sockets of kernels need a short path on a local disk, which a
        home on a network is not.
    """
    language = environ.get("ASTROCLOUD_LANG", "en").replace("-", "_")
    language = {"zh": "zh_CN"}.get(language, language)
    folders = config_path(language)
    if network.is_shared(environ):
        folders.append(str(CONFIG_DIR / "shared-network"))
        for part in ("SCHEDULER", "WORKER"):
            environ.setdefault(f"DASK_DISTRIBUTED__{part}__PRELOAD", repr([str(DASK_GUARD)]))
    if stock:
        folders.append(str(CONFIG_DIR / "stock"))
    given = environ.get("JUPYTER_CONFIG_PATH")
    if given:
        folders += [folder for folder in given.split(os.pathsep) if folder not in folders]
    environ["JUPYTER_CONFIG_PATH"] = os.pathsep.join(folders)
    user_packages.prepare(environ)
    runtime = environ.get("JUPYTER_RUNTIME_DIR")
    if not runtime:
        runtime = tempfile.mkdtemp(prefix="jupyter-")
        environ["JUPYTER_RUNTIME_DIR"] = runtime


def ipc_fits(runtime_dir: str) -> bool:
    """Return whether the sockets of kernels fit into ``runtime_dir``'s path."""
    return len(os.fsencode(os.path.join(runtime_dir, SOCKET_NAME))) <= SOCKET_PATH_LIMIT
