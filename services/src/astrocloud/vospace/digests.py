"""Checksums that come and go with bytes: ``Digest`` (RFC 3230), ``Content-MD5`` and ``Repr-Digest`` (RFC 9530)."""

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from astrocloud.vospace.errors import invalid_argument

if TYPE_CHECKING:
    from hashlib import _Hash

ALGORITHMS: Final = {"md5": "md5", "sha-256": "sha256", "sha-512": "sha512", "sha": "sha1"}
"""Name on the wire -> name in `hashlib`."""

_FIELD: Final = re.compile(r"\s*([A-Za-z0-9-]+)\s*=\s*:?([A-Za-z0-9+/=]+):?\s*\Z")


def announced(headers: Mapping[str, str]) -> dict[str, bytes]:
    """Return the checksums that a client announces for the bytes it sends: algorithm -> sum.

    Raises
    ------
    Fault
        ``InvalidArgument`` for a sum that cannot be read; unknown algorithms are passed over.
    """
    found: dict[str, bytes] = {}
    fields = [part for name in ("Digest", "Repr-Digest", "Content-Digest") for part in headers.get(name, "").split(",")]
    if "Content-MD5" in headers:
        fields.append(f"md5={headers['Content-MD5'].strip()}")
    for field in filter(str.strip, fields):
        match = _FIELD.match(field)
        if match is None:
            raise invalid_argument(f"the checksum {field[:80]!r} is not written as ALGORITHM=BASE64")
        algorithm = match[1].lower()
        if algorithm in ALGORITHMS:
            found[algorithm] = _decoded(match[2], hashlib.new(ALGORITHMS[algorithm], usedforsecurity=False))
    return found


def _decoded(text: str, empty: "_Hash") -> bytes:
    """Return the sum in `text`: base64 as the standards say, or hexadecimal as some clients do."""
    size = empty.digest_size
    if len(text) == 2 * size:
        try:
            return bytes.fromhex(text)
        except ValueError:
            pass
    try:
        value = base64.b64decode(text, validate=True)
    except binascii.Error:
        value = b""
    if len(value) != size:
        raise invalid_argument(f"the checksum {text[:80]!r} has not {size} bytes in base64")
    return value


def headers_of(md5: str | None) -> dict[str, str]:
    """Return the headers that tell a client the sum `md5` (hexadecimal) of the whole file."""
    if md5 is None:
        return {}
    text = base64.b64encode(bytes.fromhex(md5)).decode()
    return {"Digest": f"md5={text}", "Content-MD5": text, "Repr-Digest": f"md5=:{text}:"}


def check_encoding(headers: Mapping[str, str]) -> None:
    """Refuse a body that is compressed on its way: the server would unpack it, and other bytes would be kept.

    Raises
    ------
    Fault
        ``InvalidArgument``.
    """
    encoding = headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in {"", "identity"}:
        reason = f"Content-Encoding is {encoding[:40]!r}; send the bytes of a file as they are, without that header"
        raise invalid_argument(reason)
