"""HTTPS on one machine: which certificates are refused before anything starts, and the platform's own."""

import os
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.client import HTTPSConnection
from pathlib import Path
from urllib.request import urlopen

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from astrocloud.config import parse_config
from astrocloud.core.errors import StartError
from astrocloud.core.layout import DataFolder
from astrocloud.core.tls import Certificate, certificate_of
from tests.support.platform import Platform, free_port, running_platform

PEM = serialization.Encoding.PEM


def make(folder: Path, *, days: tuple[int, int] = (-1, 1), password: bytes | None = None) -> dict[str, str]:
    """Make a certificate for localhost that is good between two days from now; return the block that names it."""
    folder.mkdir(exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(tz=UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=days[0]))
        .not_valid_after(now + timedelta(days=days[1]))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    locked = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    (folder / "c.pem").write_bytes(built.public_bytes(PEM))
    (folder / "k.pem").write_bytes(key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, locked))
    return {"kind": "files", "certificate": str(folder / "c.pem"), "key": str(folder / "k.pem")}


def wrong(folder: Path) -> Iterator[tuple[dict[str, str], str, str]]:
    """Yield blocks that are wrong in one way each, the code, and what the sentence names."""
    good = make(folder / "good")
    other = make(folder / "other")
    text = folder / "text"
    text.write_text("no PEM")
    yield {**good, "certificate": str(folder / "none.pem")}, "tls-file", "none.pem"
    yield {**good, "certificate": str(folder)}, "tls-file", str(folder)
    yield {**good, "key": str(folder / "none.pem")}, "tls-file", "none.pem"
    yield {**good, "certificate": str(text)}, "tls-certificate", str(text)
    yield {**good, "certificate": good["key"]}, "tls-certificate", good["key"]
    yield {**good, "key": str(text)}, "tls-key", str(text)
    yield {**good, "key": good["certificate"]}, "tls-key", "no private key"
    yield {**good, "key": other["key"]}, "tls-key", "not the key of"
    yield make(folder / "locked", password=b"secret"), "tls-key", "password"
    yield make(folder / "old", days=(-9, -2)), "tls-expired", "old/c.pem"
    yield make(folder / "early", days=(2, 9)), "tls-not-yet", "early/c.pem"


def test_what_no_client_would_take_is_refused(tmp_path: Path) -> None:
    for block, code, named in wrong(tmp_path):
        config = parse_config({"tls": block}, source="test")
        with pytest.raises(StartError) as caught:
            certificate_of(config, DataFolder(tmp_path), bind="127.0.0.1")
        assert caught.value.code == code
        assert named in caught.value.sentence("en")
        assert named in caught.value.sentence("zh") or code == "tls-key"


@pytest.mark.parametrize("code", ["tls-file", "tls-key", "tls-expired"])
def test_the_command_says_so_in_one_sentence(tmp_path: Path, code: str) -> None:
    block, _code, named = next(each for each in wrong(tmp_path) if each[1] == code)
    data = tmp_path / "data"
    data.mkdir()
    (data / "astrocloud.yaml").write_text(yaml.safe_dump({"tls": block}))
    done = Platform(data=data, port=free_port()).run("up")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("astrocloud: ")
    assert Path(named).name in done.stderr
    assert "-----BEGIN" not in done.stderr.replace('("-----BEGIN CERTIFICATE-----")', "")


def test_a_certificate_of_ones_own_is_made_once(tmp_path: Path) -> None:
    data = DataFolder(tmp_path)
    data.make()
    plain = parse_config({}, source="test")
    assert certificate_of(plain, data, bind="127.0.0.1") is None
    own = parse_config({"tls": "self-signed"}, source="test")
    first = certificate_of(own, data, bind="0.0.0.0")
    assert first is not None
    fingerprint = first.fingerprint
    assert len(fingerprint.split(":")) == 32
    assert first.key.stat().st_mode & 0o777 == 0o600
    assert certificate_of(own, data, bind="0.0.0.0").fingerprint == fingerprint
    named = parse_config({"tls": {"kind": "self-signed", "names": ["stars.example", "10.1.2.3"]}}, source="test")
    second = certificate_of(named, data, bind="0.0.0.0")
    assert second is not None
    assert second.fingerprint != fingerprint
    names = x509.load_pem_x509_certificate(second.certificate.read_bytes()).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert {"localhost", "stars.example"} <= set(names.value.get_values_for_type(x509.DNSName))
    assert {"127.0.0.1", "10.1.2.3"} <= {str(a) for a in names.value.get_values_for_type(x509.IPAddress)}
    # One that is about to end, or whose key is another's, is made anew.
    key = make(tmp_path / "other")["key"]
    second.key.write_bytes(Path(key).read_bytes())
    third = certificate_of(named, data, bind="0.0.0.0")
    assert third is not None
    third.check()
    soon = make(tmp_path / "soon", days=(-1, 20))
    Path(soon["certificate"]).replace(third.certificate)
    Path(soon["key"]).replace(third.key)
    ending = third.fingerprint
    assert certificate_of(own, data, bind="0.0.0.0").fingerprint != ending


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform that speaks HTTPS with a certificate of its own."""
    folder = tmp_path_factory.mktemp("secure")
    folder.chmod(0o711)
    redirect_port = free_port()
    tls = {"kind": "self-signed", "redirect_port": redirect_port}
    config = {"tls": tls, "environments": {"prepare_at_start": False}}
    with running_platform(folder, config=config) as platform:
        platform.environment["REDIRECT_PORT"] = str(redirect_port)
        yield platform


def trusting(platform: Platform) -> ssl.SSLContext:
    """A client that trusts the platform's certificate and nothing else, and is strict about it."""
    context = ssl.create_default_context(cafile=platform.data / "secrets/tls-certificate.pem")
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    return context


def test_the_whole_platform_answers_https(secure: Platform) -> None:
    assert f"Astrocloud is ready: https://127.0.0.1:{secure.port}" in secure.output
    own = Certificate(secure.data / "secrets/tls-certificate.pem", secure.data / "secrets/tls-key.pem")
    assert own.fingerprint in secure.output
    assert "PRIVATE" not in secure.output
    for path in ("/", "/hub/health", "/services/vospace/capabilities"):
        with urlopen(secure.url + path, context=trusting(secure)) as answer:
            assert answer.status == 200
    with urlopen(f"https://localhost:{secure.port}/services/vospace/capabilities", context=trusting(secure)) as answer:
        assert f"{secure.url}/services/vospace/nodes" in answer.read().decode()
    assert secure.run_json("status")["url"] == secure.url


def test_every_cookie_is_for_https_alone(secure: Platform) -> None:
    seen = []
    for path in ("/services/portal/sign-in/hub", "/services/vospace/sign-in/hub", "/hub/login", "/hub/oauth_login"):
        line = HTTPSConnection("127.0.0.1", secure.port, context=trusting(secure), timeout=20)
        line.request("GET", path, headers={"Accept": "text/html"})
        answer = line.getresponse()
        answer.read()
        seen += [(path, value) for name, value in answer.getheaders() if name.lower() == "set-cookie"]
        assert answer.getheader("Location", "/").startswith(("/", secure.url))
        line.close()
    assert len(seen) >= 3
    assert [entry for entry in seen if "secure" not in entry[1].lower()] == []


def test_plain_http_is_sent_on(secure: Platform) -> None:
    address = f"http://127.0.0.1:{secure.environment['REDIRECT_PORT']}/services/portal/health"
    with urlopen(address, context=trusting(secure)) as answer:
        assert answer.url == f"{secure.url}/services/portal/health"


def test_a_file_that_the_account_may_not_read_is_named(tmp_path: Path) -> None:
    block = make(tmp_path / "given")
    Path(block["key"]).chmod(0)
    child = os.fork()
    if child == 0:
        if os.geteuid() == 0:
            os.setuid(65534)
        try:
            certificate_of(parse_config({"tls": block}, source="test"), DataFolder(tmp_path), bind="127.0.0.1")
        except StartError as err:
            os._exit(0 if err.code == "tls-file" and "Permission denied" in str(err) else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
