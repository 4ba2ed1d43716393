"""Enter a sandbox that stands already, and become its person for good.

The system calls that the standard library lacks. Mounts, namespaces and limits are
bubblewrap's and the spawner's; here is nothing but going in, and giving everything up.
Nothing is imported and no file is opened between the two.
"""

from __future__ import annotations

import ctypes
import os
import resource
from collections.abc import Iterator, Mapping, Sequence

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWPID = 0x20000000
NAMESPACES = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID
"""All that bubblewrap makes for a server of ours. The network is the machine's."""

PR_SET_DUMPABLE = 4
PR_SET_NAME = 15
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
PR_GET_NO_NEW_PRIVS = 39
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4
CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


class EnterError(OSError):
    """A step on the way in failed; the text says which."""


def _call(what: str, result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise EnterError(number, f"{what}: {os.strerror(number)}")
    return result


def _prctl(what: str, option: int, *arguments: int) -> int:
    padded = [ctypes.c_ulong(value) for value in (*arguments, 0, 0, 0, 0)[:4]]
    return _call(what, _libc.prctl(option, *padded))


def join_groups(descriptors: Sequence[int]) -> None:
    """Join control groups.

    Parameters
    ----------
    descriptors
        Their open ``cgroup.procs``. First of all, so that whatever comes counts there.
    """
    for descriptor in descriptors:
        os.write(descriptor, b"0")


def join_namespaces(pidfd: int) -> None:
    """Join the namespaces of a process; that of process ids holds for children forked after this."""
    _call("setns", _libc.setns(pidfd, NAMESPACES))


def limit(limits: Mapping[str, int]) -> None:
    """Set limits of this process: name as in ``RLIMIT_NAME`` -> value for both, soft and hard."""
    for name, value in limits.items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name.upper()}"), (value, value))


def give_up_what_is_not_permitted() -> None:
    """Take out of the bounding set what this process is not permitted now: no child will be, either."""
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    held = (ctypes.c_uint32 * 6)()
    _call("capget", _libc.capget(header, held))
    permitted = held[1] | held[4] << 32
    for capability in _known_capabilities():
        if not permitted >> capability & 1:
            _prctl("bounding set", PR_CAPBSET_DROP, capability)


def _known_capabilities() -> Iterator[int]:
    capability = 0
    while _libc.prctl(PR_CAPBSET_READ, ctypes.c_ulong(capability), *[ctypes.c_ulong(0)] * 3) >= 0:
        yield capability
        capability += 1


def become(uid: int, gid: int, groups: Sequence[int]) -> None:
    """Be the person from now on: no capability in any set, and no way back.

    Raises
    ------
    OSError
        If any of it fails, or has not had its effect.
    """
    for capability in _known_capabilities():
        _prctl("bounding set", PR_CAPBSET_DROP, capability)
    _prctl("ambient set", PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    nothing = (ctypes.c_uint32 * 6)()
    _call("capset", _libc.capset(header, nothing))
    _prctl("no_new_privs", PR_SET_NO_NEW_PRIVS, 1)
    # A change of ids makes a process unreadable, and its /proc root's. There is nothing in it that is not the
    # person's: the parent has no secret, and what was asked for is read after this.
    _prctl("dumpable", PR_SET_DUMPABLE, 1)
    _check(uid, gid, groups)


def _check(uid: int, gid: int, groups: Sequence[int]) -> None:
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    held = (ctypes.c_uint32 * 6)()
    _call("capget", _libc.capget(header, held))
    good = (
        os.getresuid() == (uid, uid, uid)
        and os.getresgid() == (gid, gid, gid)
        and sorted(os.getgroups()) == sorted(set(groups))
        and not any(held)
        and _prctl("no_new_privs", PR_GET_NO_NEW_PRIVS) == 1
        and uid > 0
    )
    if not good:
        raise EnterError(1, "something of the platform's rights is left")


def name_process(name: str) -> None:
    """Give this process a name of up to 15 bytes, as ``ps`` shows it."""
    _libc.prctl(PR_SET_NAME, ctypes.create_string_buffer(name.encode()[:15]), *[ctypes.c_ulong(0)] * 3)
