"""How full the file tree is, for Prometheus."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import structlog
from prometheus_client import Gauge

_EVERY_S: Final = 30
_PATIENCE_S: Final = 10
_log = structlog.get_logger()

_size = Gauge("astrocloud_tree_size_bytes", "Size of the file system with people's files, in bytes.")
_free = Gauge("astrocloud_tree_free_bytes", "What the platform can still write there, in bytes.")
_files = Gauge("astrocloud_tree_files", "Files that file system can hold in all; 0 where it has no limit.")
_files_free = Gauge("astrocloud_tree_files_free", "Files that it can still hold.")
_answers = Gauge("astrocloud_tree_answers", "Whether the file system answered within ten seconds: 1 or 0.")


def watch_tree(root: Path) -> Callable[[], Awaitable[None]]:
    """Return what looks at the file system of `root` twice a minute, for ever."""

    async def tree_watch() -> None:
        asking: asyncio.Task[os.statvfs_result] | None = None
        while True:
            # One question at a time: on a network file system that hangs, each would hold a thread.
            asking = asking or asyncio.create_task(asyncio.to_thread(os.statvfs, root))
            done, _ = await asyncio.wait({asking}, timeout=_PATIENCE_S)
            if done:
                _take(asking)
                asking = None
            else:
                _answers.set(0)
                _log.warning("tree-does-not-answer", waited_s=_PATIENCE_S)
            await asyncio.sleep(_EVERY_S)

    return tree_watch


def _take(answer: "asyncio.Task[os.statvfs_result]") -> None:
    error = answer.exception()
    _answers.set(error is None)
    if error is not None:
        _log.warning("tree-does-not-answer", error=type(error).__name__)
        return
    found = answer.result()
    _size.set(found.f_blocks * found.f_frsize)
    _free.set(found.f_bavail * found.f_frsize)
    _files.set(found.f_files)
    _files_free.set(found.f_favail)
