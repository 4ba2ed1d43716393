"""The people whom the end-to-end tests over HTTP share: who they are to each other is said here, once."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import pytest

from tests.support.looping import Run, event_loop_in_a_thread
from tests.support.person import Person
from tests.support.platform import Platform, wait_until

PASSWORD: Final = "slow-pulsar-1967"

OWNER: Final = "rowan"
"""Whose server, home and group all is about; has a running server."""
MEMBER: Final = "mira"
"""In the owner's group."""
OTHER: Final = "otto"
"""Has nothing to do with the owner; has a running server, too."""
ADMIN: Final = "alma"
DISABLED: Final = "dora"
"""Signed in everywhere, with a token, and then disabled."""
GROUP: Final = "survey"


@contextmanager
def with_server(platform: Platform, run: Run, name: str) -> Iterator[Person]:
    """Somebody with a running server."""
    platform.add(name, PASSWORD)
    made = run(Person(platform.url, name, PASSWORD).__aenter__())
    try:
        run(made.sign_in())
        run(made.start_server())
        run(made.enter_server())
        yield made
        run(made.hub_api("DELETE", f"/users/{name}/servers/"))
    finally:
        run(made.__aexit__())


@dataclass
class Cast:
    """People of a running platform, signed in by browser at the hub and its services, each with a token."""

    platform: Platform
    run: Run
    people: dict[str, Person] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    bases: dict[str, str] = field(default_factory=dict)
    """The addresses of the servers of `OWNER` and `OTHER`."""
    kernels: dict[str, str] = field(default_factory=dict)
    """A kernel in each."""

    def cell(self, code: str, *, who: str = OWNER) -> str:
        """Return what `code` prints in `who`'s kernel, or ``!Name: text`` of the exception that ends it."""
        answer = self.run(self.people[who].run_cell(self.bases[who], self.kernels[who], code))
        text = f"!{answer['error']}" if answer["error"] else answer["text"]
        return str(text).strip()


async def _sign_in(person: Person) -> None:
    status, where = await person.sign_in()
    assert (status, where) == (200, "/services/portal/home"), (person.username, status, where)
    async with person.session.get(f"{person.url}/services/passport/sign-in/hub?next=/") as answer:
        assert answer.status == 200, (person.username, answer.status)


async def _enter_server(cast: Cast, name: str) -> None:
    person = cast.people[name]
    await person.start_server()
    cast.bases[name] = await person.enter_server()
    cast.kernels[name] = await person.start_kernel(cast.bases[name])


async def _is_out(cast: Cast, name: str) -> bool:
    """Tell whether neither the token nor a cookie of `name` opens anything any more."""
    url, session = cast.platform.url, cast.people[name].session
    headers = {"Authorization": f"Bearer {cast.tokens[name]}"}
    for path in ("/hub/api/user", "/services/portal/api/servers"):
        async with session.get(url + path, headers=headers) as answer:
            if answer.status < 400:
                return False
    for path in ("/hub/home", "/services/portal/home", "/services/passport/account"):
        async with session.get(url + path, allow_redirects=False) as answer:
            if answer.status == 200:
                return False
    return True


@pytest.fixture(scope="session")
def run() -> Iterator[Run]:
    """Runs coroutines, all in one loop, so that people keep their connections and cookies from test to test."""
    with event_loop_in_a_thread() as runner:
        yield runner


@pytest.fixture(scope="session")
def cast(platform: Platform, run: Run) -> Iterator[Cast]:
    """The people, made once a run; no test changes them."""
    made = Cast(platform, run)
    options = {ADMIN: ("--admin",), OWNER: ("--group", GROUP), MEMBER: ("--group", GROUP), OTHER: (), DISABLED: ()}
    try:
        for name, given in options.items():
            platform.add(name, PASSWORD, *given)
            made.people[name] = run(Person(platform.url, name, PASSWORD).__aenter__())
            run(_sign_in(made.people[name]))
            made.tokens[name] = platform.run_json("token", name)["token"]
        for name in (OWNER, OTHER):
            run(_enter_server(made, name))
        assert platform.run("user", "disable", DISABLED).returncode == 0
        wait_until(lambda: run(_is_out(made, DISABLED)), within_s=30, what="the disabled person to be out")
        yield made
    finally:
        for person in made.people.values():
            run(person.__aexit__())


needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="people have user ids of their own only where root runs the platform"
)
