"""Which requests the platform's own proxy passes on, so that what it says of their senders is true."""

import asyncio
import ipaddress
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

_EVERY_S: Final = 10.0
_BELIEVED_S: Final = 60.0
"""How long addresses are believed when they cannot be looked up anew: then another pod may have them."""

_log = structlog.get_logger()


class ProxyPods:
    """The addresses of the proxy's pods on a cluster: requests come from them, not from the address of its Service.

    Parameters
    ----------
    host
        The name that stands for the pods, of a Service without an address of its own; empty: there are none.
    look_up
        Returns the addresses that a name stands for.
    clock
        Seconds.
    """

    def __init__(
        self,
        host: str,
        *,
        look_up: Callable[[str], Awaitable[frozenset[str]]] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._host = host
        self._look_up = look_up or _addresses
        self._clock = clock
        self._known: frozenset[str] = frozenset()
        self._until = 0.0

    def __contains__(self, address: str) -> bool:
        return address in self._known and self._clock() < self._until

    async def refresh(self) -> None:
        """Look the addresses up."""
        if not self._host:
            return
        try:
            found = await self._look_up(self._host)
        except OSError as err:
            _log.warning("proxy-not-found", host=self._host, reason=str(err))
            return
        self._known, self._until = found, self._clock() + _BELIEVED_S

    async def run(self) -> None:
        """Keep the addresses fresh for ever."""
        while True:
            await self.refresh()
            await asyncio.sleep(_EVERY_S)


def believed_sender(hops: str, *, behind_web_server: bool) -> str | None:
    """Return who sent a request that a proxy of a cluster passes on with ``X-Forwarded-For: HOPS``, if it says that.

    The last hop is the proxy's caller. Only where that is in a private network, as an ingress is, may it be a web
    server that tells of its own caller; somebody who comes from elsewhere has made up what is before it.
    """
    told = [hop.strip() for hop in hops[-500:].split(",") if hop.strip()]
    try:
        last = ipaddress.ip_address(told[-1]) if told else None
        if last is not None and behind_web_server and len(told) > 1 and not last.is_global:
            return str(ipaddress.ip_address(told[-2]))
    except ValueError:
        return None
    return str(last) if last is not None else None


async def _addresses(host: str) -> frozenset[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return frozenset(str(address[0]) for *_, address in found)
