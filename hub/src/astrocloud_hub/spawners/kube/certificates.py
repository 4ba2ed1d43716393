"""Certificates of people's servers, made by the hub at each start."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from astrocloud_hub.hosts import name_of

LIFETIME: Final = timedelta(days=1000)
"""Longer than a server runs: it cannot be given another one. It is for one pod, whose name nobody has again."""

CERTIFICATE: Final = "ASTROCLOUD_TLS_CERTIFICATE"
KEY: Final = "ASTROCLOUD_TLS_KEY"
AUTHORITY: Final = "ASTROCLOUD_TLS_AUTHORITY"
"""The variables in which a server is handed its certificate, its key, and the authority of the platform's parts."""

STOCK_START: Final = (
    "mask=$(umask); umask 077; place=/tmp; [ ! -w /dev/shm ] || place=/dev/shm; "
    'place=$(mktemp -d "$place/astrocloud-tls-XXXXXX") || exit 1; '
    f'printf %s "${CERTIFICATE}" >"$place/certificate" && '
    f'printf %s "${KEY}" >"$place/key" && '
    f'printf %s "${AUTHORITY}" >"$place/authority" || exit 1; '
    f"unset {CERTIFICATE} {KEY} {AUTHORITY}; umask $mask; "
    'export ASTROCLOUD_AUTHORITY="$place/authority" JUPYTERHUB_SSL_CERTFILE="$place/certificate" '
    'JUPYTERHUB_SSL_KEYFILE="$place/key"; '
    # The variable for it would make the server ask each browser for a certificate.
    'exec "$@" --HubAuth.client_ca="$place/authority"'
)
"""What an image that knows nothing of the platform is started by: takes them out of the variables into files, for
JupyterHub's own start to find."""


class ServerAuthority:
    """Signs the certificates of people's servers, and of nothing else: its own says so.

    Parameters
    ----------
    folder
        Where its certificate ``servers-ca`` and its key ``servers-ca-key`` are, and ``platform-ca``, the authority of
        the platform's parts. They are read at each start of a server.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def variables(self, *, pod: str, namespace: str) -> dict[str, str]:
        """Return what the server in `pod` is given to answer by TLS, and to check the platform's parts by."""
        certificate, key = self._certify(pod=pod, namespace=namespace)
        return {CERTIFICATE: certificate, KEY: key, AUTHORITY: self._read("platform-ca").decode("ascii")}

    def _read(self, name: str) -> bytes:
        return (self._folder / name).read_bytes()

    def _certify(self, *, pod: str, namespace: str) -> tuple[str, str]:
        # The first is the newest, and the one whose key there is.
        issuer = x509.load_pem_x509_certificates(self._read("servers-ca"))[0]
        signing = serialization.load_pem_private_key(self._read("servers-ca-key"), password=None)
        assert isinstance(signing, ec.EllipticCurvePrivateKey)
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        unused = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "key_cert_sign")
        usage = dict.fromkeys((*unused, "crl_sign", "encipher_only", "decipher_only"), False)
        made = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, pod[:64])]))
            .issuer_name(issuer.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(min(now + LIFETIME, issuer.not_valid_after_utc))
            .add_extension(
                x509.SubjectAlternativeName([x509.DNSName(f"*.{name_of(pod=pod, namespace=namespace)}")]),
                critical=False,
            )
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.KeyUsage(digital_signature=True, **usage), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(_identifier(issuer), critical=False)
            .sign(signing, hashes.SHA256())
        )
        pem = serialization.Encoding.PEM
        secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        return made.public_bytes(pem).decode("ascii"), secret.decode("ascii")


def _identifier(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """Return how a certificate names the authority that signed it: as that names itself, if it does."""
    try:
        own = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        key = issuer.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(key)
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)
