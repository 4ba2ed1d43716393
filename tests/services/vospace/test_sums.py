"""Sums of uploads are those of all their bytes, in whatever pieces these come and however far behind they are made."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from astrocloud.vospace.summing import BEHIND, Sums
from tests.services.vospace.platform import Space


@pytest.mark.parametrize("sizes", [[10], [1 << 21] * 12, [5, 1 << 20, 7, 1 << 20, 0, 3], []])
async def test_sums_are_of_all_pieces(sizes: list[int]) -> None:
    pieces = [os.urandom(size) for size in sizes]
    with ThreadPoolExecutor(2) as executor:
        sums = Sums({"md5": "md5", "sha-256": "sha256"}, executor)
        for piece in pieces:
            await sums.add([piece[: len(piece) // 3], piece[len(piece) // 3 :]])
        await sums.finish()
        whole = b"".join(pieces)
        assert sums.hexdigest("md5") == hashlib.md5(whole).hexdigest()
        assert sums.digest("sha-256") == hashlib.sha256(whole).digest()
        assert sums.hexdigest("sha-512") is None


async def test_no_more_pieces_wait_than_are_let() -> None:
    piece, added = os.urandom(1 << 20), 0
    with ThreadPoolExecutor(1) as executor:
        holding = asyncio.Event()
        gate = executor.submit(asyncio.run_coroutine_threadsafe(holding.wait(), asyncio.get_running_loop()).result)
        sums = Sums({"md5": "md5"}, executor)

        async def add() -> None:
            nonlocal added
            for _ in range(2 * BEHIND):
                await sums.add([piece])
                added += 1

        adding = asyncio.create_task(add())
        for _ in range(100):
            await asyncio.sleep(0)
        assert added == BEHIND  # nobody sums: the one thread is held
        holding.set()
        await adding
        await sums.finish()
        assert gate.done()
        assert sums.hexdigest("md5") == hashlib.md5(piece * (2 * BEHIND)).hexdigest()


async def test_upload_of_many_pieces_has_its_sum(space: Space) -> None:
    data = os.urandom(9_000_001)

    async def chunks() -> AsyncIterator[bytes]:
        for first in range(0, len(data), 700_001):
            yield data[first : first + 700_001]

    answer = await space.put("/files/home/ada/f", data=chunks())
    assert answer.status == 201
    assert (await space.node("/home/ada/f")).properties["ivo://ivoa.net/vospace/core#MD5"] == hashlib.md5(
        data
    ).hexdigest()
    assert (await space.get("/files/home/ada/f")).body == data
