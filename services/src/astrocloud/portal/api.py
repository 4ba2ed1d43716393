"""The portal's JSON API, below ``/services/portal/api/``."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from aiohttp import web

from astrocloud.core.auth import Principal, require
from astrocloud.core.errors import RequestError
from astrocloud.core.web import read_json
from astrocloud.portal.desk import Desk
from astrocloud.portal.domain import check_announcement
from astrocloud.portal.health import Health
from astrocloud.portal.models import Announcement
from astrocloud.portal.pages import PREFIX, USE, caller_of
from astrocloud.portal.views import NOT_WELL, both, environment_document, server_document

ANNOUNCE: Final = "custom:announcements:admin"
_API: Final = f"{PREFIX}/api"


async def require_announcer(request: web.Request) -> Principal:
    """Return who sends `request` if they may write announcements: an administrator, or a token with the scope."""
    principal = await require(request, scope=ANNOUNCE)
    if principal.by_cookie and not principal.admin:
        raise RequestError("forbidden", user=principal.name, needs="an administrator")
    return principal


def number_in(request: web.Request) -> int:
    """Return the announcement's number in the address of `request`."""
    return int(request.match_info["number"])


class Api:
    """Handlers of the API.

    Parameters
    ----------
    desk
        What can be done.
    health
        The state of the parts.
    idle_hours
        After how many hours without activity a server is stopped, as texts name it.
    """

    def __init__(self, *, desk: Desk, health: Health, idle_hours: str) -> None:
        self._desk = desk
        self._health = health
        self._idle_hours = idle_hours

    def routes(self) -> Sequence[web.AbstractRouteDef]:
        """Return the routes."""
        one = _API + "/announcements/{number:[0-9]{1,9}}"
        return [
            web.get(f"{_API}/health", self.health),
            web.get(f"{_API}/environments", self.environments),
            web.get(f"{_API}/tutorials", self.tutorials),
            web.get(f"{_API}/servers", self.servers),
            web.post(f"{_API}/servers", self.start),
            web.delete(_API + "/servers/{name:[a-z0-9-]{0,30}}", self.stop),
            web.get(f"{_API}/announcements", self.announcements),
            web.post(f"{_API}/announcements", self.announce),
            web.put(one, self.change),
            web.delete(one, self.remove),
        ]

    async def health(self, _request: web.Request) -> web.Response:
        """Tell everybody the state of each part."""
        parts = await self._health.parts()
        well = not any(state in NOT_WELL for state in parts.values())
        return web.json_response({"status": "ok" if well else "degraded", "parts": dict(parts)})

    async def environments(self, request: web.Request) -> web.Response:
        """Tell what can be started."""
        await require(request, scope=USE)
        menu = self._desk.menu
        return web.json_response([environment_document(each, menu=menu) for each in menu.environments()])

    async def tutorials(self, request: web.Request) -> web.Response:
        """Tell what tutorials there are."""
        await require(request, scope=USE)
        return web.json_response(
            [
                {"id": each.id, "title": both(each.title), "summary": both(each.summary), "minutes": each.minutes}
                for each in self._desk.menu.tutorials().values()
            ]
        )

    async def servers(self, request: web.Request) -> web.Response:
        """Tell the caller's servers, stopped ones too."""
        principal = await require(request, scope=USE)
        servers = await self._desk.hub.servers_of(principal.name)
        return web.json_response([server_document(server, idle_hours=self._idle_hours) for server in servers])

    async def start(self, request: web.Request) -> web.Response:
        """Start a server: ``environment``, ``resources``, ``title``, all optional; 201 when ready, 202 on its way."""
        principal = await require(request, scope=USE)
        document = await read_json(request)
        fields = {name: _text(document, name) for name in ("environment", "resources", "title")}
        server, ready = await self._desk.start(
            caller_of(request, principal),
            environment=fields["environment"],
            size=fields["resources"],
            title=fields["title"],
        )
        told = {**server_document(server, idle_hours=self._idle_hours), "state": "running" if ready else "starting"}
        return web.json_response(
            told, status=201 if ready else 202, headers={"Location": f"{_API}/servers/{server.name}"}
        )

    async def stop(self, request: web.Request) -> web.Response:
        """Stop a server of the caller's; with ``?forget=true`` take a stopped one off the list."""
        principal = await require(request, scope=USE)
        name = request.match_info["name"]
        caller = caller_of(request, principal)
        if request.query.get("forget") == "true":
            await self._desk.forget(caller, name=name)
            return web.Response(status=204)
        stopped = await self._desk.stop(caller, name=name)
        return web.Response(status=204 if stopped else 202)

    async def announcements(self, _request: web.Request) -> web.Response:
        """Tell everybody what is announced now."""
        shown = await self._desk.shown_announcements()
        return web.json_response([each.document() for each in shown])

    async def announce(self, request: web.Request) -> web.Response:
        """Publish an announcement, in the form in which `announcements` tells them."""
        principal = await require_announcer(request)
        kept = await self._save(await read_json(request), number=0, author=principal.name)
        return web.json_response(kept.document(), status=201)

    async def change(self, request: web.Request) -> web.Response:
        """Change an announcement."""
        principal = await require_announcer(request)
        kept = await self._save(await read_json(request), number=number_in(request), author=principal.name)
        return web.json_response(kept.document())

    async def _save(self, document: Mapping[str, Any], *, number: int, author: str) -> Announcement:
        fields = {name: _text(document, name) for name in ("severity", "starts_at", "ends_at")}
        for part in ("title", "text"):
            texts = document.get(part)
            for language in ("en", "zh"):
                fields[f"{part}_{language}"] = _text(texts, language) if isinstance(texts, dict) else ""
        fields["severity"] = fields["severity"] or "info"
        return await self._desk.publish(check_announcement(fields, number=number, author=author))

    async def remove(self, request: web.Request) -> web.Response:
        """Remove an announcement."""
        await require_announcer(request)
        await self._desk.withdraw(number_in(request))
        return web.Response(status=204)


def _text(document: Mapping[str, Any], name: str) -> str:
    value = document.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise RequestError("bad-request", reason=f"`{name}` is not a text")
    return value
