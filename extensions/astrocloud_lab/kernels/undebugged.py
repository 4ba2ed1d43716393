"""A Python kernel without a debugger; see :mod:`astrocloud_lab.kernels.network`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ipykernel.ipkernel import IPythonKernel

from astrocloud_lab.words import language_of, say


class UndebuggedKernel(IPythonKernel):
    """The usual kernel, which neither offers nor starts a debugger."""

    @property
    def kernel_info(self) -> dict[str, Any]:
        """Return what a front end learns of the kernel."""
        info: dict[str, Any] = dict(super().kernel_info)
        features = info.get("supported_features", [])
        return info | {"supported_features": [feature for feature in features if feature != "debugger"]}

    async def do_debug_request(self, msg: Mapping[str, Any]) -> dict[str, Any]:
        """Refuse, in the form of the debug adapter protocol."""
        return {
            "type": "response",
            "request_seq": msg.get("seq", 0),
            "command": msg.get("command", ""),
            "success": False,
            "message": say("kernel.no-debugger", language_of(os.environ.get("ASTROCLOUD_LANG"))),
            "body": {},
        }
