"""The files of a person's server, as its file browser shows them."""

from __future__ import annotations

import os
from typing import Any

from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager
from traitlets import List, Unicode

PLATFORM_FOLDERS = ("home", "project", "archive", "course", "tutorials", "tmp")
"""What of ``/`` concerns a person; the rest is the operating system's."""


class PlatformContentsManager(AsyncLargeFileManager):
    """Files below ``/``, with a root listing that shows only the platform's folders.

    Only the listing of the root is shortened.  Any other path works as typed: what
    a person may read is decided by the file system and by the sandbox, not here.
    """

    root_names = List(
        Unicode(),
        default_value=list(PLATFORM_FOLDERS),
        config=True,
        help="Names listed in the root folder when it is '/'; the others are left out.",
    )

    def _is_root(self, path: str) -> bool:
        return not path.strip("/") and os.path.abspath(self.root_dir) == os.sep

    async def _dir_model(self, path: str, content: bool = True) -> dict[str, Any]:
        model: dict[str, Any] = await super()._dir_model(path, content=content)
        if content and self._is_root(path):
            model["content"] = [one for one in model["content"] if one["name"] in self.root_names]
        return model
