"""Fetching from and sending to addresses that a client names, without being led into the platform's own network.

An address is resolved once; every one of its numbers must be public or in a network that the configuration allows; the
connection goes to exactly these numbers. A redirect is a new address and checked like the first.
"""

import ipaddress
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from astrocloud.vospace.errors import Fault, invalid_argument

REDIRECTS: Final = 5
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_SEE_OTHER: Final = 303
_FETCHED: Final = frozenset({200, 203})
"""Others, as 202 of an archive that has the file brought from tape, come with something else than the bytes."""
_DONE: Final = frozenset({200, 201, 202, 204})
_TIMEOUT: Final = aiohttp.ClientTimeout(total=86400, connect=30, sock_connect=30, sock_read=120)
_ANSWER_BYTES: Final = 1 << 20

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def networks(names: Sequence[str]) -> tuple[Network, ...]:
    """Return the networks that `names` stand for. Raises `ValueError` for what is none."""
    return tuple(ipaddress.ip_network(name) for name in names)


def is_allowed(number: str, allowed: Sequence[Network]) -> bool:
    """Whether the address `number` may be connected to."""
    address = ipaddress.ip_address(number.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in ipaddress.ip_network("64:ff9b::/96"):
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_allowed(str(inner), allowed)
    local = isinstance(address, ipaddress.IPv6Address) and address.is_site_local
    if any(address.version == network.version and address in network for network in allowed):
        return True
    return address.is_global and not (address.is_multicast or address.is_reserved or local)


class _GuardedResolver(AbstractResolver):
    """Resolves names, and refuses those of numbers that may not be connected to."""

    def __init__(self, allowed: Sequence[Network], inner: AbstractResolver) -> None:
        self._allowed = allowed
        self._inner = inner

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        # One bad number is enough: which of them would be taken is not ours to guess.
        if not all(is_allowed(result["host"], self._allowed) for result in found):
            raise _refused(host)
        return found

    async def close(self) -> None:
        await self._inner.close()


def _refused(host: str) -> Fault:
    return Fault(
        "vospace-transfer-failed",
        reason=f"{host[:100]} is in a network that this service does not connect to; an administrator can allow it",
    )


class Remote:
    """The outside world, as far as clients may name it.

    Parameters
    ----------
    allowed
        Networks that may be reached besides public ones.
    resolver
        Makes the resolver of names; by default the system's.
    """

    def __init__(
        self, *, allowed: Sequence[Network], resolver: Callable[[], AbstractResolver] = ThreadedResolver
    ) -> None:
        self._allowed = allowed
        self._resolver = resolver

    @asynccontextmanager
    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: Callable[[], AsyncIterator[bytes]] | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Give the final answer to `method` at `url`.

        Parameters
        ----------
        body
            Makes the bytes to send, from their beginning: once for every address that a redirect leads to.

        Raises
        ------
        Fault
            ``InvalidArgument`` for what is no address of this kind, ``TransferFailed`` for whatever goes wrong.
        """
        connector = aiohttp.TCPConnector(
            resolver=_GuardedResolver(self._allowed, self._resolver()), use_dns_cache=False, limit=4
        )
        address = self._checked(_parsed(url))
        fine = _FETCHED if method == "GET" else _DONE
        async with aiohttp.ClientSession(connector=connector, timeout=_TIMEOUT, auto_decompress=False) as session:
            try:
                for _hop in range(REDIRECTS + 1):
                    data = body() if body is not None else None
                    async with session.request(
                        method, address, allow_redirects=False, headers=headers, data=data
                    ) as response:
                        location = response.headers.get("Location")
                        if response.status in _REDIRECTS and location:
                            address = self._checked(_joined(address, location))
                            if response.status == _SEE_OTHER:  # it was done; there is what became of it
                                method, headers, body = "GET", {}, None
                            continue
                        if response.status not in fine:
                            reason = f"{_shown(address)} answered with status {response.status}"
                            raise Fault("vospace-transfer-failed", reason=reason)
                        yield response
                        return
                reason = f"{_shown(address)} was reached by more than {REDIRECTS} redirects"
                raise Fault("vospace-transfer-failed", reason=reason)
            except aiohttp.ClientError as err:
                # The resolver's refusal comes wrapped.
                if isinstance(err.__cause__, Fault):
                    raise err.__cause__ from None
                reason = f"{_shown(address)}: {type(err).__name__}"
                raise Fault("vospace-transfer-failed", reason=reason) from err
            except TimeoutError as err:
                raise Fault("vospace-transfer-failed", reason=f"{_shown(address)} did not answer in time") from err

    def _checked(self, address: URL) -> URL:
        """Return `address`, if it may be connected to as far as its text tells.

        What is checked is the very object that is connected to: another reader of the same text might find another
        host in it, for some letters that are no digits become digits in a host's name (IDNA).
        """
        host = address.raw_host
        if address.scheme not in {"http", "https"} or not host:
            raise invalid_argument(f"{_shown(address)} is no http or https address")
        if address.raw_user is not None or address.raw_password is not None:
            raise invalid_argument("an address with a user or password in it is not taken")
        # Numbers are not resolved, so the resolver never sees them. inet_aton knows 0x7f.1 and 2130706433 as well.
        try:
            number = str(ipaddress.ip_address(host))
        except ValueError:
            try:
                number = socket.inet_ntoa(socket.inet_aton(host))
            except OSError:
                return address
        if not is_allowed(number, self._allowed):
            raise _refused(host)
        return address


def _parsed(text: str) -> URL:
    try:
        return URL(text)
    except ValueError:
        raise invalid_argument(f"{text[:100]!r} is no address") from None


def _joined(address: URL, location: str) -> URL:
    try:
        return address.join(URL(location))
    except ValueError as err:
        reason = f"{_shown(address)} leads to {location[:100]!r}, which is no address"
        raise Fault("vospace-transfer-failed", reason=reason) from err


def _shown(address: URL) -> str:
    """Return `address` without what may be secret in it."""
    return f"{address.scheme}://{address.raw_host or ''}{address.raw_path[:100]}"[:200]
