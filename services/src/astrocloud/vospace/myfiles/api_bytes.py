"""Bytes for the page: samples of arrays, several things as one archive, and what a public link leads to."""

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final

from aiohttp import web

from astrocloud.core.errors import RequestError
from astrocloud.core.web import page
from astrocloud.vospace import archives, posix
from astrocloud.vospace.api import ANYTHING, PREFIX, Door, answering, fault_response, whole
from astrocloud.vospace.domain import Nodes
from astrocloud.vospace.errors import Fault
from astrocloud.vospace.models import LINK as LINK_NODE
from astrocloud.vospace.models import NodePath, Person
from astrocloud.vospace.myfiles.answers import API, answer, document_of, path_in
from astrocloud.vospace.myfiles.entries import describe
from astrocloud.vospace.myfiles.links import Link, Links, opened
from astrocloud.vospace.myfiles.page import policy
from astrocloud.vospace.myfiles.picks import Packs, archive, common_folder, document_of_name, name_of, picked
from astrocloud.vospace.myfiles.sampling import Sample, take
from astrocloud.vospace.myfiles.views import Views
from astrocloud.vospace.opening import OpenFile, open_place, sum_if_settled
from astrocloud.vospace.packing import archive_response
from astrocloud.vospace.sending import file_response
from astrocloud.vospace.storage import refusal

LINK: Final = f"{PREFIX}/link"
_ENTRIES: Final = 5000
_NAMES: Final = ("offset", "item", "width", "height", "step")


class BytesApi:
    """Bytes over HTTP.

    Parameters
    ----------
    door
        Who asks.
    nodes
        The rules.
    views
        Where positions in a list are looked up.
    links
        Public links.
    origin
        The platform's address.
    """

    def __init__(self, *, door: Door, nodes: Nodes, views: Views, links: Links, origin: str) -> None:
        self._door = door
        self._nodes = nodes
        self._views = views
        self._packs = Packs()
        self._links = links
        self._origin = origin

    def routes(self) -> Sequence[web.AbstractRouteDef]:
        """Return the routes."""
        return [
            web.get(f"{API}/sample", answering(self._sample)),
            web.post(f"{API}/archive", answering(self._prepare)),
            web.get(f"{API}/archive/{{archive}}", answering(self._archive)),
            web.get(f"{LINK}/{{token}}", answering(self._link)),
            web.get(f"{LINK}/{{token}}/{{path:{ANYTHING}}}", answering(self._link)),
        ]

    async def _sample(self, request: web.Request) -> web.StreamResponse:
        """Send a sample of an array in the file ``path``."""
        person = await self._door.person(request, write=False)
        path = path_in(request.query.get("path", ""))
        sample = Sample(*(whole(request.query.get(name, ""), name=name) for name in _NAMES))
        sample.check()
        file = await self._door.run(self._nodes.open, person, path)
        try:
            data = await self._door.run(take, file.descriptor, sample)
        finally:
            file.close()
        return web.Response(body=data, content_type="application/octet-stream")

    async def _prepare(self, request: web.Request) -> web.StreamResponse:
        """Tell where what is picked (``paths``, or positions of a ``view``) can be downloaded as one zip."""
        person = await self._door.person(request, write=False)
        document = await document_of(request)
        paths = await self._door.run(picked, self._views, person, document)
        name = name_of(document) or self._packs.keep(person, paths)
        return answer({"url": f"{API}/archive/{name}"}, status=201)

    async def _archive(self, request: web.Request) -> web.StreamResponse:
        """Send what was prepared as one zip."""
        person = await self._door.person(request, write=False)
        name = request.match_info["archive"]
        if name.startswith("."):
            paths = await self._door.run(lambda: picked(self._views, person, document_of_name(name)))
        else:
            paths = self._packs.take(person, name)

        def work(send: Any) -> None:
            archive(self._nodes, person, paths, send)

        return await archive_response(request, work, name=common_folder(paths).shown_name or "files", form="zip")

    # Public links

    async def _link(self, request: web.Request) -> web.StreamResponse:
        """Show what a public link leads to, or send its bytes with ``?get``."""
        try:
            link, person, path = await self._resolve(request)
            if "get" not in request.query:
                return await self._show(request, link, person, path)
            file = await self._door.run(self._open, person, path, link)
            if file is None:

                def work(send: Any) -> None:
                    with opened(self._nodes, person, link, path) as place, _listed(place, path) as folder:
                        archives.write(folder, path.shown_name, "zip", send)

                return await archive_response(request, work, name=path.shown_name, form="zip")
        except Fault as fault:
            if "text/html" not in request.headers.get("Accept", ""):
                return fault_response(request, fault)
            raise
        with os.fdopen(file.descriptor, "rb", buffering=0) as source:
            response = file_response(request, file, source)
            await response.prepare(request)
            return response

    async def _resolve(self, request: web.Request) -> tuple[Link, Person, NodePath]:
        """Return the link, whose permissions hold, and the path. Raises `Fault` (``files-link-gone``)."""
        token = request.match_info["token"]
        link = await self._door.run(self._links.find, token)
        try:
            person = await self._door.named(link.owner)
        except RequestError as err:  # the owner is no longer anybody here
            raise Fault("files-link-gone") from err
        below = request.rel_url.raw_path[len(LINK) + 1 + len(token) :].strip("/")
        path = NodePath((*link.path.parts, *NodePath.from_url(below).parts))

        def follow() -> NodePath:
            with opened(self._nodes, person, link, link.path):
                there = self._nodes.tree.follow(path)
            # A link inside the folder must not open what is outside of it.
            if not there.inside(link.path):
                raise Fault("files-link-gone")
            return there

        try:
            return link, person, await self._door.run(follow)
        except Fault as fault:
            raise Fault("files-link-gone") from fault

    def _open(self, person: Person, path: NodePath, link: Link) -> OpenFile | None:
        """Return the file at `path`, open, or `None` for a folder. Raises `Fault` (``files-link-gone``)."""
        with opened(self._nodes, person, link, path) as place:
            if stat.S_ISDIR(os.fstat(place).st_mode):
                return None
            file = open_place(place, path)
        try:
            return sum_if_settled(file)
        except BaseException:
            file.close()
            raise

    async def _show(self, request: web.Request, link: Link, person: Person, path: NodePath) -> web.StreamResponse:
        size, entries = await self._door.run(self._look, link, person, path)
        is_folder = entries is not None
        response = page(
            request,
            "myfiles/link.html",
            name=path.shown_name,
            here=request.path.rstrip("/"),
            up=request.path.rstrip("/").rpartition("/")[0] if path != link.path and is_folder else "",
            is_folder=is_folder,
            entries=(entries or [])[:_ENTRIES],
            more=len(entries or []) > _ENTRIES,
            size=size,
            until=datetime.fromtimestamp(link.expires_at, tz=UTC),
            owner=link.owner,
        )
        response.headers["Content-Security-Policy"] = policy(self._origin)
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers["X-Robots-Tag"] = "noindex"
        return response

    def _look(self, link: Link, person: Person, path: NodePath) -> tuple[int, list[dict[str, Any]] | None]:
        """Return the size of what is at `path`, and of a folder the first of what is in it."""
        reader = self._nodes.reader(person)
        with opened(self._nodes, person, link, path) as place:
            status = os.fstat(place)
            if not stat.S_ISDIR(status.st_mode):
                return status.st_size, None
            found: list[dict[str, Any]] = []
            with _listed(place, path) as folder:
                for name in sorted(name for name in posix.names_in(folder) if not name.startswith(b".")):
                    node = reader.child(folder, path, name, "properties")
                    if node is not None and node.kind != LINK_NODE:
                        told = describe(node)
                        found.append({**told, "segment": told["path"].rsplit("/", 1)[1]})
                    if len(found) > _ENTRIES:
                        break
        return 0, sorted(found, key=lambda each: (each["kind"] != "folder", each["name"].casefold()))


@contextmanager
def _listed(place: int, path: NodePath) -> Iterator[int]:
    """Give the folder `path`, which the descriptor `place` names, opened for listing."""
    try:
        folder = os.open(posix.proc_path(place), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as err:
        raise refusal(err, path) from err
    try:
        yield folder
    finally:
        os.close(folder)
