"""Addresses that work without a login, for a short time, for one method and one path."""

import base64
import binascii
import hashlib
import hmac
import json
import time
from typing import Final

from pydantic import SecretStr

from astrocloud.vospace.errors import Fault
from astrocloud.vospace.models import NodePath

PREFIX: Final = "preauth:"
_TAG_BYTES: Final = 20


class Signer:
    """Makes and checks the token of such an address.

    Parameters
    ----------
    secret
        Known to every process of the service.
    lifetime_s
        How long an address works, in seconds.
    """

    def __init__(self, *, secret: SecretStr, lifetime_s: int) -> None:
        self._key = hashlib.sha256(b"vospace-preauth:" + secret.get_secret_value().encode()).digest()
        self.lifetime_s = lifetime_s

    def sign(self, *, method: str, path: NodePath, user: str | None, view: str | None = None) -> str:
        """Return the first segment of an address by which `user`'s permissions hold for `method` on `path`."""
        document = {"m": method, "u": user, "x": int(time.time()) + self.lifetime_s, "v": view}
        payload = json.dumps(document, separators=(",", ":")).encode()
        return PREFIX + _text(payload) + "." + _text(self._tag(payload, path))

    def address(self, base: str, *, method: str, path: NodePath, user: str | None, view: str | None = None) -> str:
        """Return the whole address, below the service's address `base`; nothing but ASCII."""
        token = self.sign(method=method, path=path, user=user, view=view)
        return f"{base}/files/{token}{quoted(path)}"

    def check(self, segment: str, *, method: str, path: NodePath) -> tuple[str | None, str | None]:
        """Return the user and the view that `segment` was signed for.

        Raises
        ------
        Fault
            ``PermissionDenied`` when it is not ours, too old, or for something else.
        """
        denied = Fault(
            "vospace-permission-denied", uri=f"{path} (the address is no longer, or was never, good for this)"
        )
        payload_text, _, tag_text = segment.removeprefix(PREFIX).partition(".")
        try:
            payload, tag = _bytes(payload_text), _bytes(tag_text)
            if not hmac.compare_digest(tag, self._tag(payload, path)):
                raise denied
            document = json.loads(payload)
        except (binascii.Error, ValueError):
            raise denied from None
        wanted = "GET" if method == "HEAD" else method
        if document["m"] != wanted or time.time() > document["x"]:
            raise denied
        return document["u"], document.get("v")

    def _tag(self, payload: bytes, path: NodePath) -> bytes:
        message = payload + b"\0" + b"/".join(path.parts)
        return hmac.new(self._key, message, hashlib.sha256).digest()[:_TAG_BYTES]


def quoted(path: NodePath) -> str:
    """Return `path` as it stands in an http address: nothing but ASCII."""
    return "".join(char if char.isascii() else _percent(char) for char in str(path))


def _percent(char: str) -> str:
    return "".join(f"%{byte:02X}" for byte in char.encode())


def _text(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text.encode() + b"=" * (-len(text) % 4))
