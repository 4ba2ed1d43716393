"""Which services run in this process: all of them on one machine, one each on Kubernetes."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aiohttp import web
from sqlalchemy import Engine

from astrocloud.config import Config
from astrocloud.core.cluster import read_cluster
from astrocloud.core.database import database_url, open_database, upgrade_database, wait_for_database
from astrocloud.core.layout import DataFolder
from astrocloud.core.runtime import Runtime
from astrocloud.core.secrets import SecretFiles
from astrocloud.core.web import Service, build_app, build_direct_app

if TYPE_CHECKING:
    from astrocloud.environments import Environment, Tutorial


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a service is built from."""

    name: str
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
    """What the portal offers: the environments and tutorials of this machine or cluster.

    Parameters
    ----------
    config, data
        The platform's configuration and folder.
    """

    def __init__(self, *, config: Config, data: DataFolder) -> None:
        from astrocloud.environments import load_tutorials, local_builder, offered

        cluster = read_cluster(data)
        self._catalogue = offered(config, cluster)
        # The nodes of a cluster fetch the images.
        self._always_ready = cluster is not None
        self._tutorials = load_tutorials(config.tutorials)
        self._builder = local_builder(config, data)
        self._known: dict[str, tuple[float, str]] = {}

    def environments(self) -> "Sequence[Environment]":
        """Return the environments, the one to offer first in front."""
        return tuple(self._catalogue)

    def tutorials(self) -> "Mapping[str, Tutorial]":
        """Return id -> tutorial, in the order in which the environments list them."""
        listed = [name for environment in self.environments() for name in environment.tutorials]
        return {name: self._tutorials[name] for name in [*listed, *self._tutorials] if name in self._tutorials}

    def state(self, environment: str) -> str:
        """Return ``ready``, ``making`` or ``absent``, looked up at most every two seconds."""
        if self._always_ready:
            return "ready" if environment in self._catalogue else "absent"
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

    if context.data.on_cluster:
        context.data.make_tree()
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


@dataclass(frozen=True, kw_only=True)
class Platform:
    """The services of this process, as HTTP servers run them."""

    app: web.Application
    """What answers behind the proxy."""
    direct: web.Application
    """What answers around it: bytes."""
    runtime: Runtime
    drain_s: int
    """How long what is under way goes on when the process is told to end, in seconds."""


def _contexts(names: list[str], *, config: Config, data: DataFolder) -> Iterator[Context]:
    """Yield what each of the services `names` is built from; the database is brought up to date first."""
    url = database_url(data, "astrocloud")
    engine = open_database(url)
    if data.on_cluster:
        wait_for_database(engine)
    upgrade_database(engine)
    runtime, secrets = Runtime.read(data), SecretFiles(data.secrets)
    # In one process all share the connections; on PostgreSQL a service takes turns with its other replicas.
    shared = None if data.on_cluster else engine
    for name in names:
        own = shared or open_database(url, owner=name)
        yield Context(name=name, config=config, data=data, runtime=runtime, secrets=secrets, engine=own)


def build_platform(names: list[str], *, config: Config, data: DataFolder) -> Platform:
    """Return the services `names`, on an up-to-date database."""
    runtime = Runtime.read(data)
    services = [BUILDERS[context.name](context) for context in _contexts(names, config=config, data=data)]
    return Platform(
        app=build_app(services, config=config, public_url=runtime.public_url),
        direct=build_direct_app(services, config=config, public_url=runtime.public_url),
        runtime=runtime,
        drain_s=max(runtime.drain_s(name) for name in names),
    )
