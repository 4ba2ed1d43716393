"""From the sign-in form to the first cell's result, here and at a stock hub, in one run."""

import asyncio
import json
import re
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from tests.support.person import Person, forms

CELLS = {
    "trivial": "print(6 * 7)",
    "science": "import numpy, astropy.units, matplotlib.pyplot\nprint(6 * 7)",
}


@dataclass
class Session:
    """Seconds after the sign-in form was sent."""

    lab: float = 0.0
    kernel: float = 0.0
    results: dict[str, float] = field(default_factory=dict)


async def own_session(url: str, name: str, password: str, *, cell: str) -> Session:
    """Sign in, start a server by the front page's form, and run a cell."""
    async with Person(url, name, password) as person:
        async with person.session.get(f"{url}/services/portal/home") as answer:
            page, base = await answer.text(), str(answer.url)
        form = next(each for each in forms(page, base) if "password" in each.fields)
        filled = {**form.fields, "username": name, "password": password}
        started = time.perf_counter()
        async with person.session.post(form.action, data=filled, headers={"Referer": base}) as answer:
            page, base = await answer.text(), str(answer.url)
        form = next(each for each in forms(page, base) if each.action.endswith("/servers/start"))
        async with person.session.post(form.action, data=form.fields, headers={"Referer": base}) as answer:
            page, base = await answer.text(), str(answer.url)
        server = await _arrive(person, page, base)
        return await _first_result(person, server, started, cell)


async def stock_session(url: str, name: str, password: str, *, cell: str) -> Session:
    """Sign in at the stock hub, which starts the server, and run a cell."""
    async with Person(url, name, password) as person:
        async with person.session.get(f"{url}/hub/login") as answer:
            page, base = await answer.text(), str(answer.url)
        form = next(each for each in forms(page, base) if "password" in each.fields)
        filled = {**form.fields, "username": name, "password": password}
        started = time.perf_counter()
        async with person.session.post(form.action, data=filled, headers={"Referer": base}) as answer:
            page, base = await answer.text(), str(answer.url)
        server = await _arrive(person, page, base)
        return await _first_result(person, server, started, cell)


async def _arrive(person: Person, page: str, base: str) -> str:
    """Wait as the page that shows the progress does, and return the server's address once its lab has been loaded."""
    while "/user/" not in urlsplit(base).path:
        path = urlsplit(base).path
        assert "/hub/spawn" in path, (path, page[:2000])
        found = re.search(r"/hub/spawn(?:-pending)?/[^/?]+/?([^/?]*)", path)
        name = found[1] if found else ""
        address = f"{person.url}/hub/api/users/{person.username}/servers/{name}/progress"
        query = {"_xsrf": person.cookie("/hub/", "_xsrf")}
        async with person.session.get(address, params=query, headers={"Accept": "text/event-stream"}) as stream:
            async for line in stream.content:
                if line.startswith(b"data:"):
                    event = json.loads(line[5:])
                    assert not event.get("failed"), event
                    if event.get("ready"):
                        break
        async with person.session.get(base) as answer:
            page, base = await answer.text(), str(answer.url)
    found = re.match(r"(https?://[^/]+/user/[^/]+/(?:[^/]+/)??)(?:lab|tree|doc|astrocloud)", base)
    assert found, base
    return found[1]


async def _first_result(person: Person, server: str, started: float, cell: str) -> Session:
    session = Session(lab=time.perf_counter() - started)
    kernel = await person.start_kernel(server)
    session.kernel = time.perf_counter() - started
    result = await person.run_cell(server, kernel, CELLS[cell])
    assert "42" in result["text"], result
    session.results[cell] = time.perf_counter() - started
    return session


async def several(one: Any, url: str, names: list[str], password: str, *, cell: str) -> float:
    """Return the seconds until all of `names`, who sign in at once, have their results."""
    started = time.perf_counter()
    await asyncio.gather(*(one(url, name, password, cell=cell) for name in names))
    return time.perf_counter() - started
