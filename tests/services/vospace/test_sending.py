"""Bytes go from the file to the connection inside the kernel; pipes and devices are never opened, whoever asks how."""

import asyncio
import io
import os
import tarfile
import zipfile
from typing import Any

import pytest

from tests.services.vospace.platform import Space, running, uri
from tests.services.vospace.test_files import leftovers
from tests.services.vospace.test_transfers import UWS, job, transfer_xml


class Counted:
    """How many bytes each system call has brought."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bytes: dict[str, int] = {}
        for name in ("sendfile", "pread", "preadv", "read"):
            monkeypatch.setattr(os, name, self._counting(name, getattr(os, name)))

    def _counting(self, name: str, real: Any) -> Any:
        def call(*arguments: Any) -> Any:
            result = real(*arguments)
            self.bytes[name] = self.bytes.get(name, 0) + (result if isinstance(result, int) else len(result))
            return result

        return call


@pytest.mark.parametrize("wanted", ["", "bytes=1000-", "bytes=0-1000000,2000000-"])
async def test_a_large_file_is_sent_by_the_kernel_alone(
    space: Space, monkeypatch: pytest.MonkeyPatch, wanted: str
) -> None:
    data = os.urandom(5_000_000)
    await space.upload("/home/ada/f", data)
    counted = Counted(monkeypatch)
    answer = await space.get("/files/home/ada/f", headers={"Range": wanted} if wanted else {})
    assert answer.status == (206 if wanted else 200)
    sent = counted.bytes.pop("sendfile")
    assert 0 <= len(answer.body) - sent < 2000  # the headers of several parts are not the file's
    assert sum(counted.bytes.values()) < 10_000
    if not wanted:
        assert answer.body == data


async def test_a_copy_is_made_by_the_kernel_alone(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    data = os.urandom(5_000_000)
    await space.upload("/home/ada/f", data)
    counted = Counted(monkeypatch)
    await job(space, transfer_xml("/home/ada/f", uri("/home/ada/g"), keep=True))
    assert sum(counted.bytes.values()) < 10_000
    monkeypatch.undo()
    assert space.posix("/home/ada/g").read_bytes() == data


@pytest.fixture
async def piped(space: Space) -> Space:
    """A folder with a pipe that nobody writes to, and a socket: whoever opens the pipe waits for ever."""
    space.make("/archive/a", who="bob")
    await space.node("/home/ada")
    folder = space.make("/home/ada/d")
    space.write("/home/ada/d/f", b"hello")
    os.mkfifo(folder / "pipe")
    os.mknod(folder / "socket", 0o140644)
    if os.geteuid() == 0:
        os.mknod(folder / "zero", 0o020666, os.makedev(1, 5))
    for name in ("pipe", "socket", "zero"):
        if (folder / name).exists() and os.geteuid() == 0:
            os.chown(folder / name, 20001, 20001)
    return space


async def test_pipes_and_devices_are_left_out_and_never_opened(piped: Space) -> None:
    names = [path.name for path in piped.posix("/home/ada/d").iterdir() if path.name != "f"]
    async with asyncio.timeout(30):
        assert (await piped.node("/home/ada/d")).names == ["f"]
        for name in names:
            for method, path in (("GET", "files"), ("PUT", "files"), ("GET", "nodes")):
                answer = await piped(method, f"/{path}/home/ada/d/{name}", data=b"x" if method == "PUT" else None)
                assert (answer.status, answer.fault) == (400, "TypeNotSupported"), (method, path, name)
        zipped = await piped.get("/files/home/ada/d?view=zip")
        assert zipfile.ZipFile(io.BytesIO(zipped.body)).namelist() == ["d/", "d/f"]
        tarred = await piped.get("/files/home/ada/d?view=tar")
        with tarfile.open(fileobj=io.BytesIO(tarred.body)) as archive:
            assert archive.getnames() == ["d", "d/f"]
        _url, ended = await job(piped, transfer_xml("/home/ada/d", uri("/home/ada/copied"), keep=True))
        assert ended.xml.findtext(f"{UWS}phase") == "COMPLETED"
        assert [path.name for path in piped.posix("/home/ada/copied").iterdir()] == ["f"]
        # A removal needs to open nothing of them.
        assert (await piped("DELETE", "/nodes/home/ada/d")).status == 200
    assert not piped.posix("/home/ada/d").exists()
    assert leftovers(piped) == []


async def test_a_pipe_with_a_hidden_name_does_not_hold_up_the_sweep(tmp_path: Any) -> None:
    from tests.services.vospace.test_people import scan

    async with running(tmp_path / "data") as space:
        await space.node("/home/ada")
        pipe = space.posix("/home/ada/.x.astrocloud-0123456789abcdef")
        os.mkfifo(pipe)
        async with asyncio.timeout(30):
            await scan(space)
        assert pipe.exists()  # not of ours: we make files alone
