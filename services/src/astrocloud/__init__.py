"""Astrocloud's services and the ``astrocloud`` command."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("astrocloud")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"
