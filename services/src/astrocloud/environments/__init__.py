"""The environments a person can pick: what there is, and making them on one machine.

The rest of the platform uses what is named here::

    catalogue = offered(config, cluster)    # on a cluster: the images that the operator names
    builder = local_builder(config, data)
    built = await builder.ensure(catalogue.get("astro"), on_progress=print)
    built.python, built.path, built.base_prefix    # to start a server with; a sandbox shows both folders read-only
"""

from astrocloud.environments.builder import EnvironmentBuilder, OnProgress, build_environment, local_builder
from astrocloud.environments.catalogue import Catalogue, load_catalogue, load_environment, load_tutorials
from astrocloud.environments.errors import BuildError, CatalogueError, UnknownEnvironment
from astrocloud.environments.models import (
    STAGES,
    BuiltEnvironment,
    Deprecation,
    Environment,
    Progress,
    ResourceChoice,
    Tutorial,
)
from astrocloud.environments.offered import offered

__all__ = [
    "STAGES",
    "BuildError",
    "BuiltEnvironment",
    "Catalogue",
    "CatalogueError",
    "Deprecation",
    "Environment",
    "EnvironmentBuilder",
    "OnProgress",
    "Progress",
    "ResourceChoice",
    "Tutorial",
    "UnknownEnvironment",
    "build_environment",
    "load_catalogue",
    "load_environment",
    "load_tutorials",
    "local_builder",
    "offered",
]
