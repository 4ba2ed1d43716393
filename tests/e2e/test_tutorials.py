"""The tutorials in a real server: opened as the portal opens them, run over the websocket as the Lab runs them.

In the browser, `test_journey.py` runs *First look*; here all of them are run, for their numbers.
"""

import asyncio
import json
import urllib.parse
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.e2e.cast import with_server
from tests.notebooks import checks
from tests.support.looping import Run
from tests.support.person import Person
from tests.support.platform import Platform

pytestmark = pytest.mark.slow
NAME = "terra"


@pytest.fixture(scope="module")
def person(platform: Platform, run: Run) -> Iterator[Person]:
    """Somebody with a running server."""
    with with_server(platform, run, NAME) as made:
        yield made


@pytest.fixture(scope="module")
def expected(astro_python: Path) -> dict[str, dict[str, float]]:
    """The numbers, computed another way."""
    return checks.expected_numbers(astro_python)


async def open_copy(person: Person, base: str, tutorial: str, language: str) -> str:
    """Open a tutorial by the address that the portal leads to; return the copy's path in the file tree."""
    address = f"{base}astrocloud/tutorials/open?tutorial={tutorial}&lang={language}"
    # As a browser says of a link on a page of the same origin.
    headers = {"Sec-Fetch-Site": "same-origin", "Referer": f"{person.url}/"}
    async with person.session.get(address, headers=headers, allow_redirects=False) as answer:
        assert answer.status == 302, await answer.text()
        path = urllib.parse.urlsplit(answer.headers["Location"]).path
    start = urllib.parse.urlsplit(f"{base}lab/tree/").path
    assert path.startswith(start)
    return urllib.parse.unquote(path.removeprefix(start))


async def run_cells(person: Person, base: str, kernel: str, document: dict[str, Any]) -> None:
    """Run the cells of `document` one after another and put their outputs into them, as JupyterLab does."""
    address = base.replace("http", "ws", 1) + f"api/kernels/{kernel}/channels"
    async with person.session.ws_connect(address, max_msg_size=0) as socket:
        for cell in document["cells"]:
            if cell["cell_type"] == "code":
                cell["outputs"], cell["execution_count"] = await run_cell(socket, "".join(cell["source"]))


async def run_cell(socket: aiohttp.ClientWebSocketResponse, source: str) -> tuple[list[dict[str, Any]], int | None]:
    """Return the outputs of a cell, in the form in which a notebook keeps them, and its number."""
    message = uuid.uuid4().hex
    header = {"msg_id": message, "msg_type": "execute_request", "username": "", "session": "x", "version": "5.3"}
    content = {"code": source, "silent": False, "store_history": True, "user_expressions": {}, "allow_stdin": False}
    await socket.send_json(
        {
            "header": {**header, "date": "2026-01-01T00:00:00Z"},
            "parent_header": {},
            "metadata": {},
            "content": content,
            "channel": "shell",
        }
    )
    outputs: list[dict[str, Any]] = []
    count, idle, replied = None, False, False
    while not (idle and replied):
        received = json.loads(await socket.receive_str())
        if received["parent_header"].get("msg_id") != message:
            continue
        kind, told = received["msg_type"], received["content"]
        if kind in {"stream", "execute_result", "display_data", "error"}:
            outputs.append({"output_type": kind, **told})
        elif kind == "execute_reply":
            replied, count = True, told["execution_count"]
        elif kind == "status":
            idle = told["execution_state"] == "idle"
    return outputs, count


@pytest.mark.parametrize("language", checks.LANGUAGES)
@pytest.mark.parametrize("tutorial", checks.TUTORIALS)
def test_a_tutorial_runs_in_a_real_server_with_the_right_numbers(
    platform: Platform, run: Run, person: Person, expected: dict[str, dict[str, float]], tutorial: str, language: str
) -> None:
    base = f"{platform.url}/user/{NAME}/"

    async def work() -> dict[str, Any]:
        path = await open_copy(person, base, tutorial, language)
        assert path == f"home/{NAME}/tutorials/{tutorial}.{language}.ipynb"
        status, answer = await person.server_api(base, "GET", f"api/contents/{path}")
        assert status == 200, answer
        document: dict[str, Any] = answer["content"]
        async with asyncio.timeout(240):
            kernel = await person.start_kernel(base, path=path)
            await run_cells(person, base, kernel, document)
        status, answer = await person.server_api(base, "DELETE", f"api/kernels/{kernel}")
        assert status == 204, answer
        # Saved and read again: what the file then holds is what counts.
        status, answer = await person.server_api(
            base, "PUT", f"api/contents/{path}", {"type": "notebook", "format": "json", "content": document}
        )
        assert status == 200, answer
        kept = (platform.data / "tree" / path).read_text(encoding="utf-8")
        saved: dict[str, Any] = json.loads(kept)
        return saved

    checks.check_outputs(tutorial, run(work(), within_s=280), expected[tutorial])
