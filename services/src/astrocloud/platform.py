"""Which services run in this process: all of them on one machine, one each on Kubernetes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from aiohttp import web
from sqlalchemy import Engine

from astrocloud.config import Config
from astrocloud.core.database import open_database, sqlite_url, upgrade_database
from astrocloud.core.layout import DataFolder
from astrocloud.core.runtime import Runtime
from astrocloud.core.secrets import SecretFiles
from astrocloud.core.web import Service, build_app


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a service is built from."""

    config: Config
    data: DataFolder
    runtime: Runtime
    secrets: SecretFiles
    engine: Engine


def _passport(context: Context) -> Service:
    from astrocloud.passport.factory import build_passport

    return build_passport(
        config=context.config,
        runtime=context.runtime,
        secrets=context.secrets,
        data=context.data,
        engine=context.engine,
    )


def _portal(context: Context) -> Service:
    from astrocloud.portal.factory import build_portal

    return build_portal(
        config=context.config,
        runtime=context.runtime,
        secrets=context.secrets,
        data=context.data,
        engine=context.engine,
    )


BUILDERS: Final[Mapping[str, Callable[[Context], Service]]] = {"passport": _passport, "portal": _portal}
"""How each service is built."""


def build_platform(names: list[str], *, config: Config, data: DataFolder) -> tuple[web.Application, Runtime]:
    """Return the application of the services `names`, on an up-to-date database, and where it listens."""
    engine = open_database(sqlite_url(data.databases))
    upgrade_database(engine)
    runtime = Runtime.read(data)
    context = Context(config=config, data=data, runtime=runtime, secrets=SecretFiles(data.secrets), engine=engine)
    return build_app([BUILDERS[name](context) for name in names], config=config), runtime
