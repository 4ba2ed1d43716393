"""A working substitute of the part of JupyterHub's REST API that the portal uses, with its OAuth.

It holds people, their tokens and their servers in memory and answers on the application that it is added to.
"""

import asyncio
import secrets
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from aiohttp import web


@dataclass
class FakeServer:
    """A server at the fake hub."""

    name: str
    display_name: str = ""
    ready: bool = True
    pending: str | None = None
    user_options: dict[str, Any] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)
    started: str | None = "2026-01-02T03:04:05.000000Z"
    last_activity: str | None = "2026-01-02T03:14:05.000000Z"

    def model(self, owner: str, *, with_state: bool) -> dict[str, Any]:
        document = {
            "name": self.name,
            "display_name": self.display_name or self.name,
            "ready": self.ready,
            "pending": self.pending,
            "stopped": not self.ready and self.pending is None,
            "url": f"/user/{owner}/{self.name}".rstrip("/") + "/",
            "user_options": self.user_options,
            "started": self.started,
            "last_activity": self.last_activity,
        }
        return {**document, "state": self.state} if with_state else document


@dataclass
class FakePerson:
    """A person at the fake hub."""

    name: str
    admin: bool = False
    servers: dict[str, FakeServer] = field(default_factory=dict)


class FakeHub:
    """The fake hub.

    Parameters
    ----------
    service_token
        The portal's own token.
    """

    def __init__(self, *, service_token: str) -> None:
        self.people: dict[str, FakePerson] = {}
        self.tokens: dict[str, tuple[str, frozenset[str]]] = {}
        self.service_token = service_token
        self.codes: dict[str, str] = {}
        self.signing_in = ""
        """Who is at the hub's sign-in page."""
        self.start_takes = asyncio.Event()
        """A start answers once this is set; set it for servers that are ready at once."""
        self.start_takes.set()
        self.refuse_start: str | None = None
        self.away = False
        self.nodes: dict[str, Any] = {"known": True, "nodes": []}
        """What is the matter with the nodes."""
        self.calls: list[tuple[str, str, str]] = []
        """(method, path, who) of every change asked for."""

    def add(self, name: str, *, admin: bool = False, servers: tuple[FakeServer, ...] = ()) -> FakePerson:
        self.people[name] = FakePerson(name, admin, {server.name: server for server in servers})
        return self.people[name]

    def token_of(self, name: str, *scopes: str) -> str:
        """Return a new token of `name`; without scopes, one that may do all that the person may."""
        token = secrets.token_hex(8)
        everything = frozenset({f"servers!user={name}", f"custom:portal:use!user={name}"})
        if self.people[name].admin:
            everything |= {"servers", "custom:portal:use", "custom:announcements:admin"}
        self.tokens[token] = (name, frozenset(scopes) if scopes else everything)
        return token

    def routes(self) -> list[web.AbstractRouteDef]:
        api = "/hub/api"
        return [
            web.get(f"{api}/", self._version),
            web.get(f"{api}/oauth2/authorize", self._authorize),
            web.post(f"{api}/oauth2/token", self._token),
            web.get(f"{api}/user", self._whoami),
            web.get(f"{api}/astrocloud/nodes", self._nodes),
            web.get(f"{api}/users", self._users),
            web.get(api + "/users/{name}", self._user),
            web.post(api + "/users/{name}/servers/{server}", self._start),
            web.delete(api + "/users/{name}/servers/{server}", self._stop),
            web.post(api + "/users/{name}/server", self._start),
            web.delete(api + "/users/{name}/server", self._stop),
            web.get("/hub/logout", self._logout),
        ]

    async def _version(self, _request: web.Request) -> web.Response:
        if self.away:
            raise web.HTTPServiceUnavailable
        return web.json_response({"version": "6.1.1"})

    async def _authorize(self, request: web.Request) -> web.Response:
        code = secrets.token_hex(8)
        self.codes[code] = self.signing_in
        query = urlencode({"code": code, "state": request.query["state"]})
        return web.Response(status=302, headers={"Location": f"{request.query['redirect_uri']}?{query}"})

    async def _token(self, request: web.Request) -> web.Response:
        form = await request.post()
        name = self.codes.pop(str(form["code"]), None)
        if name is None:
            return web.json_response({"message": "no such code"}, status=400)
        return web.json_response({"access_token": self.token_of(name), "token_type": "Bearer"})

    def _who(self, request: web.Request) -> tuple[str, frozenset[str]]:
        if self.away:
            raise web.HTTPServiceUnavailable
        token = request.headers.get("Authorization", "").partition(" ")[2]
        if token == self.service_token:
            return "portal", frozenset({"read:users", "read:servers", "admin:server_state"})
        if token not in self.tokens:
            raise web.HTTPForbidden
        return self.tokens[token]

    async def _whoami(self, request: web.Request) -> web.Response:
        name, scopes = self._who(request)
        person = self.people[name]
        allowed = [*sorted(scopes), "access:services!service=portal"]
        return web.json_response({"name": name, "kind": "user", "admin": person.admin, "groups": [], "scopes": allowed})

    async def _nodes(self, request: web.Request) -> web.Response:
        assert self._who(request)[0] == "portal"
        return web.json_response(self.nodes)

    def _model(self, person: FakePerson, *, stopped: bool, with_state: bool) -> dict[str, Any]:
        shown = {n: s for n, s in person.servers.items() if stopped or s.ready or s.pending}
        servers = {n: s.model(person.name, with_state=with_state) for n, s in shown.items()}
        return {"name": person.name, "kind": "user", "admin": person.admin, "servers": servers}

    async def _users(self, request: web.Request) -> web.Response:
        _, scopes = self._who(request)
        assert "read:servers" in scopes
        start = int(request.query.get("offset", 0))
        people = list(self.people.values())[start : start + int(request.query.get("limit", 50))]
        return web.json_response([self._model(person, stopped=False, with_state=True) for person in people])

    async def _user(self, request: web.Request) -> web.Response:
        _, scopes = self._who(request)
        person = self.people.get(request.match_info["name"])
        if person is None:
            return web.json_response({"status": 404, "message": "Not Found"}, status=404)
        stopped = request.query.get("include_stopped_servers") == "1"
        return web.json_response(self._model(person, stopped=stopped, with_state="admin:server_state" in scopes))

    def _may(self, request: web.Request) -> FakePerson | None:
        who, scopes = self._who(request)
        name = request.match_info["name"]
        self.calls.append((request.method, request.path.removeprefix("/hub/api"), who))
        return self.people[name] if scopes & {"servers", f"servers!user={name}"} else None

    async def _start(self, request: web.Request) -> web.Response:
        person = self._may(request)
        if person is None:
            return web.json_response({"status": 403, "message": "Action is not authorized"}, status=403)
        if self.refuse_start is not None:
            return web.json_response({"status": 500, "message": self.refuse_start}, status=500)
        body = await request.json()
        name = request.match_info.get("server", "")
        server = person.servers[name] = FakeServer(
            name,
            body.get("display_name", ""),
            ready=False,
            pending="spawn",
            user_options=body["user_options"],
            started=None,
        )
        await self.start_takes.wait()
        server.ready, server.pending, server.started = True, None, "2026-01-02T03:04:05.000000Z"
        return web.Response(status=201)

    async def _stop(self, request: web.Request) -> web.Response:
        person = self._may(request)
        if person is None:
            return web.json_response({"status": 403, "message": "Action is not authorized"}, status=403)
        server = person.servers.get(request.match_info.get("server", ""))
        if server is None:
            return web.json_response({"status": 404, "message": "Not Found"}, status=404)
        who, _ = self._who(request)
        server.ready, server.pending = False, None
        server.state = {"last_end": {"reason": "stopped", "by": who, "at": "2026-01-02T04:00:00+00:00", "exit_code": 0}}
        if request.can_read_body and (await request.json()).get("remove"):
            del person.servers[server.name]
        return web.Response(status=204)

    async def _logout(self, _request: web.Request) -> web.Response:
        return web.Response(text="signed out")
