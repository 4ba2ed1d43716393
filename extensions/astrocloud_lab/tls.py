"""The server's own certificate, and whom it believes: where it is called by TLS, and calls the platform so.

A spawner hands both over in variables, as it does with the server's token.  They go
into files that the person alone reads, in memory where there is room: kernels and
terminals do not inherit the key.  The authority vouches for the platform's own parts
and is used for them alone; what else a person's programs believe is not changed.
"""

from __future__ import annotations

import functools
import os
import ssl
import tempfile
from collections.abc import MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tornado.tcpserver import TCPServer

CERTIFICATE = "ASTROCLOUD_TLS_CERTIFICATE"
KEY = "ASTROCLOUD_TLS_KEY"
AUTHORITY = "ASTROCLOUD_TLS_AUTHORITY"
"""What a spawner gives: texts in PEM."""

AUTHORITY_FILE = "ASTROCLOUD_AUTHORITY"
"""The file of the platform's authority, for the server, its kernels and its terminals."""

MEMORY = "/dev/shm"  # noqa: S108  # a folder of mode 0700 in it


def prepare(environ: MutableMapping[str, str]) -> tuple[str, ...]:
    """Take certificate, key and authority out of ``environ`` and into files.

    Returns
    -------
    tuple of str
        The arguments by which JupyterHub's side of the server finds the authority.
        The variable for it would make the server ask each browser for a certificate.
    """
    texts = {name: environ.pop(name, "") for name in (CERTIFICATE, KEY, AUTHORITY)}
    if not all(texts.values()):
        return ()
    folder = Path(tempfile.mkdtemp(prefix="astrocloud-tls-", dir=MEMORY if os.access(MEMORY, os.W_OK) else None))
    for name, text in texts.items():
        descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(text)
    environ["JUPYTERHUB_SSL_CERTFILE"] = str(folder / CERTIFICATE)
    environ["JUPYTERHUB_SSL_KEYFILE"] = str(folder / KEY)
    environ[AUTHORITY_FILE] = str(folder / AUTHORITY)
    return (f"--HubAuth.client_ca={folder / AUTHORITY}",)


@functools.cache
def platform_context() -> ssl.SSLContext | None:
    """Return what the platform's parts are checked by, ``None`` where they speak no TLS."""
    file = os.environ.get(AUTHORITY_FILE)
    return ssl.create_default_context(cafile=file) if file else None


def answer_at_once(server: TCPServer) -> None:
    """Let ``server`` read its certificate once, and nobody else's.

    Tornado reads it again for each connection, and for the first one all authorities
    that the machine knows, a tenth of a second, to check whom a server never calls.
    """
    import tornado.tcpserver as tcpserver  # noqa: PLR0402 - mypy does not know it as an attribute
    from tornado.iostream import SSLIOStream
    from tornado.netutil import ssl_options_to_context

    if server.ssl_options is None:
        return
    context = ssl_options_to_context(server.ssl_options, server_side=True)
    server.ssl_options = context
    tcpserver.SSLIOStream = functools.partial(SSLIOStream, ssl_options=context)
