"""The names by which people's servers are called on a cluster, where that is done by TLS.

A server's certificate is made before its pod has an address, and an address is soon another pod's. So a server is
called by a name that tells both where it is and who it must be::

    10-1-2-3.default-4f1c.astro-alice.server.astrocloud.internal

The first label is its address, which the hub and the proxy read and no DNS is asked for; the rest is its pod and its
namespace, and its certificate is for ``*.default-4f1c.astro-alice.server.astrocloud.internal``. Whoever else has got
that address has no such certificate. The proxy's half of this is `hub/proxy/trust.cjs`.
"""

import ipaddress
import socket
from typing import Any, Final

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from tornado.netutil import DefaultLoopResolver

DOMAIN: Final = "server.astrocloud.internal"
"""What these names end with; ``.internal`` is nobody's on the internet."""


def name_of(*, pod: str, namespace: str) -> str:
    """Return who a server is: what its name ends with."""
    return f"{pod}.{namespace}.{DOMAIN}"


def host_of(address: str, *, pod: str, namespace: str) -> str:
    """Return the name by which the server in `pod` is called at `address`."""
    # An IPv6 address in full: a label may not begin with a hyphen.
    label = ipaddress.ip_address(address).exploded.replace(".", "-").replace(":", "-")
    return f"{label}.{name_of(pod=pod, namespace=namespace)}"


def address_in(host: str) -> str | None:
    """Return the address that the name `host` of a server tells, `None` for any other name."""
    if not host.endswith(f".{DOMAIN}"):
        return None
    label = host.split(".", 1)[0]
    try:
        return str(ipaddress.ip_address(label.replace("-", "." if label.count("-") == 3 else ":")))
    except ValueError:
        return None


class Resolver(AbstractResolver):
    """Finds servers by their names, and everything else as usual: for aiohttp."""

    def __init__(self) -> None:
        self._others = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of `host`."""
        address = address_in(host)
        if address is None:
            return await self._others.resolve(host, port, family)
        six = ":" in address
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if six else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
        ]

    async def close(self) -> None:
        """Nothing is open."""


class TornadoResolver(DefaultLoopResolver):
    """The same for tornado."""

    async def resolve(self, host: str, port: int, family: socket.AddressFamily = socket.AF_UNSPEC) -> Any:
        """Return the addresses of `host`."""
        return await super().resolve(address_in(host) or host, port, family)
