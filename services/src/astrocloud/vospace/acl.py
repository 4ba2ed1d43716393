"""POSIX access control lists, as the kernel keeps them in extended attributes.

The kernel enforces them; this module reads and writes them for shares, and evaluates them for listings, where one
attempt to open each child would cost too much. The rules are those of Linux (fs/namei.c, fs/posix_acl.c), among
them that a list is not looked at when the mode's group bits are all 0.
"""

import errno
import os
import stat
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from astrocloud.vospace import posix
from astrocloud.vospace.identity import Identity

READ: Final = 4
WRITE: Final = 2
PASS: Final = 1
"""To execute a file, or to pass through a folder."""

ACCESS: Final = "system.posix_acl_access"
DEFAULT: Final = "system.posix_acl_default"

_VERSION: Final = 2
_HEADER: Final = struct.Struct("<I")
_ENTRY: Final = struct.Struct("<HHI")
_NO_ID: Final = 0xFFFFFFFF
_USER_OBJ, _USER, _GROUP_OBJ, _GROUP, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
_ABSENT: Final = {errno.ENODATA, errno.EOPNOTSUPP}


@dataclass(frozen=True)
class Acl:
    """Who may do what with one file; each value is a sum of `READ`, `WRITE` and `PASS`."""

    owner: int
    """The owner's permissions."""
    group: int
    """Those of the owning group (before the mask)."""
    other: int
    """Everybody else's."""
    users: dict[int, int] = field(default_factory=dict)
    """Named users, by user id (before the mask)."""
    groups: dict[int, int] = field(default_factory=dict)
    """Named groups, by group id (before the mask)."""
    mask: int | None = None
    """What named entries and the owning group can have at most; `None`: no named entries."""

    @classmethod
    def of_mode(cls, mode: int) -> "Acl":
        """Return what the permission bits of `mode` say."""
        return cls((mode >> 6) & 7, (mode >> 3) & 7, mode & 7)

    @classmethod
    def parse(cls, value: bytes) -> "Acl":
        """Return the list in the extended attribute `value`. Raises `ValueError` if it is none."""
        if len(value) < 4 or (len(value) - 4) % 8 or _HEADER.unpack_from(value)[0] != _VERSION:
            raise ValueError("not a POSIX access control list")
        single: dict[int, int] = {}
        named: dict[int, dict[int, int]] = {_USER: {}, _GROUP: {}}
        for tag, permissions, who in _ENTRY.iter_unpack(value[4:]):
            if tag in named:
                named[tag][who] = permissions & 7
            else:
                single[tag] = permissions & 7
        return cls(
            single.get(_USER_OBJ, 0),
            single.get(_GROUP_OBJ, 0),
            single.get(_OTHER, 0),
            named[_USER],
            named[_GROUP],
            single.get(_MASK),
        )

    def encode(self) -> bytes:
        """Return the extended attribute's value, entries in the order that the kernel asks for."""
        entries = [(_USER_OBJ, self.owner, _NO_ID)]
        entries += [(_USER, bits, uid) for uid, bits in sorted(self.users.items())]
        entries.append((_GROUP_OBJ, self.group, _NO_ID))
        entries += [(_GROUP, bits, gid) for gid, bits in sorted(self.groups.items())]
        if self.users or self.groups:
            entries.append((_MASK, self._union() if self.mask is None else self.mask, _NO_ID))
        entries.append((_OTHER, self.other, _NO_ID))
        return _HEADER.pack(_VERSION) + b"".join(_ENTRY.pack(*entry) for entry in entries)

    def _union(self) -> int:
        union = self.group
        for bits in (*self.users.values(), *self.groups.values()):
            union |= bits
        return union

    def effective_groups(self, owning: int) -> dict[int, int]:
        """Return what each group really has, the owning group `owning` among them."""
        mask = 7 if self.mask is None else self.mask
        found = {gid: bits & mask for gid, bits in self.groups.items()}
        found[owning] = found.get(owning, 0) | (self.group & mask)
        return found

    def effective_users(self) -> dict[int, int]:
        """Return what each named user really has."""
        mask = 7 if self.mask is None else self.mask
        return {uid: bits & mask for uid, bits in self.users.items()}

    def granting(
        self,
        *,
        owning: int,
        groups: dict[int, int] | None = None,
        users: dict[int, int] | None = None,
        other: int | None = None,
    ) -> "Acl":
        """Return this list with shares replaced; `None` leaves that kind as it is.

        Parameters
        ----------
        owning
            The owning group, whose permissions are kept in the list's own entry for it.
        groups
            All groups that have anything, by group id.
        users
            All named users that have anything, by user id.
        other
            What everybody has.
        """
        now_groups = self.effective_groups(owning) if groups is None else groups
        now_users = self.effective_users() if users is None else users
        return Acl(
            self.owner,
            now_groups.get(owning, 0),
            self.other if other is None else other,
            {uid: bits for uid, bits in now_users.items() if bits},
            {gid: bits for gid, bits in now_groups.items() if bits and gid != owning},
        )

    def of_a_file(self) -> "Acl":
        """Return what a new file has in a folder with this default list, as the kernel would make it of 0666."""
        if not self.users and not self.groups:
            mask = 6 if self.mask is None else self.mask & 6
            return Acl(self.owner & 6, self.group & mask, self.other & 6)
        mask = (self._union() if self.mask is None else self.mask) & 6
        return Acl(self.owner & 6, self.group, self.other & 6, self.users, self.groups, mask)

    def mode(self) -> int:
        """Return the permission bits that stand for this list: the group's are the mask where there is one."""
        middle = self.group
        if self.users or self.groups:
            middle = self._union() if self.mask is None else self.mask
        return (self.owner << 6) | (middle << 3) | self.other


def permits(status: os.stat_result, value: bytes | None, who: Identity, want: int) -> bool:
    """Whether the kernel would give `who` the permissions `want` on a file.

    Parameters
    ----------
    status
        The file's status.
    value
        Its access control list as the extended attribute has it, or `None` when there is none.
    who
        Whose permissions; root's special rights do not exist here.
    want
        A sum of `READ`, `WRITE`, `PASS`.
    """
    mode = status.st_mode
    if status.st_uid == who.uid:
        return (mode >> 6) & want == want
    if value is not None and mode & stat.S_IRWXG:
        return _list_permits(Acl.parse(value), status.st_gid, who, want)
    bits = mode >> 3 if who.in_group(status.st_gid) else mode
    return bits & want == want


def _list_permits(acl: Acl, owning: int, who: Identity, want: int) -> bool:
    mask = 7 if acl.mask is None else acl.mask
    if who.uid in acl.users:
        return acl.users[who.uid] & mask & want == want
    member = False
    for gid, bits in ((owning, acl.group), *acl.groups.items()):
        if who.in_group(gid):
            member = True
            if bits & want == want:
                # The first entry that grants decides, masked; a later one is not looked at.
                return bits & mask & want == want
    return not member and acl.other & want == want


def needs_list(status: os.stat_result, who: Identity) -> bool:
    """Whether the access control list matters for what `who` may, so that reading it can be saved when it does not."""
    return status.st_uid != who.uid and bool(status.st_mode & stat.S_IRWXG)


def read(path: str, *, default: bool = False) -> bytes | None:
    """Return the list kept with the file at `path` (never following a final link), or `None`."""
    try:
        return os.getxattr(path, DEFAULT if default else ACCESS, follow_symlinks=posix.is_descriptor(path))
    except OSError as err:
        if err.errno in _ABSENT:
            return None
        raise


def inheriting(acl: Acl) -> Acl:
    """Return the list that new files in a folder with `acl` begin with."""
    return replace(acl, mask=None)


def names(gids: Iterable[int], known: dict[int, str]) -> list[str]:
    """Return the names of those of `gids` that have one, sorted."""
    return sorted(known[gid] for gid in gids if gid in known)
