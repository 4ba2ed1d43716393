"""Reading a node from the file system: its type, its properties, and whether somebody may see it."""

import mimetypes
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from astrocloud.vospace import acl, attributes, posix
from astrocloud.vospace.identity import Identity
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
    Node,
    NodePath,
)

DETAILS: Final = ("min", "properties", "max")

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
class Usage:
    """How much of a quota is used."""

    limit_bytes: int
    used_bytes: int


def content_type(name: str) -> str:
    """Return the content type that a file's name speaks for."""
    return _types.guess_type(name.replace("%", "_"))[0] or "application/octet-stream"


def timestamp(ns: int) -> str:
    """Return a time in nanoseconds since the epoch as the standard writes it: UTC, with milliseconds."""
    seconds, rest = divmod(ns, 1_000_000_000)
    try:
        moment = datetime.fromtimestamp(seconds, tz=UTC)
    except (ValueError, OverflowError, OSError):
        moment = datetime(1970, 1, 1, tzinfo=UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest // 1_000_000:03d}"


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
    """

    def __init__(self, *, who: Identity, names: Names, authority: Authority) -> None:
        self._who = who
        self._names = names
        self._authority = authority

    def shows(self, status: os.stat_result, folder: int, name: bytes) -> bool:
        """Whether a listing may show the child `name` of the open folder `folder`: its owner and who may read it."""
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFLNK or status.st_uid == self._who.uid:
            return True
        if kind not in {stat.S_IFREG, stat.S_IFDIR}:
            return False
        value = None
        if acl.needs_list(status, self._who):
            value = acl.read(posix.proc_path(folder, name))
        want = acl.READ | acl.PASS if kind == stat.S_IFDIR else acl.READ
        return acl.permits(status, value, self._who, want)

    def child(self, folder: int, path: NodePath, name: bytes, detail: str) -> Node | None:
        """Return the child `name` of the open folder `folder`, or `None` if it went or may not be seen."""
        try:
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if not self.shows(status, folder, name) or not _is_node(status):
                return None
            return self._node(posix.proc_path(folder, name), path / name, status, detail, folder=folder)
        except (FileNotFoundError, PermissionError):
            return None

    def node(self, descriptor: int, path: NodePath, detail: str, usage: Usage | None = None) -> Node:
        """Return the node that `descriptor` is open on (as a place)."""
        return self._node(posix.proc_path(descriptor), path, os.fstat(descriptor), detail, link=descriptor, usage=usage)

    def _node(
        self,
        place: str,
        path: NodePath,
        status: os.stat_result,
        detail: str,
        *,
        folder: int | None = None,
        link: int | None = None,
        usage: Usage | None = None,
    ) -> Node:
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFLNK:
            name: bytes = b"" if folder is None else path.name
            target = os.readlink(name, dir_fd=link if folder is None else folder)
            properties = {} if detail == "min" else {DATE: timestamp(status.st_mtime_ns)}
            return Node(path, LINK, properties, target=self.target_uri(path, target))
        node_type = CONTAINER if kind == stat.S_IFDIR else DATA
        if detail == "min":
            return Node(path, node_type)
        kept = attributes.read_kept(place)
        properties = dict(kept.properties)
        properties[DATE] = timestamp(status.st_mtime_ns)
        properties[CTIME] = timestamp(status.st_ctime_ns)
        if owner := self._names.users.get(status.st_uid):
            properties[CREATOR] = owner
        self._add_rights(properties, place, status)
        if kind == stat.S_IFREG:
            properties[LENGTH] = str(status.st_size)
            properties.setdefault(TYPE, content_type(path.shown_name))
            if md5 := attributes.read_md5(place, status):
                properties[MD5] = md5
            if kept.kind in FILE_TYPES:
                node_type = str(kept.kind)
        elif usage is not None:
            properties[QUOTA] = str(usage.limit_bytes)
            properties[AVAILABLE] = str(max(0, usage.limit_bytes - usage.used_bytes))
        return Node(path, node_type, properties)

    def _add_rights(self, properties: dict[str, str], place: str, status: os.stat_result) -> None:
        value = acl.read(place) if status.st_mode & stat.S_IRWXG else None
        # Without group bits the kernel does not look at the list.
        rights = acl.Acl.parse(value) if value is not None else acl.Acl.of_mode(status.st_mode)
        public = "true" if rights.other & acl.READ else "false"
        properties[IS_PUBLIC] = properties[PUBLIC_READ] = public
        groups, users = rights.effective_groups(status.st_gid), rights.effective_users()
        for uri, bit, held, known, write_uri in (
            (GROUP_READ, acl.READ, groups, self._names.groups, self._authority.group_uri),
            (GROUP_WRITE, acl.WRITE, groups, self._names.groups, self._authority.group_uri),
            (USER_READ, acl.READ, users, self._names.users, self._authority.user_uri),
            (USER_WRITE, acl.WRITE, users, self._names.users, self._authority.user_uri),
        ):
            named = sorted(known[number] for number, bits in held.items() if bits & bit and number in known)
            if named:
                properties[uri] = " ".join(map(write_uri, named))

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


def _is_node(status: os.stat_result) -> bool:
    return stat.S_IFMT(status.st_mode) in {stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK}


def readable(status: os.stat_result, place: str, who: Identity) -> bool:
    """Whether `who` may read the node at `place`: its bytes, or its children."""
    if stat.S_ISLNK(status.st_mode):
        return True
    value = acl.read(place) if acl.needs_list(status, who) else None
    want = acl.READ | acl.PASS if stat.S_ISDIR(status.st_mode) else acl.READ
    return acl.permits(status, value, who, want) or status.st_uid == who.uid
