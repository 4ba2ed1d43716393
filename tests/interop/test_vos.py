"""The client ``vos`` 3.7, unmodified: every command it has."""

import asyncio
import os
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.interop.conftest import Vos
from tests.services.vospace.platform import CORE

pytestmark = pytest.mark.slow


async def test_vls_of_an_empty_and_a_filled_home(vos: Vos) -> None:
    assert (await vos.run("vls", vos.uri("/home/ada"))).out.split() == []
    await vos.space.upload("/home/ada/a.txt", b"hello")
    await vos.space.mkdir("/home/ada/d")
    await vos.space.upload("/home/ada/d/天.txt", b"x")
    assert (await vos.run("vls", vos.uri("/home/ada"))).out.split() == ["a.txt", "d"]
    long = (await vos.run("vls", "-l", vos.uri("/home/ada"))).out
    assert "-rw-------" in long
    assert "drw-------" in long
    assert "ada" in long
    assert (await vos.run("vls", vos.uri("/home/ada/d"))).out.split() == ["天.txt"]
    assert (await vos.run("vls", vos.uri("/home/ada/none"), code=None)).code != 0
    assert (await vos.run("vls", vos.uri("/home/bob"), code=None)).code != 0


@pytest.mark.parametrize("size", [0, 1000, 6_000_000])
async def test_vcp_both_ways(vos: Vos, size: int) -> None:
    data = os.urandom(size)
    (vos.home / "up").write_bytes(data)
    await vos.run("vcp", "up", vos.uri("/home/ada/f.bin"))
    assert vos.space.posix("/home/ada/f.bin").read_bytes() == data
    await vos.run("vcp", vos.uri("/home/ada/f.bin"), "down")
    assert (vos.home / "down").read_bytes() == data


def marked(file: Path, size: int) -> None:
    """Make a file of that `size` that takes little room, with its own marks where parts of it might be mixed up."""
    with file.open("wb") as opened:
        opened.truncate(size)
        for place in places(size):
            opened.seek(place)
            opened.write(f"<{place:020d}>".encode())


def places(size: int) -> list[int]:
    """Where marks are: at both ends, around 2 and 4 GiB, where counters of 32 bits end, and all over."""
    around = [edge + step for edge in (1 << 31, 1 << 32) for step in (-40, 0, 40)]
    return sorted({0, size - 22, *around, *range(10_000_019, size - 22, 97_000_003)})


def check_marks(file: Path, size: int) -> None:
    """Fail unless `file` has all marks, and zeros around them."""
    assert file.stat().st_size == size
    with file.open("rb") as opened:
        for place in places(size):
            opened.seek(place)
            assert opened.read(22) == f"<{place:020d}>".encode(), place
            if place + 40 not in places(size) and place + 5000 < size:
                assert opened.read(4000).strip(b"\0") == b"", place


@pytest.mark.timeout(900)
async def test_vcp_of_more_than_5_gib(vos: Vos) -> None:
    size = 5 * 2**30 + 12345
    marked(vos.home / "up", size)
    await vos.run("vcp", "up", vos.uri("/home/ada/big"), timeout_s=280)
    there = vos.space.posix("/home/ada/big")
    check_marks(there, size)
    (vos.home / "up").unlink()
    await vos.run("vcp", vos.uri("/home/ada/big"), "down", timeout_s=280)
    check_marks(vos.home / "down", size)
    (vos.home / "down").unlink()
    there.unlink()


async def test_vcp_of_a_folder(vos: Vos) -> None:
    tree = vos.home / "tree" / "inner"
    tree.mkdir(parents=True)
    (tree / "f1").write_bytes(b"1")
    (vos.home / "tree" / "f2").write_bytes(b"22")
    # Into a folder that is there this client writes "vos:/" with one slash and then knows no such service.
    await vos.run("vcp", "tree", vos.uri("/home/ada/tree"))
    assert vos.space.posix("/home/ada/tree/inner/f1").read_bytes() == b"1"
    await vos.run("vcp", vos.uri("/home/ada/tree"), "back")
    assert (vos.home / "back" / "inner" / "f1").read_bytes() == b"1"
    assert (vos.home / "back" / "f2").read_bytes() == b"22"


async def test_vcp_replaces(vos: Vos) -> None:
    (vos.home / "up").write_bytes(b"one")
    await vos.run("vcp", "up", vos.uri("/home/ada/f"))
    (vos.home / "up").write_bytes(b"two!")
    await vos.run("vcp", "up", vos.uri("/home/ada/f"))
    assert vos.space.posix("/home/ada/f").read_bytes() == b"two!"


async def test_vmkdir_vrmdir_vrm(vos: Vos) -> None:
    await vos.run("vmkdir", vos.uri("/home/ada/d"))
    assert vos.space.posix("/home/ada/d").is_dir()
    assert (await vos.run("vmkdir", vos.uri("/home/ada/d"), code=None)).code != 0
    await vos.run("vmkdir", "-p", vos.uri("/home/ada/x/y/z"))
    assert vos.space.posix("/home/ada/x/y/z").is_dir()
    await vos.run("vrmdir", vos.uri("/home/ada/d"))
    assert not vos.space.posix("/home/ada/d").exists()
    await vos.space.upload("/home/ada/f", b"x")
    await vos.run("vrm", vos.uri("/home/ada/f"))
    assert not vos.space.posix("/home/ada/f").exists()
    await vos.space.upload("/home/ada/x/y/f", b"x")
    await vos.run("vrm", "-R", vos.uri("/home/ada/x"))
    assert not vos.space.posix("/home/ada/x").exists()


async def test_vmv(vos: Vos) -> None:
    await vos.space.upload("/home/ada/f", b"x")
    await vos.space.mkdir("/home/ada/d")
    await vos.run("vmv", vos.uri("/home/ada/f"), vos.uri("/home/ada/g"))
    assert vos.space.posix("/home/ada/g").exists()
    await vos.run("vmv", vos.uri("/home/ada/g"), vos.uri("/home/ada/d"))
    assert vos.space.posix("/home/ada/d/g").exists()
    assert (await vos.run("vmv", vos.uri("/home/ada/none"), vos.uri("/home/ada/x"), code=None)).code != 0


async def test_vln(vos: Vos) -> None:
    await vos.space.upload("/home/ada/f", b"hello")
    await vos.run("vln", vos.uri("/home/ada/f"), vos.uri("/home/ada/link"))
    assert vos.space.posix("/home/ada/link").readlink() == Path("/home/ada/f")
    await vos.run("vcp", "-L", vos.uri("/home/ada/link"), "down")
    assert (vos.home / "down").read_bytes() == b"hello"
    assert "link" in (await vos.run("vls", "-l", vos.uri("/home/ada"))).out


async def test_vchmod(vos: Vos) -> None:
    await vos.space.mkdir("/home/ada/d")
    await vos.space.upload("/home/ada/d/f", b"hello")
    file = vos.space.posix("/home/ada/d/f")
    await vos.run("vchmod", "o+r", vos.uri("/home/ada/d/f"))
    assert file.stat().st_mode & 0o007 == 0o004
    await vos.run("vchmod", "o-r", vos.uri("/home/ada/d/f"))
    assert file.stat().st_mode & 0o007 == 0
    await vos.run("vchmod", "g+r", vos.uri("/home/ada/d/f"), "team")
    assert (await vos.space.as_("bob").get("/files/home/ada/d/f")).body == b"hello"
    assert "team" in (await vos.run("vls", "-lg", vos.uri("/home/ada/d"))).out
    await vos.run("vchmod", "g-r", vos.uri("/home/ada/d/f"))
    assert (await vos.space.as_("bob").get("/files/home/ada/d/f")).status == 403
    await vos.run("vchmod", "-R", "o+r", vos.uri("/home/ada/d"))
    assert (await vos.space.as_(None).get("/files/home/ada/d/f")).body == b"hello"


async def test_vlock(vos: Vos) -> None:
    await vos.space.upload("/home/ada/f", b"x")
    await vos.run("vlock", "--lock", vos.uri("/home/ada/f"))
    assert (await vos.run("vrm", vos.uri("/home/ada/f"), code=None)).code != 0
    await vos.run("vlock", "--unlock", vos.uri("/home/ada/f"))
    await vos.run("vrm", vos.uri("/home/ada/f"))


async def test_vtag(vos: Vos) -> None:
    await vos.space.upload("/home/ada/f", b"x")
    await vos.run("vtag", vos.uri("/home/ada/f"), "quality=good")
    assert "good" in (await vos.run("vtag", vos.uri("/home/ada/f"), "quality")).out
    await vos.run("vtag", vos.uri("/home/ada/f"), "quality=")
    assert "good" not in (await vos.run("vtag", vos.uri("/home/ada/f"), "quality")).out


async def test_vsync_moves_nothing_the_second_time(vos: Vos) -> None:
    tree = vos.home / "tree"
    (tree / "inner").mkdir(parents=True)
    for name in ("a", "b", "inner/c"):
        (tree / name).write_bytes(name.encode() * 1000)
    await vos.space.mkdir("/home/ada/sync")
    await vos.run("vsync", "-r", "tree", vos.uri("/home/ada/sync"))
    found = {p.relative_to(vos.space.root): p for p in vos.space.posix("/home/ada/sync").rglob("*") if p.is_file()}
    assert len(found) == 3
    before = {path: file.stat() for path, file in found.items()}
    await vos.run("vsync", "-r", "tree", vos.uri("/home/ada/sync"))
    after = {path: file.stat() for path, file in found.items()}
    assert {p: (s.st_ino, s.st_mtime_ns) for p, s in before.items()} == {
        p: (s.st_ino, s.st_mtime_ns) for p, s in after.items()
    }


async def test_vsync_moves_nothing_of_a_large_file_that_a_notebook_wrote(vos: Vos) -> None:
    data = os.urandom(1 << 20) * 17
    (vos.home / "tree").mkdir()
    (vos.home / "tree" / "large").write_bytes(data)
    await vos.space.mkdir("/home/ada/sync")
    file = vos.space.write("/home/ada/sync/large", data)
    os.utime(file, (1_000_000_000, 1_000_000_000))
    async with asyncio.timeout(60):
        while f"{CORE}MD5" not in (await vos.space.node("/home/ada/sync/large")).properties:
            await asyncio.sleep(0.1)
    before = file.stat()
    await vos.run("vsync", "-r", "tree", vos.uri("/home/ada/sync"))
    after = file.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


async def test_vcat_with_a_netrc(vos: Vos) -> None:
    await vos.space.upload("/home/ada/f", b"hello")
    netrc = vos.home / ".netrc"
    host = urlsplit(vos.space.url).hostname
    netrc.write_text(f"machine {host} login ada password {vos.token}\n")
    netrc.chmod(0o600)
    vos.token = None
    assert "hello" in (await vos.run("vcat", vos.uri("/home/ada/f"))).out
    # The same credentials work for what goes by jobs: this client then puts "/auth" into addresses.
    (vos.home / "up").write_bytes(b"data")
    await vos.run("vcp", "up", vos.uri("/home/ada/new"))
    assert vos.space.posix("/home/ada/new").read_bytes() == b"data"
    await vos.run("vmv", vos.uri("/home/ada/new"), vos.uri("/home/ada/newer"))
    assert vos.space.posix("/home/ada/newer").exists()


async def test_public_files_need_no_login(vos: Vos) -> None:
    vos.space.posix("/archive/survey").mkdir()
    vos.space.posix("/archive/survey/f").write_bytes(b"hello")
    vos.token = None
    assert (await vos.run("vls", vos.uri("/archive/survey"))).out.split() == ["f"]
    await vos.run("vcp", vos.uri("/archive/survey/f"), "down")
    assert (vos.home / "down").read_bytes() == b"hello"


async def test_large_folder_is_listed_whole(vos: Vos) -> None:
    folder = vos.space.make("/archive/many", who="bob")
    names = sorted(f"f{number:05d}" for number in range(12_000))
    for name in names:
        (folder / name).touch()
    vos.token = None
    listed = (await vos.run("vls", vos.uri("/archive/many"))).out.split()
    assert sorted(listed) == names
