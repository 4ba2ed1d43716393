"""The portal's pages for administrators: servers and announcements."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from aiohttp import web

from astrocloud.config import Config
from astrocloud.core import words
from astrocloud.core.auth import Principal, require
from astrocloud.core.errors import PlatformError
from astrocloud.core.web import language_of, page
from astrocloud.portal.api import number_in, require_announcer
from astrocloud.portal.desk import Desk
from astrocloud.portal.domain import ANNOUNCEMENT_TEXT_LIMIT, ANNOUNCEMENT_TITLE_LIMIT, check_announcement
from astrocloud.portal.errors import PortalError
from astrocloud.portal.events import Event, Events
from astrocloud.portal.models import SEVERITIES, Announcement
from astrocloud.portal.pages import PREFIX, USE, caller_of, field_of, see_other
from astrocloud.portal.views import part_name, server_view

ADMIN: Final = f"{PREFIX}/admin"
_FIELDS: Final = ("severity", "title_en", "title_zh", "text_en", "text_zh", "starts_at", "ends_at")
_FORM: Final = "%Y-%m-%dT%H:%M"


class AdminPages:
    """Handlers of the pages.

    Parameters
    ----------
    config
        The configuration.
    desk
        What can be done.
    events
        What was the matter with the platform.
    """

    def __init__(self, *, config: Config, desk: Desk, events: Events) -> None:
        self._desk = desk
        self._events = events
        self._idle_hours = f"{config.servers.idle_timeout_s / 3600:g}"

    def routes(self) -> Sequence[web.AbstractRouteDef]:
        """Return the routes."""
        one = ADMIN + "/announcements/{number:[0-9]{1,9}}"
        return [
            web.get(ADMIN, self.first),
            web.get(f"{ADMIN}/servers", self.servers),
            web.post(f"{ADMIN}/servers/stop", self.stop),
            web.get(f"{ADMIN}/announcements", self.announcements),
            web.post(f"{ADMIN}/announcements", self.create),
            web.get(one, self.edit),
            web.post(one, self.change),
            web.post(f"{one}/remove", self.remove),
            web.get(f"{ADMIN}/events", self.events),
        ]

    async def first(self, request: web.Request) -> web.Response:
        """Send an administrator to the first page."""
        await require(request, scope=USE, admin=True)
        return see_other(f"{ADMIN}/servers")

    async def servers(self, request: web.Request) -> web.Response:
        """Show everybody's running servers."""
        principal = await require(request, scope=USE, admin=True)
        return page(request, "portal/admin_servers.html", **await self._running(request, principal))

    async def _running(self, request: web.Request, principal: Principal) -> dict[str, Any]:
        language = language_of(request)
        servers = await self._desk.hub.all_servers()
        views = [
            server_view(
                each, menu=self._desk.menu, language=language, reader=principal.name, idle_hours=self._idle_hours
            )
            for each in servers
        ]
        return {"servers": views, "people": len({server.owner for server in servers})}

    async def stop(self, request: web.Request) -> web.Response:
        """Stop somebody's server."""
        principal = await require(request, scope=USE, admin=True)
        await self._desk.stop(
            caller_of(request, principal),
            owner=await field_of(request, "owner"),
            name=await field_of(request, "server"),
        )
        return see_other(f"{ADMIN}/servers")

    async def announcements(self, request: web.Request) -> web.Response:
        """Show all announcements, and a form for a new one."""
        await require_announcer(request)
        return await self._list(request, fields={"severity": "info"}, error=None, preview=None, status=200)

    async def _list(
        self,
        request: web.Request,
        *,
        fields: Mapping[str, str],
        error: str | None,
        preview: Announcement | None,
        status: int,
    ) -> web.Response:
        return page(
            request,
            "portal/admin_announcements.html",
            status=status,
            now=datetime.now(UTC),
            announcements=await asyncio.to_thread(self._desk.announcements.all),
            **_form(fields, error, preview),
        )

    async def create(self, request: web.Request) -> web.Response:
        """Publish an announcement, or show how it would look."""
        principal = await require_announcer(request)
        fields = await _fields(request)
        try:
            announcement = check_announcement(fields, number=0, author=principal.name)
        except PlatformError as err:
            sentence = err.sentence(language_of(request))
            return await self._list(request, fields=fields, error=sentence, preview=None, status=err.status)
        if await field_of(request, "action") == "preview":
            return await self._list(request, fields=fields, error=None, preview=announcement, status=200)
        await self._desk.publish(announcement)
        return see_other(f"{ADMIN}/announcements")

    async def edit(self, request: web.Request) -> web.Response:
        """Show the form of one announcement."""
        await require_announcer(request)
        number = number_in(request)
        announcement = await asyncio.to_thread(self._desk.announcements.get, number)
        if announcement is None:
            raise PortalError("announcement-unknown", number=number)
        fields = {
            "severity": announcement.severity,
            "title_en": announcement.title_en,
            "title_zh": announcement.title_zh,
            "text_en": announcement.text_en,
            "text_zh": announcement.text_zh,
            "starts_at": announcement.starts_at.strftime(_FORM),
            "ends_at": announcement.ends_at.strftime(_FORM) if announcement.ends_at else "",
        }
        return page(request, "portal/admin_announcement.html", number=number, **_form(fields, None, None))

    async def change(self, request: web.Request) -> web.Response:
        """Keep a changed announcement, or show how it would look."""
        principal = await require_announcer(request)
        number = number_in(request)
        fields = await _fields(request)
        template = "portal/admin_announcement.html"
        try:
            announcement = check_announcement(fields, number=number, author=principal.name)
        except PlatformError as err:
            sentence = err.sentence(language_of(request))
            return page(request, template, status=err.status, number=number, **_form(fields, sentence, None))
        if await field_of(request, "action") == "preview":
            return page(request, template, number=number, **_form(fields, None, announcement))
        await self._desk.publish(announcement)
        return see_other(f"{ADMIN}/announcements")

    async def remove(self, request: web.Request) -> web.Response:
        """Remove an announcement."""
        await require_announcer(request)
        await self._desk.withdraw(number_in(request))
        return see_other(f"{ADMIN}/announcements")

    async def events(self, request: web.Request) -> web.Response:
        """Show what was the matter with the platform lately."""
        await require(request, scope=USE, admin=True)
        language = language_of(request)
        found = await asyncio.to_thread(self._events.recent)
        shown = [self._event_view(event, language) for event in found]
        return page(request, "portal/admin_events.html", events=shown)

    def _event_view(self, event: Event, language: str) -> dict[str, Any]:
        if event.kind == "node":
            subject = words.text("portal.event-node", language, node=event.subject)
            matter = words.text(f"portal.event-node-{event.state}", language)
        else:
            subject = part_name(event.subject, menu=self._desk.menu, language=language)
            matter = words.text(f"portal.health-{event.state}", language)
        return {"subject": subject, "matter": matter, "began_at": event.began_at, "ended_at": event.ended_at}


async def require_announcer_page(request: web.Request) -> Principal:
    """Return who sends `request` if they may write announcements."""
    return await require_announcer(request)


async def _fields(request: web.Request) -> dict[str, str]:
    return {name: await field_of(request, name, limit=4 * ANNOUNCEMENT_TEXT_LIMIT) for name in _FIELDS}


def _form(fields: Mapping[str, str], error: str | None, preview: Announcement | None) -> dict[str, Any]:
    return {
        "fields": {name: fields.get(name, "") for name in _FIELDS},
        "error": error,
        "preview": preview,
        "severities": SEVERITIES,
        "title_limit": ANNOUNCEMENT_TITLE_LIMIT,
        "text_limit": ANNOUNCEMENT_TEXT_LIMIT,
    }
