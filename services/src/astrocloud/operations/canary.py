"""A trial session: whether a person who comes now can sign in, start a server, compute, and reach the files.

The trial knows the platform by its address alone and does what a person's browser does, so whatever stands between
the two (proxy, certificate, passport, nodes, file tree) is tried with it.
"""

import asyncio
import contextlib
import json
import secrets
import ssl
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import urljoin, urlsplit

import aiohttp
from aiohttp.client_proto import ResponseHandler
from pydantic import SecretStr
from yarl import URL

from astrocloud.core.errors import PlatformError
from astrocloud.core.trust import NONE, Trust

STEPS: Final = ("sign-in", "start", "cell", "vospace", "stop")
"""What is tried, in this order: sign in, start a server, run a cell that writes a file, read it by VOSpace, stop."""

SECRET: Final = "canary"  # noqa: S105 - the name of a secret
"""The secret that is the password of the trial's account at the embedded passport."""

_CELL_S: Final = 120.0
_CONNECT_S: Final = 10.0
_SHOWN: Final = 300


@dataclass(frozen=True, kw_only=True)
class Trial:
    """How a trial went."""

    at: datetime
    """When it began, UTC."""
    seconds: Mapping[str, float]
    """Step -> seconds, of the steps that were tried."""
    failed: str | None = None
    """The step that failed."""
    reason: str = ""
    """What the platform answered there."""

    def document(self) -> dict[str, Any]:
        """Return the trial as JSON has it."""
        return {
            "at": self.at.isoformat(timespec="seconds"),
            "ok": self.failed is None,
            "seconds": {step: round(seconds, 3) for step, seconds in self.seconds.items()},
            "failed": self.failed,
            "reason": self.reason,
        }

    def error(self) -> PlatformError:
        """Return ``canary-failed`` with step and reason, of a trial in which a step failed."""
        return PlatformError("canary-failed", step=str(self.failed), reason=self.reason)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to try, and as whom.

    Attributes
    ----------
    url
        The platform's address, as people type it.
    username
        The account, which nobody else uses: its server is stopped.
    password
        Its password at the embedded passport; without one `token` is used and the first step left out.
    token
        A bearer token of the account, for platforms that sign people in elsewhere.
    environment
        The environment to start.
    connect_to
        Where the proxy is, called directly: from a cluster's pods the way by what ends TLS may not be open. It is told
        what it would be told there.
    trust
        Whose certificate is taken there, where it is called by TLS.
    start_within_s
        How long a server may take to start, in seconds.
    patience_s
        How long any one answer may take, in seconds.
    certificate
        A file of certificates to trust, for a platform with its own.
    """

    url: str
    username: str
    environment: str
    password: SecretStr | None = None
    token: SecretStr | None = None
    connect_to: str = ""
    trust: Trust = NONE
    start_within_s: float = 300.0
    patience_s: float = 30.0
    certificate: Path | None = None
    language: str = "en"


async def try_out(plan: Plan, *, done: Callable[[str, float], None] = lambda _step, _seconds: None) -> Trial:
    """Try what `plan` says and return how it went; never raises for what the platform does.

    Parameters
    ----------
    done
        Called after each step with its name and its seconds.
    """
    at = datetime.now(UTC)
    seconds: dict[str, float] = {}
    failed, reason = None, ""
    async with _Visitor(plan) as visitor:
        for step in STEPS:
            if step == "sign-in" and plan.password is None:
                continue
            started = time.perf_counter()
            try:
                await getattr(visitor, step.replace("-", "_"))()
            except Exception as err:  # noqa: BLE001 - whatever a platform in trouble answers is the result
                failed, reason = step, _reason(err)
                break
            finally:
                seconds[step] = time.perf_counter() - started
            done(step, seconds[step])
        if failed not in {None, "sign-in", "stop"}:
            with contextlib.suppress(Exception):
                await visitor.stop()
    return Trial(at=at, seconds=seconds, failed=failed, reason=reason)


class _AnswerError(Exception):
    """The platform answered something else than a person needs."""


def _reason(err: Exception) -> str:
    if isinstance(err, _AnswerError):
        return str(err)
    if isinstance(err, TimeoutError):
        return "no answer in time"
    return f"{type(err).__name__}: {err}"[:_SHOWN]


class _Visitor:
    """One browser."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._url = plan.url.rstrip("/")
        self._server = f"{self._url}/user/{plan.username}/"
        self._proof = secrets.token_hex(8)
        self._session: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        trust: ssl.SSLContext | bool = True
        if self._plan.certificate is not None:
            trust = ssl.create_default_context()
            trust.load_verify_locations(str(self._plan.certificate))
            # The certificate itself, not only an authority's.
            trust.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        headers = {"Accept": "text/html,application/json;q=0.9", "Accept-Language": self._plan.language}
        if self._plan.connect_to:
            headers["X-Forwarded-Proto"] = urlsplit(self._url).scheme
        if self._plan.password is None and self._plan.token is not None:
            headers["Authorization"] = f"Bearer {self._plan.token.get_secret_value()}"
        self._session = aiohttp.ClientSession(
            connector=_ToTheProxy(self._plan.connect_to, self._plan.trust)
            if self._plan.connect_to
            else aiohttp.TCPConnector(ssl=trust),
            cookie_jar=aiohttp.CookieJar(unsafe=True),  # an address without a name has cookies, too
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=self._plan.patience_s),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def sign_in(self) -> None:
        """Fill in the passport's form."""
        async with self._session.get(f"{self._url}/hub/login?next=/services/portal/home") as answer:
            page, base = await _text(answer), str(answer.url)
        form = next((each for each in _forms(page, base) if "password" in each.fields), None)
        if form is None or self._plan.password is None:
            raise _AnswerError(f"no form with a password at {urlsplit(base).path}")
        filled = {**form.fields, "username": self._plan.username, "password": self._plan.password.get_secret_value()}
        headers = {"Origin": self._url, "Referer": base}
        async with self._session.post(form.action, data=filled, headers=headers) as answer:
            page = await _text(answer)
            if urlsplit(str(answer.url)).path != "/services/portal/home":
                raise _AnswerError(f"the sign-in ended at {urlsplit(str(answer.url)).path}")

    async def start(self) -> None:
        """Start a server, after the end of one that an earlier trial left behind, and enter it."""
        async with asyncio.timeout(self._plan.start_within_s):
            await self._stop_what_runs()
            status, answer = await self._hub("POST", "/server", {"environment": self._plan.environment})
            if status == 202:
                await self._follow_the_start()
            elif status != 201:
                raise _AnswerError(_sentence(answer))
            async with self._session.get(f"{self._server}lab") as page:
                await _text(page)

    async def cell(self) -> None:
        """Run a cell that writes a file into the home, and look at what it prints."""
        headers = self._on_the_server()
        async with self._session.post(
            f"{self._server}api/kernels", json={"name": "python3"}, headers=headers
        ) as answer:
            kernel = json.loads(await _text(answer))["id"]
        code = f"import pathlib; print(pathlib.Path.home().joinpath('canary.txt').write_text('{self._proof}') + 26)"
        address = f"{self._server}api/kernels/{kernel}/channels".replace("http", "ws", 1)
        async with asyncio.timeout(_CELL_S), self._session.ws_connect(address) as socket:
            said = await _run(socket, code)
        if said.strip() != "42":
            raise _AnswerError(f"the cell said {said[:_SHOWN]!r}, not 42")

    async def vospace(self) -> None:
        """Read the file that the cell wrote."""
        path = f"/services/vospace/files/home/{self._plan.username}/canary.txt"
        async with self._session.get(self._url + path) as answer:
            found = await _text(answer)
        if found != self._proof:
            raise _AnswerError(f"{path} does not hold what the cell wrote")

    async def stop(self) -> None:
        """Stop the server and wait until it is gone."""
        async with asyncio.timeout(self._plan.start_within_s):
            await self._stop_what_runs()

    async def _stop_what_runs(self) -> None:
        status, answer = await self._hub("DELETE", "/server")
        if status not in {202, 204, 400, 404}:  # 400: none runs
            raise _AnswerError(_sentence(answer))
        while True:
            status, person = await self._hub("GET", "")
            if status == 404 or (status == 200 and not person.get("server") and not person.get("pending")):
                return
            await asyncio.sleep(0.1)

    async def _follow_the_start(self) -> None:
        address = f"{self._url}/hub/api/users/{self._plan.username}/server/progress"
        headers = {**self._at_the_hub(), "Accept": "text/event-stream"}
        whole = aiohttp.ClientTimeout(total=None)
        async with self._session.get(address, headers=headers, timeout=whole) as stream:
            async for event in _events(stream):
                if event.get("failed"):
                    raise _AnswerError(str(event.get("message", ""))[:_SHOWN])
                if event.get("ready"):
                    return
        raise _AnswerError("the progress ended before the server was ready")

    async def _hub(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        address = f"{self._url}/hub/api/users/{self._plan.username}{path}"
        async with self._session.request(method, address, json=body, headers=self._at_the_hub()) as answer:
            text = await answer.text()
        return answer.status, json.loads(text) if text.startswith(("{", "[")) else text

    def _at_the_hub(self) -> dict[str, str]:
        return {"Accept": "application/json", "Referer": f"{self._url}/hub/home", **self._xsrf(f"{self._url}/hub/")}

    def _on_the_server(self) -> dict[str, str]:
        return {"Accept": "application/json", **self._xsrf(self._server)}

    def _xsrf(self, address: str) -> dict[str, str]:
        found = self._session.cookie_jar.filter_cookies(URL(address)).get("_xsrf")
        return {"X-XSRFToken": found.value} if found else {}


class _ToTheProxy(aiohttp.BaseConnector):
    """Connects to one place, in the way that place wants, whatever the address of a request says."""

    def __init__(self, url: str, trust: Trust) -> None:
        super().__init__()
        place = urlsplit(url)
        self._tls = trust.context() if place.scheme == "https" else None
        self._place = (place.hostname or "", place.port or (443 if self._tls else 80))

    async def _create_connection(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Any],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - the base class's
    ) -> ResponseHandler:
        """Return a new connection; `aiohttp.BaseConnector` keeps and reuses it."""
        async with asyncio.timeout(timeout.sock_connect or _CONNECT_S):
            _, protocol = await self._loop.create_connection(self._factory, *self._place, ssl=self._tls)
        return protocol


async def _text(answer: aiohttp.ClientResponse) -> str:
    """Return the text of a good answer; raise what a bad one says."""
    text = await answer.text()
    if answer.status >= 400:
        try:
            said = _sentence(json.loads(text))
        except ValueError:
            said = ""
        path = urlsplit(str(answer.url)).path
        raise _AnswerError(f"{answer.status} at {path}" + (f": {said}" if said else ""))
    return text


def _sentence(answer: Any) -> str:
    """Return what a problem document, or the hub's own kind of it, says."""
    if isinstance(answer, dict):
        return str(answer.get("detail") or answer.get("message") or answer)[:_SHOWN]
    return str(answer)[:_SHOWN]


async def _events(stream: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    async for line in stream.content:
        if line.startswith(b"data:"):
            yield json.loads(line[5:])


async def _run(socket: aiohttp.ClientWebSocketResponse, code: str) -> str:
    """Run `code` in the kernel behind `socket` and return what it prints (Jupyter messaging 5.3)."""
    message = uuid.uuid4().hex
    header = {"msg_id": message, "msg_type": "execute_request", "username": "", "session": uuid.uuid4().hex}
    header |= {"version": "5.3", "date": datetime.now(UTC).isoformat()}
    content = {"code": code, "silent": False, "store_history": False, "user_expressions": {}, "allow_stdin": False}
    await socket.send_json({
        "header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell"
    })  # fmt: skip
    said, waiting = "", {"execute_reply", "idle"}
    while waiting:
        received = json.loads(await socket.receive_str())
        if received["parent_header"].get("msg_id") != message:
            continue
        kind, content = received["msg_type"], received["content"]
        if kind == "stream":
            said += content["text"]
        elif kind == "error":
            raise _AnswerError(f"{content['ename']}: {content['evalue']}"[:_SHOWN])
        waiting -= {kind, content.get("execution_state", "")}
    return said


@dataclass
class _Form:
    action: str
    fields: dict[str, str]


class _FormReader(HTMLParser):
    def __init__(self, base: str) -> None:
        super().__init__()
        self.found: list[_Form] = []
        self._base = base

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "form":
            self.found.append(_Form(urljoin(self._base, values.get("action") or self._base), {}))
        elif tag == "input" and self.found and values.get("name") and values.get("type") not in {"checkbox", "radio"}:
            self.found[-1].fields[str(values["name"])] = values.get("value") or ""


def _forms(page: str, base: str) -> list[_Form]:
    reader = _FormReader(base)
    reader.feed(page)
    return reader.found
