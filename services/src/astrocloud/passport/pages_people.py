"""The administrator's pages about people and groups."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from aiohttp import web

from astrocloud.core.errors import PlatformError, RequestError
from astrocloud.core.web import page, read_form
from astrocloud.passport.api import PeopleApi, need_admin
from astrocloud.passport.documents import PersonBody, parse
from astrocloud.passport.people import People
from astrocloud.passport.web import PREFIX, form_errors, see, texts

_FIELDS: Final = {"username": "username", "email": "email", "group-unknown": "groups", "identity": "subject"}
_DONE: Final = {"changed", "disabled", "enabled", "removed", "approved", "group-added", "group-removed"}


class PeoplePages:
    """The pages.

    Parameters
    ----------
    people
        The directory.
    api
        What adds and resets people, with their links.
    embedded
        Whether the platform's own passport is used.
    """

    def __init__(self, *, people: People, api: PeopleApi, embedded: bool) -> None:
        self._people = people
        self._api = api
        self._embedded = embedded

    def routes(self) -> Sequence[web.AbstractRouteDef]:
        """Return the routes."""
        return [
            web.get(f"{PREFIX}/people", self._list),
            web.post(f"{PREFIX}/people", self._add),
            web.get(f"{PREFIX}/people/{{name}}", self._person),
            web.post(f"{PREFIX}/people/{{name}}", self._change),
            web.post(f"{PREFIX}/people/{{name}}/{{action}}", self._act),
            web.post(f"{PREFIX}/groups", self._add_group),
            web.post(f"{PREFIX}/groups/{{name}}/remove", self._remove_group),
        ]

    # everybody

    async def _list(self, request: web.Request) -> web.Response:
        """Show people and groups."""
        await need_admin(request, self._people)
        done = request.query.get("done", "")
        return await self._show_list(request, done=done if done in _DONE else "")

    async def _show_list(
        self,
        request: web.Request,
        *,
        status: int = 200,
        values: Mapping[str, Any] | None = None,
        errors: Mapping[str, str] | None = None,
        link: str = "",
        link_for: str = "",
        done: str = "",
    ) -> web.Response:
        people, groups = await asyncio.gather(
            asyncio.to_thread(self._people.list), asyncio.to_thread(self._people.groups)
        )
        return page(
            request,
            "passport/people.html",
            status=status,
            people=[person for person in people if person.status != "pending"],
            pending=[person for person in people if person.status == "pending"],
            groups=groups,
            values=texts(values),
            errors=texts(errors),
            link=link,
            link_for=link_for,
            done=done,
            embedded=self._embedded,
        )

    async def _add(self, request: web.Request) -> web.Response:
        """Add a person and show the invite link."""
        await need_admin(request, self._people)
        fields = await _fields(request)
        document: dict[str, Any] = {
            "username": fields.get("username", "").strip(),
            "display_name": fields.get("display_name", ""),
            "email": fields.get("email", ""),
            "groups": fields.get("groups", "").replace(",", " ").split(),
            "admin": fields.get("admin") == "1",
            "subject": fields.get("subject", "").strip() or None,
        }
        try:
            person, link = await asyncio.to_thread(self._api.add, parse(PersonBody, document))
        except PlatformError as err:
            shown = {name: value[:400] for name, value in fields.items() if name != "_csrf"}
            return await self._show_list(
                request, status=err.status, values=shown, errors=form_errors(request, err, _FIELDS)
            )
        return await self._show_list(request, status=201, link=link or "", link_for=person.username)

    # one person

    async def _person(self, request: web.Request) -> web.Response:
        """Show one person."""
        await need_admin(request, self._people)
        done = request.query.get("done", "")
        return await self._show_person(request, done=done if done in _DONE else "")

    async def _show_person(
        self,
        request: web.Request,
        *,
        status: int = 200,
        errors: Mapping[str, str] | None = None,
        link: str = "",
        done: str = "",
    ) -> web.Response:
        person = await asyncio.to_thread(self._people.get, request.match_info["name"])
        return page(
            request,
            "passport/person.html",
            status=status,
            person=person,
            errors=texts(errors),
            link=link,
            done=done,
            embedded=self._embedded,
        )

    async def _change(self, request: web.Request) -> web.Response:
        """Change somebody."""
        await need_admin(request, self._people)
        name, fields = request.match_info["name"], await _fields(request)
        try:
            await asyncio.to_thread(
                self._people.change,
                name,
                admin=fields.get("admin") == "1",
                display_name=fields.get("display_name", ""),
                email=fields.get("email", ""),
                groups=fields.get("groups", "").replace(",", " ").split(),
            )
        except PlatformError as err:
            if err.code == "person-unknown":
                raise
            return await self._show_person(request, status=err.status, errors=form_errors(request, err, _FIELDS))
        return see(f"{PREFIX}/people/{name}?done=changed")

    async def _act(self, request: web.Request) -> web.Response:
        """Disable, enable, approve, remove somebody, or make a link for a new password."""
        await need_admin(request, self._people)
        name, action = request.match_info["name"], request.match_info["action"]
        work: dict[str, tuple[Callable[[str], Any], str]] = {
            "disable": (self._people.disable, f"/people/{name}?done=disabled"),
            "enable": (self._people.enable, f"/people/{name}?done=enabled"),
            "approve": (self._people.enable, "/people?done=approved"),
            "remove": (self._people.remove, "/people?done=removed"),
            "reset": (self._api.reset, ""),
        }
        if action not in work:
            raise RequestError("not-found", path=request.path[:200])
        do, then = work[action]
        try:
            found = await asyncio.to_thread(do, name)
        except PlatformError as err:
            if err.code == "person-unknown":
                raise
            return await self._show_person(request, status=err.status, errors=form_errors(request, err, {}))
        if action == "reset":
            return await self._show_person(request, link=found)
        return see(PREFIX + then)

    # groups

    async def _add_group(self, request: web.Request) -> web.Response:
        """Make a group."""
        await need_admin(request, self._people)
        fields = await _fields(request)
        try:
            await asyncio.to_thread(self._people.add_group, fields.get("name", "").strip())
        except PlatformError as err:
            return await self._show_list(
                request, status=err.status, errors=form_errors(request, err, {"group": "group"})
            )
        return see(f"{PREFIX}/people?done=group-added")

    async def _remove_group(self, request: web.Request) -> web.Response:
        """Remove a group."""
        await need_admin(request, self._people)
        await asyncio.to_thread(self._people.remove_group, request.match_info["name"])
        return see(f"{PREFIX}/people?done=group-removed")


async def _fields(request: web.Request) -> dict[str, str]:
    """Return the text fields of a form that `need_admin` let through."""
    return await read_form(request)
