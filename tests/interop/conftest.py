"""Foreign clients, each as released, in an environment of their own, against a whole running platform."""

import asyncio
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.interop.platform import Inhabited, inhabited_platform
from tests.services.vospace.platform import Space


@pytest.fixture(scope="session")
def vos_bin(repository: Path) -> Path:
    """The programs of the client ``vos``, installed once from their lock."""
    lock = repository / "tests" / "interop" / "requirements.txt"
    cache = Path(os.environ.get("ASTROCLOUD_TEST_CACHE") or repository / ".cache" / "environments")
    folder = cache / f"interop-{hashlib.sha256(lock.read_bytes()).hexdigest()[:12]}"
    if not (folder / ".ready").exists():
        uv = shutil.which("uv") or str(repository / ".tools" / "bin" / "uv")
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([uv, "venv", "-q", "-p", sys.executable, str(folder)], check=True)
        install = [
            uv,
            "pip",
            "install",
            "-q",
            "-p",
            str(folder / "bin" / "python"),
            "--require-hashes",
            "-r",
            str(lock),
        ]
        subprocess.run(install, check=True)
        (folder / ".ready").touch()
    return folder / "bin"


@dataclass
class Done:
    """A program that ended."""

    code: int
    out: str
    err: str


@dataclass
class Vos:
    """The client ``vos`` as one person uses it, with a home of its own."""

    bin: Path
    space: Space
    home: Path
    token: str | None = None
    environment: dict[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    prefix: str = "vos://astrocloud.local~vospace"

    def uri(self, path: str) -> str:
        return self.prefix + path

    async def run(self, program: str, *arguments: str, code: int | None = 0, timeout_s: float = 120) -> Done:
        """Run `program`; fail unless it ends with `code` (`None`: any but 0)."""
        token = ("--token", self.token) if self.token else ()
        process = await asyncio.create_subprocess_exec(
            str(self.bin / "python"),
            "-W",
            "ignore",
            str(self.bin / program),
            *self.options,
            *token,
            *arguments,
            cwd=self.home,
            env={"HOME": str(self.home), "PATH": os.environ["PATH"], **self.environment},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            out, err = await asyncio.wait_for(process.communicate(), timeout_s)
        except TimeoutError:
            process.kill()
            out, err = await process.communicate()
            pytest.fail(f"{program} did not end: {out.decode()[-2000:]} {err.decode()[-4000:]}")
        done = Done(process.returncode or 0, out.decode(), err.decode())
        expected = done.code != 0 if code is None else done.code == code
        assert expected, f"{program} {arguments} ended with {done.code}\n{done.out[-2000:]}\n{done.err[-4000:]}"
        return done


@pytest.fixture(scope="module")
def scheme() -> str:
    """What the platform of a module's tests speaks; a module may have another."""
    return "http"


@pytest.fixture(scope="module")
def inhabited(scheme: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inhabited]:
    """A whole platform for the tests of one module."""
    with inhabited_platform(tmp_path_factory.mktemp(scheme), scheme) as found:
        yield found


@pytest.fixture
async def space(inhabited: Inhabited) -> AsyncIterator[Space]:
    """Its VOSpace, with nothing in it, spoken to as ada."""
    inhabited.clear()
    async with inhabited.space() as found:
        yield found


@pytest.fixture
async def vos(vos_bin: Path, inhabited: Inhabited, space: Space, tmp_path: Path) -> Vos:
    """The client, its registry seeded.

    With a certificate of the platform's own it needs ``-k``: it reads the capabilities by certifi's authorities alone.
    """
    home = tmp_path / "client"
    registry = home / ".config" / "cadc-registry"
    registry.mkdir(parents=True)
    (registry / "resource-caps").write_bytes((await space.get(f"{space.url}/reg/resource-caps")).body)
    options = ("-k",) if inhabited.platform.scheme == "https" else ()
    return Vos(vos_bin, space, home, token=inhabited.tokens["ada"], options=options)
