"""Close a Dask dashboard to other people's programs on the same machine.

Dask loads this file into its schedulers and workers (``distributed.scheduler.preload``). What they tell over HTTP
(names, code, logs) asks for no password, and listens on every address of the machine. Here the kernel says whose the
other end of a connection is: on the loopback address both ends are in its tables, with their users.
"""

from __future__ import annotations

import os
import socket
from typing import Any


def dask_setup(server: Any) -> None:
    """Guard the HTTP server of a scheduler or a worker; Dask calls this when one starts."""
    http = getattr(server, "http_server", None)
    if http is None:
        return
    handle = http.handle_stream

    def handle_own(stream: Any, address: Any) -> Any:
        try:
            own = stream.socket.getsockname()
            allowed = owner(address[:2], own[:2]) == os.getuid()
        except (OSError, ValueError):
            allowed = False
        if not allowed:
            stream.close()
            return None
        return handle(stream, address)

    http.handle_stream = handle_own
    # Whoever was quicker than this comes again, and is asked then.
    for connection in list(getattr(http, "_connections", ())):
        connection.stream.close()


def owner(peer: tuple[str, int], own: tuple[str, int]) -> int | None:
    """Return the user id of whoever holds the other end of a connection on this machine, `None` if it is not here."""
    wanted = (_written(peer), _written(own))
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with open(table, encoding="ascii") as rows:
            next(rows)
            for row in rows:
                fields = row.split()
                if (_plain(fields[1]), _plain(fields[2])) == wanted:
                    return int(fields[7])
    return None


def _written(end: tuple[str, int]) -> str:
    """Return an address and port as the kernel writes them; IPv4 in either form is the same."""
    host, port = end[0].removeprefix("::ffff:").partition("%")[0], end[1]
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    packed = socket.inet_pton(family, host)
    words = [int.from_bytes(packed[at : at + 4], "little") for at in range(0, len(packed), 4)]
    return "".join(f"{word:08X}" for word in words) + f":{port:04X}"


def _plain(text: str) -> str:
    mapped = "0000000000000000FFFF0000"
    return text[len(mapped) :] if text.startswith(mapped) else text
