"""The lean server answers as stock does, and falls back to it."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.extensions.servers import (
    OTHER_TOKEN,
    OWNER,
    OWNER_TOKEN,
    Server,
    StandInHub,
    free_port,
    running,
    server_environ,
    wait_for,
)

ENDPOINTS = (
    "api",
    "api/me",
    "api/status",
    "api/contents",
    "api/contents/{home}?content=1",
    "api/contents/{home}/note.txt",
    "api/contents/{home}/none.txt",
    "api/contents/{home}/.hidden",
    "api/kernels",
    "api/kernelspecs",
    "api/sessions",
    "api/terminals",
    "api/config/notebook",
    "api/spec.yaml",
    "files/{home}/note.txt",
    "lab",
    "lab/api/listings/@jupyterlab/extensionmanager-extension/listings.json",
    "lab/api/settings/@jupyterlab/apputils-extension:themes",
    "lab/api/settings/@jupyterlab/translation-extension:plugin",
    "lab/api/translations",
    "lab/api/translations/zh_CN",
    "lab/api/workspaces",
    "lab/api/plugins",
    "lab/extensions/@jupyterlab/none.js",
    "static/favicons/favicon.ico",
    "lsp/status",
    "dask/clusters",
    "dask/clusters?x=1",
    "server-proxy/servers-info",
    "no/such/address",
    "api/no-such-thing",
    "nbconvert/html/{home}/one.ipynb",
    "logout",
)

VOLATILE = re.compile(
    r"\d{4}-\d\d-\d\dT[\d:.]+(?:Z|\+00:00)?|127\.0\.0\.1:\d+|localhost:\d+|_xsrf=[^\"&]+|"
    r'"xsrf[^,]*,|"started":|nonce-\w+|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22}|/tmp/jupyter-\w+'
)


@pytest.fixture(scope="module")
def pair(
    lab_python: Path, hub: StandInHub, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, Server]]:
    """A lean and a stock server with the same home and settings."""
    folder = tmp_path_factory.mktemp("pair")
    home = folder / "home"
    home.mkdir()
    (home / "note.txt").write_text("a note\n")
    (home / ".hidden").write_text("hidden\n")
    (home / "one.ipynb").write_text('{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}')
    # What packages keep of their own comes and goes; it is not to be in the listing of the home.
    cache = {"XDG_CACHE_HOME": str(folder / "cache")}
    with (
        running(lab_python, folder, hub, **cache) as lean,
        running(lab_python, folder, hub, **cache, ASTROCLOUD_STOCK_SERVER="1") as stock,
    ):
        yield lean, stock


async def ask(server: Server, path: str, token: str | None = OWNER_TOKEN) -> tuple[int, dict[str, str], str]:
    """Return status, telling headers and body of an answer."""
    async with server.client(token) as client:  # noqa: SIM117
        async with client.get(path.format(home=str(server.home).strip("/")), allow_redirects=False) as answer:
            if answer.status == 307:
                # Held for an extension that was loaded for it: the client asks again.
                assert answer.headers["Location"] == answer.url.raw_path_qs
                return await ask(server, path, token)
            kept = ("Content-Type", "Content-Security-Policy", "X-JupyterHub-Version", "X-Content-Type-Options")
            headers = {name: answer.headers.get(name, "") for name in kept}
            headers["Location"] = VOLATILE.sub("~", answer.headers.get("Location", ""))
            body = (await answer.read()).decode("utf-8", "replace").replace(str(server.port), "PORT")
            return answer.status, headers, VOLATILE.sub("~", body)


@pytest.mark.parametrize("path", ENDPOINTS)
async def test_answers_are_those_of_stock(pair: tuple[Server, Server], path: str) -> None:
    lean, stock = pair
    # Held until the extensions are there that add to answers of others.
    assert (await ask(lean, "no-such-address"))[0] == 404
    assert await ask(lean, path) == await ask(stock, path)


@pytest.mark.parametrize("path", ENDPOINTS)
async def test_refusals_are_those_of_stock(pair: tuple[Server, Server], path: str) -> None:
    for server_token in (None, OTHER_TOKEN):
        lean, stock = [await ask(server, path, server_token) for server in pair]
        lean_location, stock_location = [one[1].pop("Location").partition("?")[0] for one in (lean, stock)]
        if path.startswith(("dask/", "server-proxy/", "lsp/")):
            # Not loaded for a stranger, so not there.
            assert lean[0] in {302, 403, 404}
            continue
        assert (lean[0], lean_location) == (stock[0], stock_location)
        assert lean[1] == stock[1]


async def test_metrics_of_the_server_are_there(pair: tuple[Server, Server]) -> None:
    names = []
    for server in pair:
        _, _, body = await ask(server, "metrics")
        names.append({line.split()[2] for line in body.splitlines() if line.startswith("# TYPE")})
    assert {name for name in names[1] if not name.startswith("dask")} <= names[0]


async def test_stock_is_forced_by_the_environment(pair: tuple[Server, Server]) -> None:
    lean, stock = pair
    assert "starting the stock server: ASTROCLOUD_STOCK_SERVER is 1" in stock.log()
    assert "stock server" not in lean.log()


async def test_root_lists_the_platforms_folders_only(server: Server) -> None:
    async with server.client() as client, client.get("api/contents") as answer:
        names = {one["name"] for one in (await answer.json())["content"]}
    assert "home" in names
    assert names <= {"home", "project", "archive", "course", "tutorials", "tmp"}


async def test_terminals_start_in_the_home(server: Server) -> None:
    async with server.client() as client:
        async with client.post("api/terminals") as answer:
            name = (await answer.json())["name"]
        async with client.ws_connect(f"terminals/websocket/{name}") as terminal:
            await terminal.send_json(["stdin", "echo at:$(pwd):\n"])
            seen = ""
            while f"at:{server.home}:" not in seen:
                kind, *content = await terminal.receive_json(timeout=30)
                seen += content[0] if kind == "stdout" else ""
        await client.delete(f"api/terminals/{name}")


async def test_browser_opens_in_the_home_and_the_extension_manager_is_read_only(server: Server) -> None:
    async with server.client() as client, client.get("lab") as answer:
        page = await answer.text()
    config = json.loads(re.search(r'id="jupyter-config-data"[^>]*>(.*?)</script>', page, re.S)[1])  # type: ignore[index]
    assert config["preferredPath"].strip("/") == str(server.home).strip("/")
    assert config["extensionManager"]["can_install"] is False
    assert "@jupyterlab/apputils-extension:announcements" in config["disabledExtensions"]
    assert config["news"] == {"disabled": True}


@pytest.mark.parametrize(("language", "locale"), [("zh_CN", "zh_CN"), ("zh", "zh_CN"), ("en", "default")])
async def test_language_is_a_default_that_a_person_can_change(
    lab_python: Path, hub: StandInHub, tmp_path: Path, language: str, locale: str
) -> None:
    path = "lab/api/settings/@jupyterlab/translation-extension:plugin"
    with running(lab_python, tmp_path, hub, ASTROCLOUD_LANG=language) as server:
        async with server.client() as client:
            async with client.get(path) as answer:
                settings = await answer.json()
            assert settings["schema"]["properties"]["locale"]["default"] == locale
            assert settings["settings"] == {}
            async with client.put(path, json={"raw": '{"locale": "fr_FR"}'}) as answer:
                assert answer.status == 204
    with running(lab_python, tmp_path, hub, ASTROCLOUD_LANG=language) as server:
        async with server.client() as client, client.get(path) as answer:
            assert (await answer.json())["settings"] == {"locale": "fr_FR"}


def run_to_stock(python: Path, folder: Path, hub: StandInHub, **environ: str) -> str:
    """Return the log of a server that has to fall back to stock."""
    with running(python, folder, hub, **environ) as server:
        return server.log()


def test_untested_version_starts_stock(lab_python: Path, hub: StandInHub, tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import sys\n"
        "if 'astrocloud_lab.serve' in ' '.join(sys.orig_argv):\n"
        "    import astrocloud_lab.lean.versions as v\n"
        "    v.TESTED = dict(v.TESTED, jupyter_server=('1.0',))\n"
    )
    log = run_to_stock(lab_python, tmp_path, hub, PYTHONPATH=str(site))
    assert re.search(r"starting the stock server: UntestedVersionError: jupyter_server \S+ was not tested", log)
    assert "Jupyter Server" in log


def test_named_version_is_trusted(lab_python: Path, hub: StandInHub, tmp_path: Path) -> None:
    extra = "jupyter_server=9.9, jupyterlab=9.9"
    assert "stock server" not in run_to_stock(lab_python, tmp_path, hub, ASTROCLOUD_LEAN_VERSIONS=extra)


def test_bad_list_of_versions_starts_stock(lab_python: Path, hub: StandInHub, tmp_path: Path) -> None:
    log = run_to_stock(lab_python, tmp_path, hub, ASTROCLOUD_LEAN_VERSIONS="numpy")
    assert "starting the stock server: ValueError: ASTROCLOUD_LEAN_VERSIONS has 'numpy'" in log


def test_failing_shortcut_starts_stock_and_leaves_nothing(lab_python: Path, hub: StandInHub, tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import sys\nif 'astrocloud_lab.serve' in ' '.join(sys.orig_argv):\n    import requests\n"
    )
    with running(lab_python, tmp_path, hub, PYTHONPATH=str(site)) as server:
        assert "starting the stock server: ShortcutError: imported before the start: requests" in server.log()
        children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text()
        assert children.strip() == ""


def test_port_in_use_ends_with_stocks_message(lab_python: Path, hub: StandInHub, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        environ = server_environ(tmp_path, hub.server_address[1], taken.getsockname()[1])
        ended = subprocess.run(
            [lab_python, "-m", "astrocloud_lab.serve", "--allow-root"],
            env=environ,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert ended.returncode == 1
    assert "is not available" in ended.stderr or "already in use" in ended.stderr


def test_version_and_help_are_stocks(lab_python: Path, tmp_path: Path) -> None:
    environ = server_environ(tmp_path, 9, free_port())
    for argument in ("--version", "--help"):
        answers = [
            subprocess.run(
                [lab_python, "-m", module, argument], env=environ, capture_output=True, text=True, check=True
            ).stdout
            for module in ("astrocloud_lab.serve", "jupyterhub.singleuser")
        ]
        assert answers[0] == answers[1]


@pytest.mark.parametrize(
    "name", ["sqlalchemy", "aiohttp", "requests", "jupyterhub.orm", "unittest", "jupyterhub.singleuser"]
)
def test_no_placeholder_is_left_for_user_code(lab_python: Path, name: str) -> None:
    code = (
        "import sys\nfrom astrocloud_lab.lean import app\napp.import_server()\n"
        "assert not [n for n, m in sys.modules.items() if type(m).__name__ == 'OnDemand'], 'left'\n"
        f"import importlib\nmodule = importlib.import_module({name!r})\nprint(module.__file__)\n"
        "import jupyterhub.singleuser, sqlalchemy.exc, unittest.mock, jupyterlab.extensions.pypi\n"
        "jupyterhub.singleuser.make_singleuser_app, sqlalchemy.exc.SQLAlchemyError, unittest.mock.patch\n"
        "import jupyterhub.scopes as s, jupyterhub.orm\nassert s.orm.User is jupyterhub.orm.User\n"
    )
    subprocess.run([lab_python, "-c", code], check=True, capture_output=True)


async def test_hub_is_asked_for_its_version_after_listening(lab_python: Path, hub: StandInHub, tmp_path: Path) -> None:
    hub.asked.clear()
    with running(lab_python, tmp_path, hub):
        await asyncio.to_thread(wait_for, lambda: "/hub/api" in hub.asked, "the version is asked")


async def test_server_listens_while_its_hub_is_away(lab_python: Path, hub: StandInHub, tmp_path: Path) -> None:
    away = f"http://127.0.0.1:{free_port()}/hub/api"
    with running(lab_python, tmp_path, hub, JUPYTERHUB_API_URL=away) as server:
        assert (await ask(server, "api", None))[0] == 200


async def test_activity_is_reported(lab_python: Path, hub: StandInHub, tmp_path: Path) -> None:
    hub.posted.clear()
    with running(lab_python, tmp_path, hub, JUPYTERHUB_ACTIVITY_INTERVAL="1") as server:
        await asyncio.to_thread(wait_for, lambda: hub.posted, "activity is told")
        path, document = hub.posted[0]
        assert path == f"/hub/api/users/{OWNER}/activity"
        before = document["last_activity"]

        def later() -> list[Any]:
            return [one for _, one in hub.posted if one["last_activity"] > before]

        async with server.kernel() as kernel:
            await kernel.run("import time; time.sleep(1.2)")
            await asyncio.to_thread(wait_for, later, "a busy kernel counts")
