"""How far a server's start is, in words that are chosen when somebody looks."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from astrocloud.core import words
from astrocloud.environments.models import Progress
from astrocloud_hub.language import current_language


@dataclass(frozen=True)
class Stage:
    """One stage of a start."""

    key: str
    """What is being done: ``environment``, ``folders``, ``starting``, ``waiting``, ``ready``."""
    percent: int
    sentence: Callable[[str], str]
    """Language -> what a person sees."""

    def event(self) -> dict[str, Any]:
        """Return this stage as JupyterHub's progress API tells it, in the language of whoever asks."""
        return {"progress": self.percent, "message": self.sentence(current_language()), "stage": self.key}


class Stages:
    """The stages of one start, so that everybody who looks sees them from the first one on."""

    def __init__(self) -> None:
        self._stages: list[Stage] = []
        self._changed = asyncio.Event()
        self._over = False

    def tell(self, key: str, percent: int, **parameters: Any) -> None:
        """Say that the stage ``servers.stage-KEY`` has begun."""
        self._add(Stage(key, percent, lambda language: words.text(f"servers.stage-{key}", language, **parameters)))

    def tell_environment(self, progress: Progress) -> None:
        """Say how far the environment is; it is most of the way when it has to be made."""
        self._add(Stage("environment", round(progress.percent * 0.7), progress.sentence))

    def close(self) -> None:
        """Say that nothing more will happen."""
        self._over = True
        self._wake()

    def _add(self, stage: Stage) -> None:
        if self._stages and self._stages[-1].key == stage.key:
            self._stages[-1] = stage
        else:
            self._stages.append(stage)
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """Yield the stages that were and those that come, until it is over."""
        shown: list[Stage] = []
        while True:
            changed = self._changed
            for position, stage in enumerate(list(self._stages)):
                if position >= len(shown):
                    shown.append(stage)
                elif shown[position] is not stage:
                    shown[position] = stage
                else:
                    continue
                yield stage.event()
            if self._over:
                return
            await changed.wait()
