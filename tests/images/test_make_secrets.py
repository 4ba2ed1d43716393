"""The job that makes the platform's keys: what is there stays, and the database's certificate is one that is taken."""

import base64
import importlib.util
import ssl
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from cryptography import x509

from tests.repository.files import REPOSITORY

NAMES = ["sky-database", "sky-database.astro.svc"]


@pytest.fixture(scope="module")
def program() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_secrets", REPOSITORY / "images/services/make_secrets.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Cluster:
    """Holds one Secret, or none yet."""

    def __init__(self, program: ModuleType) -> None:
        self._program = program
        self.data: dict[str, str] | None = None

    def send(self, method: str, name: str = "", body: Any = None, kind: str = "") -> dict[str, Any]:
        if method == "GET" and self.data is None:
            raise self._program.urllib.error.HTTPError("", 404, "Not Found", None, None)
        if method == "POST":
            self.data = dict(body["data"])
        if method == "PATCH":
            assert self.data is not None
            assert body["metadata"]["resourceVersion"] == "7"
            self.data |= body["data"]
        return {"data": self.data, "metadata": {"resourceVersion": "7"}}

    def value(self, name: str) -> bytes:
        assert self.data is not None
        return base64.b64decode(self.data[name])


def shakes_hands(folder: Path, cluster: Cluster, *, name: str, authority: bytes, of: str = "database") -> None:
    """Connect as the parts do, who check the certificate against the authority and the name. Raises `ssl.SSLError`."""
    for part in ("certificate", "key"):
        (folder / part).write_bytes(cluster.value(f"{of}-{part}"))
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(folder / "certificate", folder / "key")
    asking = ssl.create_default_context(cadata=authority.decode())
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = serving.wrap_bio(to_server, to_client, server_side=True)
    client = asking.wrap_bio(to_client, to_server, server_hostname=name)
    done: set[ssl.SSLObject] = set()
    while len(done) < 2:
        for end in (client, server):
            try:
                end.do_handshake()
                done.add(end)
            except ssl.SSLWantReadError:
                continue


def test_what_is_there_stays_and_what_is_missing_is_added(program: ModuleType) -> None:
    cluster = Cluster(program)

    assert program.ensure(cluster, "keys", ["a"], {}) == ["a"]
    before = cluster.value("a")
    made = program.ensure(cluster, "keys", ["a", "b"], {"database": NAMES})

    assert made == ["b", "database-ca", "database-certificate", "database-key"]
    assert cluster.value("a") == before
    assert program.ensure(cluster, "keys", ["a", "b"], {"database": NAMES}) == []


def test_the_certificate_holds_for_the_database_s_names_alone(program: ModuleType, tmp_path: Path) -> None:
    cluster = Cluster(program)
    program.ensure(cluster, "keys", [], {"database": NAMES})
    authority = cluster.value("database-ca")

    for name in NAMES:
        shakes_hands(tmp_path, cluster, name=name, authority=authority)
    with pytest.raises(ssl.SSLCertVerificationError):
        shakes_hands(tmp_path, cluster, name="sky-hub", authority=authority)
    other = Cluster(program)
    program.ensure(other, "keys", [], {"database": NAMES})
    with pytest.raises(ssl.SSLCertVerificationError):
        shakes_hands(tmp_path, cluster, name=NAMES[0], authority=other.value("database-ca"))


@pytest.mark.parametrize("why", ["its time", "its names"])
def test_one_that_is_made_anew_is_believed_beside_the_old_one(
    program: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    cluster = Cluster(program)
    if why == "its time":
        with monkeypatch.context() as short:
            # Nearly over: it began an hour ago, and less than a third is left.
            short.setattr(program, "LIFETIME", program.timedelta(minutes=25))
            program.ensure(cluster, "keys", [], {"database": NAMES})
    else:
        program.ensure(cluster, "keys", [], {"database": ["another"]})
    old = Cluster(program)
    old.data = dict(cluster.data or {})

    assert program.ensure(cluster, "keys", [], {"database": NAMES}) != []

    authority = cluster.value("database-ca")
    shakes_hands(tmp_path, cluster, name=NAMES[0], authority=authority)
    # The database has the old one until it is started again.
    shakes_hands(tmp_path, old, name=NAMES[0] if why == "its time" else "another", authority=authority)
    assert len(x509.load_pem_x509_certificates(authority)) == 2


HUB = {"hub@platform": ["sky-hub.astro.svc"]}
PLATFORM = {"platform": ""}


def test_an_authority_whose_key_is_kept_signs_for_many_parts(program: ModuleType, tmp_path: Path) -> None:
    cluster = Cluster(program)
    both = {**HUB, "portal@platform": ["sky-portal.astro.svc"]}

    made = program.ensure(cluster, "keys", [], both, PLATFORM)

    assert made == [
        *("platform-ca", "platform-ca-key"),
        *("hub-certificate", "hub-key", "portal-certificate", "portal-key"),
    ]
    assert program.ensure(cluster, "keys", [], both, PLATFORM) == []
    authority = cluster.value("platform-ca")
    shakes_hands(tmp_path, cluster, of="hub", name="sky-hub.astro.svc", authority=authority)
    shakes_hands(tmp_path, cluster, of="portal", name="sky-portal.astro.svc", authority=authority)
    # One part is not another.
    with pytest.raises(ssl.SSLCertVerificationError):
        shakes_hands(tmp_path, cluster, of="portal", name="sky-hub.astro.svc", authority=authority)


def test_a_part_s_new_certificate_is_good_for_who_was_started_before(
    program: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = Cluster(program)
    with monkeypatch.context() as short:
        short.setattr(program, "LIFETIME", program.timedelta(minutes=25))
        program.ensure(cluster, "keys", [], HUB, PLATFORM)
    known, old = cluster.value("platform-ca"), cluster.value("hub-certificate")

    assert program.ensure(cluster, "keys", [], HUB, PLATFORM) == ["hub-certificate", "hub-key"]

    assert cluster.value("hub-certificate") != old
    shakes_hands(tmp_path, cluster, of="hub", name="sky-hub.astro.svc", authority=known)


def test_an_authority_near_its_end_is_made_anew_with_all_that_it_signed(
    program: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = Cluster(program)
    with monkeypatch.context() as short:
        short.setattr(program, "AUTHORITY_LIFETIME", program.timedelta(minutes=25))
        program.ensure(cluster, "keys", [], HUB, PLATFORM)
    before = cluster.value("platform-ca")
    old = Cluster(program)
    old.data = dict(cluster.data or {})

    made = program.ensure(cluster, "keys", [], HUB, PLATFORM)

    assert made == ["platform-ca", "platform-ca-key", "hub-certificate", "hub-key"]
    bundle = cluster.value("platform-ca")
    assert bundle.endswith(before)
    for held in (cluster, old):
        shakes_hands(tmp_path, held, of="hub", name="sky-hub.astro.svc", authority=bundle)


def test_one_authority_s_word_is_good_below_its_own_domain_alone(program: ModuleType, tmp_path: Path) -> None:
    cluster = Cluster(program)
    asked = {"inside@servers": ["a.servers.internal"], "outside@servers": ["sky-hub.astro.svc"]}

    program.ensure(cluster, "keys", [], asked, {"servers": "servers.internal"})

    authority = cluster.value("servers-ca")
    shakes_hands(tmp_path, cluster, of="inside", name="a.servers.internal", authority=authority)
    with pytest.raises(ssl.SSLCertVerificationError, match="subtree"):
        shakes_hands(tmp_path, cluster, of="outside", name="sky-hub.astro.svc", authority=authority)


def test_a_certificate_outlives_no_authority(program: ModuleType) -> None:
    # It is made anew when a third is left, and until then makes others.
    assert program.AUTHORITY_LIFETIME / 3 >= program.LIFETIME
