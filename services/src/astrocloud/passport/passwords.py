"""Passwords: what is taken, and how it is kept (argon2id)."""

import threading
import unicodedata
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from astrocloud.passport.errors import PasswordRefused

LONGEST_BYTES: Final = 1024
"""The longest password taken, in bytes of UTF-8; a longer one is refused before any work is done on it."""


def normalized(password: str) -> str:
    """Return `password` in NFKC, so that it is the same from every keyboard and input method.

    Raises
    ------
    PasswordRefused
        ``password-long``, also for text that is no Unicode.
    """
    try:
        fits = len(password) <= LONGEST_BYTES and len(password.encode()) <= LONGEST_BYTES
    except UnicodeEncodeError:
        fits = False
    if not fits:
        raise PasswordRefused("password-long", limit_bytes=LONGEST_BYTES)
    return unicodedata.normalize("NFKC", password)


class Passwords:
    """Checks and keeps passwords.

    Parameters
    ----------
    min_length
        The shortest password taken, in characters.
    at_once
        How many are computed at once; each takes 19 MiB and a processor.
    """

    def __init__(self, *, min_length: int, at_once: int = 2) -> None:
        self._min_length = min_length
        self._hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
        self._turn = threading.BoundedSemaphore(at_once)
        self._nobody: str | None = None

    @property
    def min_length(self) -> int:
        """The shortest password taken, in characters."""
        return self._min_length

    def check_new(self, password: str, *, username: str) -> str:
        """Return `password` as it is kept.

        Raises
        ------
        PasswordRefused
            ``password-short``, ``password-long``, ``password-weak``.
        """
        password = normalized(password)
        if len(password) < self._min_length:
            raise PasswordRefused("password-short", min_length=self._min_length)
        folded = password.casefold()
        if len(set(folded)) < 5 or (username and folded.replace(username, "") != folded and len(folded) < 16):
            raise PasswordRefused("password-weak")
        return password

    def hash(self, password: str) -> str:
        """Return the hash of a password that `check_new` returned."""
        with self._turn:
            return self._hasher.hash(password)

    def matches(self, password_hash: str | None, password: str) -> bool:
        """Whether `password` is the one of `password_hash`; `None` takes as long and matches nothing."""
        nobody = self._hash_of_nobody()
        try:
            password = normalized(password)
        except PasswordRefused:
            password, password_hash = "", None
        with self._turn:
            try:
                self._hasher.verify(password_hash or nobody, password)
            except (VerificationError, InvalidHashError):
                return False
        return password_hash is not None

    def _hash_of_nobody(self) -> str:
        """Return a hash to compare with when there is none, so that the time tells nothing."""
        if self._nobody is None:
            self._nobody = self.hash("the password of nobody")
        return self._nobody
