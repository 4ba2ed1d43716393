"""What can go wrong with environments.

::

    ConfigError
    └── CatalogueError      environment-file, -folder, -image, -none, tutorial-file: the catalogue is wrong
    RequestError
    └── UnknownEnvironment  environment-unknown: no environment (or size of it) of that name
    StartError
    └── BuildError          environment-uv, -python, -network, -disk, -lock, -build: it cannot be made here and now
"""

from astrocloud.core.errors import ConfigError, RequestError, StartError


class CatalogueError(ConfigError):
    """A file of the catalogue is wrong; the sentence names file, key, value and what is allowed."""


class UnknownEnvironment(RequestError):  # noqa: N818  (a request's refusal, named after what is missing)
    """There is no environment, or no size of it, of that name."""


class BuildError(StartError):
    """An environment cannot be made on this machine as it is; the code says which kind of trouble it is."""
