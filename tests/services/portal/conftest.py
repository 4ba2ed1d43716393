"""A portal on a real database and a real socket, beside a small hub."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp
import pytest
from aiohttp import web
from sqlalchemy import Engine

from astrocloud.config import Config, LocalizedText
from astrocloud.core.database import open_database, sqlite_url, upgrade_database
from astrocloud.core.layout import DataFolder
from astrocloud.core.runtime import Runtime
from astrocloud.core.secrets import SecretFiles
from astrocloud.core.web import build_app
from astrocloud.environments import Catalogue, Environment, Tutorial, load_catalogue
from astrocloud.portal.factory import build_portal
from tests.services.portal.fake_hub import FakeHub

REPOSITORY = Path(__file__).resolve().parents[3]


@cache
def _catalogue() -> Catalogue:
    return load_catalogue(REPOSITORY / "images")


@cache
def _empty_database() -> bytes:
    """Return an up-to-date database without content, made once: Alembic takes longer than most tests."""
    with TemporaryDirectory() as folder:
        engine = open_database(sqlite_url(Path(folder)))
        upgrade_database(engine)
        engine.dispose()  # the last connection that closes empties the write-ahead log into the file
        return (Path(folder) / "astrocloud.sqlite").read_bytes()


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    """A database without content."""
    (tmp_path / "astrocloud.sqlite").write_bytes(_empty_database())
    return open_database(sqlite_url(tmp_path))


class FakeMenu:
    """The project's own environments with tutorials that need no files."""

    def __init__(self) -> None:
        self.catalogue = _catalogue()
        self.states: dict[str, str] = {}
        self.lessons = {
            name: Tutorial(
                id=name,
                title=LocalizedText(en=title, zh=chinese),
                summary=LocalizedText(en=summary, zh=chinese_summary),
                minutes=minutes,
                notebooks={},
            )
            for name, title, chinese, summary, chinese_summary, minutes in [
                (
                    "first-look",
                    "First look",
                    "初识平台",
                    "An image with a sky grid, a spectrum, and a small cross-match.",
                    "一幅带天球坐标网格的图像、一条光谱和一次小型交叉证认。",
                    15,
                ),
                (
                    "files",
                    "Files and where they live",
                    "文件及其位置",
                    "Where your files are, and who else sees them.",
                    "您的文件在哪里，谁能看到它们。",
                    10,
                ),
            ]
        }

    def environments(self) -> Sequence[Environment]:
        return tuple(self.catalogue)

    def tutorials(self) -> Mapping[str, Tutorial]:
        return self.lessons

    def state(self, environment: str) -> str:
        return self.states.get(environment, "ready")


@dataclass
class Portal:
    """A running portal."""

    url: str
    hub: FakeHub
    menu: FakeMenu
    data: DataFolder
    tree: dict[str, str]
    """What VOSpace says of the file tree."""
    sessions: list[aiohttp.ClientSession] = field(default_factory=list)

    def browser(self, **headers: str) -> aiohttp.ClientSession:
        """Return a browser: keeps cookies, and asks for pages."""
        jar = aiohttp.CookieJar(unsafe=True)
        session = aiohttp.ClientSession(self.url, cookie_jar=jar, headers={"Accept": "text/html", **headers})
        self.sessions.append(session)
        return session

    def program(self, token: str, **headers: str) -> aiohttp.ClientSession:
        """Return a program that sends `token`."""
        session = aiohttp.ClientSession(self.url, headers={"Authorization": f"Bearer {token}", **headers})
        self.sessions.append(session)
        return session

    async def signed_in(self, name: str, **headers: str) -> aiohttp.ClientSession:
        """Return a browser in which `name` has signed in."""
        self.hub.signing_in = name
        browser = self.browser(**headers)
        async with browser.get("/services/portal/sign-in/hub", params={"next": "/services/portal/home"}) as answer:
            assert answer.status == 200, await answer.text()
        return browser


async def start_portal(data: DataFolder, config: Config | None = None) -> tuple[Portal, web.AppRunner]:
    """Start a portal on a free port."""
    data.make()
    runtime = Runtime.choose(data, bind="127.0.0.1", port=1, public_url=None)
    # Hub, proxy and services are one application here: what differs is who answers, not where.
    runtime = Runtime("127.0.0.1", runtime.hub_port, f"http://127.0.0.1:{runtime.hub_port}", 1, *[runtime.hub_port] * 2)
    secrets = SecretFiles(data.secrets)
    hub = FakeHub(service_token=secrets.get("service-portal").get_secret_value())
    menu = FakeMenu()
    (data.databases / "astrocloud.sqlite").write_bytes(_empty_database())
    engine = open_database(sqlite_url(data.databases))
    config = config or Config()
    service = build_portal(config=config, runtime=runtime, secrets=secrets, engine=engine, menu=menu)
    app = build_app([service], config=config)
    app.router.add_routes(hub.routes())
    app.router.add_get("/services/passport/ready", _ok)
    tree = {"files": "ok"}

    async def vospace(_request: web.Request) -> web.Response:
        return web.json_response({"status": "ok", "parts": tree})

    app.router.add_get("/services/vospace/ready", vospace)

    async def _dispose(_app: web.Application) -> None:
        engine.dispose()

    app.on_cleanup.append(_dispose)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", runtime.port).start()
    return Portal(runtime.public_url, hub, menu, data, tree), runner


async def _ok(_request: web.Request) -> web.Response:
    return web.json_response({"status": "ok"})


@pytest.fixture
async def portal(tmp_path: Path) -> AsyncIterator[Portal]:
    """A running portal with two people and an administrator."""
    started, runner = await start_portal(DataFolder(tmp_path / "data"))
    started.hub.add("ana")
    started.hub.add("bo")
    started.hub.add("root", admin=True)
    yield started
    for session in started.sessions:
        await session.close()
    await runner.cleanup()
