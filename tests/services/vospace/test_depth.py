"""Folders nested deeper than anybody works with: nothing breaks, and what cannot be done is said."""

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from aiohttp import ClientPayloadError

from astrocloud.vospace.posix import DEEPEST
from tests.services.vospace.platform import PEOPLE, Space, running, uri
from tests.services.vospace.test_transfers import UWS, job, transfer_xml


@pytest.fixture(autouse=True)
def _nothing_so_deep_is_left(tmp_path: Path) -> Iterator[None]:
    """Python's own removal of what tests leave behind, at the end of a later run, breaks at such a depth."""
    yield
    subprocess.run(["rm", "-rf", str(tmp_path)], check=True)


def nest(folder: Path, depth: int) -> None:
    """Nest folders in `folder`, with a file in the last, as a notebook would."""
    identity = PEOPLE["ada"].identity
    here = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    for _level in range(depth):
        os.mkdir("d", dir_fd=here)
        if os.geteuid() == 0:
            os.chown("d", identity.uid, identity.gid, dir_fd=here)
        inner = os.open("d", os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = inner
    descriptor = os.open("f", os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=here)
    os.write(descriptor, b"deep")
    os.close(descriptor)
    os.close(here)


@pytest.mark.parametrize("depth", [900, 3000])
async def test_too_deep_a_folder_is_a_clear_refusal(tmp_path: Path, depth: int) -> None:
    async with running(tmp_path / "data") as space:
        assert (await space.mkdir("/home/ada/d")).status == 201  # counts the home while it can be
        nest(space.posix("/home/ada/d"), depth)
        await refused(space)
        # Others are counted as if nothing were, and the person goes on elsewhere.
        assert (await space.as_("bob").upload("/home/bob/f")).status == 201
        assert (await space.upload("/home/ada/f")).status == 201
        moved = await job(space, transfer_xml("/home/ada/d", uri("/home/ada/moved"), keep=False))
        assert moved[1].xml.findtext(f"{UWS}phase") == "COMPLETED"
        assert space.posix("/home/ada/moved/d/d").is_dir()


async def refused(space: Space) -> None:
    answer = await space("DELETE", "/nodes/home/ada/d")
    assert answer.status == 400
    assert answer.fault == "InvalidArgument"
    assert str(DEEPEST) in answer.text
    # What is sent while it is made is cut, and never looks whole.
    with pytest.raises(ClientPayloadError):
        await space.get("/files/home/ada/d?view=zip")
    assert space.posix("/home/ada/d/d").is_dir()
    copied = await job(space, transfer_xml("/home/ada/d", uri("/home/ada/copy"), keep=True))
    assert copied[1].xml.findtext(f"{UWS}phase") == "ERROR"
    assert str(DEEPEST) in (copied[1].xml.findtext(f"{UWS}errorSummary/{UWS}message") or "")
    assert not space.posix("/home/ada/copy").exists()
    deep = "/home/ada/d" + "/d" * 2500
    for path in (f"/nodes{deep}", f"/files{deep}/f"):
        assert (await space.get(path)).status in {400, 404}


async def test_the_ways_that_go_one_by_one_do_what_they_can(tmp_path: Path) -> None:
    async with running(tmp_path / "data") as space:
        await space.mkdir("/home/ada/d")
        nest(space.posix("/home/ada/d"), 900)
        answer = await space("POST", "/async-delete", data={"target": uri("/home/ada/d")})
        url = answer.headers["Location"]
        await space("POST", f"{url}/phase", data={"PHASE": "RUN"})
        ended = await space.get(f"{url}?WAIT=60")
        assert ended.xml.findtext(f"{UWS}phase") in {"ERROR", "COMPLETED"}
        assert space.posix("/home/ada/d/d").is_dir()
        at_depth = "/home/ada/d" + "/d" * 100
        assert (await space.node(at_depth)).status == 200
        assert (await space.upload(f"{at_depth}/f", b"hello")).status == 201
        assert (await space.get(f"/files{at_depth}/f")).body == b"hello"
        assert (await space("DELETE", f"/nodes{at_depth}/f")).status == 200


async def test_a_scan_goes_on_to_others(tmp_path: Path) -> None:
    from astrocloud.vospace.errors import Fault
    from astrocloud.vospace.marks import Marks
    from astrocloud.vospace.models import NodePath
    from astrocloud.vospace.scanning import Scanner, look_at_nothing, measure_top
    from astrocloud.vospace.storage import Tree

    for name in ("ada", "bob"):
        (tmp_path / "home" / name).mkdir(parents=True)
    nest(tmp_path / "home" / "ada", 1500)
    (tmp_path / "home" / "bob" / "f").write_bytes(b"12345")
    tree, counted = Tree(tmp_path), {}

    def recount(top: NodePath) -> bool:
        counted[str(top)] = measure_top(tree, top)
        return True

    scanner = Scanner(
        root=tmp_path, marks=Marks(b""), look=look_at_nothing, recount=recount, resumable=frozenset, pause_s=1
    )
    await scanner.scan()
    assert counted == {"/home/bob": (5, 1)}
    # What goes while it is counted is not counted, and all else is. A bad disk is one person's, too.
    (tmp_path / "home" / "bob" / "gone").write_bytes(b"x")
    look = os.stat

    def racing(path: Any, **how: Any) -> os.stat_result:
        if path == b"gone":
            raise FileNotFoundError(path)
        if path == b"ada":
            raise OSError(errno.EIO, "bad disk")
        return look(path, **how)

    counted.clear()
    with patch("os.stat", racing):
        await scanner.scan()
    assert counted == {"/home/bob": (5, 1)}
    with pytest.raises(Fault, match=str(DEEPEST)):
        recount(NodePath((b"home", b"ada")))
    tree.close()
