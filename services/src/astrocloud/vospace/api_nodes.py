"""``/nodes``: get, create, set and delete nodes (VOSpace 2.1, sections 6.1 and 6.2)."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import replace

from aiohttp import web

from astrocloud.vospace import parsing, writing
from astrocloud.vospace.api import ANYTHING, PREFIX, Door, answering, body_of, path_of, whole, xml
from astrocloud.vospace.children import Children
from astrocloud.vospace.domain import Nodes
from astrocloud.vospace.errors import invalid_argument
from astrocloud.vospace.listing import SORTS
from astrocloud.vospace.models import CONTAINER, CORE, Child, Node, NodePath, NodeRequest
from astrocloud.vospace.reading import DETAILS

_NODES = f"{PREFIX}/nodes"


class NodesApi:
    """The nodes over HTTP.

    Parameters
    ----------
    door
        Who asks.
    nodes
        The rules.
    """

    def __init__(self, *, door: Door, nodes: Nodes) -> None:
        self._door = door
        self._nodes = nodes

    def routes(self) -> Sequence[web.AbstractRouteDef]:
        """Return the routes."""
        return [
            route
            for path in (_NODES, f"{_NODES}/{{path:{ANYTHING}}}")
            for route in (
                web.get(path, answering(self._get)),
                web.put(path, answering(self._put)),
                web.post(path, answering(self._post)),
                web.delete(path, answering(self._delete)),
            )
        ]

    async def _get(self, request: web.Request) -> web.StreamResponse:
        """Return a node and, of a folder, its children (getNode)."""
        path = path_of(request, _NODES)
        detail = request.query.get("detail", "max")
        if detail not in DETAILS:
            raise invalid_argument(f"detail is {detail[:40]!r}; allowed: {', '.join(DETAILS)}")
        limit = whole(request.query["limit"], name="limit") if "limit" in request.query else None
        person = await self._door.person(request, write=False)
        node = await self._door.run(self._nodes.get, person, path, detail)
        authority = self._door.settings.authority
        if node.kind != CONTAINER or limit == 0 or request.method == "HEAD":
            return xml(writing.node_document(node, authority, detail))
        children = await self._door.run(
            self._nodes.children,
            person,
            path,
            detail=detail,
            start=self._start(request, path),
            limit=limit,
            sort=_sort(request),
            descending=_descending(request),
        )
        return await self._stream(request, node, children, detail)

    def _start(self, request: web.Request, path: NodePath) -> bytes | None:
        """Return the name with which the page begins: ``uri`` is the whole URI of a child, or of the folder itself."""
        uri = request.query.get("uri")
        if not uri:
            return None
        start = self._door.settings.authority.parse(uri)
        if start == path:
            return None
        if start.parent != path:
            raise invalid_argument(f"uri is {start}, which is not in {path}")
        return start.name

    async def _stream(self, request: web.Request, node: Node, children: Children, detail: str) -> web.StreamResponse:
        authority = self._door.settings.authority
        response = web.StreamResponse(headers={"Content-Type": "text/xml; charset=utf-8"})

        def tell(batch: Iterable[Child]) -> bytes:
            return writing.children(batch, node.path, authority, detail).encode("utf-8", "replace")

        ahead: asyncio.Future[bytes] | None = None
        try:
            told = await self._door.run(children.next_told, tell)
            await response.prepare(request)
            told = writing.node_start(node, authority, detail).encode("utf-8", "replace") + told
            while told:
                # The next ones are read while these go to the client.
                ahead = asyncio.ensure_future(self._door.run(children.next_told, tell))
                await response.write(told)
                told = await asyncio.shield(ahead)
            await response.write(writing.node_end().encode())
            await response.write_eof()
        finally:
            if ahead is not None:
                await asyncio.wait([ahead])  # a thread that still reads would read in whatever is opened next
                ahead.exception()
            await self._door.run(children.close)
        return response

    async def _put(self, request: web.Request) -> web.StreamResponse:
        """Make a node (createNode)."""
        person = await self._door.person(request, write=True)
        wanted = await self._document(request)
        node = await self._door.run(self._nodes.create, person, wanted)
        authority = self._door.settings.authority
        return xml(writing.node_document(node, authority, "max"), status=201)

    async def _post(self, request: web.Request) -> web.StreamResponse:
        """Change a node's properties (setNode)."""
        person = await self._door.person(request, write=True)
        wanted = await self._document(request)
        node = await self._door.run(self._nodes.set, person, wanted)
        return xml(writing.node_document(node, self._door.settings.authority, "max"))

    async def _document(self, request: web.Request) -> NodeRequest:
        """Return the node in the body. Raises `Fault` when it is not that of the address."""
        path = path_of(request, _NODES)
        wanted = parsing.node(await body_of(request), self._door.settings.authority)
        if wanted.path != path:
            raise invalid_argument(f"the document is about {wanted.path}, the address about {path}")
        return replace(wanted, path=path)

    async def _delete(self, request: web.Request) -> web.StreamResponse:
        """Remove a node, a folder with all that is in it (deleteNode); by ``recursive=false`` an empty folder only."""
        path = path_of(request, _NODES)
        recursive = request.query.get("recursive", "true")
        if recursive not in {"true", "false"}:
            raise invalid_argument(f"recursive is {recursive[:40]!r}; allowed: true, false")
        person = await self._door.person(request, write=True)
        await self._door.run(self._nodes.delete if recursive == "true" else self._nodes.delete_one, person, path)
        # The standard's text says 204, its examples and the clients' own tests 200.
        return web.Response(status=200)


def _sort(request: web.Request) -> str:
    """Return by what the children are sorted; ``sort`` is a property of CADC's clients."""
    asked = request.query.get("sort", "name")
    name = asked.removeprefix(CORE)
    if name not in SORTS:
        raise invalid_argument(f"sorting options not supported: sort={asked[:80]!r}; allowed: {', '.join(SORTS)}")
    return name


def _descending(request: web.Request) -> bool:
    order = request.query.get("order", "asc")
    if order not in {"asc", "desc"}:
        raise invalid_argument(f"order is {order[:40]!r}; allowed: asc, desc")
    return order == "desc"
