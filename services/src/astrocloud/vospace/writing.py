"""VOSpace 2.1 documents, written as text: a listing is never a tree in memory.

Element names, order and attributes are the standard's (VOSpace 2.1, appendix A); clients look for the prefix ``vos`` in
``xsi:type`` and for ``xsi`` declared on the root.
"""

import re
from collections.abc import Iterable, Mapping
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
    PROPERTIES,
    READ_ONLY,
    TAR_VIEW,
    ZIP_VIEW,
    Authority,
    Node,
    Transfer,
)

NAMESPACE: Final = "http://www.ivoa.net/xml/VOSpace/v2.0"
XSI: Final = "http://www.w3.org/2001/XMLSchema-instance"
DECLARATION: Final = '<?xml version="1.0" encoding="UTF-8"?>\n'
VERSION: Final = "2.1"

_FORBIDDEN: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_SPECIAL: Final = re.compile('[&<>"\r\n\t]')
_ENTITIES: Final = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "\r": "&#13;", "\n": "&#10;", "\t": "&#9;"}


def escape(text: str) -> str:
    """Return `text` as XML content or a quoted attribute; what XML 1.0 forbids becomes a replacement character."""
    if _FORBIDDEN.search(text):
        text = _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)
    return _SPECIAL.sub(lambda match: _ENTITIES[match[0]], text) if _SPECIAL.search(text) else text


def node_start(node: Node, authority: Authority, detail: str) -> str:
    """Return the document of a folder up to where its children stand."""
    return DECLARATION + _opening(node, authority, root=True) + _inside(node, detail) + "<vos:nodes>\n"


def node_end() -> str:
    """Return what follows a folder's last child."""
    return "</vos:nodes>\n</vos:node>\n"


def node_document(node: Node, authority: Authority, detail: str) -> str:
    """Return the document of a node without children."""
    nodes = "<vos:nodes/>\n" if node.kind == CONTAINER else ""
    return DECLARATION + _opening(node, authority, root=True) + _inside(node, detail) + nodes + "</vos:node>\n"


def child(node: Node, authority: Authority, detail: str) -> str:
    """Return one child in its folder's document."""
    inside = _inside(node, detail)
    if node.kind == CONTAINER:
        inside += "<vos:nodes/>"
    return f"{_opening(node, authority)}{inside}</vos:node>\n"


def _opening(node: Node, authority: Authority, *, root: bool = False) -> str:
    declared = f' xmlns:vos="{NAMESPACE}" xmlns:xsi="{XSI}" version="{VERSION}"' if root else ""
    busy = ' busy="true"' if node.busy else ""
    return f'<vos:node{declared} xsi:type="vos:{node.kind}" uri="{escape(authority.uri(node.path))}"{busy}>'


def _inside(node: Node, detail: str) -> str:
    parts = []
    if detail != "min":
        parts.append("<vos:properties>")
        for uri, text in node.properties.items():
            fixed = "true" if uri in READ_ONLY else "false"
            parts.append(f'<vos:property uri="{escape(uri)}" readOnly="{fixed}">{escape(text)}</vos:property>')
        parts.append("</vos:properties>")
    if node.kind == LINK:
        parts.append(f"<vos:target>{escape(node.target or '')}</vos:target>")
    elif detail == "max":
        accepts = () if node.kind == CONTAINER else (DEFAULT_VIEW, ANY_VIEW)
        provides = (ZIP_VIEW, TAR_VIEW) if node.kind == CONTAINER else (DEFAULT_VIEW, BINARY_VIEW)
        parts.append(_views("accepts", accepts) + _views("provides", provides))
    return "".join(parts)


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
