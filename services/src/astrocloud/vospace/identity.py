"""Acting as a person: the kernel decides, with that person's user id, group and groups.

The file system identity (fsuid, fsgid, supplementary groups) belongs to a thread. It is taken on and given back inside
one synchronous function in a worker thread; across an ``await`` it would leak into somebody else's request.
"""

import ctypes
import os
import platform
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Final

NOBODY: Final = 65534
"""The user and group id of somebody who is not signed in."""

_SYS_SETGROUPS: Final = {"x86_64": 116, "aarch64": 159, "ppc64le": 81, "s390x": 206, "riscv64": 159}


@dataclass(frozen=True)
class Identity:
    """Whose permissions apply."""

    uid: int
    """User id."""
    gid: int
    """Primary group id."""
    groups: tuple[int, ...] = ()
    """Supplementary group ids."""

    def in_group(self, gid: int) -> bool:
        """Whether `gid` is one of this identity's groups."""
        return gid == self.gid or gid in self.groups


ANONYMOUS: Final = Identity(NOBODY, NOBODY)
"""Somebody who is not signed in: only what everybody may applies."""


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def can_switch() -> bool:
    """Whether this process may act as others: it runs as root on a machine whose system calls are known here."""
    return os.geteuid() == 0 and platform.machine() in _SYS_SETGROUPS


@contextmanager
def acting_as(identity: Identity) -> Iterator[None]:
    """Let file operations of this thread be `identity`'s until the block ends.

    Must not contain an ``await``. A process that is not root stays who it is.

    Raises
    ------
    PermissionError
        When the kernel does not let this process become `identity`, or `identity` is root's.
    """
    if not can_switch():
        yield
        return
    if identity.uid == 0 or identity.gid == 0:
        raise PermissionError("nobody acts as root here")
    before = os.getgroups()
    try:
        # Groups and gid first: once fsuid is not root's the thread has no right to change them.
        _set_groups(identity.groups)
        _set("setfsgid", identity.gid)
        _set("setfsuid", identity.uid)
        yield
    finally:
        _set("setfsuid", 0)
        _set("setfsgid", 0)
        _set_groups(tuple(before))


def current() -> Identity:
    """Return who this thread acts as."""
    if not can_switch():
        return Identity(os.geteuid(), os.getegid(), tuple(os.getgroups()))
    # Asking with an impossible id tells what is in force.
    return Identity(_libc().setfsuid(-1), _libc().setfsgid(-1), tuple(os.getgroups()))


@contextmanager
def as_platform() -> Iterator[None]:
    """Let file operations of this thread be the platform's own until the block ends, in the middle of `acting_as`."""
    who = current()
    if not can_switch() or who.uid == 0:
        yield
        return
    _set("setfsuid", 0)
    _set("setfsgid", 0)
    try:
        yield
    finally:
        _set("setfsgid", who.gid)
        _set("setfsuid", who.uid)


def is_acting_as(identity: Identity) -> bool:
    """Whether file operations of this thread are `identity`'s now."""
    current = _libc().setfsuid(-1), _libc().setfsgid(-1)  # impossible ids change nothing
    return current == (identity.uid, identity.gid)


@cache
def access_tells() -> bool:
    """Whether ``faccessat`` with ``AT_EACCESS`` answers for whom a thread acts as; not to be called inside `acting_as`.

    The kernel's does since Linux 5.8, when C libraries began to leave the question to it; until then they compared
    bits themselves, with the process's user, and root would have seen everything.
    """
    if not can_switch():
        return False
    # In a thread that ends: who has acted as another is not told of its parent's death any more (prctl(2)), and
    # the thread that asks may be the one that has to end the process then.
    with ThreadPoolExecutor(1) as aside:
        return aside.submit(_probe_access).result()


def _probe_access() -> bool:
    try:
        probe = os.memfd_create("probe")
    except OSError:  # a sandbox that knows no such files
        return False
    try:
        place = f"/proc/self/fd/{probe}"
        told = []
        for mode in (0o444, 0):
            os.fchmod(probe, mode)
            with acting_as(ANONYMOUS):
                told.append(os.access(place, os.R_OK, effective_ids=True))
        return told == [True, False]
    finally:
        os.close(probe)


def _set(call: str, value: int) -> None:
    function = getattr(_libc(), call)
    function(value)
    # These two report no error; asking with an impossible id tells what is in force.
    if function(-1) != value:
        raise PermissionError(f"{call}({value}) was refused by the kernel")


def _set_groups(groups: tuple[int, ...]) -> None:
    """Set the groups of this thread alone: glibc's ``setgroups`` would change those of all threads."""
    array = (ctypes.c_uint32 * len(groups))(*groups)
    result = _libc().syscall(_SYS_SETGROUPS[platform.machine()], len(groups), array)
    if result != 0:
        raise PermissionError(ctypes.get_errno(), "setgroups was refused by the kernel")
