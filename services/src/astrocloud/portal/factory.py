"""Builds the portal from the configuration."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from sqlalchemy import Engine, text

from astrocloud.config import Config
from astrocloud.core.auth import HubLogin
from astrocloud.core.runtime import ClusterRuntime, Runtime
from astrocloud.core.secrets import SecretFiles
from astrocloud.core.web import Service
from astrocloud.operations.canary import SECRET, Plan, try_out
from astrocloud.portal.admin import AdminPages
from astrocloud.portal.api import Api
from astrocloud.portal.desk import Desk
from astrocloud.portal.events import Events
from astrocloud.portal.health import Health, answers, files, isolation
from astrocloud.portal.hub import Hub
from astrocloud.portal.models import Menu
from astrocloud.portal.pages import Pages
from astrocloud.portal.storage import DatabaseAnnouncements
from astrocloud.portal.trials import Trials


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
    trust = runtime.trust
    hub = Hub(api_url=runtime.hub_api_url, token=token, trust=trust)
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

    first = menu.environments()[0]

    async def environment_state() -> str:
        state = await asyncio.to_thread(menu.state, first.id)
        return "ok" if state == "ready" else state

    async def started() -> bool:
        states = await asyncio.gather(proxy_state(), hub_state(), environment_state(), return_exceptions=True)
        return all(state == "ok" for state in states)

    proxy_state = answers(f"{runtime.proxy_url}/services/portal/health", trust)
    trials = _trials(
        config=config, runtime=runtime, secrets=secrets, engine=engine, environment=first.id, ready=started
    )
    secure = runtime.public_url.startswith("https://")
    health = Health(
        checks={
            "proxy": proxy_state,
            "passport": answers(f"{runtime.service_url('passport')}/services/passport/ready", trust),
            "hub": hub_state,
            "database": database_state,
            "files": files(f"{runtime.service_url('vospace')}/services/vospace/ready", trust),
            f"environment:{first.id}": environment_state,
            "isolation": isolation,
            **({"canary": trials.state} if trials else {}),
        }
    )

    events = Events(engine=engine, parts=health.parts, nodes=hub.troubled_nodes)

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
            *AdminPages(config=config, desk=desk, events=events).routes(),
        ],
        login=login,
        templates=Path(__file__).with_name("templates"),
        health=own_health,
        background=[close_at_the_end, login.warm_up, events.run, *([trials.run] if trials else [])],
    )


def _trials(
    *,
    config: Config,
    runtime: Runtime,
    secrets: SecretFiles,
    engine: Engine,
    environment: str,
    ready: Callable[[], Awaitable[bool]],
) -> Trials | None:
    """Return the trial sessions that the configuration wants, if any."""
    if not config.canary.every_s:
        return None
    plan = Plan(
        url=runtime.public_url,
        username=config.canary.username,
        password=secrets.get(SECRET),
        environment=environment,
        connect_to=runtime.proxy_url if isinstance(runtime, ClusterRuntime) else "",
        trust=runtime.trust,
        start_within_s=config.servers.start_timeout_s,
        certificate=Path(runtime.certificate) if runtime.certificate else None,
    )
    return Trials(engine=engine, every_s=config.canary.every_s, try_out=lambda: try_out(plan), ready=ready)


def _database_state(engine: Engine) -> str:
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
    return "ok"
