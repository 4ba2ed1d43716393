"""Sums of large files that notebooks wrote: clients that synchronize find them, and no stale one."""

import asyncio
import hashlib
import os
from pathlib import Path

from astrocloud.vospace.background_sums import BackgroundSums
from astrocloud.vospace.models import NodePath
from astrocloud.vospace.opening import SUM_AT_ONCE_BYTES
from astrocloud.vospace.storage import Tree
from tests.services.vospace.platform import CORE, Space, digest, running

LARGE = os.urandom(1 << 20) * (SUM_AT_ONCE_BYTES >> 20) + b"more"
LONG_AGO = (1_000_000_000, 1_000_000_000)


def notebook_writes(space: Space, path: str) -> Path:
    file = space.write(path, LARGE)
    os.utime(file, LONG_AGO)
    return file


async def test_who_asks_for_a_large_file_finds_its_sum_soon(space: Space) -> None:
    await space.node("/home/ada")
    file = notebook_writes(space, "/home/ada/large")
    expected = hashlib.md5(LARGE).hexdigest()
    async with asyncio.timeout(60):
        while (found := (await space.node("/home/ada/large")).properties.get(f"{CORE}MD5")) is None:
            await asyncio.sleep(0.05)
    assert found == expected
    assert (await space("HEAD", "/files/home/ada/large")).headers["Digest"] == digest(LARGE)
    with file.open("r+b") as opened:
        opened.write(b"changed")
    assert f"{CORE}MD5" not in (await space.node("/home/ada/large")).properties


async def test_the_walk_finds_large_files_that_nobody_asked_for(tmp_path: Path) -> None:
    async with running(tmp_path / "data") as space:
        await space.mkdir("/home/ada/d")
        file = notebook_writes(space, "/home/ada/d/large")
        small = space.write("/home/ada/d/small", b"small")
        os.utime(small, LONG_AGO)
    async with running(tmp_path / "data") as space:
        async with asyncio.timeout(60):
            while "user.astrocloud.md5" not in os.listxattr(file):
                await asyncio.sleep(0.05)
        [said] = os.getxattr(file, "user.astrocloud.md5").split()[:1]
        assert said.decode() == hashlib.md5(LARGE).hexdigest()
        assert os.listxattr(small) == []


async def test_what_changes_while_it_is_summed_gets_no_sum(tmp_path: Path, monkeypatch) -> None:
    file = tmp_path / "home" / "large"
    file.parent.mkdir()
    file.write_bytes(LARGE)
    os.utime(file, LONG_AGO)
    tree = Tree(tmp_path)
    sums = BackgroundSums(tree=tree)
    path = NodePath((b"home", b"large"))
    real = os.pread

    def reading(descriptor: int, count: int, position: int) -> bytes:
        if position == 0:
            with file.open("ab") as opened:
                opened.write(b"x")
        return real(descriptor, count, position)

    monkeypatch.setattr(os, "pread", reading)
    assert not sums.sum(path)
    monkeypatch.undo()
    assert os.listxattr(file) == []
    assert not sums.sum(path)  # not settled
    os.utime(file, LONG_AGO)
    assert sums.sum(path)
    # What is in its place is not opened.
    file.unlink()
    os.mkfifo(file)
    assert not sums.sum(path)
    file.unlink()
    file.symlink_to("/etc/passwd")
    assert not sums.sum(path)
    assert not sums.sum(NodePath((b"home", b"none")))
    tree.close()


async def test_the_service_ends_while_it_sums(tmp_path: Path, monkeypatch) -> None:
    reached = asyncio.Event()
    loop = asyncio.get_running_loop()
    import astrocloud.vospace.background_sums as module

    monkeypatch.setattr(module, "_STRETCH_BYTES", 1 << 20)
    real = os.pread

    def reading(descriptor: int, count: int, position: int) -> bytes:
        loop.call_soon_threadsafe(reached.set)
        return real(descriptor, 1, min(position, 1000))  # never comes to its end

    async with running(tmp_path / "data") as space:
        await space.node("/home/ada")
        notebook_writes(space, "/home/ada/large")
        monkeypatch.setattr(os, "pread", reading)
        await space.node("/home/ada/large")
        async with asyncio.timeout(60):
            await reached.wait()
    file = tmp_path / "data" / "tree" / "home" / "ada" / "large"
    assert os.listxattr(file) == []
