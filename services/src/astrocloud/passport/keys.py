"""The embedded provider's signing keys: one signs, the next is published ahead, the previous is still believed."""

import base64
import hashlib
import itertools
import json
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from cryptography.fernet import Fernet
from joserfc.jwk import KeySet, RSAKey

from astrocloud.passport.models import StoredKey, utc_now

if TYPE_CHECKING:
    from pydantic import SecretStr

    from astrocloud.passport.storage import Storage

ALGORITHM: Final = "RS256"
"""The one that every OpenID Connect client knows (Core 1.0, section 15.1)."""

PUBLISHED_AHEAD: Final = timedelta(hours=1)
"""How long a key is published before it signs, at the least: clients keep the key set for that long."""

_LOOK_AGAIN: Final = timedelta(minutes=1)


class SigningKeys:
    """The signing keys, kept encrypted in the database.

    Parameters
    ----------
    storage
        Where they are kept.
    secret
        What they are encrypted with.
    lifetime_s
        How long one key signs, in seconds.
    clock
        Returns the time now.
    """

    def __init__(
        self,
        *,
        storage: "Storage",
        secret: "SecretStr",
        lifetime_s: int,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._storage = storage
        digest = hashlib.sha256(b"passport-keys:" + secret.get_secret_value().encode()).digest()
        self._box = Fernet(base64.urlsafe_b64encode(digest))
        self._lifetime = timedelta(seconds=lifetime_s)
        self._clock = clock
        self._lock = threading.Lock()
        self._known: list[tuple[StoredKey, RSAKey]] = []
        self._looked_at: datetime | None = None

    def current(self) -> RSAKey:
        """Return the key that signs now."""
        now = self._clock()
        good = [key for stored, key in self._all() if stored.signs_from <= now]
        return good[-1]

    def published(self) -> KeySet:
        """Return the keys whose signatures are believed: previous, current and next."""
        return KeySet([key for _, key in self._all()])

    def document(self) -> dict[str, Any]:
        """Return the public key set (RFC 7517)."""
        return {"keys": [key.as_dict(private=False) for _, key in self._all()]}

    def rotate(self) -> None:
        """Make the keys that are missing and drop those that nothing needs any more."""
        now = self._clock()
        with self._storage.begin() as tx:
            stored = tx.keys()
        fresh = [self._make(now, signs_from) for signs_from in self._missing(stored, now)]
        with self._storage.begin() as tx:
            stored = tx.keys()
            if fresh and self._missing(stored, now):  # unless another process was faster
                for key in fresh:
                    tx.add_key(key)
                stored = tx.keys()
            # A key is superseded when its follower starts to sign; its tokens and hints are believed one period more.
            for key, follower in itertools.pairwise(stored):
                if follower.signs_from + self._lifetime < now:
                    tx.drop_key(key.kid)

    def _missing(self, stored: list[StoredKey], now: datetime) -> list[datetime]:
        """Return when the keys that are missing are to sign from."""
        started = [key.signs_from for key in stored if key.signs_from <= now]
        waiting = [key.signs_from for key in stored if key.signs_from > now]
        missing: list[datetime] = []
        if not started:
            missing.append(now)
        if not waiting:
            missing.append(max((started[-1] if started else now) + self._lifetime, now + PUBLISHED_AHEAD))
        return missing

    def _make(self, now: datetime, signs_from: datetime) -> StoredKey:
        key = RSAKey.generate_key(2048, {"use": "sig", "alg": ALGORITHM}, auto_kid=True)
        document = key.as_dict(private=True)
        sealed = self._box.encrypt(json.dumps(document).encode()).decode()
        return StoredKey(kid=str(document["kid"]), sealed=sealed, created_at=now, signs_from=signs_from)

    def _all(self) -> list[tuple[StoredKey, RSAKey]]:
        """Return all keys, looked up anew every minute."""
        now = self._clock()
        with self._lock:
            if self._looked_at is None or now - self._looked_at > _LOOK_AGAIN:
                self.rotate()
                with self._storage.begin() as tx:
                    stored = tx.keys()
                before = {entry.kid: key for entry, key in self._known}
                self._known = [(entry, before.get(entry.kid) or self._open(entry)) for entry in stored]
                self._looked_at = now
            return self._known

    def _open(self, stored: StoredKey) -> RSAKey:
        return RSAKey.import_key(json.loads(self._box.decrypt(stored.sealed.encode())))
