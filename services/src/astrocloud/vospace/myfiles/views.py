"""Folders as a page shows them: an order made once, of which windows are told, so that a page never holds all of it.

A view is the names that one reader may see in one folder, in one order. It is kept in memory for as long as there is
room; each window is read anew from the file system, so what it says of a file is true when it is told. Its id says what
it is of, so that a process that does not keep it can make just the same one as long as the folder holds the same names.
"""

import base64
import binascii
import hashlib
import json
import os
import re
import secrets
import stat
import threading
import time
import zlib
from array import array
from bisect import bisect_left
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any, Final, overload

from astrocloud.vospace import acl, posix
from astrocloud.vospace.domain import Nodes
from astrocloud.vospace.errors import Fault, invalid_argument
from astrocloud.vospace.listing import entries_of
from astrocloud.vospace.models import CONTAINER, LINK, Node, NodePath, Person, is_hidden
from astrocloud.vospace.myfiles.entries import describe, describe_link, open_to_all
from astrocloud.vospace.reading import Reader

SORTS: Final = ("name", "size", "date")
WINDOW_LIMIT: Final = 1000
"""How many entries one answer tells at most."""
FOUND_LIMIT: Final = 1000
"""How many entries a search below a folder tells at most."""
SEARCH_S: Final = 10.0
"""How long such a search may take, in seconds."""

_ROOM_BYTES: Final = 128 << 20
"""How much memory the names of all views that are kept may take, besides one of any size."""
_ID_LIMIT: Final = 2000
_MOST_NS: Final = 2**63 - 1
_DIGITS: Final = re.compile(r"\d+", re.ASCII)


@dataclass(frozen=True)
class Wish:
    """How a folder is to be shown."""

    sort: str = "name"
    descending: bool = False
    match: str = ""
    """Only names with this in them, whatever their case; empty: all."""
    hidden: bool = False
    """Names that begin with a dot, too."""

    def takes(self, name: bytes) -> bool:
        """Whether an entry of this name is to be shown."""
        if is_hidden(name) or (not self.hidden and name.startswith(b".")):
            return False
        return not self.match or self.match.casefold() in name.decode("utf-8", "replace").casefold()


class Names(Sequence[bytes]):
    """Names in an order, in little more memory than their letters take: there may be millions."""

    def __init__(self, names: Iterable[bytes]) -> None:
        self._text = b"\0" + b"\0".join(names) + b"\0"
        self._begins = array("Q", (at.end() for at in re.finditer(rb"\0(?=[^\0])", self._text)))

    def __len__(self) -> int:
        return len(self._begins)

    @overload
    def __getitem__(self, index: int) -> bytes: ...

    @overload
    def __getitem__(self, index: slice) -> list[bytes]: ...

    def __getitem__(self, index: int | slice) -> bytes | list[bytes]:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        begin = self._begins[index]
        return self._text[begin : self._text.index(b"\0", begin)]

    @property
    def size(self) -> int:
        """How many bytes they take."""
        return len(self._text) + len(self._begins) * self._begins.itemsize

    @property
    def digest(self) -> str:
        """What tells these names, in this order, from all others."""
        return hashlib.blake2b(self._text, digest_size=16).hexdigest()

    def position(self, name: bytes) -> int | None:
        """Return where `name` is, or `None`."""
        at = self._text.find(b"\0" + name + b"\0") if name else -1
        return None if at < 0 else bisect_left(self._begins, at + 1)


@dataclass(frozen=True)
class _Origin:
    """What a view is of."""

    reader: str | None
    path: NodePath
    wish: Wish
    digest: str
    """That of its names."""

    def new_id(self) -> str:
        """Return the id of a new view: of one whose id would be too long for an address it does not tell."""
        wish = self.wish
        told = [self.reader, str(self.path), wish.sort, wish.descending, wish.match, wish.hidden, self.digest]
        text = base64.urlsafe_b64encode(zlib.compress(json.dumps(told).encode())).decode().rstrip("=")
        return secrets.token_urlsafe(9) + (f".{text}" if len(text) <= _ID_LIMIT else "")

    @classmethod
    def of_id(cls, view_id: str) -> "_Origin | None":
        """Return what a view's id tells, which anybody may have written."""
        text = view_id.partition(".")[2]
        try:
            packed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
            reader, path, sort, descending, match, hidden, digest = json.loads(
                zlib.decompressobj().decompress(packed, 20 * _ID_LIMIT)
            )
            wish = Wish(str(sort), descending is True, str(match), hidden is True)
            origin = cls(reader, NodePath.from_url(str(path)), wish, str(digest))
        except (ValueError, TypeError, RecursionError, binascii.Error, zlib.error, Fault):
            return None
        return origin if wish.sort in SORTS else None


@dataclass(frozen=True)
class View:
    """Names in an order."""

    id: str
    reader: str | None
    """Whose view it is."""
    path: NodePath
    wish: Wish
    stamp: tuple[int, ...]
    """What the folder was when it was read."""
    names: Names


class Views:
    """Makes views and tells of them; every method is for a worker thread.

    Parameters
    ----------
    nodes
        The rules.
    """

    def __init__(self, *, nodes: Nodes) -> None:
        self._nodes = nodes
        self._kept: OrderedDict[str, View] = OrderedDict()
        self._lock = threading.Lock()

    def open(self, person: Person, path: NodePath, wish: Wish, *, view_id: str = "") -> tuple[View, bool]:
        """Return the view `view_id` if it is kept and of just this, else a new one; and whether it is out of date.

        Raises
        ------
        Fault
            As `Nodes.children`; ``InvalidArgument`` for an order that is not known.
        """
        if wish.sort not in SORTS:
            raise invalid_argument(f"sort is {wish.sort[:40]!r}; allowed: {', '.join(SORTS)}")
        reader = self._nodes.reader(person)  # as the platform, which may look who owns which home
        with self._nodes.acting(person, path, acl.READ | acl.PASS), self._nodes.tree.folder(path) as folder:
            stamp = _stamp(folder)
            with self._lock:
                kept = self._kept.get(view_id)
                if kept is not None and (kept.reader, kept.path, kept.wish) == (person.name, path, wish):
                    self._kept.move_to_end(view_id)
                    # The folder itself must be the same one, or positions mean nothing.
                    if kept.stamp[:2] == stamp[:2]:
                        return kept, kept.stamp != stamp
            names = _names(folder, path, reader, wish)
        origin = _Origin(person.name, path, wish, names.digest)
        same = _Origin.of_id(view_id) == origin  # another process made it
        view = View(view_id if same else origin.new_id(), person.name, path, wish, stamp, names)
        with self._lock:
            self._kept[view.id] = view
            while len(self._kept) > 1 and sum(each.names.size for each in self._kept.values()) > _ROOM_BYTES:
                self._kept.popitem(last=False)
            while len(self._kept) > 1000:
                self._kept.popitem(last=False)
        return view, False

    def get(self, person: Person, view_id: str) -> View | None:
        """Return the view `view_id` of `person`, or `None` when it is neither kept nor can be made just so again."""
        with self._lock:
            view = self._kept.get(view_id)
        if view is None:
            origin = _Origin.of_id(view_id)
            if origin is None or origin.reader != person.name:
                return None
            try:
                view, _stale = self.open(person, origin.path, origin.wish, view_id=view_id)
            except (Fault, OSError):
                return None
        return view if (view.id, view.reader) == (view_id, person.name) else None

    def window(self, person: Person, view: View, first: int, count: int) -> list[dict[str, Any] | None]:
        """Return `count` entries of `view` from position `first`; `None` for each that is gone or hidden by now."""
        path, reader = view.path, self._nodes.reader(person)
        found: list[dict[str, Any] | None] = []
        links = []
        public = open_to_all(self._nodes, path)
        with self._nodes.acting(person, path, acl.READ | acl.PASS), self._nodes.tree.folder(path) as folder:
            names = view.names[first : first + min(count, WINDOW_LIMIT)]
            seen = {child[0]: child for child in reader.children(folder, path, ((n, 0) for n in names), "properties")}
            for name in names:
                child = seen.get(name)
                node = Node(path / name, *child[1:]) if child is not None else None
                if node is not None and node.kind == LINK:
                    links.append((len(found), node))
                told = describe(node) if node is not None else None
                if told is not None:
                    told["public"] = told["public"] and public
                found.append(told)
        for position, node in links:
            found[position] = describe_link(self._nodes, person, node)
        return found

    def search(
        self, person: Person, path: NodePath, wish: Wish, stop: threading.Event
    ) -> tuple[list[dict[str, Any]], bool]:
        """Return what has `wish.match` in its name in `path` and below, and whether that is all there is.

        Raises
        ------
        Fault
            As `Nodes.children`.
        """
        reader, until = self._nodes.reader(person), time.monotonic() + SEARCH_S
        found: list[dict[str, Any]] = []
        left = deque([path])
        while left:
            here = left.popleft()
            try:
                with self._nodes.acting(person, here, acl.READ | acl.PASS), self._nodes.tree.folder(here) as folder:
                    for name, status in _seen(folder, reader):
                        if stop.is_set() or time.monotonic() > until:
                            return found, False
                        if not wish.hidden and name.startswith(b"."):
                            continue
                        if stat.S_ISDIR(status.st_mode):
                            left.append(here / name)
                        if wish.takes(name) and (node := reader.child(folder, here, name, "properties")):
                            found.append({**describe(node), "public": False, "folder": str(here)})
                            if len(found) >= FOUND_LIMIT:
                                return found, False
            except Fault:
                if here == path:
                    raise
        return found, True


def _stamp(folder: int) -> tuple[int, ...]:
    status = os.fstat(folder)
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_nlink


def _seen(folder: int, reader: Reader) -> Iterator[tuple[bytes, os.stat_result]]:
    """Yield the names in the open folder that the reader may see, each with its status."""
    for name in posix.names_in(folder):
        if is_hidden(name):
            continue
        with suppress(FileNotFoundError, PermissionError):
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if stat.S_IFMT(status.st_mode) in {stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK} and reader.shows(
                status, folder, name
            ):
                yield name, status


def _names(folder: int, path: NodePath, reader: Reader, wish: Wish) -> Names:
    """Return the names to be shown, folders first."""
    names: tuple[list[bytes], list[bytes]] = [], []
    values = array("q"), array("q")
    if wish.sort == "name":  # which asks for nobody's size or date
        for name, kind, _, _ in reader.children(folder, path, entries_of(folder), "min"):
            if wish.takes(name):
                names[kind != CONTAINER].append(name)
    else:
        for name, status in _seen(folder, reader):
            if wish.takes(name):
                is_file = not stat.S_ISDIR(status.st_mode)
                names[is_file].append(name)
                values[is_file].append(_date(status) if wish.sort == "date" else status.st_size * is_file)
    # Folders stay in front, whichever way the rest goes.
    return Names(chain.from_iterable(map(partial(_sorted, wish), names, values)))


def _date(status: os.stat_result) -> int:
    """Return when something changed in nanoseconds, of which 64 bits end in the year 2262, and file systems later."""
    return max(-_MOST_NS, min(status.st_mtime_ns, _MOST_NS))


def _sorted(wish: Wish, names: list[bytes], values: "array[int]") -> list[bytes]:
    if wish.sort == "name":
        names.sort(key=_natural, reverse=wish.descending)
        return names
    order = sorted(range(len(names)), key=lambda index: (values[index], _natural(names[index])))
    return [names[index] for index in (reversed(order) if wish.descending else order)]


def _natural(name: bytes) -> str:
    """Return a key by which ``frame9`` comes before ``frame10``."""
    return _DIGITS.sub(_number, name.decode("utf-8", "replace").casefold())


def _number(digits: re.Match[str]) -> str:
    # Of two numbers the one with more digits is larger; before all letters, as what ends earlier is.
    plain = digits[0].lstrip("0")
    return f"\x01{chr(len(plain))}{plain}"
