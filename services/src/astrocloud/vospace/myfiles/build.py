"""Builds what My files consists of, for the service's own factory."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aiohttp import web
from pydantic import SecretStr
from sqlalchemy import Engine

from astrocloud.core.uws.store import JobStore
from astrocloud.vospace.api import Door
from astrocloud.vospace.domain import Nodes
from astrocloud.vospace.identity import can_switch
from astrocloud.vospace.models import NodePath
from astrocloud.vospace.myfiles.api_browse import BrowseApi
from astrocloud.vospace.myfiles.api_bytes import LINK, BytesApi
from astrocloud.vospace.myfiles.api_share import ShareApi
from astrocloud.vospace.myfiles.api_work import WorkApi
from astrocloud.vospace.myfiles.links import Links
from astrocloud.vospace.myfiles.page import FilesPage
from astrocloud.vospace.myfiles.shared import Shares
from astrocloud.vospace.myfiles.trash import Trash
from astrocloud.vospace.myfiles.views import Views
from astrocloud.vospace.myfiles.works import Works
from astrocloud.vospace.partial import Partials
from astrocloud.vospace.people import Owners
from astrocloud.vospace.quotas import Limits
from astrocloud.vospace.resuming import Resuming

if TYPE_CHECKING:
    from astrocloud.config import Config

TEMPLATES: Final = Path(__file__).with_name("templates")


@dataclass(frozen=True, kw_only=True)
class MyFiles:
    """What the service takes from here."""

    routes: Sequence[web.AbstractRouteDef]
    background: Sequence[Callable[[], Awaitable[None]]] = ()
    drain: Sequence[Callable[[], Awaitable[None]]] = ()


def build_my_files(
    *,
    config: "Config",
    origin: str,
    secret: SecretStr,
    engine: Engine,
    door: Door,
    nodes: Nodes,
    owners: Owners,
    partials: Partials,
    resuming: Resuming,
    recount: Callable[[NodePath], bool],
) -> MyFiles:
    """Return My files over `nodes`."""
    block = config.vospace
    views = Views(nodes=nodes)
    trash = Trash(nodes=nodes, engine=engine, as_root=can_switch(), days=block.trash_days)
    shares = Shares(nodes=nodes, engine=engine, pause_s=block.scan_interval_s)
    nodes.shared = shares.note
    links = Links(engine=engine, secret=secret, longest_s=block.link_days * 86400)
    work = WorkApi(
        door=door,
        works=Works(nodes=nodes, trash=trash),
        views=views,
        trash=trash,
        store=JobStore(engine),
        partials=partials,
        resuming=resuming,
    )
    apis = (
        FilesPage(door=door, nodes=nodes, origin=origin, trash_days=block.trash_days),
        BrowseApi(
            door=door,
            nodes=nodes,
            views=views,
            homes=Limits(block.home_quota_bytes, block.home_quota_files),
            projects=Limits(block.project_quota_bytes, block.project_quota_files),
            recount=recount,
        ),
        work,
        ShareApi(
            door=door,
            nodes=nodes,
            owners=owners,
            shares=shares,
            links=links,
            work=work,
            link_url=f"{origin}{LINK}",
        ),
        BytesApi(door=door, nodes=nodes, views=views, links=links, origin=origin),
    )
    return MyFiles(
        routes=[route for api in apis for route in api.routes()],
        background=(work.jobs.keep, trash.keep_sweeping, shares.keep_looking),
        drain=(work.jobs.drain,),
    )
