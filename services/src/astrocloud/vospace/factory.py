"""Builds the VOSpace service."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from sqlalchemy import Engine

from astrocloud.core.auth import HubLogin
from astrocloud.core.uws.store import JobStore
from astrocloud.core.web import Service
from astrocloud.vospace.api import Door
from astrocloud.vospace.api_files import FilesApi
from astrocloud.vospace.api_folders import FoldersApi
from astrocloud.vospace.api_nodes import NodesApi
from astrocloud.vospace.api_transfers import TransfersApi
from astrocloud.vospace.api_uploads import UploadsApi
from astrocloud.vospace.api_vosi import VosiApi
from astrocloud.vospace.api_walks import DELETE, SET, WalksApi
from astrocloud.vospace.background_sums import BackgroundSums
from astrocloud.vospace.domain import Nodes
from astrocloud.vospace.gate import Gate
from astrocloud.vospace.homes import Homes
from astrocloud.vospace.identity import can_switch
from astrocloud.vospace.metrics import TreeWatch
from astrocloud.vospace.models import Authority
from astrocloud.vospace.myfiles.build import TEMPLATES, build_my_files
from astrocloud.vospace.partial import Partials
from astrocloud.vospace.people import Owners, PassportPeople, People
from astrocloud.vospace.preauth import Signer
from astrocloud.vospace.quotas import Limits, SqlQuotas
from astrocloud.vospace.remote import Remote, networks
from astrocloud.vospace.resuming import Resuming
from astrocloud.vospace.scanning import Scanner, measure_top
from astrocloud.vospace.settings import Settings
from astrocloud.vospace.storage import Tree
from astrocloud.vospace.transfers import Transfers

if TYPE_CHECKING:
    from astrocloud.config import Config
    from astrocloud.core.layout import DataFolder
    from astrocloud.core.runtime import Runtime
    from astrocloud.core.secrets import SecretFiles

JOB_WORKERS = 24
"""Threads in which jobs move, copy, remove and set; each holds one until it is done."""
WORKERS = 16
"""Threads that touch the file system; a person who waits for a slow disk holds one."""


def build_vospace(
    *,
    config: "Config",
    runtime: "Runtime",
    secrets: "SecretFiles",
    data: "DataFolder",
    engine: Engine,
    login: HubLogin | None = None,
    people: People | None = None,
) -> Service:
    """Return the service.

    Parameters
    ----------
    login, people
        Who somebody is, and is to the file system; by default as the hub and the passport say.
    """
    settings = settings_of(config, runtime)
    tree = Tree(data.tree, key=secrets.get("internal").get_secret_value().encode())
    partials = Partials(engine)
    quotas = _quotas(config, engine, tree, partials)
    switches = can_switch()
    owners = Owners(data.tree)
    nodes = Nodes(
        tree=tree,
        authority=settings.authority,
        owners=owners,
        quotas=quotas,
        gate=Gate(tree=tree, closed=not switches),
    )
    sums = BackgroundSums(tree=tree)
    nodes.unsummed = sums.want
    executor = ThreadPoolExecutor(WORKERS, thread_name_prefix="vospace")
    door = Door(
        people=people
        or PassportPeople(url=runtime.service_url("passport"), secret=secrets.get("internal"), trust=runtime.trust),
        homes=Homes(data.tree, as_root=switches),
        executor=executor,
        jobs_executor=ThreadPoolExecutor(JOB_WORKERS, thread_name_prefix="vospace-job"),
        settings=settings,
    )
    signer = Signer(secret=secrets.get("internal"), lifetime_s=settings.preauth_lifetime_s)
    resuming = Resuming(nodes=nodes, partials=partials)

    def resumable() -> frozenset[bytes]:
        resuming.forget_expired()
        return partials.hidden_names()

    file_system = TreeWatch(data.tree)

    async def health() -> Mapping[str, str]:
        return {"files": await file_system.state()}

    files = FilesApi(door=door, nodes=nodes, signer=signer, executor=executor)
    transfers = Transfers(
        nodes=nodes,
        signer=signer,
        settings=settings,
        run=door.run,
        run_job=door.run_job,
        remote=Remote(allowed=networks(settings.allowed_networks)),
        incoming=files.take,
    )
    my_files = build_my_files(
        config=config,
        origin=runtime.public_url,
        secret=secrets.get("internal"),
        engine=engine,
        door=door,
        nodes=nodes,
        owners=owners,
        partials=partials,
        resuming=resuming,
        recount=quotas.recount,
    )
    jobs = _jobs(door=door, nodes=nodes, transfers=transfers, engine=engine, origin=runtime.public_url)
    apis = (
        VosiApi(settings=settings, health=health),
        NodesApi(door=door, nodes=nodes),
        UploadsApi(door=door, resuming=resuming),
        FoldersApi(door=door, secret=secrets.get("internal")),
        files,
        *jobs,
    )
    pause_s = config.vospace.scan_interval_s
    scanner = Scanner(
        root=data.tree, marks=tree.marks, look=sums.look, recount=quotas.recount, resumable=resumable, pause_s=pause_s
    )
    return Service(
        name="vospace",
        direct=files.routes(),
        routes=[*my_files.routes, *(route for api in apis for route in api.routes())],
        login=login or HubLogin(service="vospace", runtime=runtime, api_token=secrets.get("service-vospace")),
        templates=TEMPLATES,
        health=health,
        background=(
            scanner.keep_scanning,
            sums.keep_summing,
            file_system.watch,
            *(api.jobs.keep for api in jobs),
            *my_files.background,
        ),
        drain=(*(api.jobs.drain for api in jobs), *my_files.drain),
    )


def _quotas(config: "Config", engine: Engine, tree: Tree, partials: Partials) -> SqlQuotas:
    block = config.vospace
    return SqlQuotas(
        engine=engine,
        homes=Limits(block.home_quota_bytes, block.home_quota_files),
        projects=Limits(block.project_quota_bytes, block.project_quota_files),
        measure=lambda top, all_: measure_top(tree, top, uploads=partials.hidden_names() if all_ else None),
        promised=partials.promised,
    )


def _jobs(
    *, door: Door, nodes: Nodes, transfers: Transfers, engine: Engine, origin: str
) -> tuple[TransfersApi | WalksApi, ...]:
    store = JobStore(engine)
    return (
        TransfersApi(door=door, transfers=transfers, store=store, origin=origin),
        WalksApi(name=DELETE, door=door, nodes=nodes, store=store, origin=origin),
        WalksApi(name=SET, door=door, nodes=nodes, store=store, origin=origin),
    )


def settings_of(config: "Config", runtime: "Runtime") -> Settings:
    """Return the service's addresses and limits."""
    block = config.vospace
    base = f"{runtime.public_url}/services/vospace"
    around = str(block.bytes_url).rstrip("/") if block.bytes_url else runtime.bytes_url
    return Settings(
        base_url=base,
        bytes_url=f"{around}/services/vospace" if around else base,
        redirect_from_bytes=block.redirect_from_bytes,
        authority=Authority(block.authority, aliases=block.aliases),
        preauth_lifetime_s=block.preauth_lifetime_s,
        upload_limit_bytes=block.upload_limit_bytes,
        allowed_networks=block.transfer_networks,
    )
