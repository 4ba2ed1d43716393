"""Which services run in this process: all of them on one machine, one each on Kubernetes."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aiohttp import web
from sqlalchemy import Engine

from astrocloud.config import Config
from astrocloud.core.database import open_database, sqlite_url, upgrade_database
from astrocloud.core.layout import DataFolder
from astrocloud.core.runtime import Runtime
from astrocloud.core.secrets import SecretFiles
from astrocloud.core.web import Service, build_app

if TYPE_CHECKING:
    from astrocloud.environments import Environment, Tutorial


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


class CatalogueMenu:
    """What the portal offers: the environments and tutorials of this machine.

    Parameters
    ----------
    config, data
        The platform's configuration and folder.
    """

    def __init__(self, *, config: Config, data: DataFolder) -> None:
        from astrocloud.environments import load_catalogue, load_tutorials, local_builder

        self._catalogue = load_catalogue(config.environments.folder, default=config.environments.default)
        self._tutorials = load_tutorials(config.tutorials)
        self._builder = local_builder(config, data)
        self._known: dict[str, tuple[float, str]] = {}

    def environments(self) -> "Sequence[Environment]":
        """Return the environments, the one to offer first in front."""
        return tuple(self._catalogue)

    def tutorials(self) -> "Mapping[str, Tutorial]":
        """Return id -> tutorial, in the order in which the environments list them."""
        listed = [name for environment in self._catalogue for name in environment.tutorials]
        return {name: self._tutorials[name] for name in [*listed, *self._tutorials] if name in self._tutorials}

    def state(self, environment: str) -> str:
        """Return ``ready``, ``making`` or ``absent``, looked up at most every two seconds."""
        until, state = self._known.get(environment, (0.0, ""))
        if time.monotonic() >= until:
            chosen = self._catalogue.get(environment)
            if self._builder.ready(chosen) is not None:
                state = "ready"
            else:
                state = "making" if self._builder.progress(chosen) is not None else "absent"
            self._known[environment] = (time.monotonic() + 2, state)
        return state


def _portal(context: Context) -> Service:
    from astrocloud.portal.factory import build_portal

    return build_portal(
        config=context.config,
        runtime=context.runtime,
        secrets=context.secrets,
        engine=context.engine,
        menu=CatalogueMenu(config=context.config, data=context.data),
    )


def _vospace(context: Context) -> Service:
    from astrocloud.vospace.factory import build_vospace

    return build_vospace(
        config=context.config,
        runtime=context.runtime,
        secrets=context.secrets,
        data=context.data,
        engine=context.engine,
    )


BUILDERS: Final[Mapping[str, Callable[[Context], Service]]] = {
    "passport": _passport,
    "portal": _portal,
    "vospace": _vospace,
}
"""How each service is built."""


def build_platform(names: list[str], *, config: Config, data: DataFolder) -> tuple[web.Application, Runtime]:
    """Return the application of the services `names`, on an up-to-date database, and where it listens."""
    engine = open_database(sqlite_url(data.databases))
    upgrade_database(engine)
    runtime = Runtime.read(data)
    context = Context(config=config, data=data, runtime=runtime, secrets=SecretFiles(data.secrets), engine=engine)
    services = [BUILDERS[name](context) for name in names]
    return build_app(services, config=config, public_url=runtime.public_url), runtime
