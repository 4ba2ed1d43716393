"""Credentials of one server for its own Dask clusters.

A Dask scheduler runs what anybody sends who reaches its port, and on one machine the loopback address is everybody's.
With a certificate that only this server's processes have, and that both ends must show, it is the person's alone.
"""

from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_LIFE: Final = timedelta(days=3650)
_TLS: Final = "DASK_DISTRIBUTED__COMM__TLS__"


def dask_variables() -> dict[str, str]:
    """Return the variables by which Dask encrypts, and lets in, only with new credentials that they hold.

    They hold a private key: for a server's environment, never for a log.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a server's own Dask clusters")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + _LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    shown = certificate.public_bytes(serialization.Encoding.PEM).decode()
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    found = {"DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "True", f"{_TLS}CA_FILE": shown}
    for role in ("CLIENT", "SCHEDULER", "WORKER"):
        found |= {f"{_TLS}{role}__CERT": shown, f"{_TLS}{role}__KEY": secret}
    return found
