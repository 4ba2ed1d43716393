"""Ask the hub with tornado's HTTP client.

Takes the place of ``jupyterhub.httpclient`` inside a lean server: importing
aiohttp costs a fifth of a second, and a server asks its hub a question or two.
Answers look like aiohttp's as far as JupyterHub's single-user side reads them.
With TLS it checks the hub by the platform's authority, which is read once and not
with each question.  A unix socket and any option not known here goes to the real
client.
"""

from __future__ import annotations

import json as jsonlib
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from tornado.httpclient import HTTPRequest, HTTPResponse
from tornado.httputil import HTTPHeaders, url_concat
from tornado.simple_httpclient import SimpleAsyncHTTPClient

from astrocloud_lab import tls

TIMEOUT_S = 300.0
"""aiohttp's default limit for a whole request."""


class HubAnswerError(Exception):
    """The hub answered with an error status.

    Attributes
    ----------
    status
        The HTTP status.
    """

    def __init__(self, status: int, message: str, url: str) -> None:
        super().__init__(f"{status}, message={message!r}, url={url!r}")
        self.status = status


class HubAnswer:
    """What JupyterHub reads of an answer: ``status``, ``ok``, ``headers``, ``text()``, ``json()``."""

    def __init__(self, response: HTTPResponse) -> None:
        self._response = response
        self.status: int = response.code
        self.reason: str = response.reason or ""
        self.headers: HTTPHeaders = response.headers

    @property
    def ok(self) -> bool:
        """Whether the status is below 400."""
        return self.status < 400

    async def read(self) -> bytes:
        """Return the body."""
        return self._response.body or b""

    async def text(self) -> str:
        """Return the body as text."""
        return (await self.read()).decode("utf-8", "replace")

    async def json(self) -> Any:
        """Return the body as JSON, ``None`` for an empty one."""
        body = await self.read()
        return jsonlib.loads(body) if body.strip() else None

    def raise_for_status(self) -> None:
        """Raise :class:`HubAnswerError` for a status of 400 and above."""
        if not self.ok:
            raise HubAnswerError(self.status, self.reason, self._response.request.url)


def _body(data: Any, json: Any, headers: dict[str, str]) -> bytes | None:
    """Return the body and set its type, as aiohttp does."""
    if json is not None:
        headers.setdefault("Content-Type", "application/json")
        return jsonlib.dumps(json).encode()
    if isinstance(data, Mapping):
        headers.setdefault("Content-Type", "application/x-www-form-urlencoded")
        return urlencode(data).encode()
    if isinstance(data, str):
        return data.encode()
    if data is None or isinstance(data, bytes):
        return data
    raise TypeError(f"a body of type {type(data).__name__} is not supported")


async def fetch(
    url: str,
    *,
    method: str = "GET",
    raise_for_status: bool = True,
    headers: Mapping[str, str] | None = None,
    params: Mapping[str, str] | None = None,
    data: Any = None,
    json: Any = None,
    **others: Any,
) -> Any:
    """Make a request to the hub.

    Same arguments and answer as ``jupyterhub.httpclient.fetch``.

    Raises
    ------
    HubAnswerError
        For an error status, unless ``raise_for_status`` is false.
    OSError
        If the hub cannot be reached.
    """
    context = tls.platform_context()
    if context is not None:
        others.pop("ssl", None)
    if others or not url.startswith(("http://", "https://") if context is not None else "http://"):
        if context is not None:
            others["ssl"] = context
        # The real module, not this one: the curtain is up whenever a request is made.
        from jupyterhub.httpclient import fetch as stock_fetch

        return await stock_fetch(
            url,
            method=method,
            raise_for_status=raise_for_status,
            headers=headers,
            params=params,
            data=data,
            json=json,
            **others,
        )
    sent = dict(headers or {})
    body = _body(data, json, sent)
    request = HTTPRequest(
        url_concat(url, dict(params)) if params else url,
        method=method,
        headers=HTTPHeaders(sent),
        body=body if body is not None or method not in {"POST", "PUT", "PATCH"} else b"",
        allow_nonstandard_methods=True,
        # aiohttp follows redirects too; with the token in a header, within the hub only.
        follow_redirects=False,
        connect_timeout=TIMEOUT_S,
        request_timeout=TIMEOUT_S,
        ssl_options=context,
    )
    answer = HubAnswer(await SimpleAsyncHTTPClient().fetch(request, raise_error=False))
    if raise_for_status:
        answer.raise_for_status()
    return answer
