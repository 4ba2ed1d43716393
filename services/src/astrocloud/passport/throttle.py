"""A growing delay after failed tries, for each account and each address, kept across restarts."""

import hashlib
import math
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from astrocloud.passport.errors import TooManyTries
from astrocloud.passport.models import Failures

if TYPE_CHECKING:
    from astrocloud.passport.storage import Transaction

FORGOTTEN_AFTER: Final = timedelta(days=1)
"""Failed tries count until there was none for so long."""

LONGEST_WAIT_S: Final = 900

FREE: Final = {"account": 4, "address": 30, "register": 3, "link": 10}
"""Failed tries of each kind that cost no wait yet; many people can share an address."""


class Throttle:
    """Counts failed tries.

    The key of an account is what was typed, whether there is such an account or not, so that waiting tells nothing.

    Parameters
    ----------
    clock
        Returns the time now.
    """

    def __init__(self, *, clock: Callable[[], datetime]) -> None:
        self._clock = clock

    def admit(self, tx: "Transaction", *tries: tuple[str, str]) -> None:
        """Let a try through that does not have to wait.

        Parameters
        ----------
        tx
            The transaction to look in.
        *tries
            Kind (a key of `FREE`) and name, such as an address.

        Raises
        ------
        TooManyTries
            With the seconds to wait.
        """
        wait_s = max((self._wait_s(tx, kind, name) for kind, name in tries), default=0)
        if wait_s > 0:
            raise TooManyTries("too-many-requests", wait_s=wait_s)

    def count(self, tx: "Transaction", *tries: tuple[str, str]) -> None:
        """Count a failed try."""
        now = self._clock()
        for kind, name in tries:
            found = tx.failures(_key(kind, name))
            fresh = found is None or now - found.last_at > FORGOTTEN_AFTER
            tx.set_failures(_key(kind, name), Failures(count=1 if fresh else found.count + 1, last_at=now))  # type: ignore[union-attr]

    def forget(self, tx: "Transaction", *tries: tuple[str, str]) -> None:
        """Forget the failed tries: this one succeeded."""
        for kind, name in tries:
            tx.drop_failures(_key(kind, name))

    def _wait_s(self, tx: "Transaction", kind: str, name: str) -> int:
        found = tx.failures(_key(kind, name))
        if found is None or found.count <= FREE[kind]:
            return 0
        delay_s = min(2 ** min(found.count - FREE[kind], 20), LONGEST_WAIT_S)
        return math.ceil(delay_s - (self._clock() - found.last_at).total_seconds())


def _key(kind: str, name: str) -> str:
    """Return a key of fixed length that does not show what was typed (a password, at times)."""
    return hashlib.sha256(f"{kind}:{name.casefold()}".encode("utf-8", "surrogatepass")).hexdigest()
