"""Every route of the platform and who may use it: the running parts' own lists of routes against `routes.yaml`.

A route without a row fails, and so does a row without a route. See the comment at the head of the table.
"""

import asyncio
import json
import re
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest
import yaml

from tests.e2e.cast import ADMIN, DISABLED, MEMBER, OTHER, OWNER, Cast
from tests.support.platform import REPOSITORY

TABLE: Final = yaml.safe_load(Path(__file__).with_name("routes.yaml").read_text(encoding="utf-8"))
SENT_TO_SIGN_IN: Final = "in"
BY_TOKEN: Final = ("nobody", "user", "other", "member", "server", "admin", "disabled")
BY_COOKIE: Final = ("nobody", "user", "other", "member", "admin", "disabled")
NAMES: Final = {"user": OWNER, "other": OTHER, "member": MEMBER, "admin": ADMIN, "disabled": DISABLED}
AT_ONCE: Final = 6
SIGN_IN: Final = re.compile(r"/hub/login|/hub/api/oauth2/authorize|/services/\w+/sign-in")


@dataclass(frozen=True)
class Row:
    """One route of the table."""

    route: str
    """``METHOD pattern``, as the part itself calls it."""
    address: str
    """What is asked for in the test."""
    body: object
    form: Mapping[str, str] | None
    by_token: tuple[object, ...] | None
    by_cookie: tuple[object, ...] | None

    @property
    def method(self) -> str:
        """Its HTTP method."""
        return self.route.split(" ", 1)[0]


def expected(answers: object, columns: tuple[str, ...]) -> tuple[object, ...] | None:
    """Return an answer a column for what a row says: a list, the name of one, or `None`."""
    found = TABLE["answers"].get(answers, answers) if isinstance(answers, str) else answers
    if found is None:
        return None
    listed = tuple(found) if isinstance(found, list) else (found,) * len(columns)
    assert len(listed) == len(columns), f"{answers} is not one answer for each of {columns}"
    return listed


def rows(part: str) -> list[Row]:
    """Return the table's rows of `part`, but for those that say why they are not tried."""
    return [
        Row(
            route=route,
            address=told.get("at", route.split(" ", 1)[1].rstrip("$?")).format(user=OWNER),
            body=told.get("body", {}),
            form=told.get("form"),
            by_token=expected(told.get("token"), BY_TOKEN),
            by_cookie=expected(told.get("cookie"), BY_COOKIE),
        )
        for route, told in TABLE[part].items()
        if "why" not in told
    ]


@pytest.fixture(scope="session")
def routes(cast: Cast) -> dict[str, list[str]]:
    """The routes of the parts, by their own word."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.e2e.introspection"],
        env=cast.platform.variables,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, list[str]] = json.loads(done.stdout)
    return told


@pytest.fixture(scope="session")
def server_token(cast: Cast) -> str:
    """The token that the owner's server has of the hub."""
    token = cast.cell("import os; print(os.environ['JUPYTERHUB_API_TOKEN'])")
    assert len(token) >= 32
    return token


async def answers(cast: Cast, row: Row, *, server_token: str, cookies: bool) -> AsyncIterator[tuple[str, object, str]]:
    """Yield who -> status (or `SENT_TO_SIGN_IN`) and what came, for each way to ask for `row`."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as bare:
        for who in BY_COOKIE if cookies else BY_TOKEN:
            session = bare
            headers = {"Accept": "text/html" if cookies else "application/json"}
            if cookies and who != "nobody":
                session = cast.people[NAMES[who]].session
            elif who == "server":
                headers["Authorization"] = f"Bearer {server_token}"
            elif who != "nobody":
                headers["Authorization"] = f"Bearer {cast.tokens[NAMES[who]]}"
            sent: dict[str, Any] = {}
            if row.method not in {"GET", "OPTIONS"}:
                # A page's form and a foreign page's are alike, but for the token.
                as_form = cookies or row.form is not None
                sent = {"data": row.form or {"some": "field"}} if as_form else {"json": row.body}
            address = cast.platform.url + row.address
            async with session.request(
                row.method, address, headers=headers, allow_redirects=False, timeout=aiohttp.ClientTimeout(30), **sent
            ) as answer:
                leads = answer.headers.get("Location", "").removeprefix(cast.platform.url)
                status: object = answer.status
                if answer.status in {302, 303} and SIGN_IN.match(leads):
                    status = SENT_TO_SIGN_IN
                stream = answer.content_type == "text/event-stream"
                yield who, status, leads if leads else ("" if stream else (await answer.text(errors="replace"))[:300])


async def compare(cast: Cast, part: str, *, server_token: str, cookies: bool) -> list[str]:
    """Return what differs from the table."""
    wrong: list[str] = []
    limit = asyncio.Semaphore(AT_ONCE)

    async def one(row: Row) -> None:
        wanted_of_all = row.by_cookie if cookies else row.by_token
        if wanted_of_all is None:
            return
        async with limit:
            got = [found async for found in answers(cast, row, server_token=server_token, cookies=cookies)]
        for (who, status, said), wanted in zip(got, wanted_of_all, strict=True):
            if status != wanted:
                wrong.append(f"{row.route} as {who}: {status}, not {wanted}: {said}")

    # One after another for each row, so that the rows themselves are what runs side by side.
    await asyncio.gather(*(one(row) for row in rows(part)))
    return wrong


@pytest.mark.parametrize("part", ["services", "hub"])
def test_every_route_has_a_row_and_every_row_a_route(routes: dict[str, list[str]], part: str) -> None:
    told, listed = set(routes[part]), set(TABLE[part])
    assert not told - listed, f"add a row to routes.yaml for each of: {sorted(told - listed)}"
    assert not listed - told, f"no such route any more: {sorted(listed - told)}"


@pytest.mark.slow
@pytest.mark.parametrize("part", ["services", "hub", "server"])
@pytest.mark.parametrize("way", ["token", "cookie"])
def test_a_route_answers_each_person_as_the_table_says(cast: Cast, server_token: str, part: str, way: str) -> None:
    wrong = cast.run(compare(cast, part, server_token=server_token, cookies=way == "cookie"), within_s=240)
    assert not wrong, "\n".join(wrong)


def test_what_the_platform_adds_to_a_server_has_a_row(cast: Cast) -> None:
    code = """
        from astrocloud_lab.server_extension import _load_jupyter_server_extension as load
        added = []
        class App:
            settings = {"base_url": "/", "log": None}
            def add_handlers(self, host, handlers):
                added.extend(handlers)
        class Server:
            web_app = App()
            def __getattr__(self, name):
                return None
        load(Server())
        for rule in added:
            print(*(f"{m.upper()} {rule[0]}" for m in ("get", "post", "put", "patch", "delete") if m in vars(rule[1])))
    """
    told = set(filter(None, cast.cell(textwrap.dedent(code)).splitlines()))
    assert told
    listed = {route.replace("/user/{user}/", "/") for route in TABLE["server"]}
    assert not told - listed
