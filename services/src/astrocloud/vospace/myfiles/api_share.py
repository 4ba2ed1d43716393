"""Sharing over HTTP: with people and groups, with everybody, and by public links."""

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from aiohttp import web

from astrocloud.vospace import acl
from astrocloud.vospace.api import Door, answering
from astrocloud.vospace.births import mark_of
from astrocloud.vospace.domain import Nodes
from astrocloud.vospace.errors import Fault, invalid_argument
from astrocloud.vospace.identity import can_switch
from astrocloud.vospace.models import (
    CONTAINER,
    CREATOR,
    GROUP_READ,
    GROUP_WRITE,
    IS_PUBLIC,
    USER_READ,
    USER_WRITE,
    Node,
    NodePath,
    NodeRequest,
    Person,
)
from astrocloud.vospace.myfiles.answers import API, answer, document_of, path_in, text_in
from astrocloud.vospace.myfiles.api_work import WorkApi
from astrocloud.vospace.myfiles.entries import open_to_all
from astrocloud.vospace.myfiles.links import Link, Links
from astrocloud.vospace.myfiles.shared import Shares
from astrocloud.vospace.myfiles.works import Task
from astrocloud.vospace.people import Owners

ACCESS: Final = ("read", "write")
_MOST_HOURS: Final = 10**9


class ShareApi:
    """Sharing over HTTP.

    Parameters
    ----------
    door
        Who asks.
    nodes
        The rules.
    owners
        Who has a home or a project here.
    shares
        Where to look for what others share.
    links
        Public links.
    work
        Does what takes long.
    link_url
        Where the addresses of public links begin.
    """

    def __init__(
        self,
        *,
        door: Door,
        nodes: Nodes,
        owners: Owners,
        shares: Shares,
        links: Links,
        work: WorkApi,
        link_url: str,
    ) -> None:
        self._door = door
        self._nodes = nodes
        self._owners = owners
        self._shares = shares
        self._links = links
        self._work = work
        self._link_url = link_url

    def routes(self) -> Sequence[web.AbstractRouteDef]:
        """Return the routes."""
        return [
            web.get(f"{API}/share", answering(self._get)),
            web.post(f"{API}/share", answering(self._set)),
            web.get(f"{API}/shared", answering(self._shared)),
            web.get(f"{API}/links", answering(self._list)),
            web.post(f"{API}/links", answering(self._make)),
            web.delete(f"{API}/links/{{link}}", answering(self._revoke)),
        ]

    async def _get(self, request: web.Request) -> web.StreamResponse:
        """Return with whom a file or folder is shared."""
        person = await self._door.person(request, write=False)
        path = path_in(request.query.get("path", ""))
        return answer(await self._door.run(self._told, person, path))

    def _told(self, person: Person, path: NodePath) -> dict[str, Any]:
        """Return with whom `path` is shared, as `person` may know it."""
        node = self._nodes.get(person, path, "properties")
        told = node.properties
        owner = told.get(CREATOR, "")
        people, groups = _held(told, USER_READ, USER_WRITE), _held(told, GROUP_READ, GROUP_WRITE)
        people.pop(owner, None)
        mine = person.name is not None and owner == person.name
        links = [link for link in self._links.of_owner(person.name or "") if link.path == path]
        return {
            "path": str(path),
            "name": path.shown_name,
            "kind": "folder" if node.kind == CONTAINER else "file",
            "owner": owner,
            "mine": mine and len(path.parts) > 2,
            "people": people,
            "groups": groups,
            "public": told.get(IS_PUBLIC) == "true" and open_to_all(self._nodes, path.parent),
            "your_groups": sorted(person.groups) if mine else [],
            "links": [self._link(link) for link in links],
            "longest_days": self._links.longest_s / 86400,
        }

    async def _set(self, request: web.Request) -> web.StreamResponse:
        """Share ``path`` with exactly ``people`` and ``groups`` (name: read or write), and with all if ``public``.

        A folder is shared with all that is in it, which is work that can take its time.
        """
        person = await self._door.person(request, write=True)
        document = await document_of(request)
        path = path_in(text_in(document, "path"))
        if len(path.parts) <= 2:
            raise invalid_argument(f"{path} as a whole is not shared; share a folder in it")
        await self._door.run(self._check_names, person, document)
        authority = self._door.settings.authority
        properties: dict[str, str | None] = {}
        for name, read, write, uri in (
            ("people", USER_READ, USER_WRITE, authority.user_uri),
            ("groups", GROUP_READ, GROUP_WRITE, authority.group_uri),
        ):
            if name in document:
                given = _given(document, name)
                properties[read] = " ".join(uri(each) for each in given) or None
                properties[write] = " ".join(uri(each) for each, access in given.items() if access == "write") or None
        if "public" in document:
            properties[IS_PUBLIC] = "true" if document["public"] is True else "false"
        node = await self._door.run(self._put, person, NodeRequest(path, None, properties))
        if node.kind != CONTAINER:
            return answer({"phase": "done", "share": await self._door.run(self._told, person, path)})
        return await self._work.begin(request, person, Task("share", [path], properties=properties))

    def _put(self, person: Person, request: NodeRequest) -> Node:
        if request.properties.get(IS_PUBLIC) == "true" and not open_to_all(self._nodes, request.path.parent):
            # What says already that all may read it, in a folder that nobody gets into, would be left as it is.
            self._nodes.set(person, NodeRequest(request.path, None, {IS_PUBLIC: "false"}))
        return self._nodes.set(person, request)

    def _check_names(self, person: Person, document: dict[str, Any]) -> None:
        """Refuse names that nobody here has. Raises `Fault`."""
        for name, code in (("people", "files-no-person"), ("groups", "files-no-group")):
            for each in _given(document, name) if name in document else ():
                if (self._owners.uid(each) if name == "people" else self._owners.gid(each, person)) is None:
                    raise Fault(code, name=each)

    async def _shared(self, request: web.Request) -> web.StreamResponse:
        """Return what others share with the person."""
        person = await self._door.person(request, write=False)
        if person.name is None:
            raise Fault("vospace-permission-denied", uri="/")
        return answer({"entries": await self._door.run(self._shares.with_person, person)})

    async def _list(self, request: web.Request) -> web.StreamResponse:
        """Return one's public links."""
        person = await self._door.person(request, write=False)
        links = await self._door.run(self._links.of_owner, person.name) if person.name is not None else []
        return answer({"links": [self._link(link) for link in links]})

    async def _make(self, request: web.Request) -> web.StreamResponse:
        """Make a link to ``path`` that works for ``hours``."""
        person = await self._door.person(request, write=True)
        document = await document_of(request)
        path, hours = path_in(text_in(document, "path")), document.get("hours")
        if isinstance(hours, bool) or not isinstance(hours, int | float) or hours > _MOST_HOURS:
            raise invalid_argument("`hours` is no number, or too large")
        if person.name is None or len(path.parts) <= 2:
            raise Fault("vospace-permission-denied", uri=str(path))

        def work() -> Link:
            node = self._nodes.get(person, path, "properties")
            with self._nodes.acting(person, path, acl.READ), self._nodes.tree.node(path) as descriptor:
                status, mark = os.fstat(descriptor), mark_of(descriptor)
            if node.properties.get(CREATOR) != person.name or (can_switch() and status.st_uid != person.identity.uid):
                # Who was given a share is not to give it on to everybody.
                raise Fault("vospace-permission-denied", uri=f"{path} (only its owner makes public links)")
            return self._links.make(str(person.name), path, lifetime_s=hours * 3600, mark=mark)

        return answer(self._link(await self._door.run(work)), status=201)

    async def _revoke(self, request: web.Request) -> web.StreamResponse:
        """Revoke a public link."""
        person = await self._door.person(request, write=True)
        await self._door.run(self._links.revoke, person.name or "", request.match_info["link"])
        return web.Response(status=204)

    def _link(self, link: Link) -> dict[str, Any]:
        return {
            "id": link.id,
            "path": str(link.path),
            "name": link.path.shown_name,
            "url": f"{self._link_url}/{self._links.token(link)}",
            "until": datetime.fromtimestamp(link.expires_at, tz=UTC).isoformat(timespec="seconds"),
        }


def _held(told: Any, read: str, write: str) -> dict[str, str]:
    def names(uri: str) -> list[str]:
        return [text.rsplit("?", 1)[-1] for text in told.get(uri, "").split()]

    writers = set(names(write))
    return {name: "write" if name in writers else "read" for name in sorted({*names(read), *writers})}


def _given(document: dict[str, Any], name: str) -> dict[str, str]:
    value = document[name]
    if not isinstance(value, dict) or len(value) > 100 or not all(each in ACCESS for each in value.values()):
        raise invalid_argument(f"`{name}` is no object of at most 100 names, each with one of: {', '.join(ACCESS)}")
    for each in value:
        if not each or not each.isascii() or len(each) > 64 or any(char in each for char in " ?#/\t\n"):
            raise invalid_argument(f"{each[:80]!r} is no name of a person or group")
    return value
