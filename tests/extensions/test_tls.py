"""A person's server that is called by TLS: with the certificate that it was handed, behind the proxy that checks it."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from astrocloud_hub.hosts import host_of
from astrocloud_hub.spawners.kube.certificates import ServerAuthority
from tests.extensions.servers import (
    DEADLINE_S,
    OTHER_TOKEN,
    OWNER,
    OWNER_TOKEN,
    Server,
    StandInHub,
    free_port,
    server_environ,
    stand_in_hub,
    stop,
    wait_for,
)
from tests.hub.harness import proxy_script
from tests.repository.files import REPOSITORY
from tests.support.certificates import SERVERS, make_authority, make_certificate

POD, NAMESPACE = "default-1a2b3c", f"astro-{OWNER}"

WATCH = """
import os
import ssl

load = ssl.SSLContext.load_default_certs

def watched(self, *purpose):
    with open(os.environ["TEST_AUTHORITIES_READ"], "a") as file:
        file.write("once more\\n")
    return load(self, *purpose)

ssl.SSLContext.load_default_certs = watched
"""
"""In the server: notes when it reads all authorities that this machine knows."""


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The platform's authorities, and the certificate of what stands in for the hub and VOSpace."""
    folder = tmp_path_factory.mktemp("keys")
    make_authority(folder, "platform")
    make_authority(folder, "servers", SERVERS)
    make_certificate(folder, "hub", ["localhost"])
    return folder


@pytest.fixture(scope="module")
def tls_hub(keys: Path) -> Iterator[StandInHub]:
    with stand_in_hub() as hub:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(keys / "hub-certificate", keys / "hub-key")
        hub.socket = context.wrap_socket(hub.socket, server_side=True)
        yield hub


@pytest.fixture(scope="module", params=["lean", "stock"])
def server(
    request: pytest.FixtureRequest,
    lab_python: Path,
    tls_hub: StandInHub,
    keys: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Server]:
    """A server as a pod has it, seen through the proxy."""
    folder = tmp_path_factory.mktemp("server")
    home = folder / "home"
    home.mkdir()
    port = free_port()
    handed = ServerAuthority(keys).variables(pod=POD, namespace=NAMESPACE)
    environ = server_environ(home, 0, port) | handed
    hub = f"https://localhost:{tls_hub.server_address[1]}"
    environ |= {
        name: value.replace("http://127.0.0.1:0", hub).replace("http://", "https://") for name, value in environ.items()
    }
    environ |= {"ASTROCLOUD_VOSPACE_URL": f"{hub}/services/vospace", "ASTROCLOUD_VOSPACE": "astro~vospace"}
    environ["ASTROCLOUD_STOCK_SERVER"] = "1" if request.param == "stock" else "0"
    (folder / "sitecustomize.py").write_text(WATCH, encoding="utf-8")
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    environ |= {"PYTHONPATH": os.pathsep.join(paths), "TEST_AUTHORITIES_READ": str(folder / "authorities-read")}
    log_path = folder / "server.log"
    target = f"https://{host_of('127.0.0.1', pod=POD, namespace=NAMESPACE)}:{port}"
    with log_path.open("wb") as log, proxy(keys, target, log_path.with_name("proxy.log")) as through:
        command = [str(lab_python), "-m", "astrocloud_lab.serve", "--allow-root"]
        process = subprocess.Popen(command, env=environ, cwd=folder, stdout=log, stderr=log, start_new_session=True)
        one = Server(process, through, home, log_path)
        one.own_port = port  # type: ignore[attr-defined]
        try:
            wait_for(lambda: _answers(through, process), "the server answers")
            assert ("starting the stock server" in one.log()) is (request.param == "stock")
            one.is_lean = request.param == "lean"  # type: ignore[attr-defined]
            yield one
        except BaseException:
            print(one.log()[-6000:])
            raise
        finally:
            stop(process)


class proxy:  # noqa: N801 - a context manager
    """The proxy of a cluster, with one server."""

    def __init__(self, keys: Path, target: str, log: Path) -> None:
        self._keys, self._target, self._log = keys, target, log

    def __enter__(self) -> int:
        script = proxy_script()
        assert script, "configurable-http-proxy is not installed: npm ci in hub/proxy"
        port = free_port()
        command = ["node", "--require", str(REPOSITORY / "hub/proxy/trust.cjs"), script, "--ip", "127.0.0.1"]
        command += ["--port", str(port), "--api-ip", "127.0.0.1", "--api-port", str(free_port())]
        command += ["--default-target", self._target, "--log-level", "warn"]
        environ = {**os.environ, "ASTROCLOUD_TRUST": str(self._keys), "CONFIGPROXY_AUTH_TOKEN": "t"}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, env=environ, stdout=log, stderr=log, start_new_session=True)
        return port

    def __exit__(self, *_: object) -> None:
        stop(self._process)


def _answers(port: int, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, "the server ended"
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(f"GET /user/{OWNER}/api HTTP/1.0\r\nHost: x\r\n\r\n".encode())
            connection.settimeout(DEADLINE_S)
            return b" 200 " in connection.recv(64)
    except ConnectionRefusedError:
        return False


async def test_a_cell_runs_through_the_proxy(server: Server) -> None:
    async with server.kernel() as kernel:
        assert await kernel.run("print(6 * 7)") == "42"


async def test_the_hub_is_asked_by_tls_whose_token_it_is(server: Server, tls_hub: StandInHub) -> None:
    async with server.client(OTHER_TOKEN) as client, client.get("api/status") as answer:
        assert answer.status == 403
    async with server.client(OWNER_TOKEN) as client, client.get("api/status") as answer:
        assert answer.status == 200
    assert any(path.endswith("/user") for path in tls_hub.asked)


async def test_it_answers_nothing_without_tls(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.own_port), timeout=10) as connection:  # type: ignore[attr-defined]
        connection.sendall(f"GET /user/{OWNER}/api HTTP/1.0\r\nHost: x\r\n\r\n".encode())
        connection.settimeout(10)
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(64) == b""


async def test_browsers_are_asked_for_no_certificate(server: Server, keys: Path) -> None:
    context = ssl.create_default_context(cafile=keys / "servers-ca")
    with (
        socket.create_connection(("127.0.0.1", server.own_port), timeout=10) as raw,  # type: ignore[attr-defined]
        context.wrap_socket(raw, server_hostname=host_of("127.0.0.1", pod=POD, namespace=NAMESPACE)) as wrapped,
    ):
        wrapped.sendall(f"GET /user/{OWNER}/api HTTP/1.0\r\nHost: x\r\n\r\n".encode())
        assert b" 200 " in wrapped.recv(64)


async def test_no_start_waits_for_the_authorities_of_the_machine(server: Server) -> None:
    """Reading all of them takes a tenth of a second, and it is for whom a server never calls."""
    async with server.client(OWNER_TOKEN) as client, client.get("api/status") as answer:
        assert answer.status == 200
    read = (server.log_path.parent / "authorities-read").exists()
    assert read is not server.is_lean  # type: ignore[attr-defined]


async def test_kernels_have_no_key_and_believe_what_they_did(server: Server) -> None:
    async with server.kernel() as kernel:
        handed = await kernel.value("[name for name in __import__('os').environ if name.startswith('ASTROCLOUD_TLS')]")
        assert handed == []
        changed = "[name for name in ('SSL_CERT_FILE', 'SSL_CERT_DIR', 'REQUESTS_CA_BUNDLE', 'CURL_CA_BUNDLE') if"
        assert await kernel.value(f"{changed} name in __import__('os').environ]") == []
        folder = "os.path.dirname(os.environ['ASTROCLOUD_AUTHORITY'])"
        assert await kernel.run(f"import os; print(oct(os.stat({folder}).st_mode & 0o777))") == "0o700"


async def test_vospace_is_reached_by_tls_and_nobody_else_in_its_place(
    server: Server, tls_hub: StandInHub, keys: Path, tmp_path: Path
) -> None:
    # What stands in for VOSpace knows no files; that it was asked is what counts.
    ask = (
        "import fsspec\ntry:\n    fsspec.filesystem('vos', retries=0, skip_instance_cache=True).ls('/home')\n"
        "except Exception as error:\n    print(error)"
    )
    async with server.kernel() as kernel:
        said = await kernel.run(ask)
        assert "cannot be reached" not in said
        assert any("/services/vospace/" in path for path in tls_hub.asked)

        make_authority(tmp_path, "platform")
        make_certificate(tmp_path, "false", ["localhost"])
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / "false-certificate", tmp_path / "false-key")
        with stand_in_hub() as impostor:
            impostor.socket = context.wrap_socket(impostor.socket, server_side=True)
            address = f"https://localhost:{impostor.server_address[1]}/services/vospace"
            said = await kernel.run(f"import os; os.environ['ASTROCLOUD_VOSPACE_URL'] = {json.dumps(address)}\n{ask}")
            assert "ClientConnectorCertificateError" in said
            assert impostor.asked == []
