"""Asking other servers for JSON, with limits on time and size."""

import json
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode

from tornado.httpclient import HTTPClientError, HTTPRequest, HTTPResponse
from tornado.httputil import HTTPHeaders
from tornado.simple_httpclient import SimpleAsyncHTTPClient

from astrocloud.core.trust import NONE, Trust

_CONNECT_S: Final = 5.0
_WHOLE_S: Final = 10.0
_LARGEST_BYTES: Final = 1024 * 1024


class FetchError(Exception):
    """The other server did not answer with a JSON object.

    Parameters
    ----------
    status
        Its HTTP status; 0 when there was no answer at all.
    document
        The JSON object that came with an error, empty when there was none.
    """

    def __init__(self, status: int, document: Mapping[str, Any] | None = None) -> None:
        super().__init__(f"answer with status {status}")
        self.status = status
        self.document = dict(document or {})


class JsonClient:
    """A client that never follows redirects (they would carry secrets along) and never waits for long.

    Parameters
    ----------
    trust
        Whose certificates are taken, for a client of the platform's own parts.
    """

    def __init__(self, *, trust: Trust = NONE) -> None:
        self._trust = trust
        self._client: SimpleAsyncHTTPClient | None = None

    async def fetch(
        self,
        url: str,
        *,
        form: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Return the JSON object at `url`, by POST when there is a `form` or a `body`. Raises `FetchError`."""
        if self._client is None:
            # Of our own: the shared one queues everything behind ten slow answers.
            self._client = SimpleAsyncHTTPClient(
                force_instance=True, max_clients=100, max_body_size=_LARGEST_BYTES, max_header_size=64 * 1024
            )
        sent = HTTPHeaders({"Accept": "application/json", **(headers or {})})
        data: str | None = None
        if form is not None:
            sent["Content-Type"] = "application/x-www-form-urlencoded"
            data = urlencode(form)
        elif body is not None:
            sent["Content-Type"] = "application/json"
            data = json.dumps(body)
        request = HTTPRequest(
            url,
            method="GET" if data is None else "POST",
            headers=sent,
            body=data,
            follow_redirects=False,
            connect_timeout=_CONNECT_S,
            request_timeout=_WHOLE_S,
            ssl_options=self._trust.context(),
        )
        try:
            response = await self._client.fetch(request)
        except HTTPClientError as err:
            raise FetchError(0 if err.code == 599 else err.code, _object(err.response)) from err
        except OSError as err:
            raise FetchError(0) from err
        found = _object(response)
        if found is None:
            raise FetchError(response.code)
        return found


def _object(response: HTTPResponse | None) -> dict[str, Any] | None:
    if response is None or not response.body:
        return None
    try:
        document = json.loads(response.body)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None
