"""Telling a thing from another that has its inode number by now: by when it was made, where the file system says."""

import ctypes
import hashlib
import os
from typing import Final

_EMPTY_PATH: Final = 0x1000
_NO_FOLLOW: Final = 0x100
_BIRTH: Final = 0x800
_libc = ctypes.CDLL(None, use_errno=True)
_statx = getattr(_libc, "statx", None)


class _Statx(ctypes.Structure):
    _fields_ = (
        ("mask", ctypes.c_uint32),
        ("before", ctypes.c_uint8 * 76),
        ("birth_s", ctypes.c_int64),
        ("birth_ns", ctypes.c_uint32),
        ("after", ctypes.c_uint8 * 164),
    )


def born(descriptor: int, name: bytes = b"") -> str:
    """Return when what `descriptor` is open on (or `name` in it) was made; empty where nobody knows."""
    found = _Statx()
    flags = _NO_FOLLOW if name else _EMPTY_PATH
    if _statx is None or _statx(descriptor, name, flags, _BIRTH, ctypes.byref(found)) or not found.mask & _BIRTH:
        return ""
    return f"{found.birth_s}.{found.birth_ns}"


def mark_of(descriptor: int, name: bytes = b"") -> str:
    """Return what only this thing has on its file system, in at most 20 characters. Raises `OSError`."""
    status = os.stat(name, dir_fd=descriptor, follow_symlinks=False) if name else os.fstat(descriptor)
    moment = born(descriptor, name)
    if not moment:
        return str(status.st_ino)
    return "b" + hashlib.sha256(f"{status.st_ino} {moment}".encode()).hexdigest()[:19]


def is_marked(mark: str | None, descriptor: int, name: bytes = b"") -> bool:
    """Whether `mark` is of this thing; marks of before births were looked at are inode numbers. Raises `OSError`."""
    if mark is None:
        return False
    if mark.isdigit():
        status = os.stat(name, dir_fd=descriptor, follow_symlinks=False) if name else os.fstat(descriptor)
        return mark == str(status.st_ino)
    return mark == mark_of(descriptor, name)
