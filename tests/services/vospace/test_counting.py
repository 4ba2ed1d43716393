"""Counting what notebooks made cannot be held off, and hiding it from listings does not hide it from the quota."""

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from astrocloud.vospace import quotas, receiving
from tests.services.vospace.platform import CORE, Space, running
from tests.services.vospace.test_files import leftovers
from tests.services.vospace.test_people import scan
from tests.services.vospace.test_resumable import begin, go_on

LIMIT = 1_000_000
LIMITED = {"vospace": {"home_quota_bytes": LIMIT}}


@pytest.fixture
async def space(tmp_path: Path) -> AsyncIterator[Space]:
    """A service with a small quota."""
    async with running(tmp_path / "data", LIMITED) as found:
        await found.node("/home/ada")
        yield found


async def counted(space: Space, size: int) -> None:
    """Wait until that many bytes are counted."""
    async with asyncio.timeout(30):
        while True:
            free = int((await space.node("/home/ada", "?limit=0")).properties[f"{CORE}availableSpace"])
            if LIMIT - free == size:
                return
            await scan(space)


async def test_a_put_that_lasts_does_not_hold_off_counting(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quotas, "HELD_OFF_S", 0.0)
    await space.upload("/home/ada/f", bytes(1000))
    let = asyncio.Event()

    async def trickle() -> AsyncIterator[bytes]:
        yield b"x"
        await let.wait()

    lasting = asyncio.create_task(space("PUT", "/files/home/ada/slow", data=trickle()))
    async with asyncio.timeout(20):
        while not leftovers(space):
            await asyncio.sleep(0.01)
    space.write("/home/ada/notebook", bytes(300_000))
    await scan(space)
    async with asyncio.timeout(30):
        while (answer := await space.upload("/home/ada/g", bytes(LIMIT - 200_000))).status == 201:
            assert (await space("DELETE", "/files/home/ada/g")).status == 200
            await scan(space)
    assert (answer.status, answer.fault) == (507, "QuotaExceeded")
    let.set()
    assert (await lasting).status == 201
    await counted(space, 301_001)


async def test_a_hidden_name_and_a_lock_are_no_free_storage(space: Space) -> None:
    file = space.write("/home/ada/.x.astrocloud-0123456789abcdef", bytes(200_000))
    with file.open("r+b") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        await counted(space, 200_000)
    folder = space.make("/home/ada/.d.astrocloud-0123456789abcdef")
    (folder / "inside").write_bytes(bytes(100_000))
    file.unlink()
    await counted(space, 100_000)


async def test_an_upload_in_parts_is_counted_once(space: Space) -> None:
    url = (await begin(space, "/home/ada/f", 500_000)).headers["Location"]
    assert (await go_on(space, url, 0, bytes(200_000))).status == 204
    space.write("/home/ada/notebook", bytes(1000))
    await counted(space, 501_000)
    assert (await go_on(space, url, 200_000, bytes(300_000))).status == 204
    space.write("/home/ada/notebook", bytes(2000))
    await counted(space, 502_000)


async def test_a_body_that_comes_too_slowly_is_ended(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiving, "SLOWEST_S", 0.5)
    await space.upload("/home/ada/f", b"the old bytes")
    gone = asyncio.Event()

    async def trickle() -> AsyncIterator[bytes]:
        yield b"x"
        await gone.wait()

    answer = await space("PUT", "/files/home/ada/f", data=trickle())
    assert (answer.status, answer.fault) == (400, "TransferFailed")
    gone.set()
    assert space.posix("/home/ada/f").read_bytes() == b"the old bytes"
    assert leftovers(space) == []
    # What comes slowly, but comes, is taken.
    monkeypatch.setattr(receiving, "SLOWEST_S", 20.0)
    assert (await space.upload("/home/ada/f", os.urandom(100_000))).status == 200
