"""The Jupyter server extension of this package."""

from __future__ import annotations

import os
from typing import Any

from jupyter_server.utils import url_path_join


def _load_jupyter_server_extension(serverapp: Any) -> None:
    """Add the handlers of this package to a server, and what its pages are to know of the platform."""
    from astrocloud_lab import handlers, pages

    base_url = serverapp.web_app.settings["base_url"]
    route = url_path_join(base_url, "astrocloud/tutorials/open")
    serverapp.web_app.add_handlers(".*$", [(route, handlers.OpenTutorialHandler)])
    options = pages.page_options(os.environ, base_url=os.environ.get("JUPYTERHUB_BASE_URL", "/"))
    serverapp.web_app.settings.setdefault("page_config_data", {})["astrocloud"] = options
