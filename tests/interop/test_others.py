"""Clients that know nothing of VOSpace: curl with resume, astropy, pandas, fsspec and pyvo by address."""

import asyncio
import os
from pathlib import Path

import pytest

from tests.interop.platform import Inhabited
from tests.services.vospace.platform import Space, uri
from tests.services.vospace.test_transfers import endpoints, sync, transfer_xml

pytestmark = pytest.mark.slow

LARGE = 12_000_000
"""So large a file has a way around the proxy."""


@pytest.fixture(scope="module", params=["http", "https"])
def scheme(request: pytest.FixtureRequest) -> str:
    """Either of the two."""
    found: str = request.param
    return found


@pytest.fixture
def trust(inhabited: Inhabited) -> dict[str, str]:
    """What makes Python's clients trust the platform's certificate."""
    names = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
    return dict.fromkeys(names, str(inhabited.certificate)) if inhabited.platform.scheme == "https" else {}


async def run(*command: str, cwd: Path, **environment: str) -> tuple[str, str]:
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=cwd,
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == 0, err.decode()[-3000:]
    return out.decode(), err.decode()


@pytest.fixture
def curl(inhabited: Inhabited) -> tuple[str, ...]:
    """The command, with ada's token."""
    secure = ("--cacert", str(inhabited.certificate)) if inhabited.platform.scheme == "https" else ()
    return ("curl", "-sSfL", *secure, "-H", f"Authorization: Bearer {inhabited.tokens['ada']}")


async def preauthorised(space: Space, path: str, direction: str = "pullFromVoSpace") -> str:
    protocol = "httpget" if direction == "pullFromVoSpace" else "httpput"
    _url, details = await sync(space, transfer_xml(path, direction, protocol))
    return endpoints(details)[0]


@pytest.mark.parametrize("size", [3_000_000, LARGE])
async def test_curl_resumes_by_both_ways(space: Space, curl: tuple[str, ...], tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    await space.upload("/home/ada/f", data)
    for address in (f"{space.base}/files/home/ada/f", f"{space.around}/services/vospace/files/home/ada/f"):
        (tmp_path / "down").write_bytes(data[:1_234_567])
        await run(*curl, "-C", "-", "-o", "down", address, cwd=tmp_path)
        assert (tmp_path / "down").read_bytes() == data


async def test_curl_shows_its_token_to_nobody_on_the_way(space: Space, curl: tuple[str, ...], tmp_path: Path) -> None:
    await space.upload("/home/ada/f", bytes(LARGE))
    _out, told = await run(*curl, "-v", "-o", "down", f"{space.base}/files/home/ada/f", cwd=tmp_path)
    assert (tmp_path / "down").stat().st_size == LARGE
    assert told.count("> GET ") == 2
    assert told.count("> Authorization: ") == 1


async def test_curl_uploads(space: Space, curl: tuple[str, ...], tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    (tmp_path / "up").write_bytes(data)
    for name, base in (("a", space.base), ("b", f"{space.around}/services/vospace")):
        await run(*curl, "-T", "up", f"{base}/files/home/ada/{name}", cwd=tmp_path)
        assert space.posix(f"/home/ada/{name}").read_bytes() == data
    address = await preauthorised(space, "/home/ada/new", "pushToVoSpace")
    assert address.startswith(f"{space.around}/")
    await run(*curl[:-2], "-T", "up", address, cwd=tmp_path)
    assert space.posix("/home/ada/new").read_bytes() == data


async def test_astropy_and_fsspec_read_by_address(
    space: Space, tmp_path: Path, astro_python: Path, trust: dict[str, str]
) -> None:
    make = "import numpy, astropy.io.fits as f; f.writeto('x.fits', numpy.arange(1440000.0).reshape(1200, 1200))"
    await run(str(astro_python), "-c", make, cwd=tmp_path)
    await space.upload("/home/ada/x.fits", (tmp_path / "x.fits").read_bytes())
    await space.upload("/home/ada/x.csv", b"a,b\n1,2\n3,4\n")
    fits, csv = await preauthorised(space, "/home/ada/x.fits"), await preauthorised(space, "/home/ada/x.csv")
    script = (
        "import os, sys, fsspec, pandas, astropy.io.fits as f\n"
        "from astropy.utils.data import download_file\n"
        # By itself it believes certifi's authorities alone.
        "trust = {'cafile': os.environ.get('SSL_CERT_FILE')}\n"
        "with f.open(download_file(sys.argv[1], ssl_context=trust)) as h: print(h[0].data[3, 4])\n"
        "with f.open(sys.argv[1], use_fsspec=True) as h: print(h[0].section[5, 6:8].sum())\n"
        "print(pandas.read_csv(sys.argv[2]).b.sum())\n"
        "with fsspec.open(sys.argv[1]) as h: h.seek(-2880, 2); print(len(h.read()))\n"
        # A bearer token, by the address that people know, which leads around the proxy.
        "sent = {'Authorization': 'Bearer ' + sys.argv[4]}\n"
        "with fsspec.open(sys.argv[3], client_kwargs={'headers': sent}) as h: print(len(h.read()))\n"
    )
    there, token = f"{space.base}/files/home/ada/x.fits", space.tokens["ada"]
    said, _err = await run(str(astro_python), "-c", script, fits, csv, there, token, cwd=tmp_path, **trust)
    assert said.split() == ["3604.0", "12013.0", "6", "2880", str((tmp_path / "x.fits").stat().st_size)]


async def test_vos_addresses_in_python(space: Space, tmp_path: Path, astro_python: Path, trust: dict[str, str]) -> None:
    """As in a server: the filesystem of the environment, through the proxy and around it for what is large."""
    await space.upload("/home/ada/x.csv", b"a,b\n1,2\n3,4\n")
    await space.upload("/home/ada/large", bytes(LARGE))
    script = (
        "import fsspec, pandas\n"
        "base = 'vos://astrocloud.local~vospace/home/ada'\n"
        "print(pandas.read_csv(base + '/x.csv').b.sum())\n"
        "pandas.DataFrame({'c': [1, 2, 3]}).to_csv(base + '/y.csv', index=False)\n"
        "with fsspec.open(base + '/large') as h: h.seek(-5, 2); print(len(h.read()))\n"
        "fs, path = fsspec.core.url_to_fs(base)\n"
        "print(len(fs.cat(path + '/large')), sorted(each.rsplit('/', 1)[1] for each in fs.ls(path, detail=False)))\n"
    )
    told = {
        "ASTROCLOUD_VOSPACE": "astrocloud.local~vospace",
        "ASTROCLOUD_VOSPACE_URL": space.base,
        "ASTROCLOUD_TOKEN": space.tokens["ada"],
    }
    said, _err = await run(str(astro_python), "-W", "ignore", "-c", script, cwd=tmp_path, **told, **trust)
    assert said.split("\n")[:3] == ["6", "5", f"{LARGE} ['large', 'x.csv', 'y.csv']"]
    assert space.posix("/home/ada/y.csv").read_bytes() == b"c\n1\n2\n3\n"


VOTABLE = b"""<?xml version="1.0"?>
<VOTABLE version="1.3" xmlns="http://www.ivoa.net/xml/VOTable/v1.3"><RESOURCE type="results">
<INFO name="QUERY_STATUS" value="OK"/><TABLE><FIELD name="ra" datatype="double" unit="deg"/>
<DATA><TABLEDATA><TR><TD>10.5</TD></TR><TR><TD>20.5</TD></TR></TABLEDATA></DATA></TABLE></RESOURCE></VOTABLE>
"""


async def test_pyvo_reads_what_the_service_says_of_itself(
    space: Space, tmp_path: Path, astro_python: Path, trust: dict[str, str]
) -> None:
    await space.upload("/home/ada/x.vot", VOTABLE)
    answer = await space("POST", "/transfers", data=transfer_xml("/home/ada/x.vot", uri("/home/ada/y.vot"), keep=True))
    job = answer.headers["Location"]
    await space("POST", f"{job}/phase", data={"PHASE": "RUN"})
    await space.get(f"{job}?WAIT=30")
    script = (
        "import io, sys, requests, pyvo\n"
        "from pyvo.io import uws, vosi\n"
        "base, job, table, token = sys.argv[1:]\n"
        "session = pyvo.utils.http.create_session()\n"
        "session.headers['Authorization'] = 'Bearer ' + token\n"
        "def read(url): return io.BytesIO(session.get(url).content)\n"
        "found = vosi.parse_capabilities(read(base + '/capabilities'))\n"
        "print(sum(c.standardid.endswith('#nodes') for c in found))\n"
        "print(vosi.parse_availability(read(base + '/availability')).available)\n"
        "print(uws.parse_job(read(job)).phase)\n"
        "print(sorted(pyvo.dal.DALResults.from_result_url(table)['ra']))\n"
    )
    table = await preauthorised(space, "/home/ada/x.vot")
    told = (space.base, job, table, space.tokens["ada"])
    said, _err = await run(str(astro_python), "-W", "ignore", "-c", script, *told, cwd=tmp_path, **trust)
    assert said.split("\n")[:3] == ["1", "True", "COMPLETED"]
    assert "10.5" in said
    assert "20.5" in said
