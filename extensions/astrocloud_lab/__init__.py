"""What runs inside a person's Astrocloud server.

``python -m astrocloud_lab.serve`` starts the server (see :mod:`astrocloud_lab.serve`),
:mod:`astrocloud_lab.kernels` keeps a kernel ready, and the package is itself a
Jupyter server extension.

This file imports nothing heavy: every start of a server and of a kernel goes
through it.
"""

from __future__ import annotations

from typing import Any

from astrocloud_lab._version import __version__

__all__ = ["__version__"]


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    """Return the server extension of this package, as jupyter_server asks for it."""
    return [{"module": "astrocloud_lab.server_extension"}]
