"""Foreign clients, each as released, in an environment of their own, against a running service."""

import asyncio
import hashlib
import os
import shutil
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.services.vospace.platform import Space, running


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
    token: str | None = "ada"
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


@pytest.fixture
async def vos(vos_bin: Path, tmp_path: Path) -> AsyncIterator[Vos]:
    """The client, over plain HTTP, its registry seeded."""
    home = tmp_path / "client"
    registry = home / ".config" / "cadc-registry"
    registry.mkdir(parents=True)
    async with running(tmp_path / "data") as space:
        (registry / "resource-caps").write_bytes((await space.get(f"{space.url}/reg/resource-caps")).body)
        yield Vos(vos_bin, space, home)


@pytest.fixture(scope="session")
def self_signed(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    """A server's context with a certificate for localhost that nobody signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(tz=UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
    file.write_bytes(private + certificate.public_bytes(pem))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(file)
    return context


@pytest.fixture
async def vos_tls(vos_bin: Path, tmp_path: Path, self_signed: ssl.SSLContext) -> AsyncIterator[Vos]:
    """The client over HTTPS, as its users do it: ``arc:`` for a service that an environment variable names."""
    home = tmp_path / "client"
    home.mkdir()
    async with running(tmp_path / "data", tls=self_signed) as space:
        host = space.url.removeprefix("https://")
        yield Vos(vos_bin, space, home, environment={"VOSPACE_WEBSERVICE": host}, options=("-k",), prefix="arc:")
