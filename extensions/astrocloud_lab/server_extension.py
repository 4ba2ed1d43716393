"""The Jupyter server extension of this package."""

from __future__ import annotations

from typing import Any


def _load_jupyter_server_extension(serverapp: Any) -> None:
    """Add the handlers of this package to a server."""
