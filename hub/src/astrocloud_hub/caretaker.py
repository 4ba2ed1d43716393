"""Stopping servers that nobody uses, and those of people who may not be here any more.

A small loop in the hub, in place of jupyterhub-idle-culler: that takes a process of its own, tells nobody why a server
ended, and goes by the last activity alone, which a computation that prints nothing for a day does not move.
"""

import asyncio
import json
from datetime import UTC, datetime
from typing import Any, Final

import structlog
from tornado.httpclient import HTTPClientError
from tornado.simple_httpclient import SimpleAsyncHTTPClient

from astrocloud.core.errors import PlatformError
from astrocloud.core.trust import NONE, Trust
from astrocloud_hub.hosts import TornadoResolver
from astrocloud_hub.spawners.ends import Reason

_LONGEST_ANSWER_BYTES: Final = 2**20
"""What a person's server answers is the person's: more than that is no list of kernels."""

_log = structlog.get_logger()


class Caretaker:
    """Looks after the servers of one hub.

    Parameters
    ----------
    app
        The hub.
    idle_timeout_s
        How long nothing must have happened in a server before it is stopped, in seconds; 0 for never.
    trust
        Whose certificates servers have.
    """

    def __init__(self, *, app: Any, idle_timeout_s: int, trust: Trust = NONE) -> None:
        self._trust = trust
        self._app = app
        self._idle_timeout_s = idle_timeout_s
        self._client: SimpleAsyncHTTPClient | None = None

    async def look(self) -> None:
        """Look at every running server once."""
        spawner_class = self._app.spawner_class
        if hasattr(spawner_class, "look_after"):
            await spawner_class.look_after(self._app.users)
        for user in list(self._app.users.values()):
            servers = [spawner for spawner in list(user.spawners.values()) if spawner.ready and not spawner.pending]
            if not servers:
                continue
            try:
                await self._look_at(user, servers)
            except Exception:  # noqa: BLE001 - logged; one person's servers must not keep it from those of others
                _log.exception("care-failed", user=user.name)

    async def _look_at(self, user: Any, servers: list[Any]) -> None:
        if await self._gone(user):
            await asyncio.gather(*(self._end(user, spawner, "disabled") for spawner in servers))
            return
        for spawner in servers:
            if hasattr(spawner, "shorten_log"):
                await asyncio.to_thread(spawner.shorten_log)
            if self._quiet(spawner) and not await self._busy(user, spawner):
                await self._end(user, spawner, "idle")

    async def _gone(self, user: Any) -> bool:
        """Tell whether the directory says for certain that `user` may not be here."""
        directory = getattr(self._app.authenticator, "directory", None)
        if directory is None:
            return False
        try:
            return await directory.person(user.name) is None
        except PlatformError:
            # Nobody can sign in or open a page either; what computes may go on until the directory is back.
            return False

    def _quiet(self, spawner: Any) -> bool:
        if self._idle_timeout_s <= 0:
            return False
        last = spawner.orm_spawner.last_activity or spawner.orm_spawner.started
        if last is None:
            return False
        return (datetime.now(UTC).replace(tzinfo=None) - last).total_seconds() > self._idle_timeout_s

    async def _busy(self, user: Any, spawner: Any) -> bool:
        """Tell whether a kernel of the server computes. One that cannot be asked counts as busy."""
        if self._client is None:
            self._client = SimpleAsyncHTTPClient(
                force_instance=True, max_body_size=_LONGEST_ANSWER_BYTES, resolver=TornadoResolver()
            )
        # The server's own token is known only to the server; this one opens that server alone, for a minute.
        token = user.new_api_token(
            note="Is a kernel busy?", expires_in=60, scopes=[f"access:servers!server={user.name}/{spawner.name}"]
        )
        try:
            answer = await self._client.fetch(
                f"{spawner.server.url}api/kernels",
                headers={"Authorization": f"token {token}"},
                request_timeout=10,
                ssl_options=self._trust.context(),
                follow_redirects=False,
            )
            kernels = json.loads(answer.body)
            return any(kernel.get("execution_state") == "busy" for kernel in kernels)
        except (HTTPClientError, OSError, ValueError, AttributeError, TypeError, RecursionError) as err:
            _log.warning("idle-unclear", user=user.name, server=spawner.name, reason=str(err)[:200])
            return True

    async def _end(self, user: Any, spawner: Any, reason: Reason) -> None:
        _log.info("server-stopping", user=user.name, server=spawner.name, reason=reason)
        if hasattr(spawner, "ask_to_end"):
            spawner.ask_to_end(reason)
        await self._app.proxy.delete_user(user, spawner.name)
        await user.stop(spawner.name)
