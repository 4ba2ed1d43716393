"""What the sweep, which runs as root, removes: unfinished work of ours, and nothing that people named like it."""

import os
from contextlib import nullcontext
from pathlib import Path

import pytest

from astrocloud.vospace import scanning
from astrocloud.vospace.identity import Identity, acting_as
from astrocloud.vospace.marks import Marks
from tests.services.vospace.platform import PEOPLE, Space

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root removes others' files")

HIDDEN = b".b.astrocloud-0123456789abcdef"
KEY = b"secret"
ADA = PEOPLE["ada"].identity


def sweep(folder: Path, key: bytes = KEY) -> int:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        return scanning.sweep(descriptor, older_than_s=0, marks=Marks(key))
    finally:
        os.close(descriptor)


def mark(folder: Path, *, key: bytes = KEY, hidden: bytes = HIDDEN, who: Identity | None = None) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with acting_as(who) if who else nullcontext():
            Marks(key).put(descriptor, hidden)
    finally:
        os.close(descriptor)


async def bobs(space: Space) -> Path:
    """A folder of bob's in the project, with a file that he alone may read or remove."""
    await space.mkdir("/project/team/x")
    folder = space.make("/project/team/b", who="bob", mode=0o700)
    space.write("/project/team/b/f", who="bob", mode=0o600)
    return folder


async def test_a_folder_that_a_member_named_so_stays(space: Space) -> None:
    team = (await bobs(space)).parent
    folder = os.open(team, os.O_RDONLY)
    with acting_as(ADA):
        os.rename("b", HIDDEN, src_dir_fd=folder, dst_dir_fd=folder)
    os.close(folder)
    assert sweep(team) == 0
    assert (team / os.fsdecode(HIDDEN) / "f").exists()


async def test_a_mark_counts_for_its_own_inode_and_name_and_from_us_only(space: Space) -> None:
    team = (await bobs(space)).parent
    hidden = team / os.fsdecode(HIDDEN)
    (team / "b").rename(hidden)
    mark(hidden, hidden=b".b.astrocloud-ffffffffffffffff")
    assert sweep(team) == 0
    mark(hidden, key=b"another")
    assert sweep(team) == 0
    mark(hidden)
    value = os.getxattr(hidden, "user.astrocloud.unfinished")
    hidden.rename(team / "elsewhere")
    hidden.mkdir()
    (hidden / "f").touch()
    os.setxattr(hidden, "user.astrocloud.unfinished", value)
    assert sweep(team) == 0
    (hidden / "f").unlink()
    hidden.rmdir()
    (team / "elsewhere").rename(hidden)
    assert sweep(team) == 1
    assert not hidden.exists()


async def test_no_more_goes_than_who_began_may_remove(space: Space) -> None:
    team = (await bobs(space)).parent
    mine = space.make("/project/team/mine", mode=0o770)
    (team / "b").rename(mine / "b")
    mark(mine, who=ADA)
    mine.rename(team / os.fsdecode(HIDDEN))
    assert sweep(team) == 0
    assert (team / os.fsdecode(HIDDEN) / "b" / "f").exists()
    (team / os.fsdecode(HIDDEN) / "b").rename(team / "b")
    assert sweep(team) == 1


async def test_what_is_no_file_any_more_neither_holds_nor_ends_the_sweep(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    await space.node("/home/ada")
    home = space.posix("/home/ada")
    space.write("/home/ada/.z.astrocloud-0123456789abcdef")
    pipe = home / ".p.astrocloud-0123456789abcdef"
    real = os.stat

    def swapped(path: object, **kwargs: object) -> os.stat_result:
        """Between the look at it and its opening its owner puts a pipe there."""
        found = real(path, **kwargs)  # type: ignore[call-overload]
        if path == pipe.name.encode():
            pipe.unlink()
            os.mkfifo(pipe)
        return found  # type: ignore[no-any-return]

    pipe.touch()
    monkeypatch.setattr(os, "stat", swapped)
    running = home / ".r.astrocloud-0123456789abcdef"
    running.write_bytes(Path("/bin/sleep").read_bytes())
    running.chmod(0o755)
    import subprocess

    with subprocess.Popen([running, "60"]) as process:
        assert sweep(home) == 1
        process.kill()
    monkeypatch.undo()
    assert pipe.is_fifo()
    assert sweep(home) == 1
    assert not running.exists()
