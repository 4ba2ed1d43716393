"""The state of each part of the platform, as the front page tells it."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Final

import aiohttp
import structlog

from astrocloud.core.isolation import people_are_kept_apart
from astrocloud.core.trust import Trust

Check = Callable[[], Awaitable[str]]

_BELIEVED_S: Final = 3.0
_PATIENCE_S: Final = 2.0
_log = structlog.get_logger()


class Health:
    """Asks every part, at most once in three seconds however many people look.

    Parameters
    ----------
    checks
        Part -> what asks it; the answer is ``ok`` or a state such as ``away``, ``making``, ``absent``, ``off``.
    """

    def __init__(self, *, checks: Mapping[str, Check]) -> None:
        self._checks = checks
        self._known: Mapping[str, str] = {}
        self._asked_at = -_BELIEVED_S
        self._lock = asyncio.Lock()

    async def parts(self) -> Mapping[str, str]:
        """Return part -> state, in the order of the checks."""
        async with self._lock:
            if time.monotonic() - self._asked_at >= _BELIEVED_S:
                states = await asyncio.gather(*(_state(name, check) for name, check in self._checks.items()))
                self._known = dict(zip(self._checks, states, strict=True))
                self._asked_at = time.monotonic()
            return self._known


async def _state(name: str, check: Check) -> str:
    try:
        return await asyncio.wait_for(check(), _PATIENCE_S)
    except Exception as err:  # noqa: BLE001 - whatever is the matter with a part, the page must say so, not fail
        _log.warning("part-away", asked=name, error=type(err).__name__)
        return "away"


def _get(session: aiohttp.ClientSession, url: str, trust: Trust) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
    return session.get(url, allow_redirects=False, ssl=trust.context())


def answers(url: str, trust: Trust) -> Check:
    """Return a check that `url` answers with 200."""

    async def check() -> str:
        async with aiohttp.ClientSession() as session, _get(session, url, trust) as answer:
            return "ok" if answer.status == 200 else "away"

    return check


def files(url: str, trust: Trust) -> Check:
    """Return a check of the file tree, as VOSpace tells of it at `url`: ``ok``, ``full`` or ``away``."""

    async def check() -> str:
        async with aiohttp.ClientSession() as session, _get(session, url, trust) as answer:
            state = str((await answer.json())["parts"]["files"])
        return state if state in {"ok", "full"} else "away"

    return check


async def isolation() -> str:
    """Return whether people's servers are kept apart: ``ok`` or ``off``."""
    return "ok" if people_are_kept_apart() else "off"
