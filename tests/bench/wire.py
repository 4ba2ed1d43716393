"""A client that costs next to nothing, so that what is measured is the server: plain sockets and large buffers."""

import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

_Socket = socket.socket
_BUFFER = bytearray(1 << 20)


@dataclass
class Reply:
    """What came back."""

    status: int
    headers: dict[str, str]
    size: int
    first_byte_s: float
    """Until the first byte of the body, in seconds."""
    seconds: float
    """Until its last."""
    body: bytes = b""


@dataclass
class Line:
    """One connection to a server, kept open."""

    address: str
    headers: Mapping[str, str] = field(default_factory=dict)
    socket: "_Socket | None" = None

    def __post_init__(self) -> None:
        parts = urlsplit(self.address)
        self._target = (parts.hostname or "", parts.port or 80)
        self._left = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection."""
        if self.socket is not None:
            self.socket.close()
            self.socket = None

    def __call__(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | Path = b"",
        keep: bool = False,
    ) -> Reply:
        """Ask; with `keep` the answer's body is returned and not only counted."""
        if self.socket is None:
            self.socket = socket.create_connection(self._target)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        length = body.stat().st_size if isinstance(body, Path) else len(body)
        told = {"Host": f"{self._target[0]}:{self._target[1]}", **self.headers, **(headers or {})}
        if method == "PUT":
            told["Content-Length"] = str(length)
        head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in told.items()) + "\r\n"
        started = time.perf_counter()
        self.socket.sendall(head.encode())
        if isinstance(body, Path):
            with body.open("rb") as source:
                sent = 0
                while sent < length:
                    sent += os.sendfile(self.socket.fileno(), source.fileno(), sent, length - sent)
        elif body:
            self.socket.sendall(body)
        return self._read(started, keep=keep, empty=method == "HEAD")

    def _read(self, started: float, *, keep: bool, empty: bool) -> Reply:
        assert self.socket is not None
        received = self._left
        while b"\r\n\r\n" not in received:
            more = self.socket.recv(65536)
            if not more:
                raise ConnectionError("closed before the answer")
            received += more
        head, _, rest = received.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:])}
        reply = Reply(int(lines[0].split()[1]), headers, 0, 0.0, 0.0)
        if "chunked" in headers.get("transfer-encoding", ""):
            self._chunks(reply, rest, started, keep=keep)
        else:
            length = 0 if empty else int(headers.get("content-length", "0"))
            self._sized(reply, rest, length, started, keep=keep)
        reply.seconds = time.perf_counter() - started
        if headers.get("connection", "").lower() == "close":
            self.close()
        return reply

    def _sized(self, reply: Reply, rest: bytes, length: int, started: float, *, keep: bool) -> None:
        assert self.socket is not None
        reply.size, self._left = min(len(rest), length), rest[length:]
        reply.first_byte_s = time.perf_counter() - started
        kept = [rest[:length]] if keep else []
        while reply.size < length:
            count = self.socket.recv_into(_BUFFER, min(len(_BUFFER), length - reply.size))
            if not count:
                raise ConnectionError(f"closed after {reply.size} of {length} bytes")
            reply.size += count
            if keep:
                kept.append(bytes(_BUFFER[:count]))
        reply.body = b"".join(kept)

    def _chunks(self, reply: Reply, rest: bytes, started: float, *, keep: bool) -> None:
        """Count what comes in chunks, to the empty one; the size is that on the wire."""
        assert self.socket is not None
        kept, tail = bytearray(), b""
        while True:
            if rest and not reply.first_byte_s:
                reply.first_byte_s = time.perf_counter() - started
            reply.size += len(rest)
            if keep:
                kept += rest
            tail = (tail + rest)[-7:]
            if tail.endswith(b"\r\n0\r\n\r\n"):
                break
            count = self.socket.recv_into(_BUFFER)
            if not count:
                raise ConnectionError("closed in the middle of an answer")
            rest = bytes(_BUFFER[:count])
        self._left, reply.body = b"", bytes(kept)
