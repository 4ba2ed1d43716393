"""A person who uses a platform over HTTP as a browser would: cookies, forms, redirects, websockets."""

import asyncio
import json
import time
import uuid
from dataclasses import dataclass, field
from html.parser import HTMLParser
from types import TracebackType
from typing import Any, Self
from urllib.parse import urljoin, urlsplit

import aiohttp


@dataclass
class Form:
    """A form of a page."""

    action: str
    method: str
    fields: dict[str, str] = field(default_factory=dict)


class _Forms(HTMLParser):
    def __init__(self, base: str) -> None:
        super().__init__()
        self.found: list[Form] = []
        self._base = base
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "form":
            action = urljoin(self._base, values.get("action") or self._base)
            self.found.append(Form(action, (values.get("method") or "get").lower()))
            self._inside = True
        elif tag == "input" and self._inside and values.get("name"):
            chosen = values.get("type") not in {"checkbox", "radio"} or "checked" in values
            if chosen:
                self.found[-1].fields[str(values["name"])] = values.get("value") or ""

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._inside = False


def forms(page: str, base: str) -> list[Form]:
    """Return the forms of `page`, which was found at `base`."""
    parser = _Forms(base)
    parser.feed(page)
    return parser.found


class Person:
    """One person and their browser.

    Parameters
    ----------
    url
        The platform's address.
    username, password
        How they sign in.
    """

    def __init__(self, url: str, username: str, password: str) -> None:
        self.url = url
        self.username = username
        self.password = password
        self.session: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        self.session = aiohttp.ClientSession(
            connector=self.connector(),
            cookie_jar=aiohttp.CookieJar(unsafe=True),
            headers={"Accept": "text/html,application/json;q=0.9", "Accept-Language": "en"},
            timeout=aiohttp.ClientTimeout(total=120),
        )
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        await self.session.close()

    def connector(self) -> aiohttp.BaseConnector | None:
        """Return how the browser connects, where that is not by the machine's names and authorities."""
        return None

    def cookie(self, path: str, name: str) -> str:
        """Return the value of a cookie that would be sent to `path`."""
        found = self.session.cookie_jar.filter_cookies(_yarl(self.url + path))
        return found[name].value if name in found else ""

    async def sign_in(self, *, following: str = "/hub/login?next=/services/portal/home") -> tuple[int, str]:
        """Sign in by the passport's form; return the status and the path where that ended."""
        async with self.session.get(self.url + following) as answer:
            page, base = await answer.text(), str(answer.url)
        form = next(f for f in forms(page, base) if "password" in f.fields)
        filled = {**form.fields, "username": self.username, "password": self.password}
        headers = {"Origin": self.url, "Referer": base}
        async with self.session.post(form.action, data=filled, headers=headers) as answer:
            await answer.read()
            return answer.status, urlsplit(str(answer.url)).path

    async def hub_api(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Call the hub's REST API as the hub's own pages do."""
        headers = {
            "X-XSRFToken": self.cookie("/hub/", "_xsrf"),
            "Referer": f"{self.url}/hub/home",
            "Accept": "application/json",
        }
        address = f"{self.url}/hub/api{path}"
        async with self.session.request(method, address, json=body, headers=headers) as answer:
            text = await answer.text()
            return answer.status, json.loads(text) if text.startswith(("{", "[")) else text

    async def start_server(self, name: str = "", **options: str) -> None:
        """Ask the hub for a server and follow its progress to the end, as the waiting page does."""
        status, answer = await self.hub_api("POST", f"/users/{self.username}/servers/{name}", options)
        assert status in {201, 202}, answer
        if status == 201:
            return
        address = f"{self.url}/hub/api/users/{self.username}/servers/{name}/progress"
        headers = {"Accept": "text/event-stream", "X-XSRFToken": self.cookie("/hub/", "_xsrf")}
        async with self.session.get(address, headers=headers) as stream:
            async for line in stream.content:
                if line.startswith(b"data:"):
                    event = json.loads(line[5:])
                    assert not event.get("failed"), event
                    if event.get("ready"):
                        return
        raise AssertionError("the progress ended before the server was ready")

    async def reason_of_end(self, name: str = "") -> str:
        """Return why a server ended, as the portal tells it; empty when it runs or there never was one."""
        async with self.session.get(f"{self.url}/services/portal/api/servers") as answer:
            assert answer.status == 200, await answer.text()
            ends = {server["name"]: server["last_end"] for server in await answer.json()}
        return str((ends.get(name) or {}).get("reason", ""))

    async def enter_server(self, name: str = "") -> str:
        """Open the server's page, signing in at it by the hub; return the server's base address."""
        base = f"{self.url}/user/{self.username}/{name + '/' if name else ''}"
        async with self.session.get(base + "lab") as answer:
            assert answer.status == 200, (answer.status, await answer.text())
            await answer.read()
        return base

    async def server_api(self, base: str, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Call the REST API of the server at `base` as JupyterLab does."""
        headers = {"X-XSRFToken": self.cookie(urlsplit(base).path, "_xsrf"), "Accept": "application/json"}
        async with self.session.request(method, base + path, json=body, headers=headers) as answer:
            text = await answer.text()
            return answer.status, json.loads(text) if text.startswith(("{", "[")) else text

    async def start_kernel(self, base: str, *, path: str = "") -> str:
        """Start a kernel on the server at `base`; return its id."""
        body = {"name": "python3", **({"path": path} if path else {})}
        status, answer = await self.server_api(base, "POST", "api/kernels", body)
        assert status == 201, answer
        kernel: str = answer["id"]
        return kernel

    async def run_cell(self, base: str, kernel: str, code: str, *, within_s: float = 60) -> dict[str, Any]:
        """Run `code` in `kernel`; return ``text`` (streams and results), ``error`` and ``seconds``."""
        address = base.replace("http", "ws", 1) + f"api/kernels/{kernel}/channels"
        started = time.perf_counter()
        async with asyncio.timeout(within_s), self.session.ws_connect(address, max_msg_size=0) as socket:
            message = uuid.uuid4().hex
            header = {
                "msg_id": message,
                "msg_type": "execute_request",
                "username": "",
                "session": uuid.uuid4().hex,
                "version": "5.3",
                "date": "2026-01-01T00:00:00Z",
            }
            content = {
                "code": code,
                "silent": False,
                "store_history": True,
                "user_expressions": {},
                "allow_stdin": False,
            }
            await socket.send_json(
                {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell"}
            )
            return await _collect(socket, message, started)


async def _collect(socket: aiohttp.ClientWebSocketResponse, message: str, started: float) -> dict[str, Any]:
    text, error, replied, idle = "", "", False, False
    while not (replied and idle):
        received = json.loads(await socket.receive_str())
        if received["parent_header"].get("msg_id") != message:
            continue
        kind, content = received["msg_type"], received["content"]
        if kind == "stream":
            text += content["text"]
        elif kind in {"execute_result", "display_data"}:
            text += content["data"].get("text/plain", "")
        elif kind == "error":
            error = f"{content['ename']}: {content['evalue']}"
        elif kind == "execute_reply":
            replied = True
        elif kind == "status" and content["execution_state"] == "idle":
            idle = True
    return {"text": text, "error": error, "seconds": time.perf_counter() - started}


def _yarl(address: str) -> Any:
    from yarl import URL

    return URL(address)
