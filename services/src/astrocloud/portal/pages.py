"""The portal's pages for everybody: the front page, its fragments, and the forms on it."""

import asyncio
from collections.abc import Hashable, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from aiohttp import web
from pydantic import SecretStr

from astrocloud.config import Config
from astrocloud.core import words
from astrocloud.core.auth import HUB_TOKEN, HubLogin, Principal, current, require
from astrocloud.core.errors import RequestError
from astrocloud.core.isolation import people_are_kept_apart
from astrocloud.core.web import (
    LANGUAGE_COOKIE,
    PAGES,
    PRINCIPAL,
    THEME_COOKIE,
    THEMES,
    language_of,
    page,
    read_form,
    safe_next,
)
from astrocloud.portal.desk import Caller, Desk
from astrocloud.portal.health import Health
from astrocloud.portal.views import (
    HEALTH_BADGES,
    NOT_WELL,
    environment_document,
    gibibytes,
    part_name,
    server_view,
    size_text,
)

HUB_SESSION: Final = "jupyterhub-session-id"
"""The hub's cookie for the whole origin: no more than a mark that this browser has signed in at the hub."""

PREFIX: Final = "/services/portal"
USE: Final = "custom:portal:use"
_YEAR_S: Final = 365 * 86400
_FRONTS: Final = 32
"""How many front pages are kept: two languages and three themes, for a few states of the platform."""
_FRONT_HEADERS: Final = ("Content-Language", "Vary")


def caller_of(request: web.Request, principal: Principal) -> Caller:
    """Return on whose behalf `request` acts at the hub."""
    token: SecretStr = request[HUB_TOKEN]
    return Caller(name=principal.name, token=token, language=language_of(request))


def see_other(location: str) -> web.Response:
    """Return an answer that sends the browser on with a GET."""
    return web.Response(status=303, headers={"Location": location})


async def field_of(request: web.Request, name: str, *, limit: int = 200) -> str:
    """Return the form field `name` of `request`, empty when it is missing. Raises ``bad-request`` when too long."""
    value = (await read_form(request)).get(name, "")
    if len(value) > limit:
        raise RequestError("bad-request", reason=f"the field {name} is longer than {limit} characters")
    return value


class Pages:
    """Handlers of the pages.

    Parameters
    ----------
    config
        The configuration.
    desk
        What can be done.
    health
        The state of the parts.
    login
        How people sign in at the portal.
    secure
        Whether people reach the platform by HTTPS.
    """

    def __init__(self, *, config: Config, desk: Desk, health: Health, login: HubLogin, secure: bool) -> None:
        self._desk = desk
        self._health = health
        self._login = login
        self._secure = secure
        self._idle_hours = f"{config.servers.idle_timeout_s / 3600:g}"
        self._fronts: dict[Hashable, tuple[str, dict[str, str]]] = {}
        self._never_idle = config.servers.idle_timeout_s == 0

    def routes(self) -> Sequence[web.AbstractRouteDef]:
        """Return the routes."""
        return [
            web.get("/", self.front),
            web.get("/favicon.ico", self.favicon),
            web.get(f"{PREFIX}", self.to_front),
            web.get(f"{PREFIX}/", self.to_front),
            web.get(f"{PREFIX}/home", self.home),
            web.get(f"{PREFIX}/home/servers", self.servers),
            web.post(f"{PREFIX}/servers/start", self.start),
            web.post(f"{PREFIX}/servers/stop", self.stop),
            web.post(f"{PREFIX}/servers/forget", self.forget),
            web.post(f"{PREFIX}/tutorials/open", self.open_tutorial),
            web.get(f"{PREFIX}/files/open", self.ask_open_files),
            web.post(f"{PREFIX}/files/open", self.open_files),
            web.get(f"{PREFIX}/language", self.language),
            web.get(f"{PREFIX}/theme", self.theme),
            web.get(f"{PREFIX}/sign-out", self.ask_sign_out),
            web.post(f"{PREFIX}/sign-out", self.sign_out),
            web.get(PREFIX + "/proxy-error/{code:[0-9]{3}}", self.proxy_error),
            web.get(PREFIX + "/static/{name:[a-z0-9-]+\\.(?:css|js|svg)}", self.static),
        ]

    async def front(self, request: web.Request) -> web.Response:
        """Show the front page as everybody may see it; its script fetches what is the reader's own.

        It is the same for everybody, so it is written once for what it says.
        """
        public = await self._public(request)
        theme = request.cookies.get(THEME_COOKIE, "auto")
        said = (tuple(public["parts"]), tuple(public["announcements"]), people_are_kept_apart())
        key = (language_of(request), theme if theme in THEMES else "auto", said)
        if key not in self._fronts:
            response = page(request, "portal/front.html", **public)
            if len(self._fronts) >= _FRONTS:
                self._fronts.clear()
            self._fronts[key] = (str(response.text), {name: response.headers[name] for name in _FRONT_HEADERS})
        text, headers = self._fronts[key]
        return web.Response(text=text, content_type="text/html", headers=headers)

    async def to_front(self, _request: web.Request) -> web.Response:
        """Send people who look for the portal to the front page."""
        return web.Response(status=302, headers={"Location": "/"})

    async def favicon(self, _request: web.Request) -> web.Response:
        """Send browsers that ask for the old place to the new one."""
        return web.Response(status=301, headers={"Location": f"{PREFIX}/static/favicon.svg"})

    async def _public(self, request: web.Request) -> dict[str, Any]:
        language = language_of(request)
        parts, announcements = await asyncio.gather(self._health.parts(), self._desk.shown_announcements())
        return {
            "parts": [
                (part_name(name, menu=self._desk.menu, language=language), state, HEALTH_BADGES.get(state, "off"))
                for name, state in parts.items()
            ],
            "all_well": not any(state in NOT_WELL for state in parts.values()),
            "announcements": announcements,
        }

    async def home(self, request: web.Request) -> web.Response:
        """Show what is the reader's own: a page, or with the header ``X-Fragment`` a fragment for the front page."""
        if "X-Fragment" in request.headers:
            if await current(request) is None:
                # No error: everybody's front page asks. Whoever has a session at the hub need not click to sign in.
                known = {"X-Sign-In": f"{PREFIX}/sign-in/hub?next=/"} if HUB_SESSION in request.cookies else {}
                return web.Response(status=204, headers=known)
            principal = await require(request, scope=USE)
            return page(request, "portal/_home.html", return_to="/", **await self._own(request, principal))
        principal = await require(request, scope=USE)
        return page(request, "portal/home.html", **await self._public(request), **await self._own(request, principal))

    async def servers(self, request: web.Request) -> web.Response:
        """Show the reader's servers alone, for the front page to look again."""
        if await current(request) is None:
            raise RequestError("not-signed-in")  # not sent to sign in: a script of the front page asks
        principal = await require(request, scope=USE)
        return page(request, "portal/_servers.html", return_to="/", **await self._own_servers(request, principal))

    async def _own_servers(self, request: web.Request, principal: Principal) -> dict[str, Any]:
        language = language_of(request)
        servers = await self._desk.hub.servers_of(principal.name)
        views = [
            server_view(
                server, menu=self._desk.menu, language=language, reader=principal.name, idle_hours=self._idle_hours
            )
            for server in servers
        ]
        return {
            "servers": views,
            "running": sum(server.active for server in servers),
            "limit": self._desk.server_limit,
            "busy": any(server.state in {"starting", "stopping"} for server in servers),
            "idle_hours": None if self._never_idle else self._idle_hours,
        }

    async def _own(self, request: web.Request, principal: Principal) -> dict[str, Any]:
        language = language_of(request)
        menu = self._desk.menu
        own = await self._own_servers(request, principal)
        states = {each.id: menu.state(each.id) for each in menu.environments()}
        active = {view.server.environment for view in own["servers"] if view.server.active}
        return {
            **own,
            "environments": menu.environments(),
            "environment_states": states,
            "active_environments": active,
            "tutorials": list(menu.tutorials().values()),
            "size_text": lambda size: size_text(size, language),
            "gibibytes": gibibytes,
            "environment_document": environment_document,
        }

    async def start(self, request: web.Request) -> web.Response:
        """Start a server and go there."""
        principal = await require(request, scope=USE)
        location = await self._desk.start_and_go(
            caller_of(request, principal),
            environment=await field_of(request, "environment"),
            size=await field_of(request, "resources"),
            title=await field_of(request, "title"),
        )
        return see_other(location)

    async def stop(self, request: web.Request) -> web.Response:
        """Stop a server of the reader's."""
        principal = await require(request, scope=USE)
        await self._desk.stop(caller_of(request, principal), name=await field_of(request, "server"))
        return await self._after(request, principal)

    async def forget(self, request: web.Request) -> web.Response:
        """Remove a stopped server of the reader's from the list."""
        principal = await require(request, scope=USE)
        await self._desk.forget(caller_of(request, principal), name=await field_of(request, "server"))
        return await self._after(request, principal)

    async def _after(self, request: web.Request, principal: Principal) -> web.Response:
        if "X-Fragment" in request.headers:
            return page(request, "portal/_servers.html", return_to="/", **await self._own_servers(request, principal))
        return see_other(safe_next(await field_of(request, "next", limit=2000)))

    async def open_tutorial(self, request: web.Request) -> web.Response:
        """Open a copy of a tutorial."""
        principal = await require(request, scope=USE)
        wanted = await field_of(request, "lang")
        location = await self._desk.go_to_tutorial(
            caller_of(request, principal),
            tutorial=await field_of(request, "tutorial"),
            language=wanted if wanted in words.LANGUAGES else language_of(request),
        )
        return see_other(location)

    async def ask_open_files(self, request: web.Request) -> web.Response:
        """Ask before JupyterLab is opened at ``path``, for links that lead here: it may start a server.

        Who comes from one of the platform's own pages has asked for it there, and the form is sent for them.
        """
        await require(request, scope=USE)
        ours = request.headers.get("Sec-Fetch-Site") == "same-origin"
        from_server = urlsplit(request.headers.get("Referer", "")).path.startswith("/user/")
        path = request.query.get("path", "")[:4000]
        return page(request, "portal/open_files.html", where=path, at_once=ours and not from_server)

    async def open_files(self, request: web.Request) -> web.Response:
        """Open the reader's files in JupyterLab, at ``path`` if one is named."""
        principal = await require(request, scope=USE)
        path = await field_of(request, "path", limit=4000)
        return see_other(await self._desk.go_to_files(caller_of(request, principal), path=path))

    async def language(self, request: web.Request) -> web.Response:
        """Remember a language and go back."""
        return self._remember(request, LANGUAGE_COOKIE, words.LANGUAGES)

    async def theme(self, request: web.Request) -> web.Response:
        """Remember light, dark or neither, and go back."""
        return self._remember(request, THEME_COOKIE, THEMES)

    def _remember(self, request: web.Request, cookie: str, allowed: Sequence[str]) -> web.Response:
        value = request.query.get("set", "")
        if value not in allowed:
            raise RequestError("bad-request", reason=f"`set` is {value[:20]!r}; allowed: {', '.join(allowed)}")
        response = web.Response(status=302, headers={"Location": safe_next(request.query.get("next", "/"))})
        # Not a secret, and read by scripts and by people's own servers: hence for every path.
        response.set_cookie(cookie, value, path="/", max_age=_YEAR_S, samesite="Lax", secure=self._secure)
        return response

    async def ask_sign_out(self, request: web.Request) -> web.Response:
        """Ask before signing out, for links that lead here."""
        await current(request)
        return page(request, "portal/sign_out.html")

    async def sign_out(self, request: web.Request) -> web.Response:
        """Forget the portal's cookie, then let the hub end everything else.

        The button stands on pages of other services too, whose form token is not ours: then ask first.
        """
        try:
            await require(request)
        except RequestError as err:
            if err.code == "csrf":
                return page(request, "portal/sign_out.html")
            if err.code != "not-signed-in":
                raise
        request[PRINCIPAL] = None
        # Not a redirect: browsers hold a form's redirects to its own origin, and the hub may lead to another passport.
        response = page(request, "portal/signing_out.html")
        self._login.forget(response)
        return response

    async def proxy_error(self, request: web.Request) -> web.Response:
        """Tell what the proxy has nobody to answer for. The proxy passes no cookies on, so in both languages."""
        code = int(request.match_info["code"])
        kind = "not-found" if code == 404 else "away"
        return page(request, "portal/proxy_error.html", status=code, code=code, kind=kind, words_of=words.text)

    async def static(self, request: web.Request) -> web.StreamResponse:
        """Send a static file; for ever when its address names its content."""
        path = PAGES / "static" / request.match_info["name"]
        if not path.is_file():
            raise web.HTTPNotFound
        lasting = (
            "public, max-age=31536000, immutable" if "v" in request.query else "public, max-age=0, must-revalidate"
        )
        return web.FileResponse(path, headers={"Cache-Control": lasting})
