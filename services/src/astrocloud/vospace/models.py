"""What VOSpace's parts pass to each other: paths, nodes, people, transfers, and the standard's identifiers."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote_from_bytes, unquote_to_bytes

from astrocloud.vospace.errors import Fault
from astrocloud.vospace.identity import ANONYMOUS, Identity

CORE: Final = "ivo://ivoa.net/vospace/core#"
"""Where the standard's properties, views and protocols are named."""

LENGTH: Final = f"{CORE}length"
DATE: Final = f"{CORE}date"
MD5: Final = f"{CORE}MD5"
TYPE: Final = f"{CORE}type"
CREATOR: Final = f"{CORE}creator"
IS_PUBLIC: Final = f"{CORE}ispublic"
PUBLIC_READ: Final = f"{CORE}publicread"
GROUP_READ: Final = f"{CORE}groupread"
GROUP_WRITE: Final = f"{CORE}groupwrite"
QUOTA: Final = f"{CORE}quota"
AVAILABLE: Final = f"{CORE}availableSpace"
CTIME: Final = f"{CORE}ctime"
MTIME: Final = f"{CORE}mtime"
USER_READ: Final = "ivo://astrocloud/vospace/core#userread"
"""People (besides the owner) who may read; not of the standard."""
USER_WRITE: Final = "ivo://astrocloud/vospace/core#userwrite"
"""People (besides the owner) who may write; not of the standard."""
IS_LOCKED: Final = "ivo://cadc.nrc.ca/vospace/core#islocked"
"""Nobody changes the node until it is taken away; CADC's, used by ``vlock``."""

READ_ONLY: Final = frozenset({LENGTH, DATE, MD5, CREATOR, QUOTA, AVAILABLE, CTIME, MTIME})
"""Properties that the service decides."""
RIGHTS: Final = frozenset({IS_PUBLIC, PUBLIC_READ, GROUP_READ, GROUP_WRITE, USER_READ, USER_WRITE})
"""Properties that are permissions of the file system."""
PROPERTIES: Final = (
    *(f"{CORE}{name}" for name in ("title", "subject", "description", "publisher", "contributor", "format")),
    *(f"{CORE}{name}" for name in ("identifier", "source", "language", "relation", "coverage", "rights")),
    *(LENGTH, DATE, MD5, TYPE, CREATOR, IS_PUBLIC, PUBLIC_READ, GROUP_READ, GROUP_WRITE, QUOTA, AVAILABLE, CTIME),
    *(MTIME, USER_READ, USER_WRITE, IS_LOCKED),
)
"""Properties this service knows by name; it keeps any other as well."""

HTTP_GET: Final = f"{CORE}httpget"
HTTP_PUT: Final = f"{CORE}httpput"
HTTPS_GET: Final = f"{CORE}httpsget"
HTTPS_PUT: Final = f"{CORE}httpsput"
GETS: Final = frozenset({HTTP_GET, HTTPS_GET})
PUTS: Final = frozenset({HTTP_PUT, HTTPS_PUT})

DEFAULT_VIEW: Final = f"{CORE}defaultview"
ANY_VIEW: Final = f"{CORE}anyview"
BINARY_VIEW: Final = f"{CORE}binaryview"
ZIP_VIEW: Final = "ivo://astrocloud/vospace/views#zip"
TAR_VIEW: Final = "ivo://astrocloud/vospace/views#tar"
CADC_DATA_VIEW: Final = "ivo://cadc.nrc.ca/vospace/view#data"
ARCHIVE_VIEWS: Final[Mapping[str, str]] = {ZIP_VIEW: "zip", TAR_VIEW: "tar"}
FILE_VIEWS: Final = frozenset({DEFAULT_VIEW, ANY_VIEW, BINARY_VIEW, CADC_DATA_VIEW})

CONTAINER: Final = "ContainerNode"
DATA: Final = "DataNode"
LINK: Final = "LinkNode"
NODE_TYPES: Final = frozenset({CONTAINER, DATA, LINK, "UnstructuredDataNode", "StructuredDataNode"})
FILE_TYPES: Final = frozenset({DATA, "UnstructuredDataNode", "StructuredDataNode"})

NAME_LIMIT_BYTES: Final = 255
PATH_LIMIT_BYTES: Final = 4000
DEPTH_LIMIT: Final = 128

_PLAIN: Final = re.compile(rb"[A-Za-z0-9._-]+\Z")
_SAFE: Final = "!$&'()*+,;=:@~-._"
"""Characters of a path segment that RFC 3986 lets stand for themselves."""
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_HIDDEN: Final = re.compile(rb"\A\..*\.astrocloud-[0-9a-f]{16}\Z", re.DOTALL)


def is_hidden(name: bytes) -> bool:
    """Whether `name` is of a file of the service's own making that nobody is to see: an upload under way."""
    return name.startswith(b".") and _HIDDEN.match(name) is not None


@dataclass(frozen=True, order=True)
class NodePath:
    """Where a node is below the root: file names as the file system has them, which need not be UTF-8."""

    parts: tuple[bytes, ...] = ()

    @classmethod
    def from_url(cls, text: str) -> "NodePath":
        """Return the path in the percent-encoded part `text` of a URL or a node URI.

        Raises
        ------
        Fault
            ``InvalidURI`` for empty names inside, ``.``, ``..``, an encoded slash or NUL, and what is too long.
        """
        inner = text.strip("/")
        if not inner:
            return cls()
        parts = tuple(unquote_to_bytes(part) for part in inner.split("/"))
        for part in parts:
            reason = ""
            if part in {b"", b".", b".."}:
                reason = "a name is empty or made of dots"
            elif b"/" in part or b"\0" in part:
                reason = "a name holds a slash or a NUL"
            elif len(part) > NAME_LIMIT_BYTES:
                reason = f"a name is longer than {NAME_LIMIT_BYTES} bytes"
            elif is_hidden(part):
                reason = "names like this are kept for uploads under way"
            if reason:
                raise Fault("vospace-invalid-uri", uri=_shown(text), reason=reason)
        if len(parts) > DEPTH_LIMIT or sum(map(len, parts)) > PATH_LIMIT_BYTES:
            reason = f"it has more than {DEPTH_LIMIT} names or {PATH_LIMIT_BYTES} bytes"
            raise Fault("vospace-invalid-uri", uri=_shown(text), reason=reason)
        return cls(parts)

    def __truediv__(self, name: bytes) -> "NodePath":
        return NodePath((*self.parts, name))

    def __str__(self) -> str:
        return "/" + "/".join(map(encode_name, self.parts))

    @property
    def name(self) -> bytes:
        """The last name; empty for the root."""
        return self.parts[-1] if self.parts else b""

    @property
    def parent(self) -> "NodePath":
        """The folder it is in; the root's is the root."""
        return NodePath(self.parts[:-1])

    @property
    def shown_name(self) -> str:
        """The last name as text, with a replacement character for what is not UTF-8."""
        return self.name.decode("utf-8", "replace")

    def inside(self, other: "NodePath") -> bool:
        """Whether this is `other` or below it."""
        return self.parts[: len(other.parts)] == other.parts

    @property
    def top(self) -> "NodePath | None":
        """The folder that a quota is for, ``/home/USER`` or ``/project/GROUP``, or `None` outside of them."""
        if len(self.parts) >= 2 and self.parts[0] in {b"home", b"project"}:
            return NodePath(self.parts[:2])
        return None

    def check_new_name(self) -> None:
        """Refuse a last name that nobody should give a new node, though one that exists can be read.

        Raises
        ------
        Fault
            ``InvalidURI`` for what is not UTF-8 or has control characters.
        """
        try:
            text = self.name.decode("utf-8")
        except UnicodeDecodeError:
            raise Fault("vospace-invalid-uri", uri=str(self), reason="a new name must be UTF-8") from None
        if _CONTROL.search(text):
            reason = "a new name must not have control characters"
            raise Fault("vospace-invalid-uri", uri=str(self), reason=reason)
        if text in {".auto", ".null"}:
            reason = "the standard keeps .auto and .null for itself; they are not supported"
            raise Fault("vospace-invalid-uri", uri=str(self), reason=reason)


def _shown(text: str) -> str:
    return quote_from_bytes(text[:200].encode("utf-8", "surrogateescape"), safe=_SAFE + "/%") + (
        "…" if len(text) > 200 else ""
    )


def encode_name(name: bytes) -> str:
    """Return `name` as a segment of a node URI.

    Letters of any script stay readable (``xs:anyURI`` lets them); what would end the path, is no character, or breaks a
    line is percent-encoded.
    """
    if _PLAIN.match(name):  # as nearly all are, in a folder of a million
        return name.decode("ascii")
    quoted = quote_from_bytes(name, safe=_SAFE)
    if "%" not in quoted or name.isascii():
        return quoted
    try:
        text = name.decode("utf-8")
    except UnicodeDecodeError:
        return quoted
    return "".join(
        char if ord(char) > 0x9F and char.isprintable() else quote_from_bytes(char.encode(), safe=_SAFE)
        for char in text
    )


@dataclass(frozen=True)
class Authority:
    """The authority in node URIs: ``vos://NAME~vospace/…``."""

    name: str
    """The platform's, as in its configuration."""
    service: str = "vospace"
    aliases: tuple[str, ...] = ()
    """Other authorities that mean this service too, as ``cadc.nrc.ca~arc``."""

    def uri(self, path: NodePath) -> str:
        """Return the node URI of `path`."""
        return f"vos://{self.name}~{self.service}{path if path.parts else ''}"

    def parse(self, uri: str) -> NodePath:
        """Return the path that a node URI of this service means. Raises `Fault` (``InvalidURI``) for any other."""
        if not uri.startswith("vos://"):
            raise Fault("vospace-invalid-uri", uri=_shown(uri), reason="it does not begin with vos://")
        authority, _, rest = uri[6:].partition("/")
        known = {f"{self.name}~{self.service}", *self.aliases}
        if authority.replace("!", "~") not in known:
            reason = f"its authority is not of this service; known here: {', '.join(sorted(known))}"
            raise Fault("vospace-invalid-uri", uri=_shown(uri), reason=reason)
        if "?" in rest or "#" in rest:
            reason = "it has a query or a fragment; write %3F and %23 for these characters in a name"
            raise Fault("vospace-invalid-uri", uri=_shown(uri), reason=reason)
        return NodePath.from_url(rest)

    def is_ours(self, uri: str) -> bool:
        """Whether `uri` is a node URI of this service."""
        try:
            self.parse(uri)
        except Fault:
            return False
        return True

    def group_uri(self, group: str) -> str:
        """Return the URI of the group `group`."""
        return f"ivo://{self.name}/gms?{group}"

    def user_uri(self, user: str) -> str:
        """Return the URI of the person `user`."""
        return f"ivo://{self.name}/people?{user}"


@dataclass(frozen=True)
class Person:
    """Somebody whose permissions apply."""

    name: str | None
    """The username; `None` for somebody who is not signed in."""
    identity: Identity
    """What the kernel is to compare."""
    groups: Mapping[str, int] = field(default_factory=dict)
    """The person's groups: name -> group id."""


NOBODY: Final = Person(None, ANONYMOUS)
"""Somebody who is not signed in."""


@dataclass(frozen=True)
class Node:
    """One node as it is told to a client."""

    path: NodePath
    kind: str
    """One of `NODE_TYPES`."""
    properties: Mapping[str, str] = field(default_factory=dict)
    target: str | None = None
    """Where a link leads."""
    busy: bool = False


Child = tuple[bytes, str, Mapping[str, str], str | None]
"""A child of a folder, of which there may be a million: its name, and kind, properties and target as a `Node` has them.
"""


@dataclass(frozen=True)
class NodeRequest:
    """A node as a client describes it: to create it, or what to change of it."""

    path: NodePath
    kind: str | None
    properties: Mapping[str, str | None] = field(default_factory=dict)
    """Property -> value; `None` takes it away."""
    target: str | None = None


@dataclass(frozen=True)
class Protocol:
    """One protocol of a transfer."""

    uri: str
    endpoint: str | None = None
    security_methods: tuple[str, ...] = ()


@dataclass(frozen=True)
class Transfer:
    """A transfer as a client asks for it, and as the service answers it."""

    target: NodePath
    direction: str
    """``pushToVoSpace``, ``pullToVoSpace``, ``pullFromVoSpace``, ``pushFromVoSpace``, or the node URI to move or copy
    to."""
    view: str | None = None
    view_parameters: Mapping[str, str] = field(default_factory=dict)
    protocols: tuple[Protocol, ...] = ()
    keep_bytes: bool | None = None
    version: str | None = None


def last_part(text: str) -> str:
    """Return the name in a group's or person's URI (``ivo://…?NAME`` or ``…#NAME``), or the bare name."""
    for mark in ("?", "#"):
        if mark in text:
            return text.rsplit(mark, 1)[1]
    return text.rsplit("/", 1)[-1]
