"""VOSpace 2.1 documents, written as text: a listing is never a tree in memory.

Element names, order and attributes are the standard's (VOSpace 2.1, appendix A); clients look for the prefix ``vos`` in
``xsi:type`` and for ``xsi`` declared on the root.
"""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final

from astrocloud.vospace.models import (
    ANY_VIEW,
    BINARY_VIEW,
    CONTAINER,
    DEFAULT_VIEW,
    HTTP_GET,
    HTTP_PUT,
    HTTPS_GET,
    HTTPS_PUT,
    LINK,
    NODE_TYPES,
    PROPERTIES,
    READ_ONLY,
    TAR_VIEW,
    ZIP_VIEW,
    Authority,
    Child,
    Node,
    NodePath,
    Transfer,
    encode_name,
)

NAMESPACE: Final = "http://www.ivoa.net/xml/VOSpace/v2.0"
XSI: Final = "http://www.w3.org/2001/XMLSchema-instance"
DECLARATION: Final = '<?xml version="1.0" encoding="UTF-8"?>\n'
VERSION: Final = "2.1"

_NO_CHILDREN: Final = {CONTAINER: "<vos:nodes/>"}
_FORBIDDEN: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_SPECIAL: Final = re.compile('[&<>"\r\n\t]')
_UNUSUAL: Final = re.compile(f"{_FORBIDDEN.pattern}|{_SPECIAL.pattern}")
_ENTITIES: Final = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "\r": "&#13;", "\n": "&#10;", "\t": "&#9;"}


def escape(text: str) -> str:
    """Return `text` as XML content or a quoted attribute; what XML 1.0 forbids becomes a replacement character."""
    if not _UNUSUAL.search(text):  # as nearly always
        return text
    text = _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)
    return _SPECIAL.sub(lambda match: _ENTITIES[match[0]], text)


def node_start(node: Node, authority: Authority, detail: str) -> str:
    """Return the document of a folder up to where its children stand."""
    return DECLARATION + _opening(node, authority) + _inside(node, detail) + "<vos:nodes>\n"


def node_end() -> str:
    """Return what follows a folder's last child."""
    return "</vos:nodes>\n</vos:node>\n"


def node_document(node: Node, authority: Authority, detail: str) -> str:
    """Return the document of a node without children."""
    nodes = "<vos:nodes/>\n" if node.kind == CONTAINER else ""
    return DECLARATION + _opening(node, authority) + _inside(node, detail) + nodes + "</vos:node>\n"


def children(batch: Iterable[Child], folder: NodePath, authority: Authority, detail: str) -> str:
    """Return children of `folder` in its document."""
    # What all have in common is written once: there may be a million.
    above = escape(authority.uri(folder))
    begins = {kind: f'<vos:node xsi:type="vos:{kind}" uri="{above}/' for kind in NODE_TYPES}
    ends = {kind: f"{_accepts(kind, detail)}{_NO_CHILDREN.get(kind, '')}</vos:node>\n" for kind in NODE_TYPES}
    if detail == "min":
        return "".join(
            [
                f'{begins[kind]}{_segment(name)}">{"" if target is None else _aim(target)}{ends[kind]}'
                for name, kind, _, target in batch
            ]
        )
    return "".join(
        [
            f'{begins[kind]}{_segment(name)}">{_properties(properties)}'
            f"{'' if target is None else _aim(target)}{ends[kind]}"
            for name, kind, properties, target in batch
        ]
    )


def _segment(name: bytes) -> str:
    """Return `name` as the last part of a URI in an attribute."""
    text = encode_name(name)
    # Of what may stand in a URI, only this means something in XML.
    return text if text.isascii() and "&" not in text else escape(text)


def _opening(node: Node, authority: Authority) -> str:
    declared = f' xmlns:vos="{NAMESPACE}" xmlns:xsi="{XSI}" version="{VERSION}"'
    busy = ' busy="true"' if node.busy else ""
    return f'<vos:node{declared} xsi:type="vos:{node.kind}" uri="{escape(authority.uri(node.path))}"{busy}>'


def _inside(node: Node, detail: str) -> str:
    properties = "" if detail == "min" else _properties(node.properties)
    return properties + ("" if node.target is None else _aim(node.target)) + _accepts(node.kind, detail)


def _properties(properties: Mapping[str, str]) -> str:
    texts: Iterable[tuple[str, str]] = properties.items()
    if _UNUSUAL.search("".join(properties.values())):
        texts = [(uri, escape(text)) for uri, text in texts]
    inside = "".join([f"{_property(uri)}{text}</vos:property>" for uri, text in texts])
    return f"<vos:properties>{inside}</vos:properties>"


@lru_cache(maxsize=1024)
def _property(uri: str) -> str:
    fixed = "true" if uri in READ_ONLY else "false"
    return f'<vos:property uri="{escape(uri)}" readOnly="{fixed}">'


def _aim(target: str) -> str:
    return f"<vos:target>{escape(target)}</vos:target>"


def _accepts(kind: str, detail: str) -> str:
    """Return in which views a node takes bytes and gives them."""
    if detail != "max" or kind == LINK:
        return ""
    accepts = () if kind == CONTAINER else (DEFAULT_VIEW, ANY_VIEW)
    provides = (ZIP_VIEW, TAR_VIEW) if kind == CONTAINER else (DEFAULT_VIEW, BINARY_VIEW)
    return _views("accepts", accepts) + _views("provides", provides)


def _views(element: str, uris: Iterable[str]) -> str:
    views = "".join(f'<vos:view uri="{escape(uri)}"/>' for uri in uris)
    return f"<vos:{element}>{views}</vos:{element}>"


def transfer(document: Transfer, authority: Authority) -> str:
    """Return a transfer's document."""
    parts = [
        f'{DECLARATION}<vos:transfer xmlns:vos="{NAMESPACE}" version="{escape(document.version or VERSION)}">\n',
        f"<vos:target>{escape(authority.uri(document.target))}</vos:target>\n",
        f"<vos:direction>{escape(document.direction)}</vos:direction>\n",
    ]
    if document.view is not None:
        parameters = "".join(
            f'<vos:param uri="{escape(uri)}">{escape(text)}</vos:param>'
            for uri, text in document.view_parameters.items()
        )
        parts.append(f'<vos:view uri="{escape(document.view)}">{parameters}</vos:view>\n')
    for protocol in document.protocols:
        inside = f"<vos:endpoint>{escape(protocol.endpoint)}</vos:endpoint>" if protocol.endpoint else ""
        inside += "".join(f'<vos:securityMethod uri="{escape(uri)}"/>' for uri in protocol.security_methods)
        parts.append(f'<vos:protocol uri="{escape(protocol.uri)}">{inside}</vos:protocol>\n')
    if document.keep_bytes is not None:
        parts.append(f"<vos:keepBytes>{str(document.keep_bytes).lower()}</vos:keepBytes>\n")
    parts.append("</vos:transfer>\n")
    return "".join(parts)


def protocols() -> str:
    """Return the protocols that the service speaks: it accepts those by which it calls others, and provides its own."""
    spoken = (HTTP_GET, HTTP_PUT, HTTPS_GET, HTTPS_PUT)
    return _lists("protocols", "protocol", spoken, spoken)


def views() -> str:
    """Return the views that the service takes and gives."""
    return _lists("views", "view", (DEFAULT_VIEW, ANY_VIEW), (DEFAULT_VIEW, BINARY_VIEW, ZIP_VIEW, TAR_VIEW))


def properties() -> str:
    """Return the properties that the service knows: what clients may set, what it tells, and all of them."""
    taken = [uri for uri in PROPERTIES if uri not in READ_ONLY]
    return _lists("properties", "property", taken, PROPERTIES, contains=PROPERTIES)


def _lists(
    root: str, element: str, accepts: Iterable[str], provides: Iterable[str], *, contains: Iterable[str] = ()
) -> str:
    parts = [f'{DECLARATION}<vos:{root} xmlns:vos="{NAMESPACE}" xmlns:xsi="{XSI}">\n']
    lists: Mapping[str, Iterable[str]] = {"accepts": accepts, "provides": provides, "contains": contains}
    for name, uris in lists.items():
        if uris or name != "contains":
            inside = "".join(f'<vos:{element} uri="{escape(uri)}"{_fixed(element, uri)}/>\n' for uri in uris)
            parts.append(f"<vos:{name}>\n{inside}</vos:{name}>\n")
    parts.append(f"</vos:{root}>\n")
    return "".join(parts)


def _fixed(element: str, uri: str) -> str:
    return f' readOnly="{str(uri in READ_ONLY).lower()}"' if element == "property" else ""
