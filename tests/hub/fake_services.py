"""A working substitute for the services process: the directory, and a passport that lets people in without asking."""

import asyncio
import base64
import hashlib
import secrets
import threading
import time
from typing import Any
from urllib.parse import urlencode

from aiohttp import web
from joserfc import jwt
from joserfc.jwk import RSAKey


class FakeServices:
    """Serves what the hub asks of the services, in a thread of its own.

    ``people`` is the directory: username -> document. ``passport_user`` is who signs in at the embedded passport.
    """

    def __init__(self, *, port: int, internal: str, client_secret: str, public_url: str) -> None:
        self.port = port
        self.internal = internal
        self.client_secret = client_secret
        self.issuer = f"{public_url}/services/passport"
        self.people: dict[str, dict[str, Any]] = {}
        self.links: dict[tuple[str, str], str] = {}
        self.passport_user = "ada"
        self.asked: list[str] = []
        self.away = False
        self.key = RSAKey.generate_key(2048, parameters={"kid": "one", "use": "sig", "alg": "RS256"})
        self.codes: dict[str, dict[str, str]] = {}
        self.claims: dict[str, Any] = {}
        self.header: dict[str, Any] = {}
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def add(self, name: str, uid: int, **more: Any) -> None:
        self.people[name] = {
            "username": name, "uid": uid, "gid": uid, "groups": [], "admin": False, "language": "en",
            "status": "active",
            **more,
        }  # fmt: skip

    def __enter__(self) -> "FakeServices":
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        prefix = "/services/passport"
        app = web.Application()
        app.router.add_post(f"{prefix}/api/internal/sign-in", self._sign_in)
        app.router.add_get(f"{prefix}/api/internal/people/{{name}}", self._person)
        app.router.add_get(f"{prefix}/authorize", self._authorize)
        app.router.add_post(f"{prefix}/token", self._token)
        app.router.add_get(f"{prefix}/jwks", self._jwks)
        app.router.add_get(f"{prefix}/userinfo", self._nothing)
        app.router.add_get("/{rest:.*}", self._page)
        runner = web.AppRunner(app)
        self._loop.run_until_complete(runner.setup())
        self._loop.run_until_complete(web.TCPSite(runner, "127.0.0.1", self.port).start())
        self._ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())
        self._loop.close()

    def _check(self, request: web.Request) -> None:
        if self.away:
            raise web.HTTPServiceUnavailable
        if request.headers.get("Authorization") != f"Bearer {self.internal}":
            raise web.HTTPUnauthorized

    async def _sign_in(self, request: web.Request) -> web.Response:
        self._check(request)
        body = await request.json()
        self.asked.append(f"{body['issuer']} {body['subject']}")
        name = self.links.get((body["issuer"], body["subject"]), body["subject"])
        person = self.people.get(name)
        code = "sign-up-closed" if person is None else None
        if person is not None and person["status"] != "active":
            code = f"account-{person['status']}"
        if code:
            problem = {"status": 403, "code": code, "detail": f"{code} in {request.headers['Accept-Language']}"}
            return web.json_response(problem, status=403)
        return web.json_response(person)

    async def _person(self, request: web.Request) -> web.Response:
        self._check(request)
        person = self.people.get(request.match_info["name"])
        return web.json_response(person) if person else web.json_response({}, status=404)

    async def _authorize(self, request: web.Request) -> web.Response:
        query = request.query
        assert query["code_challenge_method"] == "S256"
        code = secrets.token_urlsafe(16)
        self.codes[code] = {"nonce": query["nonce"], "challenge": query["code_challenge"], "sub": self.passport_user}
        back = urlencode({"code": code, "state": query["state"], "iss": self.issuer})
        raise web.HTTPFound(f"{query['redirect_uri']}?{back}")

    async def _token(self, request: web.Request) -> web.Response:
        form = await request.post()
        pair = base64.b64decode(request.headers["Authorization"].removeprefix("Basic ")).decode()
        kept = self.codes.pop(str(form["code"]), None)
        digest = hashlib.sha256(str(form["code_verifier"]).encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if pair != f"hub:{self.client_secret}":
            return web.json_response({"error": "invalid_client"}, status=401)
        if kept is None or kept["challenge"] != challenge:
            return web.json_response({"error": "invalid_grant"}, status=400)
        now = int(time.time())
        claims = {
            "iss": self.issuer, "aud": "hub", "sub": kept["sub"], "exp": now + 300, "iat": now, "nonce": kept["nonce"],
            "name": kept["sub"].title(), "email": f"{kept['sub']}@example.org", **self.claims,
        }  # fmt: skip
        token = self.sign(claims)
        return web.json_response({"access_token": "at", "token_type": "Bearer", "id_token": token})

    def sign(self, claims: dict[str, Any]) -> str:
        if self.header.get("alg") == "none":
            parts = [b'{"alg":"none"}', __import__("json").dumps(claims).encode(), b""]
            return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)
        return jwt.encode({"alg": "RS256", "kid": "one", **self.header}, claims, self.key)

    async def _jwks(self, _request: web.Request) -> web.Response:
        return web.json_response({"keys": [self.key.as_dict(private=False)]})

    async def _nothing(self, _request: web.Request) -> web.Response:
        return web.json_response({})

    async def _page(self, request: web.Request) -> web.Response:
        return web.Response(text=f"services: {request.path}")
