"""Requests to a VOSpace service: the token, tries again, redirects, refusals."""

from __future__ import annotations

import asyncio
import errno
import io
import random
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import urljoin, urlsplit

import aiohttp
from yarl import URL

from astrocloud_lab.vospace.errors import error_of

Body = bytes | Callable[[], AsyncIterator[bytes]]
"""What is sent: bytes, or what gives them anew for each try."""

_TRANSIENT: Final = frozenset({429, 500, 502, 503, 504})
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_REDIRECT_LIMIT: Final = 5
_PAUSE_S: Final = 0.2
_PAUSE_LIMIT_S: Final = 10.0
_FAULT_LIMIT_BYTES: Final = 1 << 16
CONNECTION_ERRORS: Final = (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, TimeoutError)
"""What a broken connection raises."""


class Client:
    """One service and who asks it.

    Parameters
    ----------
    endpoint
        The service's address, without a final slash.
    token
        Gives the token as it is now, `None` for nobody in particular.
    retries
        How often a request is sent again when the service or the way to it failed.
    timeout_s
        Seconds without a byte after which a try has failed.
    authority
        A file of certificates to check the service by, besides the usual ones: it leads elsewhere for large files.
    """

    def __init__(
        self,
        *,
        endpoint: str,
        token: Callable[[], str | None],
        retries: int,
        timeout_s: float,
        authority: str | None = None,
    ) -> None:
        self._authority = authority
        self.endpoint = endpoint
        self._token = token
        self._retries = retries
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None

    async def session(self) -> aiohttp.ClientSession:
        """Return the session, made at its first use: in the loop that uses it."""
        if self._session is None or self._session.closed:
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=self._timeout_s)
            context: ssl.SSLContext | bool = True
            if self._authority:
                context = ssl.create_default_context()
                context.load_verify_locations(cafile=self._authority)
            # Cookies are nobody's here, and a proxy of the environment is not to see the token.
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=context),
                timeout=timeout,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
            )
        return self._session

    async def close(self) -> None:
        """Close its connections."""
        if self._session is not None:
            await self._session.close()

    def close_in(self, loop: asyncio.AbstractEventLoop) -> None:
        """Close its connections from another thread, or without a loop when that is gone."""
        session = self._session
        if session is None or session.closed:
            return
        if loop.is_running():
            asyncio.run_coroutine_threadsafe(session.close(), loop)
        elif session.connector is not None:
            session.connector._close()  # what is left to do without a loop

    @asynccontextmanager
    async def send(
        self,
        method: str,
        address: str,
        *,
        path: str,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        follow: bool = True,
        repeat: bool = True,
        patience_s: float | None = None,
        allow: frozenset[int] = frozenset(),
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request and give the answer; its body is there inside the ``async with`` only.

        Parameters
        ----------
        address
            Below the endpoint, percent-encoded.
        path
            What it is about, for errors.
        follow
            Whether to go where a redirect leads; else a redirect is an answer like others. Only what reads is led
            anywhere: bytes are not sent where an answer says.
        repeat
            Whether it may be sent again.
        patience_s
            Seconds without a byte, when not the client's.
        allow
            Statuses from 400 that are answers like others.

        Raises
        ------
        OSError
            For a refusal, see `errors`, and for a service that cannot be reached.
        """
        whole = self.endpoint + address
        tries = self._retries if repeat else 0
        for left in range(tries, -1, -1):
            try:
                response = await self._once(method, whole, headers or {}, body, follow=follow, patience_s=patience_s)
            except CONNECTION_ERRORS as error:
                if left == 0:
                    reason = f"the service at {_origin(whole)} cannot be reached: {type(error).__name__}"
                    raise OSError(errno.EIO, reason, path) from None
                await self._pause(tries - left, None)
                continue
            if response.status not in _TRANSIENT or left == 0:
                break
            response.release()
            await self._pause(tries - left, response.headers.get("Retry-After"))
        async with response:
            if response.status >= (300 if follow else 400) and response.status not in allow:
                text = (await response.content.read(_FAULT_LIMIT_BYTES)).decode("utf-8", "replace")
                raise error_of(response.status, text, path)
            yield response

    async def fetch(self, method: str, address: str, *, path: str, body: Body | None = None) -> bytes:
        """Return the body of an answer."""
        async with self.send(method, address, path=path, body=body) as response:
            return await response.read()

    async def _once(
        self,
        method: str,
        whole: str,
        headers: Mapping[str, str],
        body: Body | None,
        *,
        follow: bool,
        patience_s: float | None,
    ) -> aiohttp.ClientResponse:
        session = await self.session()
        timeout = session.timeout if patience_s is None else aiohttp.ClientTimeout(total=None, sock_read=patience_s)
        for _step in range(_REDIRECT_LIMIT + 1):
            sent = {"Accept": "*/*", **headers}
            token = self._token()
            # Only to the service itself: another host, or another port of the same one, is somebody else.
            if token and _origin(whole) == _origin(self.endpoint):
                sent["Authorization"] = f"Bearer {token}"
            data = io.BytesIO(body) if isinstance(body, bytes) else body() if body is not None else None
            response = await session.request(
                method, URL(whole, encoded=True), headers=sent, data=data, allow_redirects=False, timeout=timeout
            )
            location = response.headers.get("Location")
            if not follow or response.status not in _REDIRECTS or not location or method not in {"GET", "HEAD"}:
                return response
            response.release()
            whole = urljoin(whole, location)
        raise OSError(errno.ELOOP, f"more than {_REDIRECT_LIMIT} redirects", whole)

    async def _pause(self, number: int, asked: str | None) -> None:
        pause_s = _PAUSE_S * 2**number * random.uniform(0.5, 1.5)  # noqa: S311 - spreads clients, no secret
        if asked and asked.isdecimal():
            pause_s = max(pause_s, float(asked))
        await asyncio.sleep(min(pause_s, _PAUSE_LIMIT_S))


def _origin(address: str) -> tuple[str, str, int]:
    parts = urlsplit(address)
    return parts.scheme, parts.hostname or "", parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
