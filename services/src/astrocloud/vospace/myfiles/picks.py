"""What a person picked in a list of My files: paths, or positions in a view; and all of it as one archive."""

import base64
import json
import os
import secrets
import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Final

from astrocloud.vospace import acl, archives
from astrocloud.vospace.domain import Nodes
from astrocloud.vospace.errors import Fault, invalid_argument
from astrocloud.vospace.models import NodePath, Person
from astrocloud.vospace.myfiles.answers import paths_in, text_in
from astrocloud.vospace.myfiles.views import Views

_ROOM: Final = 1_000_000
_NAME_LIMIT: Final = 3000
_PLAIN_LIMIT: Final = 1 << 18
"""How many bytes a name may tell: packed, a thousandth of it is enough, and many times as much is held to read it."""


def picked(views: Views, person: Person, document: dict[str, Any]) -> list[NodePath]:
    """Return the paths that `document` names: a list of them, or positions in a view; for a worker thread.

    Raises
    ------
    Fault
        ``files-view-gone`` when the view is kept no more, so that positions mean nothing; ``InvalidArgument`` when
        nothing is named.
    """
    if "view" not in document:
        found = paths_in(document, "paths")
    else:
        view = views.get(person, text_in(document, "view"))
        if view is None:
            raise Fault("files-view-gone")
        if "but" in document:
            left_out = set(_numbers(document, "but"))
            positions = [index for index in range(len(view.names)) if index not in left_out]
        else:
            positions = [index for index in _numbers(document, "picks") if index < len(view.names)]
        found = [view.path / view.names[index] for index in positions]
    if not found:
        raise invalid_argument("nothing is named to work on")
    return found


def _numbers(document: dict[str, Any], name: str) -> list[int]:
    value = document.get(name)
    if not isinstance(value, list) or not all(type(each) is int and each >= 0 for each in value):
        raise invalid_argument(f"`{name}` is no list of positions")
    return value


def name_of(document: dict[str, Any]) -> str | None:
    """Return a name that tells all that `document` picks, to any replica; `None` where that would be too long."""
    picks = {key: document[key] for key in ("view", "but", "picks", "paths") if key in document}
    plain = json.dumps(picks).encode()
    text = base64.urlsafe_b64encode(zlib.compress(plain)).decode().rstrip("=")
    return f".{text}" if len(text) <= _NAME_LIMIT and len(plain) <= _PLAIN_LIMIT else None


def document_of_name(name: str) -> dict[str, Any]:
    """Return what a name tells, which anybody may have written. Raises `Fault` (``files-archive-gone``)."""
    text = name.removeprefix(".")
    try:
        packed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        unpacking = zlib.decompressobj()
        plain = unpacking.decompress(packed, _PLAIN_LIMIT)
        if unpacking.unconsumed_tail:
            raise Fault("files-archive-gone")
        document = json.loads(plain)
    except (ValueError, RecursionError, zlib.error) as err:
        raise Fault("files-archive-gone") from err
    if not isinstance(document, dict):
        raise Fault("files-archive-gone")
    return document


class Packs:
    """What people are about to download as archives, where no name can tell it; handed out once. Safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, tuple[str | None, list[NodePath]]] = OrderedDict()

    def keep(self, person: Person, paths: list[NodePath]) -> str:
        """Keep what `person` picked; return its name."""
        name = secrets.token_urlsafe(18)
        with self._lock:
            self._kept[name] = person.name, paths
            while len(self._kept) > 1 and sum(len(each) for _, each in self._kept.values()) > _ROOM:
                self._kept.popitem(last=False)
        return name

    def take(self, person: Person, name: str) -> list[NodePath]:
        """Return what has `name`. Raises `Fault` (``files-archive-gone``), for somebody else's as well."""
        with self._lock:
            who, paths = self._kept.get(name, (None, []))
            if not paths or who != person.name:
                raise Fault("files-archive-gone")
            del self._kept[name]
        return paths


def common_folder(paths: list[NodePath]) -> NodePath:
    """Return the folder, as deep as there is one, that all `paths` are in."""
    folders = [path.parts[:-1] for path in paths]
    first, last = min(folders), max(folders)  # what these two share, all between them do
    depth = next((depth for depth, (one, other) in enumerate(zip(first, last, strict=False)) if one != other), None)
    return NodePath(first if depth is None else first[:depth])


def archive(nodes: Nodes, person: Person, paths: list[NodePath], send: Callable[[bytes], None]) -> None:
    """Hand all `paths` that `person` may read, with what is below them, to `send` as one zip, piece by piece."""
    folder = common_folder(paths)
    depth = len(folder.parts)

    def found() -> Iterator[archives.Found]:
        for path in paths:
            inner = b"/".join((folder.name or b"files", *path.parts[depth:]))
            with suppress(Fault, PermissionError), nodes.acting(person, path, acl.READ), nodes.tree.node(path) as place:
                yield from archives.below(place, os.fsdecode(inner))

    archives.pack(found(), "zip", send)
