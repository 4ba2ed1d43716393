"""Sign-in of a lean server against a real JupyterHub."""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urljoin, urlsplit

import aiohttp
import pytest
import pytest_asyncio
from yarl import URL

from tests.extensions.servers import free_port, stop, wait_for

CONFIG = Path(__file__).with_name("hub_config.py")
PASSWORD = "a good password"


@dataclass
class Answer:
    """The last of a chain of answers."""

    status: int
    url: str
    text: str
    headers: dict[str, str]


class Browser:
    """A browser whose requests go where the proxy would send them."""

    def __init__(self, session: aiohttp.ClientSession, platform: Platform) -> None:
        self.session = session
        self.platform = platform

    async def request(self, method: str, path: str, follow: bool = True, **options: object) -> Answer:
        for _ in range(20):
            host = self.platform.host_of(path)
            async with self.session.request(
                method,
                URL(host + path, encoded=True),
                allow_redirects=False,
                **options,  # type: ignore[arg-type]
            ) as answer:
                text = await answer.text()
                if not follow or answer.status not in {301, 302, 303, 307}:
                    return Answer(answer.status, path, text, dict(answer.headers))
                target = urlsplit(urljoin("http://x" + path, answer.headers["Location"]))
            path = target.path + (f"?{target.query}" if target.query else "")
            method, options = "GET", {key: value for key, value in options.items() if key == "headers"}
        raise AssertionError(f"redirected in circles at {path}")

    async def get(self, path: str, follow: bool = True, **options: object) -> Answer:
        return await self.request("GET", path, follow, **options)

    def cookie(self, name: str, path: str) -> str:
        host = self.platform.host_of(path)
        return self.session.cookie_jar.filter_cookies(URL(host + path))[name].value

    async def sign_in(self, name: str) -> None:
        await self.get("/hub/login")
        form = {"username": name, "password": PASSWORD, "_xsrf": self.cookie("_xsrf", "/hub/login")}
        answer = await self.request("POST", "/hub/login", False, data=form)
        assert answer.status == 302, answer.text


@dataclass
class Platform:
    """A hub and the server of ``ada``."""

    hub_port: int
    token: str
    homes: Path
    server_port: int = 0

    def host_of(self, path: str) -> str:
        port = self.server_port if path.startswith("/user/ada/") else self.hub_port
        return f"http://127.0.0.1:{port}"

    def api(self, method: str, path: str, document: object = None) -> object:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.hub_port}/hub/api{path}",
            method=method,
            data=None if document is None else json.dumps(document).encode(),
            headers={"Authorization": f"token {self.token}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.loads(answer.read() or b"null")

    def new_token(self, name: str) -> str:
        return str(self.api("POST", f"/users/{name}/tokens", {})["token"])  # type: ignore[index]


@pytest.fixture(scope="module")
def platform(lab_python: Path, tutorials: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A real hub with ada's server running, and mallory."""
    folder = tmp_path_factory.mktemp("hub")
    running = Platform(free_port(), secrets.token_hex(16), folder)
    settings = {
        "public_port": free_port(),
        "hub_port": running.hub_port,
        "homes": str(folder),
        "python": str(lab_python),
        "tutorials": str(tutorials),
        "token": running.token,
    }
    with (folder / "hub.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "jupyterhub", "-f", str(CONFIG)],
            cwd=folder,
            env=os.environ | {"HUB_TEST_SETTINGS": json.dumps(settings)},
            stdout=log,
            stderr=log,
        )
    try:

        def ready() -> bool:
            assert process.poll() is None, "the hub ended"
            try:
                return bool(running.api("GET", "/"))
            except URLError:
                return False

        wait_for(ready, "the hub answers")
        for name in ("ada", "mallory"):
            running.api("POST", f"/users/{name}")
        running.api("POST", "/users/ada/server", {})

        def target() -> str:
            routes = running.api("GET", "/proxy")
            return str(routes.get("/user/ada/", {}).get("target", ""))  # type: ignore[attr-defined]

        running.server_port = urlsplit(wait_for(target, "ada's server is ready")).port or 0
        yield running
    except BaseException:
        print((folder / "hub.log").read_text()[-6000:])
        raise
    finally:
        stop(process)


@pytest_asyncio.fixture
async def browser(platform: Platform) -> AsyncIterator[Browser]:
    """A browser with no cookies."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        yield Browser(session, platform)


@pytest.fixture
def log(platform: Platform) -> str:
    return (platform.homes / "hub.log").read_text()


def test_server_was_started_lean(log: str) -> None:
    assert "stock server" not in log
    assert "DeferringServerApp" in log


async def test_stranger_is_sent_to_the_sign_in(browser: Browser) -> None:
    answer = await browser.get("/user/ada/lab", follow=False)
    assert answer.status == 302
    assert answer.headers["Location"].startswith("/hub/api/oauth2/authorize?")
    assert "/hub/login" in (await browser.get("/user/ada/lab")).url


@pytest.mark.parametrize("path", ["api/contents", "api/kernels", "api/me", "api/terminals"])
async def test_stranger_gets_403_from_the_api(browser: Browser, path: str) -> None:
    assert (await browser.get(f"/user/ada/{path}", follow=False)).status == 403


async def test_owner_signs_in_by_oauth_and_sees_the_lab(browser: Browser) -> None:
    await browser.sign_in("ada")
    answer = await browser.get("/user/ada/lab")
    assert answer.status == 200
    config = json.loads(re.search(r'id="jupyter-config-data"[^>]*>(.*?)</script>', answer.text, re.S)[1])  # type: ignore[index]
    assert config["hubUser"] == "ada"


async def test_another_person_is_refused_after_signing_in(browser: Browser) -> None:
    await browser.sign_in("mallory")
    answer = await browser.get("/user/ada/lab")
    assert answer.status == 403


@pytest.mark.parametrize(("who", "status"), [("ada", 200), ("mallory", 403)])
async def test_tokens_open_the_owners_server_only(platform: Platform, browser: Browser, who: str, status: int) -> None:
    headers = {"Authorization": f"token {platform.new_token(who)}"}
    assert (await browser.get("/user/ada/api/contents", False, headers=headers)).status == status


async def test_forged_token_and_forged_cookie_are_refused(platform: Platform, browser: Browser) -> None:
    headers = {"Authorization": "token forged"}
    assert (await browser.get("/user/ada/api/contents", False, headers=headers)).status == 403
    cookie = {"Cookie": "jupyterhub-user-ada=forged"}
    assert (await browser.get("/user/ada/api/contents", False, headers=cookie)).status == 403


async def test_revoked_token_is_refused(platform: Platform, browser: Browser) -> None:
    made = platform.api("POST", "/users/ada/tokens", {})
    platform.api("DELETE", f"/users/ada/tokens/{made['id']}")  # type: ignore[index]
    headers = {"Authorization": f"token {made['token']}"}  # type: ignore[index]
    assert (await browser.get("/user/ada/api/contents", False, headers=headers)).status == 403


async def test_changes_by_cookie_need_the_xsrf_token(browser: Browser) -> None:
    await browser.sign_in("ada")
    await browser.get("/user/ada/lab")
    refused = await browser.request("POST", "/user/ada/api/kernels", False, json={})
    assert refused.status == 403
    headers = {"X-XSRFToken": browser.cookie("_xsrf", "/user/ada/")}
    made = await browser.request("POST", "/user/ada/api/kernels", False, json={}, headers=headers)
    assert made.status == 201
    kernel = json.loads(made.text)["id"]
    assert (await browser.request("DELETE", f"/user/ada/api/kernels/{kernel}", False, headers=headers)).status == 204


async def websocket_status(browser: Browser, path: str, **headers: str) -> int:
    """Return the status of a websocket's handshake: 101 if it opened."""
    url = URL(browser.platform.host_of(path) + path, encoded=True)
    try:
        async with browser.session.ws_connect(url, headers=headers):
            return 101
    except aiohttp.WSServerHandshakeError as error:
        return error.status


async def test_websockets_need_a_person_who_may(platform: Platform, browser: Browser) -> None:
    owner = {"Authorization": f"token {platform.new_token('ada')}"}
    made = await browser.request("POST", "/user/ada/api/kernels", False, json={}, headers=owner)
    kernel = json.loads(made.text)["id"]
    path = f"/user/ada/api/kernels/{kernel}/channels"
    terminal = json.loads((await browser.request("POST", "/user/ada/api/terminals", False, headers=owner)).text)["name"]
    for one in (path, f"/user/ada/terminals/websocket/{terminal}"):
        assert await websocket_status(browser, one) == 403
        assert await websocket_status(browser, one, Authorization=f"token {platform.new_token('mallory')}") == 403
        assert await websocket_status(browser, one, **owner) == 101
    await browser.request("DELETE", f"/user/ada/api/kernels/{kernel}", False, headers=owner)
    await browser.request("DELETE", f"/user/ada/api/terminals/{terminal}", False, headers=owner)


async def test_websocket_from_another_origin_is_refused_with_the_cookie(browser: Browser) -> None:
    await browser.sign_in("ada")
    await browser.get("/user/ada/lab")
    headers = {"X-XSRFToken": browser.cookie("_xsrf", "/user/ada/")}
    made = await browser.request("POST", "/user/ada/api/kernels", False, json={}, headers=headers)
    kernel = json.loads(made.text)["id"]
    path = f"/user/ada/api/kernels/{kernel}/channels"
    assert await websocket_status(browser, path, Origin="http://evil.example") == 403
    await browser.request("DELETE", f"/user/ada/api/kernels/{kernel}", False, headers=headers)


async def test_browser_opens_a_tutorial_after_signing_in(platform: Platform, browser: Browser) -> None:
    path = "/user/ada/astrocloud/tutorials/open?tutorial=first-look&lang=en"
    await browser.sign_in("ada")
    answer = await browser.get(path, headers={"Sec-Fetch-Site": "same-origin"})
    assert answer.status == 200
    assert answer.url.endswith("/tutorials/first-look.en.ipynb")


async def test_another_site_cannot_put_a_tutorial_into_a_home(platform: Platform, browser: Browser) -> None:
    path = "/user/ada/astrocloud/tutorials/open?tutorial=files&lang=en"
    await browser.sign_in("ada")
    answer = await browser.get(path, headers={"Sec-Fetch-Site": "cross-site"})
    assert answer.status == 200
    assert "Open a copy of the tutorial" in answer.text
    assert not (platform.homes / "ada/tutorials/files.en.ipynb").exists()
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]


async def test_sign_out_ends_the_servers_cookie(browser: Browser) -> None:
    await browser.sign_in("ada")
    await browser.get("/user/ada/lab")
    await browser.get("/user/ada/logout")
    assert (await browser.get("/user/ada/api/contents", False)).status == 403


def test_lean_access_log_hides_tokens(platform: Platform, log: str) -> None:
    assert platform.token not in log
