"""HTTPS on one machine: the certificate that the proxy and the way for bytes answer with."""

import asyncio.sslproto
import hashlib
import ipaddress
import os
import socket
import ssl
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from astrocloud.config import NoTls, TlsFiles
from astrocloud.core.errors import StartError

if TYPE_CHECKING:
    from astrocloud.config import Config
    from astrocloud.core.layout import DataFolder

LIFETIME: Final = timedelta(days=800)
"""How long the platform's own certificate is good: some systems take none that is good for longer than 825 days."""

RENEWED_BEFORE: Final = timedelta(days=30)
"""A certificate of the platform's own is made anew at a start so long before its end."""

CONNECTION_BUFFER_BYTES: Final = 64 * 1024
"""What each connection by TLS is read into: four records of the largest size (RFC 8446, section 5.1)."""


def keep_connections_small() -> None:
    """Let connections of this process by TLS hold `CONNECTION_BUFFER_BYTES` instead of Python's 256 KiB.

    A process that a thousand slow clients keep waiting would need a quarter of a gigabyte for them.
    """
    asyncio.sslproto.SSLProtocol.max_size = CONNECTION_BUFFER_BYTES


@dataclass(frozen=True)
class Certificate:
    """A certificate and its key, in files."""

    certificate: Path
    key: Path

    @property
    def fingerprint(self) -> str:
        """Its SHA-256 fingerprint, as browsers show it."""
        der = ssl.PEM_cert_to_DER_cert(self.certificate.read_text(encoding="ascii"))
        digest = hashlib.sha256(der).hexdigest().upper()
        return ":".join(digest[i : i + 2] for i in range(0, len(digest), 2))

    def context(self) -> ssl.SSLContext:
        """Return what a server answers with. Raises as `check` does."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        try:
            context.load_cert_chain(self.certificate, self.key, password=_no_password)
        except _NeedsPasswordError:
            raise StartError("tls-key", file=str(self.key), reason="it has a password") from None
        except ssl.SSLError as err:
            mismatch = err.reason == "KEY_VALUES_MISMATCH"
            reason = f"it is not the key of {self.certificate}" if mismatch else "it is no private key in PEM"
            raise StartError("tls-key", file=str(self.key), reason=reason) from err
        return context

    def check(self, *, now: datetime | None = None) -> None:
        """Refuse a certificate that no client would take.

        Raises
        ------
        StartError
            ``tls-file`` when one of the two cannot be read, ``tls-certificate`` when it is no certificate,
            ``tls-expired``, ``tls-not-yet``, ``tls-key`` when the key is none, is locked, or another's.
        """
        found = _loaded(self.certificate)
        _read(self.key)
        now = now or datetime.now(UTC)
        end, begin = found.not_valid_after_utc, found.not_valid_before_utc
        if end <= now:
            raise StartError("tls-expired", file=str(self.certificate), at=f"{end:%Y-%m-%d %H:%M} UTC")
        if begin > now:
            raise StartError("tls-not-yet", file=str(self.certificate), at=f"{begin:%Y-%m-%d %H:%M} UTC")
        self.context()


class _NeedsPasswordError(Exception):
    """The key is locked; without this OpenSSL would ask on the terminal."""


def _no_password() -> str:
    raise _NeedsPasswordError


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as err:
        raise StartError("tls-file", file=str(file), reason=err.strerror or str(err)) from err


def _loaded(file: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificates(_read(file))[0]
    except ValueError as err:
        raise StartError("tls-certificate", file=str(file)) from err


def certificate_of(config: "Config", data: "DataFolder", *, bind: str) -> Certificate | None:
    """Return what the platform answers with, made now if it is to be its own; `None` for plain HTTP.

    Raises
    ------
    StartError
        As `Certificate.check`.
    """
    tls = config.tls
    if isinstance(tls, NoTls):
        return None
    if isinstance(tls, TlsFiles):
        given = Certificate(tls.certificate, tls.key)
        given.check()
        return given
    own = Certificate(data.secrets / "tls-certificate.pem", data.secrets / "tls-key.pem")
    public = urlsplit(str(config.public_url)).hostname if config.public_url else None
    names = _names(bind, *([public] if public else []), *tls.names)
    if not _is_good(own, names):
        _make(own, names)
    return own


def _names(*more: str) -> list[str]:
    """Return the names and addresses by which this machine is reached."""
    wanted = ["localhost", "127.0.0.1", "::1", socket.gethostname(), *more]
    return list(dict.fromkeys(name for name in wanted if name not in {"0.0.0.0", "::", ""}))  # noqa: S104 - left out


def _is_good(own: Certificate, names: list[str]) -> bool:
    try:
        own.check(now=datetime.now(UTC) + RENEWED_BEFORE)
        found = _loaded(own.certificate).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (StartError, x509.ExtensionNotFound):
        return False
    return set(_general_names(names)) <= set(found)


def _general_names(names: list[str]) -> list[x509.GeneralName]:
    found: list[x509.GeneralName] = []
    for name in names:
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            with suppress(ValueError):  # a host name that no certificate can have
                found.append(x509.DNSName(name.encode("idna").decode("ascii")))
    return found


def _make(own: Certificate, names: list[str]) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Astrocloud on one machine")])
    now = datetime.now(UTC)
    public = key.public_key()
    usage = dict.fromkeys(
        (
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "crl_sign",
            "key_cert_sign",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.SubjectAlternativeName(_general_names(names)), critical=False)
        # No authority: whoever trusts it trusts this machine, and nothing that somebody signed with its key.
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(digital_signature=True, **usage), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    # The key first: with an old certificate it is not good, and the next start makes both again.
    _write(own.key, secret)
    _write(own.certificate, built.public_bytes(pem))


def _write(file: Path, content: bytes) -> None:
    fresh = file.with_name(f".{file.name}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    fresh.replace(file)
