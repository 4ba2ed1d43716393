"""Ends at the hub what ended here: a disabled person's servers and tokens, a removed person's user, old sessions."""

import asyncio
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import aiohttp
import structlog

from astrocloud.core.trust import NONE, Trust
from astrocloud.passport.models import HubTask

if TYPE_CHECKING:
    from pydantic import SecretStr

    from astrocloud.passport.storage import Storage

EVERY_S: Final = 2
"""How often new work is looked for, in seconds; the command line may have left some."""

_log = structlog.get_logger()


class HubError(Exception):
    """The hub did not do what it was asked."""


class Hub:
    """The few things the passport asks of the hub's REST API.

    Parameters
    ----------
    api_url
        The API's address.
    token
        The passport's token. Its role needs ``read:users``, ``read:servers``, ``delete:servers``, ``tokens`` and
        ``delete:users``.
    trust
        Whose certificate is taken there.
    """

    def __init__(self, *, api_url: str, token: "SecretStr", trust: Trust = NONE) -> None:
        self._trust = trust
        self._api_url = api_url
        self._token = token

    async def end_access(self, session: aiohttp.ClientSession, username: str) -> bool:
        """Stop somebody's servers and delete their tokens. Returns whether all of them are gone."""
        user = await self._call(session, "GET", username)
        if user is None:
            return True
        for name in user.get("servers") or {}:
            # A named server's files are kept (no "remove"): only the process ends.
            await self._call(session, "DELETE", f"{username}/servers/{name}" if name else f"{username}/server")
        await self._drop_tokens(session, username, only_sessions=False)
        user = await self._call(session, "GET", username)
        return user is None or not any(
            server.get("ready") or server.get("pending") or server.get("started")
            for server in (user.get("servers") or {}).values()
        )

    async def end_sessions(self, session: aiohttp.ClientSession, username: str) -> None:
        """Delete the tokens that browsers hold for somebody; those of servers and programs stay."""
        await self._drop_tokens(session, username, only_sessions=True)

    async def remove(self, session: aiohttp.ClientSession, username: str) -> None:
        """Delete somebody's user."""
        await self._call(session, "DELETE", username)

    async def _drop_tokens(self, session: aiohttp.ClientSession, username: str, *, only_sessions: bool) -> None:
        found = await self._call(session, "GET", f"{username}/tokens")
        for token in (found or {}).get("api_tokens", []):
            if token.get("session_id") or not only_sessions:
                await self._call(session, "DELETE", f"{username}/tokens/{token['id']}")

    async def _call(self, session: aiohttp.ClientSession, method: str, path: str) -> dict[str, Any] | None:
        """Return the answer, an empty one too, or `None` when there is no such thing (any more)."""
        headers = {"Authorization": f"Bearer {self._token.get_secret_value()}"}
        address = f"{self._api_url}/users/{quote(path)}"
        async with session.request(method, address, headers=headers, ssl=self._trust.context()) as response:
            if response.status == 404:
                return None
            if response.status == 400 and method == "DELETE":
                return {}  # it is being started or stopped right now: looked at again soon
            if response.status >= 400:
                raise HubError(response.status)
            if response.content_type != "application/json" or response.status == 204:
                return {}
            document: dict[str, Any] = await response.json()
            return document


class Reconciler:
    """Does what waits to be done at the hub, until it is done.

    Parameters
    ----------
    storage
        Where it waits.
    hub
        The hub.
    """

    def __init__(self, *, storage: "Storage", hub: Hub) -> None:
        self._storage = storage
        self._hub = hub

    async def run(self) -> None:
        """Look for work for ever."""
        timeout = aiohttp.ClientTimeout(total=30)
        async with aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session:
            while True:
                await self.once(session)
                await asyncio.sleep(EVERY_S)

    async def once(self, session: aiohttp.ClientSession) -> None:
        """Try everything that waits once."""
        for task in await asyncio.to_thread(self._waiting):
            try:
                done = await self._do(session, task)
            except (HubError, aiohttp.ClientError, TimeoutError) as err:
                # The hub may be restarting; said at first and then now and again, and tried for as long as it takes.
                if task.tries % 30 == 0:
                    _log.warning("hub-work-failed", user=task.username, work=task.work, reason=type(err).__name__)
                done = False
            await asyncio.to_thread(self._note, task, done)

    def _waiting(self) -> list[HubTask]:
        with self._storage.begin() as tx:
            return tx.hub_tasks()

    async def _do(self, session: aiohttp.ClientSession, task: HubTask) -> bool:
        if task.work == "sessions":
            await self._hub.end_sessions(session, task.username)
            return True
        status = await asyncio.to_thread(self._status, task.username)
        if task.work == "disable" and status == "active":
            return True  # enabled again meanwhile
        if not await self._hub.end_access(session, task.username):
            return False
        if task.work == "remove":
            await self._hub.remove(session, task.username)
        return True

    def _status(self, username: str) -> str:
        with self._storage.begin() as tx:
            person = tx.person(username)
        return person.status if person is not None else "removed"

    def _note(self, task: HubTask, done: bool) -> None:
        with self._storage.begin() as tx:
            if done:
                tx.hub_task_done(task.id)
                _log.info("hub-work-done", user=task.username, work=task.work)
            else:
                tx.hub_task_failed(task.id)
