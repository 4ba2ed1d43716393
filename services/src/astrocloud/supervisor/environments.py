"""Environments on one machine as the terminal sees them: listed, made ready with visible progress, removed."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from astrocloud.config import Config
from astrocloud.core.layout import DataFolder
from astrocloud.environments import Catalogue, EnvironmentBuilder, Progress, local_builder, offered


def catalogue_and_builder(config: Config, data: DataFolder) -> tuple[Catalogue, EnvironmentBuilder]:
    """Return what can be picked, and what makes it on this machine."""
    return offered(config, None), local_builder(config, data)


def list_environments(config: Config, data: DataFolder) -> list[dict[str, Any]]:
    """Return every environment: ``id``, ``name`` in both languages, ``state``, ``path``.

    The state is ``ready``, ``making`` or ``absent``.
    """
    catalogue, builder = catalogue_and_builder(config, data)
    found = []
    for environment in catalogue:
        built = builder.ready(environment)
        making = built is None and builder.progress(environment) is not None
        found.append(
            {
                "id": environment.id,
                "name": environment.name.model_dump(),
                "state": "ready" if built else "making" if making else "absent",
                "path": str(builder.path(environment)) if built else None,
            }
        )
    return found


def prune_environments(config: Config, data: DataFolder) -> list[Path]:
    """Remove environments that left the catalogue and that no running server uses; return where they were."""
    catalogue, builder = catalogue_and_builder(config, data)
    return asyncio.run(builder.prune(list(catalogue)))


def prepare_environment(
    config: Config, data: DataFolder, name: str, *, say: Callable[[str], None], language: str = "en"
) -> Path:
    """Make the environment `name` if need be, telling each stage once and counts now and then; return where it is."""
    catalogue, builder = catalogue_and_builder(config, data)
    environment = catalogue.get(name)
    told: list[int | str] = ["", 0]

    def tell(progress: Progress) -> None:
        # A line a stage and one for every tenth: enough to see it move, not so much that it scrolls all else away.
        mark = progress.percent // 10
        if [progress.stage, mark] != told:
            told[:] = [progress.stage, mark]
            say(f"  {environment.name.in_language(language)}: {progress.percent:3}% {progress.sentence(language)}")

    return asyncio.run(builder.ensure(environment, tell)).path
