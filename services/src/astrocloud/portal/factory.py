"""Builds the portal from the configuration."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

from sqlalchemy import Engine, text

from astrocloud.config import Config
from astrocloud.core.auth import HubLogin
from astrocloud.core.runtime import Runtime
from astrocloud.core.secrets import SecretFiles
from astrocloud.core.web import Service
from astrocloud.portal.admin import AdminPages
from astrocloud.portal.api import Api
from astrocloud.portal.desk import Desk
from astrocloud.portal.health import Health, answers, isolation
from astrocloud.portal.hub import Hub
from astrocloud.portal.models import Menu
from astrocloud.portal.pages import Pages
from astrocloud.portal.storage import DatabaseAnnouncements


def build_portal(
    *,
    config: Config,
    runtime: Runtime,
    secrets: SecretFiles,
    engine: Engine,
    menu: Menu,
) -> Service:
    """Return the portal.

    Parameters
    ----------
    config, runtime, secrets, engine
        Those of the platform.
    menu
        What can be started; the portal does not know where it comes from.
    """
    token = secrets.get("service-portal")
    login = HubLogin(service="portal", runtime=runtime, api_token=token)
    hub = Hub(api_url=runtime.hub_api_url, token=token)
    desk = Desk(
        hub=hub,
        menu=menu,
        announcements=DatabaseAnnouncements(engine=engine),
        server_limit=config.servers.limit_per_person,
    )

    async def hub_state() -> str:
        return "ok" if await hub.healthy() else "away"

    async def database_state() -> str:
        return await asyncio.to_thread(_database_state, engine)

    async def environment_state() -> str:
        first = menu.environments()[0]
        state = await asyncio.to_thread(menu.state, first.id)
        return "ok" if state == "ready" else state

    secure = runtime.public_url.startswith("https://")
    health = Health(
        checks={
            "proxy": answers(f"{runtime.proxy_url}/services/portal/health"),
            "passport": answers(f"{runtime.service_url('passport')}/services/passport/ready"),
            "hub": hub_state,
            "database": database_state,
            f"environment:{menu.environments()[0].id}": environment_state,
            "isolation": isolation,
        }
    )

    async def own_health() -> Mapping[str, str]:
        hub_now, database_now = await asyncio.gather(hub_state(), database_state())
        return {"hub": hub_now, "database": database_now}

    async def close_at_the_end() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await hub.close()

    return Service(
        name="portal",
        routes=[
            *Pages(config=config, desk=desk, health=health, login=login, secure=secure).routes(),
            *Api(desk=desk, health=health, idle_hours=f"{config.servers.idle_timeout_s / 3600:g}").routes(),
            *AdminPages(config=config, desk=desk).routes(),
        ],
        login=login,
        templates=Path(__file__).with_name("templates"),
        health=own_health,
        background=[close_at_the_end],
    )


def _database_state(engine: Engine) -> str:
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
    return "ok"
