"""What is kept with a file in extended attributes: a client's properties, and the MD5 with what it was computed for."""

import errno
import json
import os
import re
from dataclasses import dataclass, field
from typing import Final

from astrocloud.vospace import posix
from astrocloud.vospace.errors import Fault, invalid_argument

PROPERTIES: Final = "user.astrocloud.vospace"
MD5: Final = "user.astrocloud.md5"

PROPERTIES_LIMIT_BYTES: Final = 3500
"""All properties of one node together, as they are kept: ext4 has one block of 4 kB for them."""

_ABSENT: Final = {errno.ENODATA, errno.EOPNOTSUPP, errno.EACCES, errno.EPERM}
_NOT_KEPT: Final = {*_ABSENT, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.E2BIG, errno.ERANGE}
_STAMP: Final = re.compile(rb"([0-9a-f]{32}) ([0-9]{1,20}) ([0-9]{1,20}) (-?[0-9]{1,20})\Z")


@dataclass(frozen=True)
class Kept:
    """What a client gave with a node and the file system has no place of its own for."""

    kind: str | None = None
    """The type it was created with, when that is not the plain one."""
    properties: dict[str, str] = field(default_factory=dict)


def names(path: str, *, follow: bool) -> list[str] | None:
    """Return the names of what is kept with the file at `path`; `None` when its file system does not say.

    Asking once for the names costs less than asking in vain for each of them.
    """
    try:
        return os.listxattr(path, follow_symlinks=follow)
    except OSError as err:
        if err.errno in {errno.EOPNOTSUPP, errno.E2BIG, errno.ERANGE}:
            return None
        raise


def read_kept(path: str) -> Kept:
    """Return what is kept with the file at `path`, which may be nothing."""
    try:
        value = os.getxattr(path, PROPERTIES, follow_symlinks=posix.is_descriptor(path))
    except OSError as err:
        if err.errno in _ABSENT:
            return Kept()
        raise
    try:
        document = json.loads(value)
        # The owner can write anything here: what does not fit is as good as absent.
        properties = {_text(uri): _text(text) for uri, text in document["properties"].items()}
        kind = document.get("kind")
        return Kept(kind if isinstance(kind, str) else None, properties)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Kept()


def _text(value: object) -> str:
    """Return `value` as text that can be told: JSON can name halves of characters, which no encoding has."""
    return str(value).encode("utf-8", "replace").decode()


def write_kept(path: str, kept: Kept) -> None:
    """Keep `kept` with the file at `path`.

    Raises
    ------
    Fault
        ``InvalidArgument`` when it is more than the file system takes, ``OperationNotSupported`` when it keeps nothing.
    """
    if not kept.kind and not kept.properties:
        try:
            os.removexattr(path, PROPERTIES, follow_symlinks=posix.is_descriptor(path))
        except OSError as err:
            if err.errno not in {errno.ENODATA, errno.EOPNOTSUPP}:
                raise
        return
    document = {"kind": kept.kind, "properties": kept.properties}
    value = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
    too_long = invalid_argument(
        f"the properties take {len(value)} bytes together; at most {PROPERTIES_LIMIT_BYTES} fit with a file"
    )
    if len(value) > PROPERTIES_LIMIT_BYTES:
        raise too_long
    try:
        os.setxattr(path, PROPERTIES, value, follow_symlinks=posix.is_descriptor(path))
    except OSError as err:
        if err.errno in {errno.ENOSPC, errno.E2BIG, errno.ERANGE}:
            raise too_long from err
        if err.errno == errno.EOPNOTSUPP:
            raise Fault("vospace-operation-not-supported", what="properties on this file system") from err
        raise


def read_md5(path: str, status: os.stat_result) -> str | None:
    """Return the MD5 of the file at `path` in hexadecimal, or `None` when it is not known for these very bytes.

    Parameters
    ----------
    status
        The file's status now: inode, size and modification time must be those for which the sum was computed.
    """
    try:
        match = _STAMP.match(os.getxattr(path, MD5, follow_symlinks=posix.is_descriptor(path)))
    except OSError as err:
        if err.errno in _ABSENT:
            return None
        raise
    if match is None:
        return None
    stamp = tuple(map(int, match.groups()[1:]))
    return match[1].decode() if stamp == (status.st_ino, status.st_size, status.st_mtime_ns) else None


def write_md5(path: str, status: os.stat_result, md5: str) -> None:
    """Keep the sum `md5` with the file at `path`, valid as long as `status` is.

    A file system that cannot is no error.
    """
    value = f"{md5} {status.st_ino} {status.st_size} {status.st_mtime_ns}".encode()
    try:
        os.setxattr(path, MD5, value, follow_symlinks=posix.is_descriptor(path))
    except OSError as err:
        if err.errno not in _NOT_KEPT:
            raise
