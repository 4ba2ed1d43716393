"""Real servers for the tests of the package that runs inside them."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

import aiohttp

OWNER = "ada"
OWNER_TOKEN = "token-of-the-owner"
OTHER_TOKEN = "token-of-another"
DEADLINE_S = 60.0
T = TypeVar("T")


def wait_for(condition: Callable[[], T], what: str) -> T:
    """Return the first true value of ``condition``."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError(f"not within {DEADLINE_S} s: {what}")


class _HubHandler(BaseHTTPRequestHandler):
    """Answers what a server asks of its hub."""

    protocol_version = "HTTP/1.1"

    def _answer(self, status: int, document: Any) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("X-JupyterHub-Version", "6.1.1")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        if self.path != "/hub/api/user":
            self._answer(200, {"version": "6.1.1"})
            return
        token = self.headers.get("Authorization", "").partition(" ")[2]
        users = {OWNER_TOKEN: (OWNER, [f"access:servers!server={OWNER}/"]), OTHER_TOKEN: ("mallory", [])}
        if token not in users:
            self._answer(403, {"status": 403, "message": "Forbidden"})
            return
        name, scopes = users[token]
        self._answer(200, {"name": name, "kind": "user", "admin": False, "groups": [], "scopes": scopes})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.posted.append((self.path, json.loads(body or b"null")))  # type: ignore[attr-defined]
        self._answer(200, {})

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        return


class StandInHub(ThreadingHTTPServer):
    """A hub that knows two people, one of whom may use the server."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _HubHandler)
        self.asked: list[str] = []
        self.posted: list[tuple[str, Any]] = []


@contextmanager
def stand_in_hub() -> Iterator[StandInHub]:
    """Run a stand-in hub."""
    hub = StandInHub()
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        thread.join()
        hub.server_close()


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Server:
    """A person's server that runs."""

    process: subprocess.Popen[bytes]
    port: int
    home: Path
    log_path: Path
    sessions: list[aiohttp.ClientSession] = field(default_factory=list)

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}/user/{OWNER}/"

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    @asynccontextmanager
    async def client(self, token: str | None = OWNER_TOKEN, **headers: str) -> AsyncIterator[aiohttp.ClientSession]:
        """Give a client, signed in by a token."""
        if token is not None:
            headers["Authorization"] = f"token {token}"
        async with aiohttp.ClientSession(self.base, headers=headers) as session:
            yield session

    @asynccontextmanager
    async def kernel(self, name: str = "python3", path: str | None = None) -> AsyncIterator[Kernel]:
        """Give a new kernel and shut it down afterwards."""
        async with self.client() as client:
            if path is None:
                async with client.post("api/kernels", json={"name": name}) as answer:
                    assert answer.status == 201, await answer.text()
                    model = await answer.json()
            else:
                document = {"path": path, "type": "notebook", "name": "", "kernel": {"name": name}}
                async with client.post("api/sessions", json=document) as answer:
                    assert answer.status == 201, await answer.text()
                    model = (await answer.json())["kernel"]
            kernel = Kernel(client, model["id"])
            await kernel.connect()
            try:
                yield kernel
            finally:
                await kernel.close()
                async with client.delete(f"api/kernels/{kernel.id}") as answer:
                    assert answer.status in {204, 404}


class CellError(Exception):
    """A cell raised; the arguments are the exception's name and text."""


@dataclass
class Result:
    """What a cell gave."""

    text: str = ""
    data: list[dict[str, Any]] = field(default_factory=list)
    error: tuple[str, str] | None = None


class Kernel:
    """A kernel, through the websocket of its server."""

    def __init__(self, client: aiohttp.ClientSession, kernel_id: str) -> None:
        self._client = client
        self.id = kernel_id
        self._socket: Any = None

    async def connect(self) -> None:
        self._socket = await self._client.ws_connect(
            f"api/kernels/{self.id}/channels?session_id={uuid.uuid4().hex}", max_msg_size=0
        )

    async def close(self) -> None:
        await self._socket.close()

    async def send(self, code: str, kind: str = "execute_request", content: dict[str, Any] | None = None) -> str:
        """Send a request and return its id."""
        message_id = uuid.uuid4().hex
        cell = {"code": code, "silent": False, "store_history": True, "allow_stdin": False}
        header = {"msg_id": message_id, "username": OWNER, "session": uuid.uuid4().hex, "version": "5.3"}
        await self._socket.send_json(
            {
                "header": header | {"msg_type": kind},
                "parent_header": {},
                "metadata": {},
                "content": content or cell,
                "channel": "control" if kind == "debug_request" else "shell",
                "buffers": [],
            }
        )
        return message_id

    async def next_message(self) -> dict[str, Any]:
        message: dict[str, Any] = await self._socket.receive_json(timeout=DEADLINE_S)
        return message

    async def result(self, message_id: str) -> Result:
        """Collect the outputs of a cell until the kernel is idle again."""
        result = Result()
        while True:
            message = await self.next_message()
            if message["parent_header"].get("msg_id") != message_id:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "stream":
                result.text += content["text"]
            elif kind in {"display_data", "execute_result"}:
                result.data.append(content["data"])
            elif kind == "error":
                result.error = (content["ename"], content["evalue"])
            elif kind == "status" and content["execution_state"] == "idle":
                return result

    async def wait_for_state(self, state: str) -> None:
        """Wait until the server reports a state of the kernel."""
        while True:
            message = await self.next_message()
            if message["msg_type"] == "status" and message["content"]["execution_state"] == state:
                return

    async def run(self, code: str) -> str:
        """Run a cell and return what it printed; raise :class:`CellError` for its exception."""
        result = await self.result(await self.send(code))
        if result.error:
            raise CellError(*result.error)
        return result.text.strip()

    async def value(self, expression: str) -> Any:
        """Return the value of an expression that JSON can carry."""
        return json.loads(await self.run(f"import json as _json; print(_json.dumps({expression}))"))

    async def post(self, action: str) -> None:
        """Ask the server to ``interrupt`` or ``restart`` the kernel."""
        async with self._client.post(f"api/kernels/{self.id}/{action}") as answer:
            assert answer.status in {200, 204}, await answer.text()


def server_environ(home: Path, hub_port: int, port: int) -> dict[str, str]:
    """Return the environment that a spawner gives."""
    hub = f"http://127.0.0.1:{hub_port}/hub/"
    scopes = json.dumps([f"access:servers!server={OWNER}/"])
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "JUPYTERHUB_API_TOKEN": "token-of-the-server",
        "JUPYTERHUB_CLIENT_ID": f"jupyterhub-user-{OWNER}",
        "JUPYTERHUB_HOST": "",
        "JUPYTERHUB_OAUTH_CALLBACK_URL": f"/user/{OWNER}/oauth_callback",
        "JUPYTERHUB_OAUTH_SCOPES": scopes,
        "JUPYTERHUB_OAUTH_ACCESS_SCOPES": scopes,
        "JUPYTERHUB_USER": OWNER,
        "JUPYTERHUB_SERVER_NAME": "",
        "JUPYTERHUB_API_URL": hub + "api",
        "JUPYTERHUB_ACTIVITY_URL": hub + f"api/users/{OWNER}/activity",
        "JUPYTERHUB_BASE_URL": "/",
        "JUPYTERHUB_SERVICE_PREFIX": f"/user/{OWNER}/",
        "JUPYTERHUB_SERVICE_URL": f"http://127.0.0.1:{port}/user/{OWNER}/",
    }


def _answers(port: int, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, "the server ended"
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(f"GET /user/{OWNER}/api HTTP/1.0\r\nHost: x\r\n\r\n".encode())
            connection.settimeout(DEADLINE_S)
            return b" 200 " in connection.recv(64)
    except ConnectionRefusedError:
        return False


@contextmanager
def running(
    python: Path, folder: Path, hub: StandInHub, *, arguments: tuple[str, ...] = (), **environ: str
) -> Iterator[Server]:
    """Run a server of the package with the stand-in hub."""
    home = folder / "home"
    home.mkdir(parents=True, exist_ok=True)
    port = free_port()
    log_path = folder / f"server-{port}.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [str(python), "-m", "astrocloud_lab.serve", "--allow-root", *arguments],
            env=server_environ(home, hub.server_address[1], port) | environ,
            cwd=folder,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    server = Server(process, port, home, log_path)
    try:
        wait_for(lambda: _answers(port, process), "the server answers")
        yield server
    except BaseException:
        print(server.log()[-6000:])
        raise
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a server as a spawner does."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def descendants(pid: int) -> list[int]:
    """Return the pids below ``pid``."""
    found: list[int] = []
    queue = [pid]
    while queue:
        one = queue.pop()
        try:
            children = Path(f"/proc/{one}/task/{one}/children").read_text().split()
        except OSError:
            continue
        found += [int(child) for child in children]
        queue += [int(child) for child in children]
    return found


def state(pid: int) -> str:
    """Return a process's state letter, empty if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def kernel_parent_pid(server: Server) -> int:
    """Return the pid of the process that forks the kernels."""

    def found() -> int:
        for pid in descendants(server.process.pid):
            try:
                command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
                parent = int(re.search(r"PPid:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1])  # type: ignore[index]
            except OSError:
                continue
            leads_group = os.getpgid(pid) == pid != os.getsid(pid)
            if "kernels.forkserver" in command and parent == server.process.pid and leads_group:
                return pid
        return 0

    return wait_for(found, "a kernel parent")
