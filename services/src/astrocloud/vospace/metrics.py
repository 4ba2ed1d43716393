"""How full the file tree is, for Prometheus."""

import asyncio
import os
from pathlib import Path
from typing import Final

import structlog
from prometheus_client import Gauge

_EVERY_S: Final = 30
_PATIENCE_S: Final = 10
_SOON_S: Final = 1.0
_FULL_AT: Final = 100
"""Full when less than one part in so many is free."""
_log = structlog.get_logger()

_size = Gauge("astrocloud_tree_size_bytes", "Size of the file system with people's files, in bytes.")
_free = Gauge("astrocloud_tree_free_bytes", "What the platform can still write there, in bytes.")
_files = Gauge("astrocloud_tree_files", "Files that file system can hold in all; 0 where it has no limit.")
_files_free = Gauge("astrocloud_tree_files_free", "Files that it can still hold.")
_answers = Gauge("astrocloud_tree_answers", "Whether the file system answered within ten seconds: 1 or 0.")


class TreeWatch:
    """Asks the file system of the tree, one question at a time: on one that hangs, each would hold a thread.

    Parameters
    ----------
    root
        The tree's folder.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._asking: asyncio.Task[os.statvfs_result] | None = None

    async def _ask(self, *, within_s: float) -> os.statvfs_result | None:
        """Return what it says; `None` when it does not answer so soon. Raises `OSError`."""
        if self._asking is None:
            self._asking = asyncio.create_task(asyncio.to_thread(os.statvfs, self._root))
        asking = self._asking
        await asyncio.wait({asking}, timeout=within_s)
        if not asking.done():
            return None
        if self._asking is asking:
            self._asking = None
        return asking.result()

    async def state(self) -> str:
        """Return ``ok``, ``full`` or ``unreachable``, within a second."""
        try:
            found = await self._ask(within_s=_SOON_S)
        except OSError:
            return "unreachable"
        if found is None:
            return "unreachable"
        return "full" if found.f_bavail * _FULL_AT < found.f_blocks else "ok"

    async def watch(self) -> None:
        """Keep the metrics up to date, for ever."""
        while True:
            try:
                found = await self._ask(within_s=_PATIENCE_S)
            except OSError as err:
                _answers.set(0)
                _log.warning("tree-does-not-answer", error=type(err).__name__)
            else:
                _answers.set(found is not None)
                if found is None:
                    _log.warning("tree-does-not-answer", waited_s=_PATIENCE_S)
                else:
                    _size.set(found.f_blocks * found.f_frsize)
                    _free.set(found.f_bavail * found.f_frsize)
                    _files.set(found.f_files)
                    _files_free.set(found.f_favail)
            await asyncio.sleep(_EVERY_S)
