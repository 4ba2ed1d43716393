"""The directory over HTTP: for the hub (internal), and for programs of administrators."""

import asyncio
import secrets
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from aiohttp import web

from astrocloud.core.auth import Principal, require
from astrocloud.core.errors import RequestError
from astrocloud.core.web import read_json
from astrocloud.passport.accounts import Accounts
from astrocloud.passport.documents import (
    GroupBody,
    GroupChange,
    PersonBody,
    PersonChange,
    SignInBody,
    group_document,
    parse,
    person_document,
)
from astrocloud.passport.errors import PersonUnknown
from astrocloud.passport.models import Identity, Person
from astrocloud.passport.names import shown
from astrocloud.passport.people import People
from astrocloud.passport.web import PREFIX

if TYPE_CHECKING:
    from pydantic import SecretStr

SCOPE = "custom:people:admin"


async def need_admin(request: web.Request, people: People) -> Principal:
    """Return the administrator who sends `request`, or refuse it as `require` does.

    The directory has the last word about who is an administrator: the hub learns of a change only a little later.
    """
    principal = await require(request, scope=SCOPE)
    if principal.kind == "user":
        person = await asyncio.to_thread(people.find, principal.name)
        if person is None or person.status != "active" or not person.admin:
            raise RequestError("forbidden", user=principal.name, needs="an administrator")
    elif principal.by_cookie:
        raise RequestError("forbidden", user=principal.name, needs="an administrator")
    return principal


class InternalApi:
    """What the hub asks of the directory.

    Parameters
    ----------
    people
        The directory.
    secret
        What the hub shows.
    """

    def __init__(self, *, people: People, secret: "SecretStr") -> None:
        self._people = people
        self._secret = secret

    def routes(self) -> Sequence[web.AbstractRouteDef]:
        """Return the routes."""
        return [
            web.post(f"{PREFIX}/api/internal/sign-in", self._sign_in),
            web.get(f"{PREFIX}/api/internal/people/{{name}}", self._person),
        ]

    def _check(self, request: web.Request) -> None:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        wanted = self._secret.get_secret_value().encode()
        if scheme.lower() != "bearer" or not secrets.compare_digest(given.encode("utf-8", "surrogateescape"), wanted):
            raise RequestError("not-signed-in")

    async def _sign_in(self, request: web.Request) -> web.Response:
        """Return whom an identity belongs to; for the hub alone."""
        self._check(request)
        body = parse(SignInBody, await read_json(request))
        identity = Identity(issuer=body.issuer, subject=body.subject, claims=body.claims)
        person = await asyncio.to_thread(self._people.sign_in, identity)
        return web.json_response(person_document(person))

    async def _person(self, request: web.Request) -> web.Response:
        """Return one person and their status; for the hub alone."""
        self._check(request)
        name = request.match_info["name"]
        person = await asyncio.to_thread(self._people.find, name)
        if person is None:
            raise PersonUnknown("person-unknown", username=shown(name))
        return web.json_response(person_document(person))


class PeopleApi:
    """What programs of administrators ask of the directory.

    Parameters
    ----------
    people
        The directory.
    accounts
        The embedded passport's accounts; `None` when another passport is used.
    link_address
        Makes the address of a link from its secret.
    issuer
        The external passport's issuer, if that is used.
    """

    def __init__(
        self, *, people: People, accounts: Accounts | None, link_address: Callable[[str], str], issuer: str
    ) -> None:
        self._people = people
        self._accounts = accounts
        self._link_address = link_address
        self._issuer = issuer

    def routes(self) -> Sequence[web.AbstractRouteDef]:
        """Return the routes."""
        return [
            web.get(f"{PREFIX}/api/people", self._list),
            web.post(f"{PREFIX}/api/people", self._add),
            web.get(f"{PREFIX}/api/people/{{name}}", self._get),
            web.patch(f"{PREFIX}/api/people/{{name}}", self._change),
            web.delete(f"{PREFIX}/api/people/{{name}}", self._remove),
            web.post(f"{PREFIX}/api/people/{{name}}/reset", self._reset),
            web.get(f"{PREFIX}/api/groups", self._groups),
            web.post(f"{PREFIX}/api/groups", self._add_group),
            web.patch(f"{PREFIX}/api/groups/{{name}}", self._change_group),
            web.delete(f"{PREFIX}/api/groups/{{name}}", self._remove_group),
        ]

    async def _list(self, request: web.Request) -> web.Response:
        """Return the people."""
        await need_admin(request, self._people)
        found = await asyncio.to_thread(self._people.list)
        return web.json_response({"people": [person_document(person) for person in found]})

    async def _add(self, request: web.Request) -> web.Response:
        """Add a person."""
        await need_admin(request, self._people)
        body = parse(PersonBody, await read_json(request))
        person, link = await asyncio.to_thread(self.add, body)
        document = person_document(person)
        if link is not None:
            document["invite"] = link
        address = f"{PREFIX}/api/people/{person.username}"
        return web.json_response(document, status=201, headers={"Location": address})

    def add(self, body: PersonBody) -> tuple[Person, str | None]:
        """Add a person; return them and, with the embedded passport, the address of their invite link."""
        identity = Identity(issuer=self._issuer, subject=body.subject) if body.subject and self._issuer else None
        person = self._people.create(
            body.username,
            admin=body.admin,
            groups=body.groups,
            display_name=body.display_name,
            email=body.email,
            language=body.language,
            identity=identity,
        )
        if self._accounts is None:
            return person, None
        return person, self._link_address(self._accounts.make_link(person.username, "invite"))

    def reset(self, username: str) -> str:
        """End somebody's password and sessions, and return the address at which they choose a new one."""
        if self._accounts is None:
            raise RequestError("passport-external")
        had_password = self._people.get(username).has_password
        return self._link_address(self._accounts.make_link(username, "reset" if had_password else "invite"))

    async def _get(self, request: web.Request) -> web.Response:
        """Return one person."""
        await need_admin(request, self._people)
        person = await asyncio.to_thread(self._people.get, request.match_info["name"])
        return web.json_response(person_document(person))

    async def _change(self, request: web.Request) -> web.Response:
        """Change somebody: names, language, groups, administrator or not, active or disabled."""
        await need_admin(request, self._people)
        name = request.match_info["name"]
        body = parse(PersonChange, await read_json(request))
        person = await asyncio.to_thread(
            self._people.change,
            name,
            admin=body.admin,
            display_name=body.display_name,
            email=body.email,
            language=body.language,
            groups=body.groups,
        )
        if body.status is not None and body.status != person.status:
            work = self._people.disable if body.status == "disabled" else self._people.enable
            person = await asyncio.to_thread(work, name)
        return web.json_response(person_document(person))

    async def _remove(self, request: web.Request) -> web.Response:
        """Remove somebody; the username is never given again."""
        await need_admin(request, self._people)
        await asyncio.to_thread(self._people.remove, request.match_info["name"])
        return web.Response(status=204)

    async def _reset(self, request: web.Request) -> web.Response:
        """Return a link by which somebody chooses a new password."""
        await need_admin(request, self._people)
        return web.json_response({"link": await asyncio.to_thread(self.reset, request.match_info["name"])})

    async def _groups(self, request: web.Request) -> web.Response:
        """Return the groups."""
        await need_admin(request, self._people)
        found = await asyncio.to_thread(self._people.groups)
        return web.json_response({"groups": [group_document(group) for group in found]})

    async def _add_group(self, request: web.Request) -> web.Response:
        """Make a group."""
        await need_admin(request, self._people)
        body = parse(GroupBody, await read_json(request))
        group = await asyncio.to_thread(self._people.add_group, body.name)
        return web.json_response(group_document(group), status=201)

    async def _change_group(self, request: web.Request) -> web.Response:
        """Set who is in a group."""
        await need_admin(request, self._people)
        body = parse(GroupChange, await read_json(request))
        group = await asyncio.to_thread(self._people.set_members, request.match_info["name"], body.members)
        return web.json_response(group_document(group))

    async def _remove_group(self, request: web.Request) -> web.Response:
        """Remove a group."""
        await need_admin(request, self._people)
        await asyncio.to_thread(self._people.remove_group, request.match_info["name"])
        return web.Response(status=204)
