"""Keeping the process ready that servers of the first environment are forked from."""

import asyncio
import os
from contextlib import suppress
from pathlib import Path

from traitlets.config import Config as HubConfig

from astrocloud.core.isolation import people_are_kept_apart
from astrocloud.core.layout import DataFolder
from astrocloud_hub.spawners import view
from astrocloud_hub.spawners.environments import EnvironmentSource
from astrocloud_hub.spawners.local import LocalSpawner
from astrocloud_hub.spawners.parents import NotForkedError


async def keep_parent(config: HubConfig) -> None:
    """See to it that the first environment, once it is there, has a process that servers can be forked from.

    Those of other environments are started with their first server.

    Parameters
    ----------
    config
        JupyterHub's configuration.
    """
    settings = config.LocalSpawner
    # Only root enters the sandboxes of others.
    if not settings.get("fork_servers") or os.geteuid() != 0:
        return
    programs = view.programs()
    if programs is None or not await asyncio.to_thread(people_are_kept_apart):
        return
    source: EnvironmentSource = settings.get("environment_source") or config.PlatformSpawner.environment_source
    built = await asyncio.to_thread(source.ready, source.catalogue.default)
    if built is not None and built.with_lab:
        with suppress(NotForkedError):
            LocalSpawner.parents(DataFolder(Path(settings.data_folder))).get(built, programs)
