"""Whether the file system with people's files answers, and has room, is known without ever waiting for it."""

import asyncio
import os
import threading
from pathlib import Path

import pytest

from astrocloud.vospace.metrics import TreeWatch


async def test_a_tree_that_works(tmp_path: Path) -> None:
    assert await TreeWatch(tmp_path).state() in {"ok", "full"}


async def test_a_tree_that_is_gone(tmp_path: Path) -> None:
    assert await TreeWatch(tmp_path / "nowhere").state() == "unreachable"


async def test_a_tree_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.statvfs(tmp_path)
    full = os.statvfs_result((*real[:4], 0, *real[5:]))
    monkeypatch.setattr(os, "statvfs", lambda _path: full)

    assert await TreeWatch(tmp_path).state() == "full"


async def test_a_tree_that_hangs_is_asked_once_however_many_ask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = threading.Event()
    asked = 0
    real = os.statvfs(tmp_path)

    def hanging(_path: Path) -> os.statvfs_result:
        nonlocal asked
        asked += 1
        answers.wait(30)
        return real

    monkeypatch.setattr(os, "statvfs", hanging)
    watch = TreeWatch(tmp_path)
    try:
        states = await asyncio.gather(*(watch.state() for _ in range(50)))
        assert set(states) == {"unreachable"}
        assert await watch.state() == "unreachable"
        assert asked == 1
    finally:
        answers.set()
    while await watch.state() == "unreachable":
        await asyncio.sleep(0)
