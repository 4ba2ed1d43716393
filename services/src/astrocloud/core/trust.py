"""Whose certificates the parts of a platform take from each other."""

import ssl
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final


@dataclass(frozen=True)
class Trust:
    """The platform's own authorities, in files.

    It can be copied and compared, which a context of TLS cannot, so that it may stand in JupyterHub's configuration.
    """

    authorities: tuple[Path, ...] = ()
    """Files of certificates in PEM; none: the parts speak no TLS with each other, and what is called by it anyway is
    checked as the machine does."""

    def context(self) -> ssl.SSLContext:
        """Return what a client of the platform's parts checks them by: these authorities and no others.

        It is read once: the platform's authorities outlive every process, see `images/services/make_secrets.py`.
        """
        return _context(self.authorities)


NONE: Final = Trust()
"""That of parts that speak no TLS with each other."""


@cache
def _context(authorities: tuple[Path, ...]) -> ssl.SSLContext:
    if not authorities:
        return ssl.create_default_context()
    context = ssl.create_default_context(cafile=authorities[0])
    for more in authorities[1:]:
        context.load_verify_locations(cafile=more)
    return context
