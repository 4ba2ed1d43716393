"""What the handlers of My files share: reading JSON and paths, and answering."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any, Final

from aiohttp import web

from astrocloud.core.web import PRINCIPAL
from astrocloud.vospace.api import PREFIX
from astrocloud.vospace.errors import Fault, invalid_argument
from astrocloud.vospace.models import NodePath

API: Final = f"{PREFIX}/api"
LIMIT_BYTES: Final = 16 << 20
"""The largest document that is taken: the names of a hundred thousand files."""

VALUES_LIMIT: Final = 1_000_000
"""How many values a document may have: an empty list is two bytes in it and fifty in memory."""

_AT_ONCE_BYTES: Final = 1 << 16


async def document_of(request: web.Request) -> dict[str, Any]:
    """Return the JSON object in the body. Raises `Fault` (``InvalidArgument``, ``RequestEntityTooLarge``).

    To be called when it is known who asks: a large one is taken of people who are signed in alone.
    """
    limit = LIMIT_BYTES if request.get(PRINCIPAL) is not None else _AT_ONCE_BYTES
    if (request.content_length or 0) > limit:
        raise _too_large(limit)
    found = bytearray()
    async for chunk in request.content.iter_chunked(1 << 16):
        found += chunk
        if len(found) > limit:
            raise _too_large(limit)
    if sum(map(found.count, b",[{")) > VALUES_LIMIT:
        raise _too_large(limit)
    # What takes long to read must not keep everybody else from being answered.
    return _parsed(found) if len(found) <= _AT_ONCE_BYTES else await asyncio.to_thread(_parsed, found)


def _too_large(limit: int) -> Fault:
    # Made where it is raised: one that is also a name there would hold the frame, and what has come, for long.
    return Fault("vospace-too-large", reason=f"a document may have {limit} bytes and {VALUES_LIMIT} values")


def _parsed(text: bytearray) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise invalid_argument("the body is no JSON object")
    return document


def text_in(document: dict[str, Any], name: str, *, default: str | None = None) -> str:
    """Return the text `name` in `document`. Raises `Fault` (``InvalidArgument``) when it is missing or none."""
    value = document.get(name, default)
    if not isinstance(value, str) or len(value) > 8192:
        raise invalid_argument(f"`{name}` is missing or is no text")
    return value


def path_in(text: str) -> NodePath:
    """Return the path that the page's script names: percent-encoded, as the interface told it."""
    return NodePath.from_url(text)


def paths_in(document: dict[str, Any], name: str) -> list[NodePath]:
    """Return the paths in the list `name` of `document`."""
    value = document.get(name)
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise invalid_argument(f"`{name}` is no list of paths")
    return [path_in(each) for each in value]


def new_name(text: str, *, typed: bool = True) -> bytes:
    """Return `text` as the name of a file, without the blanks around what a person `typed`.

    Raises
    ------
    Fault
        ``files-bad-name``.
    """
    try:
        name = (text.strip() if typed else text).encode()
        if not name or b"/" in name:
            raise invalid_argument("a name is needed")
        path = NodePath((name,))
        NodePath.from_url(str(path))  # made of dots, too long, or kept for the service
        path.check_new_name()
    except (Fault, UnicodeEncodeError) as fault:
        shown = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text[:80])
        raise Fault("files-bad-name", name=shown) from fault
    return name


def answer(document: Any, *, status: int = 200) -> web.Response:
    """Return `document` as JSON."""
    return web.json_response(document, status=status, dumps=_dumps)


def _dumps(document: Any) -> str:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def only(value: str, allowed: Sequence[str], *, name: str) -> str:
    """Return `value` if it is one of `allowed`. Raises `Fault` (``InvalidArgument``)."""
    if value not in allowed:
        raise invalid_argument(f"{name} is {value[:40]!r}; allowed: {', '.join(allowed)}")
    return value
