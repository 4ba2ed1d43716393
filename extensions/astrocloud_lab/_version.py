"""The version of the distribution ``astrocloud-lab``."""

__version__ = "0.1.0"
