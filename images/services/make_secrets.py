"""Make the platform's own secrets once, as one Secret of this namespace, and never change one that is there.

It runs as a job inside the cluster, so that no key is ever in a chart's values or manifests. ``--name`` names the
Secret; the arguments name the secrets, each 256 random bits as 64 hexadecimal digits. With an upgrade that needs a
new secret only that one is added.

``--certificate PART=NAME,NAME`` makes a certificate for a part of the platform that is called by these names, as
``PART-certificate`` and ``PART-key``, and the authority that it is checked by as ``PART-ca``. The authority's own key
is kept nowhere. A certificate of which less than a third is left, or that is for other names, is made anew; the old
authority is believed besides the new one then, because the part has the old certificate until it is started again.

``--authority NAME`` makes an authority whose key is kept, as ``NAME-ca`` and ``NAME-ca-key``: one that many parts are
checked by, which read it at their start, or that signs while the platform runs. It outlives all that it signs, so that
a part's new certificate is good for whoever was started before. ``--certificate PART@NAME=NAMES`` is a certificate by
it. ``--authority NAME=DOMAIN`` is one that is good for names below that domain alone.
"""

import argparse
import base64
import json
import secrets
import ssl
import sys
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFETIME: Final = timedelta(days=3650)
AUTHORITY_LIFETIME: Final = timedelta(days=3 * 3650)
ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
API: Final = "https://kubernetes.default.svc"


class Cluster:
    """The cluster's API, as this pod's service account."""

    def __init__(self) -> None:
        self._tls = ssl.create_default_context(cafile=ACCOUNT / "ca.crt")
        namespace = (ACCOUNT / "namespace").read_text(encoding="utf-8")
        self._secrets = f"{API}/api/v1/namespaces/{namespace}/secrets"

    def send(self, method: str, name: str = "", body: object = None, kind: str = "application/json") -> dict[str, Any]:
        """Return the answer to a request about the Secret `name`, or about all for an empty one."""
        url = f"{self._secrets}/{name}" if name else self._secrets
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, method=method, data=data)  # noqa: S310 - the API is always https
        request.add_header("Authorization", f"Bearer {(ACCOUNT / 'token').read_text(encoding='utf-8')}")
        request.add_header("Content-Type", kind)
        with urllib.request.urlopen(request, context=self._tls, timeout=30) as answer:  # noqa: S310
            return dict(json.load(answer))


def ensure(
    cluster: Cluster,
    name: str,
    wanted: list[str],
    certificates: dict[str, list[str]],
    authorities: dict[str, str] | None = None,
) -> list[str]:
    """Return the secrets of `wanted` that were missing and are made now, and the certificates that had to be.

    Parameters
    ----------
    certificates
        A part, or ``PART@AUTHORITY`` -> the names that it is called by.
    authorities
        An authority -> the domain that it is for, empty for all.
    """
    try:
        there = cluster.send("GET", name)
    except urllib.error.HTTPError as err:
        if err.code != 404:
            raise
        there = {}
    held = {key: base64.b64decode(value) for key, value in (there.get("data") or {}).items()}
    made = {key: secrets.token_hex(32).encode() for key in wanted if key not in held}
    for authority, domain in (authorities or {}).items():
        if f"{authority}-ca-key" not in held or not enough_left(held.get(f"{authority}-ca", b"")):
            made |= authorize(authority, domain, before=held.get(f"{authority}-ca", b""))
    for asked, names in certificates.items():
        part, _, authority = asked.partition("@")
        good = f"{part}-key" in held and still_good(held.get(f"{part}-certificate", b""), names)
        if authority:
            by = {**held, **made}
            if f"{authority}-ca" in made or not good:
                made |= certify_by(part, names, by[f"{authority}-ca"], by[f"{authority}-ca-key"])
        elif not good:
            made |= certify(part, names, before=held.get(f"{part}-ca", b""))
    missing = [*made]
    data = {key: base64.b64encode(value).decode() for key, value in made.items()}
    if not there:
        document = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": "Opaque", "data": data}
        cluster.send("POST", body=document)
    elif missing:
        # The version guards against a second job: of two, one is refused and finds them there when tried again.
        change = {"metadata": {"resourceVersion": there["metadata"]["resourceVersion"]}, "data": data}
        cluster.send("PATCH", name, change, kind="application/merge-patch+json")
    return missing


def still_good(text: bytes, names: list[str]) -> bool:
    """Whether a certificate is for `names`, and a third of its time or more is left."""
    if not enough_left(text):
        return False
    found = x509.load_pem_x509_certificate(text)
    given = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return sorted(given.get_values_for_type(x509.DNSName)) == sorted(names)


def enough_left(text: bytes) -> bool:
    """Whether there is a certificate, the first of some, and a third of its time or more is left."""
    if not text:
        return False
    found = x509.load_pem_x509_certificate(text)
    left = found.not_valid_after_utc - datetime.now(UTC)
    return left > (found.not_valid_after_utc - found.not_valid_before_utc) / 3


def certify(part: str, names: list[str], *, before: bytes) -> dict[str, bytes]:
    """Return a new certificate of `part`, its key, and the authority, with the newest of those `before`."""
    authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Astrocloud: {part}")])
    authority = _signed(issuer, issuer, authority_key.public_key(), authority_key, names=None)
    certificate = _signed(_subject(names), issuer, key.public_key(), authority_key, names=names)
    return {
        f"{part}-ca": _with_newest(authority, before),
        f"{part}-certificate": certificate.public_bytes(serialization.Encoding.PEM),
        f"{part}-key": _pem(key),
    }


def authorize(name: str, domain: str, *, before: bytes) -> dict[str, bytes]:
    """Return a new authority, with the newest of those `before`, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Astrocloud: {name}")])
    authority = _signed(issuer, issuer, key.public_key(), key, names=None, lifetime=AUTHORITY_LIFETIME, domain=domain)
    return {f"{name}-ca": _with_newest(authority, before), f"{name}-ca-key": _pem(key)}


def certify_by(part: str, names: list[str], authority: bytes, authority_key: bytes) -> dict[str, bytes]:
    """Return a new certificate of `part` and its key, by the newest of an authority's certificates."""
    signing = serialization.load_pem_private_key(authority_key, password=None)
    if not isinstance(signing, ec.EllipticCurvePrivateKey):
        msg = f"the authority of {part} has a key of another kind than this makes"
        raise TypeError(msg)
    issuer = x509.load_pem_x509_certificate(authority).subject
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _signed(_subject(names), issuer, key.public_key(), signing, names=names)
    return {f"{part}-certificate": certificate.public_bytes(serialization.Encoding.PEM), f"{part}-key": _pem(key)}


def _subject(names: list[str]) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])


def _with_newest(authority: x509.Certificate, before: bytes) -> bytes:
    newest = x509.load_pem_x509_certificates(before)[:1] if before else []
    return b"".join(each.public_bytes(serialization.Encoding.PEM) for each in (authority, *newest))


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    kind, locked = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, kind, locked)


def _signed(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    key: ec.EllipticCurvePrivateKey,
    *,
    names: list[str] | None,
    lifetime: timedelta | None = None,
    domain: str = "",
) -> x509.Certificate:
    """Return a certificate: an authority's where there are no names, good below `domain` alone if there is one."""
    now = datetime.now(UTC)
    authority = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + (lifetime or LIFETIME))
        .add_extension(x509.BasicConstraints(ca=names is None, path_length=0 if names is None else None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(authority), critical=False)
        .add_extension(_usage(authority=names is None), critical=True)
    )
    if domain:
        below = x509.NameConstraints(permitted_subtrees=[x509.DNSName(domain)], excluded_subtrees=None)
        made = made.add_extension(below, critical=True)
    if names is not None:
        made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        made = made.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    return made.sign(key, hashes.SHA256())


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def main() -> int:
    """Make what is missing; say which, never what."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True)
    parser.add_argument("--certificate", action="append", default=[], metavar="PART[@AUTHORITY]=NAME,NAME")
    parser.add_argument("--authority", action="append", default=[], metavar="NAME[=DOMAIN]")
    parser.add_argument("secrets", nargs="+")
    options = parser.parse_args()
    certificates = {part: names.split(",") for part, _, names in (text.partition("=") for text in options.certificate)}
    authorities = {name: domain for name, _, domain in (text.partition("=") for text in options.authority)}
    try:
        made = ensure(Cluster(), options.name, options.secrets, certificates, authorities)
    except urllib.error.HTTPError as err:
        sys.stderr.write(f"Secret {options.name}: the cluster answered {err.code} {err.reason}\n")
        return 1
    sys.stdout.write(f"Secret {options.name}: made {', '.join(made) or 'nothing, all are there'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
