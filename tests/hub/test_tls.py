"""The parts of a cluster's platform on TLS with each other: real processes, and what none of them believes."""

import http.client
import io
import json
import os
import resource
import signal
import socket
import ssl
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tornado.simple_httpclient import SimpleAsyncHTTPClient

from astrocloud.core.cluster import Cluster
from astrocloud.core.layout import DataFolder
from astrocloud.core.runtime import ClusterRuntime
from astrocloud.core.trust import NONE, Trust
from astrocloud.operations.hub import HubClient
from astrocloud.operations.status import status
from astrocloud_hub.hosts import Resolver, TornadoResolver, address_in, host_of
from astrocloud_hub.spawners.kube.certificates import CERTIFICATE, KEY, ServerAuthority
from tests.hub.harness import free_port, proxy_script, until
from tests.repository.files import REPOSITORY
from tests.support.certificates import SERVERS, make_authority, make_certificate
from tests.support.person import Person

PARTS = ("hub", "passport", "portal", "vospace")
PASSWORD = "correct horse battery staple"
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Parts:
    """The platform of a cluster, with all its parts on this machine."""

    def __init__(self, root: Path, *, front: bool = False, also_plain: bool = False) -> None:
        self.data = DataFolder(root)
        self.data.secrets.mkdir(mode=0o700)
        (self.data.secrets / "database-password").write_text("none", encoding="ascii")
        make_authority(self.data.secrets, "platform")
        make_authority(self.data.secrets, "servers", SERVERS)
        for part in (*PARTS, "proxy"):
            make_certificate(self.data.secrets, part, ["localhost"])
        self.ports = {part: {kind: free_port() for kind in ("tls", "plain", "bytes")} for part in PARTS}
        self.port, self.api_port = free_port(), free_port()
        scheme = "https" if front else "http"
        self.front = front
        self.url = f"{scheme}://localhost:{self.port}"
        settings = {
            "release": "sky",
            "namespace": "platform",
            "public_url": self.url,
            "proxy": self.url,
            "proxy_api": f"https://localhost:{self.api_port}",
            "hub": f"https://localhost:{self.ports['hub']['tls']}",
            "services": {part: f"https://localhost:{self.ports[part]['tls']}" for part in PARTS[1:]},
            "database": {"host": "none"},
            "servers": {"environments": {"astro": {"image": "image"}}},
            "tls": {"internal": True, "front": front, "also_plain": also_plain},
        }
        self.data.cluster_file.write_text(yaml.safe_dump(settings), encoding="utf-8")
        self.authority = self.data.secrets / "platform-ca"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def command(self, part: str, *arguments: str) -> tuple[list[str], dict[str, str]]:
        variables = {
            **os.environ,
            "ASTROCLOUD_DATA": str(self.data.root),
            "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")]),
            "TEST_SETTINGS": str(REPOSITORY / "tests/hub/tls_settings.py"),
            **{f"TEST_{kind.upper()}_PORT": str(port) for kind, port in self.ports[part].items()},
        }
        return [sys.executable, "-m", "tests.support.cluster_part", *arguments], variables

    def run(self, *arguments: str, given: str = "") -> None:
        command, variables = self.command("passport", *arguments)
        subprocess.run(command, env=variables, check=True, stdout=subprocess.DEVNULL, input=given.encode())

    def start(self) -> None:
        for part in ("passport", "portal", "vospace"):
            self._start(part, *self.command(part, "serve", part))
            self._answers(f"https://localhost:{self.ports[part]['tls']}/services/{part}/health", part)
        self._start("proxy", *self.proxy())
        self._start("hub", *self.command("hub", "hub"))
        self._answers(f"https://localhost:{self.ports['hub']['tls']}/hub/health", "hub")
        self._answers(f"{self.url}/hub/health", "hub")

    def proxy(self) -> tuple[list[str], dict[str, str]]:
        script, secrets = proxy_script(), self.data.secrets
        assert script, "configurable-http-proxy is not installed: npm ci in hub/proxy"
        secret = secrets / "proxy-token"
        # As an operator's own that was made from a file.
        secret.write_text("a-token\n", encoding="ascii")
        pair = {kind: str(secrets / f"proxy-{name}") for kind, name in (("key", "key"), ("cert", "certificate"))}
        portal = f"https://localhost:{self.ports['portal']['tls']}"
        command = ["node", "--require", str(REPOSITORY / "hub/proxy/trust.cjs"), script, "--log-level", "warn"]
        command += ["--ip", "127.0.0.1", "--port", str(self.port), "--api-ip", "127.0.0.1"]
        command += ["--api-port", str(self.api_port), "--default-target", portal]
        command += ["--error-target", f"{portal}/services/portal/proxy-error"]
        command += [f"--api-ssl-{kind}={file}" for kind, file in pair.items()]
        command += [f"--ssl-{kind}={file}" for kind, file in pair.items() if self.front]
        return command, {**os.environ, "CONFIGPROXY_AUTH_TOKEN": "a-token\n", "ASTROCLOUD_TRUST": str(secrets)}

    def _start(self, name: str, command: list[str], variables: dict[str, str]) -> None:
        with (self.data.root / f"{name}.log").open("wb") as log:
            self._processes[name] = subprocess.Popen(
                command, env=variables, stdout=log, stderr=log, start_new_session=True
            )

    def process(self, name: str) -> int:
        """Return the process id of a part."""
        return self._processes[name].pid

    def _answers(self, url: str, part: str) -> None:
        process = self._processes[part]

        def answered() -> bool:
            assert process.poll() is None, self.log(part)
            try:
                return self.ask(url)[0] == 200
            except OSError:
                return False

        until(answered, seconds=60, what=f"{part} answers")

    def log(self, name: str) -> str:
        return (self.data.root / f"{name}.log").read_text(encoding="utf-8", errors="replace")

    def ask(
        self, url: str, *, method: str = "GET", token: str = "", body: Any = None, host: str = ""
    ) -> tuple[int, str]:
        headers = {"Authorization": f"token {token}"} if token else {}
        if host:
            headers["Host"] = host
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, method=method, headers=headers, data=data)
        context = ssl.create_default_context(cafile=self.authority)
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        try:
            with opener.open(request, timeout=20) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as err:
            with err:
                return err.code, err.read().decode()

    def route(self, path: str, target: str) -> None:
        """Give the proxy a route, as the hub does."""
        url = f"https://localhost:{self.api_port}/api/routes{path}"
        assert self.ask(url, method="POST", token="a-token", body={"target": target})[0] == 201

    def stop(self) -> None:
        for process in reversed(self._processes.values()):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
        for process in self._processes.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


@contextmanager
def running(root: Path, **kwargs: Any) -> Iterator[Parts]:
    root.mkdir()
    parts = Parts(root, **kwargs)
    try:
        parts.start()
        yield parts
    except BaseException:
        for log in sorted(root.glob("*.log")):
            print(f"--- {log.name}\n{log.read_text(errors='replace')[-3000:]}")
        raise
    finally:
        parts.stop()


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parts]:
    with running(tmp_path_factory.mktemp("tls") / "data") as one:
        yield one


@pytest.fixture(scope="module")
def token(parts: Parts) -> str:
    """A person's, made by the operator's command, which asks the hub by TLS."""
    parts.run("user", "add", "alice", "--password-stdin", given=PASSWORD + "\n")
    return str(HubClient(parts.data).make_token("alice", scopes=(), expires="1h")["token"])


def test_every_part_answers_the_others(parts: Parts) -> None:
    assert status(parts.data)["parts"] == dict.fromkeys(("hub", "proxy", "portal", "passport", "vospace"), "ok")


def test_nothing_answers_without_tls(parts: Parts) -> None:
    for port in (*(ports["tls"] for ports in parts.ports.values()), parts.api_port):
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(b"GET /hub/health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            connection.settimeout(10)
            try:
                answer = connection.recv(1024)
            except ConnectionResetError:
                answer = b""
            assert not answer.startswith(b"HTTP/"), port
    for part in PARTS[1:]:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", parts.ports[part]["plain"]), timeout=10)


def test_many_who_are_slow_take_little_memory(parts: Parts) -> None:
    """Each has a connection by TLS of the proxy's to a service."""
    pid = parts.process("passport")

    def held() -> int:
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()

    context = ssl.create_default_context(cafile=parts.authority)
    head = b"POST /services/passport/sign-in HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n"
    form = b"Content-Type: application/x-www-form-urlencoded\r\n\r\nusername=a"
    assert parts.ask(f"https://localhost:{parts.ports['passport']['tls']}/services/passport/health")[0] == 200
    before = held()
    with ExitStack() as opened:
        for _ in range(100):
            raw = socket.create_connection(("localhost", parts.ports["passport"]["tls"]), timeout=10)
            opened.enter_context(context.wrap_socket(raw, server_hostname="localhost")).sendall(head + form)
        assert parts.ask(f"https://localhost:{parts.ports['passport']['tls']}/services/passport/health")[0] == 200
        grew = (held() - before) / 2**20
    assert grew < 16, f"{grew:.1f} MiB"


def test_only_the_hub_itself_has_its_way_without_tls(parts: Parts) -> None:
    """JupyterHub listens so in any case; nobody from outside of its pod can connect."""
    listening = [
        line.split()[1]
        for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]
        if line.split()[3] == "0A"
    ]
    port = f"{parts.ports['hub']['plain']:04X}"
    assert [address for address in listening if address.endswith(f":{port}")] == [f"0100007F:{port}"]


def test_a_person_works_through_all_of_them(parts: Parts, token: str) -> None:
    """The portal and VOSpace ask the hub whose token it is, VOSpace asks the passport, and the hub starts a server."""
    assert parts.ask(f"{parts.url}/services/portal/api/servers", token=token)[0] == 200
    found, text = parts.ask(f"{parts.url}/services/vospace/nodes/home/alice", token=token)
    assert found == 200, text

    begun, text = parts.ask(f"{parts.url}/hub/api/users/alice/server", method="POST", token=token, body={})
    assert begun in {201, 202}, text
    until(
        lambda: (
            json.loads(parts.ask(f"{parts.url}/hub/api/users/alice", token=token)[1])["servers"]
            .get("", {})
            .get("ready")
        ),
        seconds=30,
        what="the server is ready",
    )

    assert parts.ask(f"{parts.url}/user/alice/api") == (200, "the server of alice")
    # Whatever name a browser asks for, it is the server's own that is checked.
    assert parts.ask(f"{parts.url}/user/alice/api", host="example.org") == (200, "the server of alice")


async def test_files_arrive_whole(parts: Parts, token: str) -> None:
    sent = os.urandom(5 * 2**20)
    url = f"{parts.url}/services/vospace/files/home/alice/large.bin"
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as session:
        async with session.put(url, data=io.BytesIO(sent)) as answer:
            assert answer.status == 201, await answer.text()
        async with session.get(url) as answer:
            assert await answer.read() == sent


async def test_a_person_signs_in(parts: Parts, token: str) -> None:
    """The hub exchanges the passport's code and reads its keys, and the portal the hub's code, by TLS."""
    assert token
    async with Person(parts.url, "alice", PASSWORD) as alice:
        assert await alice.sign_in() == (200, "/services/portal/home")


class Impostor(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.asked.append(self.headers.get("Cookie", ""))  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Content-Length", "8")
        self.end_headers()
        self.wfile.write(b"impostor")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def impostor(certificate: Path | None = None, key: Path | None = None) -> Iterator[ThreadingHTTPServer]:
    """Run something that took a server's address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Impostor)
    server.daemon_threads = True
    server.asked = []  # type: ignore[attr-defined]
    server.handle_error = lambda *_: None  # type: ignore[method-assign, assignment]
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def handed(folder: Path, secrets: Path, *, pod: str, namespace: str) -> tuple[Path, Path]:
    """Write what the server in `pod` is handed by the hub."""
    folder.mkdir(exist_ok=True)
    variables = ServerAuthority(secrets).variables(pod=pod, namespace=namespace)
    files = folder / "certificate", folder / "key"
    for file, name in zip(files, (CERTIFICATE, KEY), strict=True):
        file.write_text(variables[name], encoding="ascii")
    return files


@pytest.mark.parametrize("kind", ["plain", "another-person", "another-authority", "a-part-of-the-platform"])
def test_who_took_a_server_s_address_is_sent_nothing(parts: Parts, tmp_path: Path, kind: str) -> None:
    secrets = parts.data.secrets
    if kind == "plain":
        files: tuple[Path | None, Path | None] = (None, None)
    elif kind == "another-person":
        files = handed(tmp_path / "bob", secrets, pod="default-bob", namespace="astro-bob")
    elif kind == "another-authority":
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        make_authority(elsewhere, "platform")
        make_authority(elsewhere, "servers", SERVERS)
        files = handed(tmp_path / "false", elsewhere, pod="default-carol", namespace="astro-carol")
    else:
        # By the platform's authority, but for a server's name: that is not this authority's to say.
        names = [f"*.default-carol.astro-carol.{SERVERS}"]
        make_certificate(secrets, "false", names)
        files = secrets / "false-certificate", secrets / "false-key"
    host = host_of("127.0.0.1", pod="default-carol", namespace="astro-carol")

    with impostor(*files) as server:
        parts.route(f"/user/{kind}", f"https://{host}:{server.server_address[1]}")
        answer, text = parts.ask(f"{parts.url}/user/{kind}/lab")

        assert answer == 503
        assert "impostor" not in text
        # The same of a websocket, whose first request carries cookies as well.
        with socket.create_connection(("127.0.0.1", parts.port), timeout=10) as connection:
            upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\nCookie: a=b\r\n"
            head = f"GET /user/{kind}/api/kernels HTTP/1.1\r\nHost: localhost\r\n".encode()
            connection.sendall(head + upgrade + b"\r\n")
            assert b" 101 " not in connection.recv(64)
        assert server.asked == []  # type: ignore[attr-defined]

    with impostor(*handed(tmp_path / "true", secrets, pod="default-carol", namespace="astro-carol")) as server:
        parts.route(f"/user/{kind}", f"https://{host}:{server.server_address[1]}")
        assert parts.ask(f"{parts.url}/user/{kind}/lab") == (200, "impostor")


def test_a_server_of_before_is_called_as_it_was_started(parts: Parts) -> None:
    with impostor() as server:
        parts.route("/user/before", f"http://127.0.0.1:{server.server_address[1]}")
        assert parts.ask(f"{parts.url}/user/before/lab") == (200, "impostor")


def test_without_an_authority_nobody_is_believed_and_the_proxy_goes_on(parts: Parts, tmp_path: Path) -> None:
    """The error's page is the portal's, who is not believed either."""
    command, variables = parts.proxy()
    port = free_port()
    for option, value in (("--port", port), ("--api-port", free_port())):
        command[command.index(option) + 1] = str(value)
    with (tmp_path / "proxy.log").open("wb") as log:
        proxy = subprocess.Popen(command, env=variables | {"ASTROCLOUD_TRUST": str(tmp_path)}, stdout=log, stderr=log)
    try:

        def answer() -> int:
            try:
                return parts.ask(f"http://127.0.0.1:{port}/")[0]
            except OSError:
                return 0

        assert until(answer, what="the proxy answers") == 503
        assert answer() == 503
        for name in ("platform-ca", "servers-ca"):
            (tmp_path / name).write_bytes((parts.data.secrets / name).read_bytes())
        # It is read when it is there: an upgrade may put another one in its place.
        assert answer() == 200
    finally:
        proxy.terminate()
        proxy.wait(20)


def test_a_server_s_certificate_is_no_part_s(parts: Parts, tmp_path: Path) -> None:
    """Who holds the hub's key for servers cannot be the hub: that authority is for servers' names alone."""
    secrets = parts.data.secrets
    make_certificate(secrets, "claimed", ["localhost"], authority="servers")
    both = Trust((secrets / "platform-ca", secrets / "servers-ca"))

    with impostor(secrets / "claimed-certificate", secrets / "claimed-key") as server:
        connection = http.client.HTTPSConnection("localhost", server.server_address[1], context=both.context())
        with pytest.raises(ssl.SSLCertVerificationError, match="subtree"):
            connection.request("GET", "/")
        connection.close()


def test_an_authority_names_itself_as_it_likes(tmp_path: Path) -> None:
    """Not every program makes that name of the key as we do."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "an observatory's own")])
    authority = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(days=1), now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier(b"of another kind than the usual"), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    for file, content in (
        ("servers-ca", authority.public_bytes(pem)),
        ("servers-ca-key", secret),
        ("platform-ca", b""),
    ):
        (tmp_path / file).write_bytes(content)
    files = handed(tmp_path / "carol", tmp_path, pod="default-carol", namespace="astro-carol")
    host = host_of("127.0.0.1", pod="default-carol", namespace="astro-carol")

    with impostor(*files) as server:
        context = Trust((tmp_path / "servers-ca",)).context()
        with socket.create_connection(("127.0.0.1", server.server_address[1])) as raw:
            context.wrap_socket(raw, server_hostname=host).close()


async def by_aiohttp(url: str, trust: Trust) -> str:
    """Ask as JupyterHub's own client does, which waits for servers."""
    connector = aiohttp.TCPConnector(ssl=trust.context(), resolver=Resolver())
    async with aiohttp.ClientSession(connector=connector) as session, session.get(url) as answer:
        return await answer.text()


async def by_tornado(url: str, trust: Trust) -> str:
    """Ask as the caretaker does, who looks whether a kernel computes."""
    client = SimpleAsyncHTTPClient(force_instance=True, resolver=TornadoResolver())
    return str((await client.fetch(url, ssl_options=trust.context())).body.decode())


@pytest.mark.parametrize("ask", [by_aiohttp, by_tornado])
async def test_the_hub_calls_no_server_that_is_not_the_one_it_started(
    parts: Parts, tmp_path: Path, ask: Callable[[str, Trust], Awaitable[str]]
) -> None:
    """The proxy's route is one thing; whoever looks for a server's state is the hub itself."""
    secrets = parts.data.secrets
    trust = Trust((secrets / "platform-ca", secrets / "servers-ca"))
    with impostor(*handed(tmp_path, secrets, pod="default-bob", namespace="astro-bob")) as server:
        port = server.server_address[1]
        bob, alice = (host_of("127.0.0.1", pod=f"default-{who}", namespace=f"astro-{who}") for who in ("bob", "alice"))

        assert await ask(f"https://{bob}:{port}/", trust) == "impostor"
        with pytest.raises((ssl.SSLCertVerificationError, aiohttp.ClientConnectorCertificateError)):
            await ask(f"https://{alice}:{port}/", trust)
        assert len(server.asked) == 1  # type: ignore[attr-defined]


def test_in_front_of_the_proxy_there_may_be_tls_too_and_for_servers_of_before_none(tmp_path: Path) -> None:
    with running(tmp_path / "data", front=True, also_plain=True) as parts:
        assert parts.url.startswith("https:")
        assert parts.ask(f"{parts.url}/hub/health")[0] == 200
        assert parts.ask(f"https://localhost:{parts.ports['vospace']['bytes']}/services/vospace/nodes")[0] == 404
        with pytest.raises((OSError, http.client.HTTPException)):
            DIRECT.open(f"http://localhost:{parts.port}/hub/health", timeout=10)

        for part, path in (("hub", "/hub/health"), ("vospace", "/services/vospace/health")):
            assert parts.ask(f"http://localhost:{parts.ports[part]['plain']}{path}")[0] == 200
        for part in ("portal", "passport"):
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", parts.ports[part]["plain"]), timeout=10)


def test_servers_of_before_find_the_hub_and_vospace_where_they_were(tmp_path: Path) -> None:
    tls = {"internal": True, "also_plain": True}
    addresses = dict.fromkeys(("proxy", "proxy_api", "hub", "public_url"), "https://x")
    cluster = Cluster.model_validate(
        {"release": "r", "namespace": "n", "services": {}, "database": {"host": "x"}, "tls": tls, **addresses}
    )
    runtime = ClusterRuntime.of(cluster, tmp_path)

    doors = {part: [(door.port, door.files is not None) for door in runtime.doors(part)] for part in PARTS}

    assert doors["hub"] == [(8443, True), (8081, False)]
    assert doors["vospace"] == [(8443, True), (8080, False)]
    assert doors["passport"] == doors["portal"] == [(8443, True)]


@pytest.mark.parametrize("address", ["10.1.2.3", "fd00::1", "2001:db8:1:2:3:4:5:6", "::1"])
def test_a_server_s_name_tells_its_address(address: str) -> None:
    host = host_of(address, pod="default-1a2b3c", namespace="astro-alice")
    assert address_in(host) == address
    assert host.endswith(".default-1a2b3c.astro-alice.server.astrocloud.internal")
    assert not host.startswith("-")


@pytest.mark.parametrize(
    "host", ["sky-hub.platform.svc", "x.default.astro-a.server.astrocloud.internal", "10-1-2-3.example.org"]
)
def test_no_other_name_tells_any(host: str) -> None:
    assert address_in(host) is None


def test_one_machine_has_no_authority_of_its_own() -> None:
    assert NONE.context().verify_mode is ssl.CERT_REQUIRED
