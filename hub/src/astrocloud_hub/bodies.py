"""Large bodies of requests: let through to nobody, and not kept.

Tornado keeps the whole of a body, up to 100 MB of anybody's, until it has come; only then it asks who sends it. Ending
the connection early instead would be an error of the hub in the proxy's eyes (503): so the rest is read and dropped.
"""

import json
from collections.abc import Awaitable
from typing import Any, Final

import structlog
from tornado.httputil import HTTPConnection, HTTPHeaders, HTTPMessageDelegate, RequestStartLine, ResponseStartLine
from tornado.web import Application

from astrocloud.core import words
from astrocloud.core.web import BODY_LIMIT_BYTES
from astrocloud_hub.errors import HubError

_TOO_LARGE: Final = 413
_log = structlog.get_logger()


class LimitedApplication(Application):
    """A Tornado application whose handlers get no body longer than `BODY_LIMIT_BYTES`."""

    def start_request(self, server_conn: object, request_conn: HTTPConnection) -> HTTPMessageDelegate:
        """Return what reads a request."""
        return _Limited(super().start_request(server_conn, request_conn), request_conn)


class _Limited(HTTPMessageDelegate):
    """Passes a request on to `inner` unless its body is too long, which is told once all of it has come."""

    def __init__(self, inner: HTTPMessageDelegate, connection: HTTPConnection) -> None:
        self._inner: HTTPMessageDelegate | None = inner
        self._connection = connection
        self._size = 0
        self._line = ""
        self._languages: str | None = None

    def headers_received(self, start_line: Any, headers: HTTPHeaders) -> Awaitable[None] | None:
        if isinstance(start_line, RequestStartLine):
            self._line = f"{start_line.method} {start_line.path.partition('?')[0]}"
        self._languages = headers.get("Accept-Language")
        return self._inner.headers_received(start_line, headers) if self._inner else None

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        self._size += len(chunk)
        if self._size > BODY_LIMIT_BYTES:
            self._inner = None  # what has come so far goes with it
        return self._inner.data_received(chunk) if self._inner else None

    def finish(self) -> None:
        if self._inner is not None:
            self._inner.finish()
            return
        _log.info("body-too-large", request=self._line[:300], bytes=self._size)
        problem = HubError("too-large", limit_bytes=BODY_LIMIT_BYTES).problem(words.negotiate(self._languages))
        body = json.dumps({**problem, "message": problem["detail"]}, ensure_ascii=False).encode()
        headers = HTTPHeaders({"Content-Type": "application/problem+json", "Content-Length": str(len(body))})
        self._connection.write_headers(ResponseStartLine("", _TOO_LARGE, "Content Too Large"), headers, body)
        self._connection.finish()

    def on_connection_close(self) -> None:
        if self._inner is not None:
            self._inner.on_connection_close()
