"""The children of a folder, a batch at a time: a million of them cost no more memory than a thousand.

A small folder is sorted by name. A large one is told in the folder's own order, which is stable while nothing is
renamed, unless a page is asked for: then its sorted names are made once and kept while the folder does not change.
"""

import bisect
import os
import stat
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice, repeat
from typing import Final

from astrocloud.vospace import posix
from astrocloud.vospace.models import is_hidden

SMALL: Final = 10_000
"""Folders up to this many entries are always told sorted by name."""

SETTLED_S: Final = 2.0
"""A folder that changed so recently may change again within the same tick of the file system's clock, in seconds."""

_GONE: Final = (
    "the child to begin with is not there any more; list the folder from its beginning, or by name with a limit"
)
SORTS: Final = ("name", "date", "length")


Entry = tuple[bytes, int]
"""A name, and the format of what has it (``S_IFREG``…) as far as its folder tells that; else 0."""


@dataclass(frozen=True)
class _Index:
    stamp: tuple[int, int, int]
    names: list[bytes]


class NameIndexes:
    """Sorted names of the large folders that were last paged through.

    Parameters
    ----------
    room
        How many names are kept in memory, of all folders together.
    """

    def __init__(self, *, room: int = 2_000_000) -> None:
        self._room = room
        self._kept: OrderedDict[tuple[int, int], _Index] = OrderedDict()
        self._lock = threading.Lock()

    def known(self, folder: int) -> list[bytes] | None:
        """Return what `names` would, if that is at hand."""
        key, stamp = _identity(os.fstat(folder))
        with self._lock:
            found = self._kept.get(key)
            if found is None or found.stamp != stamp:
                return None
            self._kept.move_to_end(key)
            return found.names

    def names(self, folder: int) -> list[bytes]:
        """Return all names in the open folder `folder`, sorted; the list is shared and must not be changed."""
        found = self.known(folder)
        if found is not None:
            return found
        status = os.fstat(folder)
        key, stamp = _identity(status)
        names = sorted(name for name in posix.names_in(folder) if not is_hidden(name))
        if time.time() - status.st_mtime > SETTLED_S:
            with self._lock:
                self._kept[key] = _Index(stamp, names)
                self._kept.move_to_end(key)
                while len(self._kept) > 1 and sum(len(i.names) for i in self._kept.values()) > self._room:
                    self._kept.popitem(last=False)
        return names


def _identity(status: os.stat_result) -> tuple[tuple[int, int], tuple[int, int, int]]:
    """Return which folder `status` is of, and what is another when its names are others."""
    return (status.st_dev, status.st_ino), (status.st_mtime_ns, status.st_ctime_ns, status.st_nlink)


def names_in_order(
    folder: int,
    *,
    indexes: NameIndexes,
    start: bytes | None,
    paged: bool,
    sort: str,
    descending: bool,
) -> Iterator[Entry]:
    """Return the entries of the open folder `folder`, in the order in which they are told.

    Parameters
    ----------
    start
        The name to begin with, itself included where it is still there.
    paged
        Whether the client asks for pages: these are always in the order of names.
    sort
        One of `SORTS`; anything but ``name`` asks for each child's status first, so only small folders have it.

    Raises
    ------
    ValueError
        When a folder is too large to be sorted by anything but names, or `start` went and the order does not tell
        where it was.
    """
    if sort == "name" and (paged or descending):
        known = indexes.known(folder)
        if known is not None:
            return zip(_sorted_from(known, start, descending=descending), repeat(0))
    entries = entries_of(folder)
    first = list(islice(entries, SMALL + 1))
    if len(first) <= SMALL:
        kinds = dict(first)
        if sort == "name":
            order = _sorted_from(sorted(kinds), start, descending=descending)
        else:
            by = sorted(kinds, key=lambda name: (_key(folder, name, sort), name), reverse=descending)
            order = _from(by, start)
        return ((name, kinds[name]) for name in order)
    if sort != "name":
        raise ValueError(f"sorting options not supported for more than {SMALL} children")
    if paged or descending:
        return zip(_sorted_from(indexes.names(folder), start, descending=descending), repeat(0))
    every = chain(first, entries)
    return every if start is None else _after(every, start)


def entries_of(folder: int) -> Iterator[Entry]:
    """Yield the entries of the open folder `folder` in its own order."""
    encoding, errors = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()
    with os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name.encode(encoding, errors)
            if not is_hidden(name):
                yield name, stat.S_IFREG if entry.is_file(follow_symlinks=False) else _kind(entry)


def _kind(entry: os.DirEntry[str]) -> int:
    if entry.is_dir(follow_symlinks=False):
        return stat.S_IFDIR
    return stat.S_IFLNK if entry.is_symlink() else 0


def _key(folder: int, name: bytes, sort: str) -> int:
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return 0
    return status.st_mtime_ns if sort == "date" else status.st_size


def _sorted_from(names: list[bytes], start: bytes | None, *, descending: bool) -> Iterator[bytes]:
    # By position: to skip half a million names takes longer than to tell the thousand after them.
    if not descending:
        first = bisect.bisect_left(names, start) if start is not None else 0
        return map(names.__getitem__, range(first, len(names)))
    end = bisect.bisect_right(names, start) if start is not None else len(names)
    return map(names.__getitem__, range(end - 1, -1, -1))


def _from(names: list[bytes], start: bytes | None) -> Iterator[bytes]:
    try:
        return iter(names[names.index(start) :]) if start is not None else iter(names)
    except ValueError:
        raise ValueError(_GONE) from None


def _after(entries: Iterator[Entry], start: bytes) -> Iterator[Entry]:
    # At once, and not when it is told: nothing to begin with is an error, no empty folder.
    for entry in entries:
        if entry[0] == start:
            return chain([entry], entries)
    raise ValueError(_GONE)
