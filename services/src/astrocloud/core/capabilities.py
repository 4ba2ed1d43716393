"""What root may do in this process besides reading and writing everybody's files (capabilities(7))."""

import ctypes
import os
from typing import Final

SYS_RESOURCE: Final = 24
"""May go beyond quotas of the file system, limits of processes and what a disk keeps back."""

_VERSION_3: Final = 0x20080522


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Sets(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def drop(capability: int) -> None:
    """Give up `capability` for good, in this thread and those that it makes: to be called before there are others.

    Raises
    ------
    OSError
        When the kernel refuses.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = _Header(_VERSION_3, 0), (_Sets * 2)()
    if libc.capget(ctypes.byref(header), sets):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    word, kept = sets[capability // 32], ~(1 << capability % 32) & 0xFFFFFFFF
    for field, _type in _Sets._fields_:
        setattr(word, field, getattr(word, field) & kept)
    if libc.capset(ctypes.byref(header), sets):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
