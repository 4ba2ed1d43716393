"""Listing and searching for the page, and the small changes that are done at once."""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, Final

import structlog
from aiohttp import web

from astrocloud.core.errors import RequestError
from astrocloud.vospace.api import Door, answering, whole
from astrocloud.vospace.domain import Nodes
from astrocloud.vospace.errors import Fault, invalid_argument
from astrocloud.vospace.models import CONTAINER, NodePath, NodeRequest, Person
from astrocloud.vospace.myfiles.answers import API, answer, document_of, new_name, only, path_in, text_in
from astrocloud.vospace.myfiles.entries import entry, free_name, kind_of, standing
from astrocloud.vospace.myfiles.picks import picked
from astrocloud.vospace.myfiles.views import SORTS, WINDOW_LIMIT, Views, Wish
from astrocloud.vospace.quotas import Limits

COUNTED_S: Final = 30.0
"""How often a home or project that is looked at is counted anew at most, in seconds."""
COUNTED_PART: Final = 0.02
"""And for what part of the time at most, so that who has millions of files does not keep the disks busy."""
_NAMES_LIMIT = 10_000
_SOME: Final = 10
_COUNTS: Final = 2
"""How many homes and projects are counted at once."""
_SEARCHES: Final = 4
"""How many searches run at once."""

_log: Final = structlog.get_logger()


class BrowseApi:
    """Folders over HTTP as JSON.

    Parameters
    ----------
    door
        Who asks.
    nodes
        The rules.
    views
        Folders in an order.
    homes, projects
        How much each may hold.
    recount
        Counts what is in a home or project anew.
    """

    def __init__(
        self,
        *,
        door: Door,
        nodes: Nodes,
        views: Views,
        homes: Limits,
        projects: Limits,
        recount: Callable[[NodePath], bool],
    ) -> None:
        self._recount = recount
        self._counted: dict[NodePath, float] = {}
        self._counting: dict[NodePath, asyncio.Task[None]] = {}
        # Threads of their own: a search may take long, and would keep others from their files.
        self._searchers = ThreadPoolExecutor(_SEARCHES, thread_name_prefix="search")
        # So may counting, of which one person in many projects asks for a lot at once.
        self._counters = ThreadPoolExecutor(_COUNTS, thread_name_prefix="count")
        self._searching: dict[str, threading.Event] = {}
        self._door = door
        self._nodes = nodes
        self._views = views
        self._limits = {b"home": homes, b"project": projects}

    def routes(self) -> Sequence[web.AbstractRouteDef]:
        """Return the routes."""
        return [
            web.get(f"{API}/list", answering(self._list)),
            web.get(f"{API}/entry", answering(self._entry)),
            web.get(f"{API}/search", answering(self._search)),
            web.get(f"{API}/places", answering(self._places)),
            web.post(f"{API}/exists", answering(self._exists)),
            web.post(f"{API}/folder", answering(self._folder)),
            web.post(f"{API}/rename", answering(self._rename)),
        ]

    async def _list(self, request: web.Request) -> web.StreamResponse:
        """Tell a window of a folder: ``first`` and ``count`` in the view ``view``, or in a new one."""
        person = await self._door.person(request, write=False)
        path, wish = path_in(request.query.get("path", "")), _wish(request)
        first = whole(request.query.get("first", "0"), name="first")
        count = min(WINDOW_LIMIT, whole(request.query.get("count", "200"), name="count"))
        around = request.query.get("at", "")

        def work() -> dict[str, Any]:
            view, stale = self._views.open(person, path, wish, view_id=request.query.get("view", ""))
            told: dict[str, Any] = {"view": view.id, "total": len(view.names), "stale": stale}
            if around:
                told["at"] = view.names.position(path_in(around).name)
            told["first"] = first
            told["entries"] = self._views.window(person, view, first, count)
            if first == 0 or request.query.get("view", "") != view.id:
                told["folder"] = self._told(person, path)
            return told

        return answer(await self._door.run(work))

    def _told(self, person: Person, path: NodePath) -> dict[str, Any]:
        """Return the folder itself, and what its reader may do in it."""
        told = entry(self._nodes, person, path)
        told["writable"] = len(path.parts) >= 2 and self._nodes.may_change(person, path)
        told["mine"] = person.name is not None and told["owner"] == person.name
        return told

    async def _entry(self, request: web.Request) -> web.StreamResponse:
        """Return one file or folder."""
        person = await self._door.person(request, write=False)
        path = path_in(request.query.get("path", ""))
        told = await self._door.run(entry, self._nodes, person, path)
        told["writable"] = await self._door.run(self._nodes.may_change, person, path.parent)
        return answer(told)

    async def _search(self, request: web.Request) -> web.StreamResponse:
        """Return what has a name like the one asked for; it ends the search that the same person began before."""
        person = await self._door.person(request, write=False)
        path, wish = path_in(request.query.get("path", "")), _wish(request)
        if not wish.match:
            raise invalid_argument("q, a part of the names to look for, is needed")
        if person.name is None:
            raise RequestError("not-signed-in")
        stop, name = threading.Event(), person.name
        if name in self._searching:
            self._searching[name].set()
        self._searching[name] = stop
        try:
            found, complete = await asyncio.get_running_loop().run_in_executor(
                self._searchers, self._views.search, person, path, wish, stop
            )
        finally:
            stop.set()
            if self._searching.get(name) is stop:
                del self._searching[name]
        return answer({"entries": found, "complete": complete})

    async def _places(self, request: web.Request) -> web.StreamResponse:
        """Tell where a person's files are, and how much of each quota is used.

        What notebooks wrote since the last walk is counted behind the answer, which says so: soon after it is known.
        """
        person = await self._door.person(request, write=False)

        def work() -> list[dict[str, Any]]:
            if person.name is None:
                return []
            tops = [NodePath((b"home", person.name.encode()))]
            tops += [NodePath((b"project", group.encode())) for group in sorted(person.groups)]
            return [self._place(top) for top in tops]

        told = await self._door.run(work)
        counting = [place["path"] for place in told if self._counts(path_in(place["path"]))]
        return answer({"user": person.name, "places": told, "counting": counting})

    def _counts(self, top: NodePath) -> bool:
        """Begin to count what is below `top` unless that was done just now; return whether it is being counted."""
        if top in self._counting:
            return True
        if time.monotonic() < self._counted.get(top, 0.0):
            return False
        self._counting[top] = asyncio.create_task(self._count(top))
        return True

    async def _count(self, top: NodePath) -> None:
        began = time.monotonic()
        try:
            await asyncio.get_running_loop().run_in_executor(self._counters, self._recount, top)
        except (Fault, OSError) as err:  # as a folder that is nested too deep: the scan tells of it as well
            _log.warning("files-count-failed", top=str(top), error=str(err))
        finally:
            now = time.monotonic()
            self._counted[top] = now + max(COUNTED_S, (now - began) / COUNTED_PART)
            del self._counting[top]

    def _place(self, top: NodePath) -> dict[str, Any]:
        usage = self._nodes.account.usage(top)
        return {
            "path": str(top),
            "name": top.shown_name,
            "kind": top.parts[0].decode(),
            "used_bytes": usage.used_bytes if usage is not None else None,
            "limit_bytes": self._limits[top.parts[0]].size_bytes or None,
        }

    async def _exists(self, request: web.Request) -> web.StreamResponse:
        """Tell what in the folder ``path`` has one of ``names``, and a name beside it that is free.

        Of what is picked in a list instead, which may be very much, only how many names are taken and some of them.
        """
        person = await self._door.person(request, write=True)
        document = await document_of(request)
        path, names = path_in(text_in(document, "path")), document.get("names")
        if names is None:
            return answer(await self._door.run(self._taken, person, path, document))
        if not isinstance(names, list) or len(names) > _NAMES_LIMIT or not all(isinstance(n, str) for n in names):
            raise invalid_argument(f"`names` is no list of at most {_NAMES_LIMIT} names")

        def work() -> dict[str, dict[str, Any]]:
            wanted = {encoded: name for name in names if (encoded := _encoded(name))}
            there = standing(self._nodes, person, path, wanted)
            return {
                wanted[name]: {**told, "free": free_name(self._nodes, person, path / name).shown_name}
                for name, told in there.items()
            }

        return answer({"taken": await self._door.run(work)})

    def _taken(self, person: Person, path: NodePath, document: dict[str, Any]) -> dict[str, Any]:
        names = dict.fromkeys(item.name for item in picked(self._views, person, document) if item.parent != path)
        there = standing(self._nodes, person, path, names)
        return {"count": len(there), "some": [(path / name).shown_name for name in islice(there, _SOME)]}

    async def _folder(self, request: web.Request) -> web.StreamResponse:
        """Make the folder ``name`` in ``path``; with ``parents`` a path of folders as they are called on a disk."""
        person = await self._door.person(request, write=True)
        document = await document_of(request)
        path, parents = path_in(text_in(document, "path")), document.get("parents") is True
        given = text_in(document, "name")
        names = [new_name(name, typed=not parents) for name in (given.split("/") if parents else [given])]

        def work() -> dict[str, Any]:
            here = path
            for name in names:
                here = here / name
                try:
                    self._nodes.create(person, NodeRequest(here, CONTAINER))
                except Fault as fault:
                    there = parents and fault.code == "vospace-duplicate-node"
                    if not there or kind_of(self._nodes, person, here) != "folder":
                        raise
            return entry(self._nodes, person, here)

        return answer(await self._door.run(work), status=201)

    async def _rename(self, request: web.Request) -> web.StreamResponse:
        """Rename a file or folder."""
        person = await self._door.person(request, write=True)
        document = await document_of(request)
        path = path_in(text_in(document, "path"))
        target = path.parent / new_name(text_in(document, "name"))

        def work() -> dict[str, Any]:
            if target != path:
                self._nodes.move(person, path, target, into=False)
            return entry(self._nodes, person, target)

        return answer(await self._door.run(work))


def _encoded(name: str) -> bytes:
    """Return the name of a file on somebody's disk; empty for what can name nothing here."""
    try:
        encoded = name.encode()
    except UnicodeEncodeError:  # half a character, which JSON can name
        return b""
    return b"" if encoded in {b".", b".."} or b"/" in encoded or b"\0" in encoded else encoded


def _wish(request: web.Request) -> Wish:
    query = request.query
    sort = only(query.get("sort", "name"), SORTS, name="sort")
    order = only(query.get("order", "asc"), ("asc", "desc"), name="order")
    return Wish(sort, order == "desc", query.get("q", "").strip()[:255], query.get("hidden", "") == "1")
