"""What JupyterHub reads at its start; ``get_config`` is what it gives to such files."""

from astrocloud_hub.configuration import platform_config

get_config().merge(platform_config())  # type: ignore[name-defined]  # noqa: F821
