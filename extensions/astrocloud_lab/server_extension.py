"""The Jupyter server extension of this package."""

from __future__ import annotations

from typing import Any

from jupyter_server.utils import url_path_join


def _load_jupyter_server_extension(serverapp: Any) -> None:
    """Add the handlers of this package to a server."""
    from astrocloud_lab import handlers

    base_url = serverapp.web_app.settings["base_url"]
    route = url_path_join(base_url, "astrocloud/tutorials/open")
    serverapp.web_app.add_handlers(".*$", [(route, handlers.OpenTutorialHandler)])
