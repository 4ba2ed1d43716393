"""A trial session goes to the proxy itself and is told there what it would be told at the front door."""

from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from pydantic import SecretStr

from astrocloud.operations.canary import Plan, try_out

ADDRESS = "https://astro.example.org"


class Front:
    """A platform of which nothing but the sign-in works, behind what ends TLS for it."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, str]] = []
        self.cookies: list[str | None] = []

    async def login(self, request: web.Request) -> web.Response:
        self._note(request)
        form = "<form action='/in' method=post><input name=username><input name=password type=password></form>"
        answer = web.Response(text=form, content_type="text/html")
        answer.set_cookie("started", "yes", secure=True)
        return answer

    async def sign_in(self, request: web.Request) -> web.Response:
        self._note(request)
        self.cookies.append(request.cookies.get("started"))
        raise web.HTTPFound(f"{ADDRESS}/services/portal/home")

    async def home(self, request: web.Request) -> web.Response:
        self._note(request)
        return web.Response(text="home")

    def _note(self, request: web.Request) -> None:
        self.seen.append((request.path, request.host, request.headers.get("X-Forwarded-Proto", "")))


@pytest.fixture
async def front() -> AsyncIterator[tuple[Front, str]]:
    found = Front()
    app = web.Application()
    app.router.add_get("/hub/login", found.login)
    app.router.add_post("/in", found.sign_in)
    app.router.add_get("/services/portal/home", found.home)
    async with TestServer(app) as server:
        yield found, str(server.make_url("")).rstrip("/")


async def test_it_signs_in_at_the_address_that_people_have(front: tuple[Front, str]) -> None:
    found, proxy = front
    plan = Plan(
        url=ADDRESS, username="canary", environment="astro", password=SecretStr("x"), connect_to=proxy, patience_s=5
    )

    trial = await try_out(plan)

    # Signed in; the hub's API is not there.
    assert trial.failed == "start", trial.reason
    assert found.seen == [
        ("/hub/login", "astro.example.org", "https"),
        ("/in", "astro.example.org", "https"),
        ("/services/portal/home", "astro.example.org", "https"),
    ]
    # A cookie that is for HTTPS alone comes back.
    assert found.cookies == ["yes"]


async def test_a_proxy_that_is_not_there_fails_the_first_step() -> None:
    plan = Plan(
        url=ADDRESS, username="canary", environment="astro", password=SecretStr("x"), connect_to="http://127.0.0.1:1"
    )

    trial = await try_out(plan)

    assert trial.failed == "sign-in"
    assert "astro.example.org" not in trial.reason
