"""The page itself, and the texts that its script shows."""

import json
from collections.abc import Sequence
from typing import Final
from urllib.parse import quote

from aiohttp import web

from astrocloud.core import words
from astrocloud.core.auth import current, require
from astrocloud.core.web import asset, language_of, page
from astrocloud.vospace.api import PREFIX, Door
from astrocloud.vospace.domain import Nodes
from astrocloud.vospace.errors import Fault
from astrocloud.vospace.models import NOBODY, NodePath

PAGE: Final = f"{PREFIX}/my-files"


class FilesPage:
    """The page over HTTP.

    Parameters
    ----------
    door
        Who asks.
    nodes
        The rules.
    origin
        The platform's address.
    trash_days
        How long the trash keeps what is in it; 0: there is none.
    """

    def __init__(self, *, door: Door, nodes: Nodes, origin: str, trash_days: int) -> None:
        self._door = door
        self._nodes = nodes
        self._origin = origin
        self._trash_days = trash_days

    def routes(self) -> Sequence[web.AbstractRouteDef]:
        """Return the routes."""
        return [web.get(PAGE, self._show)]

    async def _show(self, request: web.Request) -> web.StreamResponse:
        """Show My files, at ``path``: to who is signed in, and to everybody what is public."""
        principal = await current(request)
        path = _path_in(request.rel_url.raw_query_string)
        if principal is None and not await self._door.run(self._is_public, path):
            await require(request)
        if principal is not None:
            await self._door.named(principal.name)
        language = language_of(request)
        settings = {
            "api": f"{PREFIX}/api",
            "files": f"{PREFIX}/files",
            "uploads": f"{PREFIX}/uploads",
            "page": PAGE,
            "origin": self._origin,
            "authority": self._door.settings.authority.uri(NodePath()),
            "user": principal.name if principal is not None else "",
            "home": f"/home/{quote(principal.name)}" if principal is not None else "",
            "trashDays": self._trash_days,
            "uploadLimit": self._door.settings.upload_limit_bytes,
        }
        response = page(
            request, "myfiles/my_files.html", settings=json.dumps(settings), words=json.dumps(texts(language))
        )
        response.headers["Content-Security-Policy"] = policy(self._origin)
        return response

    def _is_public(self, path: NodePath) -> bool:
        try:
            return bool(path.parts) and self._nodes.get(NOBODY, path, "min") is not None
        except (Fault, OSError):
            return False


def _path_in(query: str) -> NodePath:
    """Return the path in a query, as the page's script reads it: bytes that are no text would not outlive decoding."""
    given = next((pair[5:] for pair in query.split("&") if pair.startswith("path=")), "")
    try:
        return NodePath.from_url(given.replace("+", "%20").replace("%2F", "/").replace("%2f", "/"))
    except Fault:
        return NodePath()


def texts(language: str) -> dict[str, str]:
    """Return all texts of the page's script in `language`."""
    return {
        key.removeprefix("files."): told[language]
        for key, told in words.catalogue().items()
        if key.startswith("files.")
    }


def policy(origin: str) -> str:
    """Return the page's Content-Security-Policy.

    Its scripts come from where the platform's own files are and from nowhere else on this origin: what people keep
    under ``/services/vospace/files`` is never run, whatever it is called.
    """
    own = f"{origin}{asset('x').rpartition('/')[0]}/"
    return (
        f"default-src 'none'; script-src {own}; style-src {own}; connect-src 'self'; "
        f"img-src 'self' data: blob:; object-src 'none'; frame-src 'none'; base-uri 'none'; form-action 'self'; "
        "frame-ancestors 'none'"
    )
