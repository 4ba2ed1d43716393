"""The client ``vos`` over HTTPS: every command of `test_vos`, and as its users do it, by ``arc:``."""

import os
from dataclasses import replace

import pytest

from tests.interop.conftest import Vos
from tests.interop.test_vos import *  # noqa: F403 - the same tests, over HTTPS

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def scheme() -> str:
    """HTTPS with a certificate of the platform's own."""
    return "https"


async def test_arc_as_its_users_write_it(vos: Vos) -> None:
    host = vos.space.url.removeprefix("https://")
    vos = replace(vos, environment={"VOSPACE_WEBSERVICE": host}, prefix="arc:")
    data = os.urandom(10_000_000)
    (vos.home / "up").write_bytes(data)
    await vos.run("vmkdir", "arc:home/ada/d")
    await vos.run("vcp", "up", "arc:home/ada/d/f.bin")
    assert (await vos.run("vls", "arc:home/ada/d")).out.split() == ["f.bin"]
    await vos.run("vcp", "arc:home/ada/d/f.bin", "down")
    assert (vos.home / "down").read_bytes() == data
    await vos.run("vmv", "arc:home/ada/d/f.bin", "arc:home/ada/g.bin")
    await vos.run("vchmod", "o+r", "arc:home/ada/g.bin")
    (vos.home / "tree").mkdir()
    (vos.home / "tree" / "a").write_bytes(b"a")
    await vos.run("vcp", "tree", "arc:home/ada")
    assert vos.space.posix("/home/ada/tree/a").read_bytes() == b"a"
    await vos.run("vsync", "-r", "tree", "arc:home/ada/d")
    await vos.run("vrm", "-R", "arc:home/ada/d")
    await vos.run("vrm", "arc:home/ada/g.bin")
    assert (await vos.run("vls", "arc:home/ada")).out.split() == ["tree"]
