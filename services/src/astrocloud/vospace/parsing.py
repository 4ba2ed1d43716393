"""VOSpace 2.1 documents from clients, read without trust: no DTD, entities or network, limited in size and depth."""

from typing import Final

from lxml import etree

from astrocloud.vospace.errors import Fault, invalid_argument
from astrocloud.vospace.models import Authority, NodePath, NodeRequest, Protocol, Transfer
from astrocloud.vospace.writing import NAMESPACE, XSI

DOCUMENT_LIMIT_BYTES: Final = 1 << 20
"""The largest document that is read."""

ELEMENT_LIMIT: Final = 20_000
_VERSIONS: Final = {None, "2.0", "2.1"}
_DIRECTIONS: Final = frozenset({"pushToVoSpace", "pullToVoSpace", "pullFromVoSpace", "pushFromVoSpace"})


def _q(name: str) -> str:
    return f"{{{NAMESPACE}}}{name}"


def parse(body: bytes) -> etree._Element:
    """Return the root of the document `body`. Raises `Fault` (``InvalidArgument``) for what is no XML, or has a DTD."""
    parser = etree.XMLParser(
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        dtd_validation=False,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        root = etree.fromstring(body, parser)
    except (etree.XMLSyntaxError, ValueError) as err:
        message = str(err).split("\n", 1)[0][:200]
        raise invalid_argument(f"the body is no XML document that is taken here ({message})") from None
    if root.getroottree().docinfo.internalDTD is not None:
        raise invalid_argument("the document has a DTD; leave it away")
    for number, _element in enumerate(root.iter()):
        if number > ELEMENT_LIMIT:
            raise invalid_argument(f"the document has more than {ELEMENT_LIMIT} elements")
    return root


def unicode(body: bytes) -> str:
    """Return the document `body`, in whichever encoding it came, as text. Raises as `parse` does."""
    return etree.tostring(parse(body), encoding="unicode")


def node(body: bytes, authority: Authority) -> NodeRequest:
    """Return the node that a client's document describes.

    Raises
    ------
    Fault
        ``InvalidArgument``, ``InvalidURI``, ``TypeNotSupported``.
    """
    root = parse(body)
    _expect(root, "node")
    path = authority.parse(root.get("uri", ""))
    kind = _type(root, path)
    properties: dict[str, str | None] = {}
    fixed: set[str] = set()
    for element in root.findall(f"{_q('properties')}/{_q('property')}"):
        uri = (element.get("uri") or "").strip()
        if not uri or any(ord(char) < 0x21 for char in uri):
            raise invalid_argument("a property has no uri, or one with blanks in it")
        nil = element.get(f"{{{XSI}}}nil", element.get("nil", "false")) in {"true", "1"}
        properties[uri] = None if nil else (element.text or "")
        if element.get("readOnly") in {"true", "1"}:
            fixed.add(uri)
    for uri in fixed:
        # Told by a client that it is none of its business: a document that came from here and goes back.
        properties.pop(uri)
    target = root.findtext(_q("target"))
    return NodeRequest(path, kind, properties, target.strip() if target else None)


def _type(root: etree._Element, path: NodePath) -> str | None:
    declared = root.get(f"{{{XSI}}}type")
    if declared is None:
        return None
    prefix, _, name = declared.rpartition(":")
    if root.nsmap.get(prefix or None) != NAMESPACE:
        raise Fault("vospace-type-not-supported", uri=str(path), type=declared[:80])
    return name


def _expect(root: etree._Element, name: str) -> None:
    if root.tag != _q(name):
        raise invalid_argument(f"the document is a {str(root.tag)[:120]}, not a {_q(name)}")
    if root.get("version") not in _VERSIONS:
        raise invalid_argument(f"version {root.get('version', '')[:20]} is not spoken here; 2.1 is")


def transfer(body: bytes, authority: Authority) -> Transfer:
    """Return the transfer that a client's document asks for.

    Raises
    ------
    Fault
        ``InvalidArgument``, ``InvalidURI``.
    """
    root = parse(body)
    _expect(root, "transfer")
    target = (root.findtext(_q("target")) or "").strip()
    direction = (root.findtext(_q("direction")) or "").strip()
    keep = root.findtext(_q("keepBytes"))
    view = root.find(_q("view"))
    protocols = []
    for element in root.findall(_q("protocol")):
        methods = tuple(inner.get("uri", "") for inner in element.findall(_q("securityMethod")))
        endpoint = (element.findtext(_q("endpoint")) or "").strip() or None
        protocols.append(Protocol((element.get("uri") or "").strip(), endpoint, methods))
    keep_bytes = None
    if keep is not None:
        if keep.strip() not in {"true", "false", "1", "0"}:
            raise invalid_argument(f"keepBytes is {keep[:20]!r}; allowed: true (copy), false (move)")
        keep_bytes = keep.strip() in {"true", "1"}
    return Transfer(
        target=authority.parse(target),
        direction=check_direction(direction, authority),
        view=view.get("uri") if view is not None else None,
        view_parameters={p.get("uri", ""): p.text or "" for p in view.findall(_q("param"))} if view is not None else {},
        protocols=tuple(protocols),
        keep_bytes=keep_bytes,
        version=root.get("version"),
    )


def check_direction(direction: str, authority: Authority) -> str:
    """Return `direction` if it is one of the standard's or a node URI. Raises `Fault` for anything else."""
    if direction in _DIRECTIONS:
        return direction
    if direction.startswith("vos:"):
        authority.parse(direction)
        return direction
    allowed = ", ".join(sorted(_DIRECTIONS))
    raise invalid_argument(f"the direction {direction[:80]!r} is none of {allowed}, or a vos:// URI to move or copy to")
