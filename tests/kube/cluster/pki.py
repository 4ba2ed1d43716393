"""The cluster's certificates and the files that name them, made anew for each cluster."""

import datetime
import ipaddress
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.kube.cluster.layout import API_SERVICE, API_URL, CONTROL, KUBECONFIG, NODES, PKI, STATE

_DAY = datetime.timedelta(days=1)


def certificate(name: str) -> Path:
    """Return the file of a certificate; of ``service-accounts``, that of the public key."""
    return PKI / f"{name}.crt"


def key(name: str) -> Path:
    """Return the file of a private key."""
    return PKI / f"{name}.key"


def kubeconfig(name: str) -> Path:
    """Return the file by which a component reaches the API as itself."""
    return KUBECONFIG if name == "admin" else STATE / f"{name}.kubeconfig"


def make() -> None:
    """Make all certificates and kubeconfigs; nothing when they are there."""
    if key("service-accounts").exists():
        return
    PKI.mkdir(parents=True, exist_ok=True)
    PKI.chmod(0o700)
    authority = _Authority()
    addresses = [CONTROL.address, API_SERVICE, "127.0.0.1"]
    names = [
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ]
    authority.issue("etcd", common_name="etcd", addresses=[CONTROL.address])
    authority.issue("apiserver", common_name="kube-apiserver", addresses=addresses, names=names)
    authority.issue("apiserver-client", common_name="kube-apiserver-client", organization="system:masters")
    authority.issue("aggregator", common_name="aggregator")
    for node in NODES:
        identity = f"system:node:{node.name}"
        authority.issue(
            node.name, common_name=identity, organization="system:nodes", addresses=[node.address], names=[node.name]
        )
        _write_kubeconfig(node.name)
    components = {
        "admin": ("admin", "system:masters"),
        "kube-controller-manager": ("system:kube-controller-manager", ""),
        "kube-scheduler": ("system:kube-scheduler", ""),
        "kube-proxy": ("system:kube-proxy", "system:node-proxier"),
        "coredns": ("system:coredns", ""),
        "provisioner": ("system:provisioner", ""),
    }
    for name, (common_name, organization) in components.items():
        authority.issue(name, common_name=common_name, organization=organization)
        _write_kubeconfig(name)
    # Last, because its presence says that all of it is there.
    tokens = ec.generate_private_key(ec.SECP256R1())
    public = tokens.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    certificate("service-accounts").write_bytes(public)
    _write_key("service-accounts", tokens)


class _Authority:
    """The one authority of a cluster. Its own key is never written."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "astrocloud test cluster")])
        usage = x509.KeyUsage(
            digital_signature=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=True,
            crl_sign=True,
            encipher_only=False,
            decipher_only=False,
        )
        made = (
            self._draft(self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .sign(self._key, hashes.SHA256())
        )
        certificate("ca").write_bytes(made.public_bytes(serialization.Encoding.PEM))

    def issue(
        self,
        name: str,
        *,
        common_name: str,
        organization: str = "",
        addresses: list[str] | None = None,
        names: list[str] | None = None,
    ) -> None:
        """Write a certificate that serves as a server's and a client's, and its key."""
        own = ec.generate_private_key(ec.SECP256R1())
        subject = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
        if organization:
            subject.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        draft = self._draft(x509.Name(subject), own.public_key())
        draft = draft.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        alternatives: list[x509.GeneralName] = [x509.DNSName(n) for n in names or []]
        alternatives += [x509.IPAddress(ipaddress.ip_address(a)) for a in addresses or []]
        if alternatives:
            draft = draft.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        made = draft.sign(self._key, hashes.SHA256())
        certificate(name).write_bytes(made.public_bytes(serialization.Encoding.PEM))
        _write_key(name, own)

    def _draft(self, subject: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _DAY)
            .not_valid_after(now + 365 * _DAY)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )


def _write_key(name: str, private: ec.EllipticCurvePrivateKey) -> None:
    text = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    key(name).touch(mode=0o600)
    key(name).write_bytes(text)


def _write_kubeconfig(name: str) -> None:
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": {"server": API_URL, "certificate-authority": str(certificate("ca"))}}],
        "users": [
            {"name": name, "user": {"client-certificate": str(certificate(name)), "client-key": str(key(name))}},
        ],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": name}}],
        "current-context": "test",
    }
    path = kubeconfig(name)
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(document))
