"""Where the spawner gets environments from."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from astrocloud.config import Config
from astrocloud.core.cluster import Cluster
from astrocloud.core.layout import DataFolder, project_folder
from astrocloud.environments.builder import local_builder
from astrocloud.environments.catalogue import Catalogue
from astrocloud.environments.models import BuiltEnvironment, Environment, Progress
from astrocloud.environments.offered import offered


class EnvironmentSource(Protocol):
    """The catalogue, and the environments themselves."""

    @property
    def catalogue(self) -> Catalogue:
        """The environments there are."""
        ...

    async def ensure(self, environment: Environment, on_progress: Callable[[Progress], None]) -> BuiltEnvironment:
        """Return `environment`, made first if need be. Raises `PlatformError`."""
        ...

    def ready(self, environment: Environment) -> BuiltEnvironment | None:
        """Return `environment` if it is there, else `None`."""
        ...

    def command(self, built: BuiltEnvironment) -> tuple[str, ...]:
        """Return the command that starts a server in `built`."""
        ...

    @property
    def tutorials(self) -> Path | None:
        """The folder of tutorials, if there is one."""
        ...


class CatalogueSource:
    """The catalogue alone, for servers that are started from images.

    Parameters
    ----------
    config
        Where the catalogue is, and which environment comes first.
    cluster
        What the chart says of the cluster, its images among it; `None` on one machine.
    """

    def __init__(self, *, config: Config, cluster: Cluster | None = None) -> None:
        self._config = config
        self._cluster = cluster
        self._catalogue: Catalogue | None = None

    @property
    def catalogue(self) -> Catalogue:
        """The environments there are, read at first use."""
        if self._catalogue is None:
            self._catalogue = offered(self._config, self._cluster)
        return self._catalogue


class LocalEnvironments(CatalogueSource):
    """Environments of one machine, each a virtual environment in the data folder.

    Parameters
    ----------
    config
        Where the catalogue is, and which environment comes first.
    data
        Where the environments are.
    """

    def __init__(self, *, config: Config, data: DataFolder) -> None:
        super().__init__(config=config)
        self._builder = local_builder(config, data)

    async def ensure(self, environment: Environment, on_progress: Callable[[Progress], None]) -> BuiltEnvironment:
        """Return `environment`, made first if need be. Raises `BuildError`."""
        return await self._builder.ensure(environment, on_progress)

    def ready(self, environment: Environment) -> BuiltEnvironment | None:
        """Return `environment` if it is there, else `None`."""
        return self._builder.ready(environment)

    def command(self, built: BuiltEnvironment) -> tuple[str, ...]:
        """Return the command that starts a server: the lean one, which falls back to stock by itself."""
        module = "astrocloud_lab.serve" if built.with_lab else "jupyterhub.singleuser"
        return (str(built.python), "-m", module)

    @property
    def tutorials(self) -> Path | None:
        """The folder of tutorials, if there is one."""
        return self._config.tutorials or project_folder("notebooks")
