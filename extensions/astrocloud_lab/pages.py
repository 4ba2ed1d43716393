"""What JupyterLab's pages are told about the platform, for the extension in ``labextension/``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from astrocloud_lab.words import WORDS

FILES_PAGE = "/services/vospace/my-files"
"""Where My files is, unless ``ASTROCLOUD_FILES_PAGE`` says otherwise."""


def tree_root(home: str, user: str) -> str:
    """Return the folder whose paths are VOSpace's: empty for ``/``, as inside a sandbox.

    Parameters
    ----------
    home
        The person's home as the server knows it.
    user
        The username.
    """
    end = f"/home/{user}"
    return home[: -len(end)] if user and home.endswith(end) else ""


def page_options(environ: Mapping[str, str], *, base_url: str = "/") -> dict[str, Any]:
    """Return the option ``astrocloud`` of a page.

    Parameters
    ----------
    environ
        The server's environment: ``ASTROCLOUD_VOSPACE`` is the authority and service of node URIs
        (``astrocloud.local~vospace``); without it there is nothing to address and the extension adds nothing.
    base_url
        Where the hub begins on this origin.
    """
    user = environ.get("JUPYTERHUB_USER", "")
    page = environ.get("ASTROCLOUD_FILES_PAGE", FILES_PAGE)
    return {
        "authority": environ.get("ASTROCLOUD_VOSPACE", ""),
        "files": base_url.rstrip("/") + page,
        "root": tree_root(os.path.expanduser("~"), user),
        "words": {key: text for key, text in WORDS.items() if key.startswith(("files.", "label."))},
    }
