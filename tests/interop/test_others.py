"""Clients that know nothing of VOSpace: curl with resume, astropy and fsspec by address."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.services.vospace.platform import Space, running
from tests.services.vospace.test_transfers import endpoints, sync, transfer_xml

pytestmark = pytest.mark.slow


@pytest.fixture
async def space(tmp_path: Path) -> AsyncIterator[Space]:
    """A service, spoken to as ada."""
    async with running(tmp_path / "data") as running_space:
        yield running_space


async def run(*command: str, cwd: Path) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, cwd=cwd, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == 0, err.decode()[-3000:]
    return out.decode()


async def preauthorised(space: Space, path: str, direction: str = "pullFromVoSpace") -> str:
    protocol = "httpget" if direction == "pullFromVoSpace" else "httpput"
    _url, details = await sync(space, transfer_xml(path, direction, protocol))
    return endpoints(details)[0]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
async def test_curl_resumes_and_uploads(space: Space, tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    await space.upload("/home/ada/f", data)
    token = ("-sSf", "-H", "Authorization: Bearer ada")
    (tmp_path / "down").write_bytes(data[:1_234_567])
    await run("curl", *token, "-C", "-", "-o", "down", f"{space.base}/files/home/ada/f", cwd=tmp_path)
    assert (tmp_path / "down").read_bytes() == data
    await run("curl", *token, "-T", "down", f"{space.base}/files/home/ada/up", cwd=tmp_path)
    assert space.posix("/home/ada/up").read_bytes() == data
    address = await preauthorised(space, "/home/ada/new", "pushToVoSpace")
    await run("curl", "-sSf", "-T", "down", address, cwd=tmp_path)
    assert space.posix("/home/ada/new").read_bytes() == data


async def test_astropy_and_fsspec_read_by_address(space: Space, tmp_path: Path, astro_python: Path) -> None:
    make = "import numpy, astropy.io.fits as f; f.writeto('x.fits', numpy.arange(1000000.0).reshape(1000, 1000))"
    await run(str(astro_python), "-c", make, cwd=tmp_path)
    await space.upload("/home/ada/x.fits", (tmp_path / "x.fits").read_bytes())
    await space.upload("/home/ada/x.csv", b"a,b\n1,2\n3,4\n")
    fits, csv = await preauthorised(space, "/home/ada/x.fits"), await preauthorised(space, "/home/ada/x.csv")
    script = (
        "import sys, fsspec, pandas, astropy.io.fits as f\n"
        "with f.open(sys.argv[1], cache=False) as h: print(h[0].data[3, 4])\n"
        "with f.open(sys.argv[1], use_fsspec=True) as h: print(h[0].section[5, 6:8].sum())\n"
        "print(pandas.read_csv(sys.argv[2]).b.sum())\n"
        "with fsspec.open(sys.argv[1]) as h: h.seek(-2880, 2); print(len(h.read()))\n"
    )
    said = await run(str(astro_python), "-c", script, fits, csv, cwd=tmp_path)
    assert said.split() == ["3004.0", "10013.0", "6", "2880"]
