"""Giving its routes back to a proxy that was started anew.

On one machine the supervisor, which starts the proxy, tells the hub. On a cluster nobody does: a new pod of the proxy
knows no routes, and JupyterHub by itself looks every few minutes only. Until then everybody would be told 404.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.simple_httpclient import SimpleAsyncHTTPClient

from astrocloud.core.trust import NONE, Trust

INTERVAL_S: Final = 0.5
"""How often the proxy is asked for one route of ours; an answer takes it well under a millisecond."""

_log = structlog.get_logger()


class RouteKeeper:
    """Asks the proxy for the hub's own route, which is the first that it has and never goes.

    Parameters
    ----------
    api_url
        The proxy's REST API, without a final slash.
    token
        The token that it takes.
    restore
        What gives the proxy all routes that it lacks.
    trust
        Whose certificate is taken there.
    """

    def __init__(
        self, *, api_url: str, token: str, restore: Callable[[], Awaitable[None]], trust: Trust = NONE
    ) -> None:
        self._question = HTTPRequest(
            f"{api_url}/api/routes/hub",
            headers={"Authorization": f"token {token}"},
            request_timeout=2,
            connect_timeout=2,
            ssl_options=trust.context(),
        )
        self._restore = restore

    async def keep(self) -> None:
        """Look after the routes until cancelled."""
        # A connection of its own to each question: a kept one would end at the proxy that is gone.
        client = SimpleAsyncHTTPClient(force_instance=True)
        while True:
            try:
                if await self._forgotten(client):
                    await self._restore()
                    _log.info("routes-restored")
            except Exception:  # noqa: BLE001 - logged; the proxy may be gone again, and the next look will tell
                _log.exception("routes-not-restored")
            await asyncio.sleep(INTERVAL_S)

    async def _forgotten(self, client: SimpleAsyncHTTPClient) -> bool:
        try:
            await client.fetch(self._question)
        except HTTPClientError as err:
            return bool(err.code == 404)
        except OSError:
            return False  # no proxy now
        return False
