"""A passport on a real database behind a real server, and a hub that answers as far as the passport asks."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import aiohttp
from aiohttp import web
from sqlalchemy import Engine
from yarl import URL

from astrocloud.config import Config
from astrocloud.core.database import open_database, sqlite_url, upgrade_database
from astrocloud.core.layout import DataFolder
from astrocloud.core.runtime import Runtime
from astrocloud.core.secrets import SecretFiles
from astrocloud.core.web import build_app
from astrocloud.passport.directory import Directory
from astrocloud.passport.factory import build_passport, open_directory
from astrocloud.passport.keys import SigningKeys
from astrocloud.passport.storage import Storage

PASSWORD = "correct horse battery"
PREFIX = "/services/passport"


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **delta: float) -> None:
        self.now += timedelta(**delta)


@dataclass
class FakeHub:
    """JupyterHub's REST API, as far as the passport asks for it."""

    users: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Username -> servers (name -> model) and tokens (id -> model)."""
    bearers: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Token -> who it is for."""
    away: bool = False
    asked_in_vain: int = 0
    slow_stops: int = 0
    """How many more times a server that is stopped is still there when asked."""
    port: int = 0

    def add(self, name: str, *, servers: tuple[str, ...] = (), tokens: dict[str, str | None] | None = None) -> None:
        self.users[name] = {
            "servers": {server: {"name": server, "ready": True, "pending": None} for server in servers},
            "tokens": {key: {"id": key, "session_id": session} for key, session in (tokens or {}).items()},
        }

    def give_token(self, token: str, name: str, *, kind: str = "user", scopes: tuple[str, ...] = ()) -> None:
        self.bearers[token] = {"name": name, "kind": kind, "admin": True, "groups": [], "scopes": list(scopes)}

    def routes(self) -> list[web.RouteDef]:
        users = "/hub/api/users/{name}"
        return [
            web.get("/hub/api/user", self._who),
            web.get(users, self._user),
            web.delete(users, self._delete),
            web.delete(users + "/server", self._stop),
            web.delete(users + "/servers/{server}", self._stop),
            web.get(users + "/tokens", self._tokens),
            web.delete(users + "/tokens/{token}", self._revoke),
        ]

    def _of(self, request: web.Request) -> dict[str, Any]:
        if self.away:
            self.asked_in_vain += 1
            raise web.HTTPServiceUnavailable
        if request.match_info["name"] not in self.users:
            raise web.HTTPNotFound
        return self.users[request.match_info["name"]]

    async def _who(self, request: web.Request) -> web.Response:
        token = request.headers.get("Authorization", "").split()[-1]
        if token not in self.bearers:
            raise web.HTTPForbidden
        return web.json_response(self.bearers[token])

    async def _user(self, request: web.Request) -> web.Response:
        user = self._of(request)
        if self.slow_stops > 0:
            self.slow_stops -= 1
        else:
            user["servers"] = {name: s for name, s in user["servers"].items() if s["pending"] != "stop"}
        return web.json_response({"name": request.match_info["name"], "servers": user["servers"]})

    async def _stop(self, request: web.Request) -> web.Response:
        servers = self._of(request)["servers"]
        name = request.match_info.get("server", "")
        if name not in servers:
            raise web.HTTPNotFound
        if servers[name]["pending"]:
            raise web.HTTPBadRequest
        servers[name] |= {"ready": False, "pending": "stop"}
        return web.Response(status=202)

    async def _tokens(self, request: web.Request) -> web.Response:
        return web.json_response({"api_tokens": list(self._of(request)["tokens"].values())})

    async def _revoke(self, request: web.Request) -> web.Response:
        self._of(request)["tokens"].pop(request.match_info["token"], None)
        return web.Response(status=204)

    async def _delete(self, request: web.Request) -> web.Response:
        self._of(request)
        del self.users[request.match_info["name"]]
        return web.Response(status=204)


class _Forms(HTMLParser):
    """The forms of a page: action -> the fields they would send."""

    def __init__(self) -> None:
        super().__init__()
        self.forms: dict[str, dict[str, str]] = {}
        self._action = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "form":
            self._action = given.get("action") or ""
            self.forms[self._action] = {}
        elif tag == "input" and given.get("name") and self._action:
            chosen = given.get("type") != "checkbox" or "checked" in given
            self.forms[self._action].update({str(given["name"]): given.get("value") or ""} if chosen else {})


@dataclass
class Page:
    """What a browser got."""

    status: int
    url: str
    text: str
    headers: Any

    @property
    def location(self) -> str:
        return str(self.headers.get("Location", ""))

    @property
    def forms(self) -> dict[str, dict[str, str]]:
        parser = _Forms()
        parser.feed(self.text)
        return parser.forms


class Browser:
    """A person's browser, without scripts."""

    def __init__(self, base: str, session: aiohttp.ClientSession) -> None:
        self.base = base
        self.session = session
        self.headers = {"Accept": "text/html"}

    async def get(self, path: str, **headers: str) -> Page:
        return await self._send("GET", path, headers=headers)

    async def post(self, path: str, data: Any, **headers: str) -> Page:
        return await self._send("POST", path, data=data, headers=headers)

    async def _send(self, method: str, path: str, *, data: Any = None, headers: dict[str, str]) -> Page:
        sent = {**self.headers, **{name.replace("_", "-"): value for name, value in headers.items()}}
        address = urljoin(self.base, path)
        async with self.session.request(method, address, data=data, headers=sent, allow_redirects=False) as got:
            return Page(got.status, str(got.url), await got.text(), got.headers.copy())

    async def fill(self, page: Page, action: str, **values: str) -> Page:
        """Send the form `action` of `page` with `values` typed into it."""
        return await self.post(action, {**page.forms[action], **values})

    async def sign_in(self, username: str, password: str = PASSWORD, *, next_path: str = "/") -> Page:
        page = await self.get(f"{PREFIX}/sign-in?next={next_path}")
        return await self.fill(page, f"{PREFIX}/sign-in", username=username, password=password)

    def cookies(self) -> dict[str, str]:
        found = self.session.cookie_jar.filter_cookies(URL(urljoin(self.base, PREFIX + "/")))
        return {name: morsel.value for name, morsel in found.items()}


@dataclass
class Platform:
    """A running passport."""

    base: str
    directory: Directory
    hub: FakeHub
    clock: Clock
    secrets: SecretFiles
    engine: Engine
    new_browser: Callable[[], Browser]

    @property
    def issuer(self) -> str:
        return self.base + PREFIX


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def _serving(app: web.Application, port: int) -> AsyncIterator[None]:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield
    finally:
        await runner.cleanup()


def prepare(folder: Path) -> None:
    """Make a data folder with one administrator, ``ada``, one person more, ``bob``, and signing keys."""
    data = DataFolder(folder)
    data.make()
    clock = Clock()
    directory = open_directory(Config(), data, clock=clock)
    directory.add("ada", admin=True, password=PASSWORD)
    directory.add("bob", password=PASSWORD)
    engine = open_database(sqlite_url(data.databases))
    secret = SecretFiles(data.secrets).get("passport-keys")
    SigningKeys(storage=Storage(engine), secret=secret, lifetime_s=30 * 86400, clock=clock).rotate()
    engine.dispose()


@asynccontextmanager
async def run_platform(folder: Path, config: Config) -> AsyncIterator[Platform]:
    """Run a passport on a data folder, which may be empty."""
    data = DataFolder(folder)
    data.make()
    port, hub, clock = _free_port(), FakeHub(port=_free_port()), Clock()
    base = f"http://127.0.0.1:{port}"
    runtime = Runtime(
        bind="127.0.0.1",
        port=port,
        public_url=base,
        proxy_api_port=1,
        hub_port=hub.port,
        services_port=port,
    )
    secrets = SecretFiles(data.secrets)
    engine = open_database(sqlite_url(data.databases))
    upgrade_database(engine)
    service = build_passport(config=config, runtime=runtime, secrets=secrets, data=data, engine=engine, clock=clock)
    hub_app = web.Application()
    hub_app.add_routes(hub.routes())
    directory = await asyncio.to_thread(open_directory, config, data, public_url=base, clock=clock)
    sessions: list[aiohttp.ClientSession] = []

    def new_browser() -> Browser:
        sessions.append(aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)))
        return Browser(base, sessions[-1])

    async with _serving(hub_app, hub.port), _serving(build_app([service], config=config), port):
        try:
            yield Platform(base, directory, hub, clock, secrets, engine, new_browser)
        finally:
            for session in sessions:
                await session.close()
            engine.dispose()


async def until(condition: Callable[[], Any], *, within_s: float = 15) -> None:
    """Wait until `condition` holds."""
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.02)


def path_of(address: str) -> str:
    """Return the path and query of `address`."""
    parts = urlsplit(address)
    return parts.path + (f"?{parts.query}" if parts.query else "")
