"""Reading a node from the file system: its type, its properties, and whether somebody may see it."""

import mimetypes
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from astrocloud.vospace import acl, attributes, posix
from astrocloud.vospace.identity import Identity, is_acting_as
from astrocloud.vospace.listing import Entry
from astrocloud.vospace.models import (
    AVAILABLE,
    CONTAINER,
    CREATOR,
    CTIME,
    DATA,
    DATE,
    FILE_TYPES,
    GROUP_READ,
    GROUP_WRITE,
    IS_PUBLIC,
    LENGTH,
    LINK,
    MD5,
    PUBLIC_READ,
    QUOTA,
    TYPE,
    USER_READ,
    USER_WRITE,
    Authority,
    Child,
    Node,
    NodePath,
)

DETAILS: Final = ("min", "properties", "max")

_WANTED: Final = {stat.S_IFREG: acl.READ, stat.S_IFDIR: acl.READ | acl.PASS}
"""What somebody must be permitted to see a file or a folder in a listing."""
_NOTHING: Final[Mapping[str, str]] = {}
_UNKNOWN_TYPE: Final = "application/octet-stream"
_KNOWN_RIGHTS: Final = 1000
_PLAIN: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*\Z")
"""Names of which a stem that is no extension comes first, and that look like no address."""

_types = mimetypes.MimeTypes()
for _extension in (".fits", ".fit", ".fts", ".fz"):
    _types.add_type("application/fits", _extension)
_types.add_type("application/x-votable+xml", ".vot")
_types.add_type("application/x-ipynb+json", ".ipynb")
_types.add_type("application/vnd.apache.parquet", ".parquet")
_types.add_type("text/markdown", ".md")
_types.add_type("application/yaml", ".yaml")


@dataclass(frozen=True)
class Names:
    """Who stands behind the numbers of the file system."""

    users: Mapping[int, str] = field(default_factory=dict)
    """User id -> username."""
    groups: Mapping[int, str] = field(default_factory=dict)
    """Group id -> group's name."""


@dataclass(frozen=True)
class _Rights:
    """Who may do what with a file or folder: what most children of a folder have in common."""

    seen: bool
    """Whether the reader may read it."""
    properties: Mapping[str, str]


@dataclass(frozen=True)
class Usage:
    """How much of a quota is used."""

    limit_bytes: int
    used_bytes: int


def content_type(name: str) -> str:
    """Return the content type that a file's name speaks for."""
    if _PLAIN.match(name):  # then only its extensions count, and most files have the same ones
        return _content_type(".".join(["name", *name.rsplit(".", 2)[1:]])) if "." in name else _UNKNOWN_TYPE
    return _guess(name)


def _guess(name: str) -> str:
    return _types.guess_type(name.replace("%", "_"))[0] or _UNKNOWN_TYPE


_content_type = lru_cache(maxsize=1024)(_guess)


def timestamp(ns: int) -> str:
    """Return a time in nanoseconds since the epoch as the standard writes it: UTC, with milliseconds."""
    return f"{_second(ns // 1_000_000_000)}.{ns // 1_000_000 % 1000:03d}"


@lru_cache(maxsize=1024)
def _second(seconds: int) -> str:
    try:
        moment = datetime.fromtimestamp(seconds, tz=UTC)
    except (ValueError, OverflowError, OSError):
        moment = datetime(1970, 1, 1, tzinfo=UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}"


class Reader:
    """Makes nodes of files for one person's request.

    Parameters
    ----------
    who
        Whose permissions decide what is shown.
    names
        Who stands behind numbers.
    authority
        How node URIs and group URIs are written.
    kernel_tells
        Whether the kernel says when asked what the one may whom a thread acts as (`identity.access_tells`).
    """

    def __init__(self, *, who: Identity, names: Names, authority: Authority, kernel_tells: bool = False) -> None:
        self._who = who
        self._kernel_tells = kernel_tells
        self._names = names
        self._authority = authority
        self._rights: dict[tuple[bytes | None, int, int, int], _Rights] = {}

    def shows(self, status: os.stat_result, folder: int, name: bytes) -> bool:
        """Whether a listing may show the child `name` of the open folder `folder`: its owner and who may read it."""
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFLNK or status.st_uid == self._who.uid:
            return True
        if kind not in _WANTED:
            return False
        value = None
        if acl.needs_list(status, self._who):
            value = acl.read(posix.proc_path(folder, name))
        return acl.permits(status, value, self._who, _WANTED[kind])

    def child(self, folder: int, path: NodePath, name: bytes, detail: str) -> Node | None:
        """Return the child `name` of the open folder `folder`, or `None` if it went or may not be seen."""
        for _name, kind, properties, target in self.children(folder, path, ((name, 0),), detail):
            return Node(path / name, kind, properties, target=target)
        return None

    def children(self, folder: int, path: NodePath, entries: Iterable[Entry], detail: str) -> Iterator[Child]:
        """Yield those children of the open folder `folder` among `entries` that are there and may be seen.

        To be taken inside `acting_as`. What the kernel lets a person read needs no second look where only names and
        types are told; else a child is looked at as a whole.
        """
        base, uid, minimal = posix.proc_path(folder, b""), self._who.uid, detail == "min"
        device, lists_acls = os.fstat(folder).st_dev, posix.lists_acls(folder)
        asks = minimal and self._kernel_tells and is_acting_as(self._who)
        for name, known in entries:
            try:
                if asks and known in _WANTED and _may(folder, name, _WANTED[known]):
                    yield name, CONTAINER if known == stat.S_IFDIR else DATA, _NOTHING, None
                    continue
                status = os.stat(name, dir_fd=folder, follow_symlinks=False)
                kind = stat.S_IFMT(status.st_mode)
                if kind == stat.S_IFLNK:
                    yield self._link(path, name, os.readlink(name, dir_fd=folder), status, detail)
                elif kind not in _WANTED:
                    continue
                elif not minimal:
                    place = base + os.fsdecode(name)
                    present = attributes.names(place, follow=False)
                    told = lists_acls and status.st_dev == device  # else another file system is mounted there
                    shared = self._shared(place, status, present if told else None)
                    if status.st_uid == uid or shared.seen:
                        yield name, *self._told(place, name, status, present, shared), None
                elif (
                    status.st_uid == uid
                    or (asks and _may(folder, name, _WANTED[kind]))
                    or self.shows(status, folder, name)
                ):
                    yield name, CONTAINER if kind == stat.S_IFDIR else DATA, _NOTHING, None
            except (FileNotFoundError, PermissionError):
                continue

    def node(self, descriptor: int, path: NodePath, detail: str, usage: Usage | None = None) -> Node:
        """Return the node that `descriptor` is open on (as a place)."""
        status = os.fstat(descriptor)
        if stat.S_ISLNK(status.st_mode):
            _, kind, properties, target = self._link(
                path.parent, path.name, os.readlink(b"", dir_fd=descriptor), status, detail
            )
            return Node(path, kind, properties, target=target)
        if detail == "min":
            return Node(path, CONTAINER if stat.S_ISDIR(status.st_mode) else DATA)
        place = posix.proc_path(descriptor)
        present, shared = attributes.names(place, follow=True), self._shared(place, status, None)
        kind, properties = self._told(place, path.name, status, present, shared)
        if kind == CONTAINER and usage is not None:
            properties[QUOTA] = str(usage.limit_bytes)
            properties[AVAILABLE] = str(max(0, usage.limit_bytes - usage.used_bytes))
        return Node(path, kind, properties)

    def _link(self, folder: NodePath, name: bytes, target: bytes, status: os.stat_result, detail: str) -> Child:
        properties = _NOTHING if detail == "min" else {DATE: timestamp(status.st_mtime_ns)}
        return name, LINK, properties, self.target_uri(folder / name, target)

    def _told(
        self, place: str, name: bytes, status: os.stat_result, present: list[str] | None, shared: _Rights
    ) -> tuple[str, dict[str, str]]:
        """Return the type and the properties of the file or folder at `place`.

        Parameters
        ----------
        present
            The names of its extended attributes; `None`: they are not known.
        """
        properties: dict[str, str] = {}
        kept_kind = None
        if present is None or attributes.PROPERTIES in present:
            kept = attributes.read_kept(place)
            properties, kept_kind = dict(kept.properties), kept.kind
        changed, made = status.st_mtime_ns, status.st_ctime_ns
        properties[DATE] = date = timestamp(changed)
        properties[CTIME] = date if made == changed else timestamp(made)
        if owner := self._names.users.get(status.st_uid):
            properties[CREATOR] = owner
        properties.update(shared.properties)
        if stat.S_ISDIR(status.st_mode):
            return CONTAINER, properties
        properties[LENGTH] = str(status.st_size)
        if TYPE not in properties:
            properties[TYPE] = content_type(name.decode("utf-8", "replace"))
        if (present is None or attributes.MD5 in present) and (md5 := attributes.read_md5(place, status)):
            properties[MD5] = md5
        return kept_kind if kept_kind in FILE_TYPES else DATA, properties

    def _shared(self, place: str, status: os.stat_result, present: list[str] | None) -> _Rights:
        """Return who may do what with the file or folder at `place`.

        Parameters
        ----------
        present
            The names of its extended attributes, a list's among them; `None`: a list must be asked for.
        """
        value = None
        # Without group bits the kernel does not look at the list.
        if status.st_mode & stat.S_IRWXG and (present is None or acl.ACCESS in present):
            value = acl.read(place)
        key = (value, status.st_mode, status.st_gid, status.st_uid)
        found = self._rights.get(key)
        if found is None:
            if len(self._rights) >= _KNOWN_RIGHTS:
                self._rights.clear()
            rights = acl.Acl.parse(value) if value is not None else acl.Acl.of_mode(status.st_mode)
            found = self._rights[key] = _Rights(
                acl.permits(status, value, self._who, _WANTED[stat.S_IFMT(status.st_mode)]),
                self._rights_properties(rights, status.st_gid),
            )
        return found

    def _rights_properties(self, rights: acl.Acl, owning: int) -> Mapping[str, str]:
        public = "true" if rights.other & acl.READ else "false"
        properties = {IS_PUBLIC: public, PUBLIC_READ: public}
        groups, users = rights.effective_groups(owning), rights.effective_users()
        for uri, bit, held, known, write_uri in (
            (GROUP_READ, acl.READ, groups, self._names.groups, self._authority.group_uri),
            (GROUP_WRITE, acl.WRITE, groups, self._names.groups, self._authority.group_uri),
            (USER_READ, acl.READ, users, self._names.users, self._authority.user_uri),
            (USER_WRITE, acl.WRITE, users, self._names.users, self._authority.user_uri),
        ):
            named = sorted(known[number] for number, bits in held.items() if bits & bit and number in known)
            if named:
                properties[uri] = " ".join(map(write_uri, named))
        return properties

    def target_uri(self, path: NodePath, target: bytes) -> str:
        """Return the URI that the symbolic link `path` with the text `target` stands for."""
        head = target.split(b"/", 1)[0]
        if b":" in head:
            return target.decode("utf-8", "replace")
        parts = [] if target.startswith(b"/") else list(path.parent.parts)
        for part in target.split(b"/"):
            if part == b"..":
                del parts[-1:]
            elif part not in {b"", b"."}:
                parts.append(part)
        return self._authority.uri(NodePath(tuple(parts)))


def _may(folder: int, name: bytes, want: int) -> bool:
    # The bits of `want` are those of R_OK, W_OK and X_OK.
    return os.access(name, want, dir_fd=folder, effective_ids=True, follow_symlinks=False)


def readable(status: os.stat_result, place: str, who: Identity) -> bool:
    """Whether `who` may read the node at `place`: its bytes, or its children."""
    if stat.S_ISLNK(status.st_mode):
        return True
    value = acl.read(place) if acl.needs_list(status, who) else None
    want = acl.READ | acl.PASS if stat.S_ISDIR(status.st_mode) else acl.READ
    return acl.permits(status, value, who, want) or status.st_uid == who.uid
