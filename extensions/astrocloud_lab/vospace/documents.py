"""Paths, node URIs and the XML documents of VOSpace 2.1."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote, unquote
from xml.etree import ElementTree
from xml.sax.saxutils import escape, quoteattr

VOS: Final = "{http://www.ivoa.net/xml/VOSpace/v2.0}"
UWS: Final = "{http://www.ivoa.net/xml/UWS/v1.0}"
_XSI_TYPE: Final = "{http://www.w3.org/2001/XMLSchema-instance}type"
_CORE: Final = "ivo://ivoa.net/vospace/core#"
_SAFE: Final = "!$&'()*+,;=:@~-._"

TYPES: Final = {"ContainerNode": "directory", "LinkNode": "link"}
"""Type of a node -> what fsspec calls it; anything else is a ``file``."""


def quoted(path: str) -> str:
    """Return a path percent-encoded, for an address or a node URI; a name need not be UTF-8."""
    return "/".join(quote(name.encode("utf-8", "surrogateescape"), safe=_SAFE) for name in path.split("/"))


def path_of_uri(uri: str) -> str:
    """Return the path that a node URI means."""
    _, _, rest = uri.partition("://")
    _, _, path = rest.partition("/")
    return "/" + unquote(path, errors="surrogateescape").rstrip("/")


def container(uri: str) -> bytes:
    """Return the document that makes a folder."""
    return (
        f'<vos:node xmlns:vos="{VOS[1:-1]}" xmlns:xsi="{_XSI_TYPE[1:].partition("}")[0]}" '
        f'xsi:type="vos:ContainerNode" uri={quoteattr(uri)}><vos:properties/></vos:node>'
    ).encode()


def relocation(source: str, target: str, *, keep: bool) -> bytes:
    """Return the document of the transfer that moves, or copies, a node; both are node URIs."""
    return (
        f'<vos:transfer xmlns:vos="{VOS[1:-1]}" version="2.1"><vos:target>{escape(source)}</vos:target>'
        f"<vos:direction>{escape(target)}</vos:direction>"
        f"<vos:keepBytes>{str(keep).lower()}</vos:keepBytes></vos:transfer>"
    ).encode()


def job_phase(document: bytes) -> str:
    """Return the phase of a job, from its document."""
    return ElementTree.fromstring(document).findtext(f"{UWS}phase", "").strip()  # noqa: S314 - the platform's own


class NodeParser:
    """Reads a node's document as it comes: a folder's children are never a tree in memory.

    Attributes
    ----------
    root
        The node itself, once its properties have come; its ``uri`` at once.
    """

    def __init__(self) -> None:
        self.root: dict[str, Any] | None = None
        self.uri = ""
        self._parser: Any = ElementTree.XMLPullParser(["start", "end"])
        self._open: list[ElementTree.Element] = []

    def feed(self, data: bytes) -> Iterator[dict[str, Any]]:
        """Take a part of the document and yield the children that are whole now."""
        self._parser.feed(data)
        for event, element in self._parser.read_events():
            if event == "start":
                if element.tag == f"{VOS}node" and not self.uri:
                    self.uri = element.get("uri", "")
                if element.tag == f"{VOS}nodes" and len(self._open) == 1:
                    self.root = entry(self._open[0])
                self._open.append(element)
                continue
            self._open.pop()
            if element.tag != f"{VOS}node":
                continue
            if not self._open:
                self.root = self.root or entry(element)
            elif len(self._open) == 2:
                yield entry(element)
                self._open[1].clear()


def entry(node: ElementTree.Element) -> dict[str, Any]:
    """Return a node as fsspec describes a file."""
    properties = {one.get("uri", "").removeprefix(_CORE): one.text or "" for one in node.iter(f"{VOS}property")}
    kind = TYPES.get(node.get(_XSI_TYPE, "").rpartition(":")[2], "file")
    found: dict[str, Any] = {
        "name": path_of_uri(node.get("uri", "")),
        "size": int(properties.get("length") or 0) if kind == "file" else 0,
        "type": kind,
    }
    if properties.get("date"):
        found["mtime"] = _moment(properties["date"])
    if properties.get("MD5") and kind == "file":
        found["md5"] = properties["MD5"]
    target = node.findtext(f"{VOS}target")
    if target:
        found["islink"], found["target"] = True, target
    return found


def _moment(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def parent(path: str) -> str:
    """Return the folder that a path is in."""
    return posixpath.dirname(path.rstrip("/")) or "/"
