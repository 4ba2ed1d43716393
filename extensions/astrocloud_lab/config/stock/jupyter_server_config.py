"""The platform's defaults for the stock server, when the lean start is not used."""

from traitlets.config import Config

from astrocloud_lab.lean.settings import default_config

get_config().merge(Config(default_config()))  # type: ignore[name-defined]  # noqa: F821
