"""A disk that is really full, in the middle of what comes in: said at once, and the old bytes stay."""

import os
import subprocess
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.services.vospace.platform import Space, running, uri
from tests.services.vospace.serving import serving
from tests.services.vospace.test_files import leftovers
from tests.services.vospace.test_resumable import TUS, begin, go_on
from tests.services.vospace.test_transfers import UWS, job, transfer_xml

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts file systems")

ROOM = 8 << 20


@pytest.fixture
async def space(tmp_path: Path) -> AsyncIterator[Space]:
    """A service whose tree is on a file system of 8 MiB, with an old file in it."""
    tree = tmp_path / "data" / "tree"
    tree.mkdir(parents=True)
    tree.chmod(0o755)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={ROOM},mode=755", "none", tree], check=True)
    try:
        async with running(tmp_path / "data") as found:
            await found.upload("/home/ada/f", b"the old bytes")
            yield found
    finally:
        subprocess.run(["umount", "-l", tree], check=True)


async def test_announced_and_unannounced_bytes_are_refused_alike(space: Space) -> None:
    announced = await space.put("/files/home/ada/f", bytes(2 * ROOM))

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(3 * ROOM >> 20):
            yield bytes(1 << 20)

    streamed = await space.put("/files/home/ada/f", pieces())
    for answer in (announced, streamed):
        assert (answer.status, answer.fault) == (507, "QuotaExceeded")
    assert space.posix("/home/ada/f").read_bytes() == b"the old bytes"
    assert leftovers(space) == []
    assert (await space.put("/files/home/ada/new", bytes(ROOM // 2))).status == 201


async def test_a_copy_that_has_no_room_leaves_nothing(space: Space) -> None:
    assert (await space.mkdir("/home/ada/d")).status == 201
    assert (await space.upload("/home/ada/d/large", bytes(ROOM * 5 // 8))).status == 201
    _url, ended = await job(space, transfer_xml("/home/ada/d", uri("/home/ada/copy"), keep=True))
    assert ended.xml.findtext(f"{UWS}phase") == "ERROR"
    assert "QuotaExceeded" in (ended.xml.findtext(f"{UWS}errorSummary/{UWS}message") or "")
    assert (await space.node("/home/ada")).names == ["d", "f"]
    assert leftovers(space) == []


async def test_a_disk_that_fills_up_while_a_notebook_writes_is_told_too(space: Space) -> None:
    space.write("/home/ada/notebook", bytes(ROOM - (1 << 19)))
    answer = await space.put("/files/home/ada/f", bytes(1 << 20))
    assert answer.status == 507
    assert (await space.get("/files/home/ada/f")).body == b"the old bytes"
    space.posix("/home/ada/notebook").unlink()
    assert (await space.put("/files/home/ada/f", bytes(1 << 20))).status == 200


async def test_folder_can_be_removed_where_nothing_new_can_be_made(space: Space) -> None:
    """Who has used up all files of a disk or of a quota makes room by removing."""
    assert (await space.mkdir("/home/ada/d")).status == 201
    assert (await space.upload("/home/ada/d/f")).status == 201
    subprocess.run(["mount", "-o", "remount,nr_inodes=1000", space.root], check=True)
    with pytest.raises(OSError, match="No space left"):
        deque(map(Path.touch, (space.posix(f"/home/ada/f{number}") for number in range(2000))))
    assert (await space.mkdir("/home/ada/new")).status == 507
    assert (await space("DELETE", "/nodes/home/ada/d")).status == 200
    assert (await space.mkdir("/home/ada/new")).status == 201


async def test_what_a_disk_keeps_back_for_root_is_not_for_uploads(tmp_path: Path) -> None:
    """A notebook could not write there either."""
    image, tree = tmp_path / "disk", tmp_path / "data" / "tree"
    image.touch()
    os.truncate(image, 64 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-m", "50", image], check=True)
    tree.mkdir(parents=True)
    subprocess.run(["mount", "-o", "loop", image, tree], check=True)

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield bytes(1 << 20)

    try:
        tree.chmod(0o755)
        with serving(tmp_path / "data") as (url, _pid):
            async with aiohttp.ClientSession(auto_decompress=False) as session:
                space = Space(url, tree, session)
                assert (await space.upload("/home/ada/f", b"old")).status == 201
                for body in (pieces(), bytes(40 << 20)):
                    answer = await space.put("/files/home/ada/f", body)
                    assert (answer.status, answer.fault) == (507, "QuotaExceeded")
                parts = (await begin(space, "/home/ada/g", 40 << 20)).headers["Location"]
                assert (await go_on(space, parts, 0, bytes(40 << 20))).status == 507
                assert (await space("DELETE", parts, headers=TUS)).status == 204
                assert (await space.put("/files/home/ada/f", bytes(10 << 20))).status == 200
    finally:
        subprocess.run(["umount", "-l", tree], check=True)
