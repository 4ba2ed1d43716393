"""Starting people's servers as pods, one namespace a person."""

import asyncio
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any, ClassVar, Final

import structlog
from kubespawner import KubeSpawner
from kubespawner.clients import load_config, shared_client
from traitlets import Any as AnyTrait
from traitlets.config import Config as HubConfig

from astrocloud.core.cluster import ClusterEnvironment
from astrocloud_hub.errors import HubError
from astrocloud_hub.hosts import host_of
from astrocloud_hub.language import current_language
from astrocloud_hub.spawners.base import PlatformSpawner, limit_variables, person_variables
from astrocloud_hub.spawners.dask import dask_variables
from astrocloud_hub.spawners.kube import objects, starts
from astrocloud_hub.spawners.kube.api import ClusterApi
from astrocloud_hub.spawners.kube.certificates import STOCK_START
from astrocloud_hub.spawners.kube.ends import (
    container_status,
    end_of_pod,
    has_ended,
    node_of,
    running_since,
    terminated,
    what_ran_out,
)
from astrocloud_hub.spawners.kube.fleet import Fleet
from astrocloud_hub.spawners.kube.folders import FolderMaker
from astrocloud_hub.spawners.kube.models import CONTAINER, SERVER_PORT, Json, Placement, ServerPlan, server_label
from astrocloud_hub.spawners.kube.room import quantity
from astrocloud_hub.spawners.kube.watching import Key
from astrocloud_hub.spawners.models import Limits, Person
from astrocloud_hub.spawners.options import ServerOptions

_log = structlog.get_logger()

COMMAND: Final = ("python", "-m", "astrocloud_lab.serve")
"""What starts a server in an environment's image: the lean start, which falls back to stock by itself."""

_EVENTS_AFTER_S: Final = 1.0
"""A start that takes longer is followed by its events, too: most are over by then, and need none."""
_PULL_AGAIN_S: Final = 60.0
"""How long fetching an image is tried again when the registry does not answer."""
_MOUNT_AGAIN_S: Final = 45.0
"""How long mounting the file tree is tried again."""
_SETTLE_AFTER_S: Final = 10.0
"""How long after its start a server may use more processors than chosen: until the first cell has what it imports."""
_ACCEPT_EVERY_S: Final = 0.02
_TRY_S: Final = 2.0
_CLUSTER_S: Final = 15.0
"""How long a start waits for a cluster that does not answer. A poll waits for ever: an answer would be a guess."""
_PART: Final = {"queue": "created", "no-room": "created", "waiting": "running"}
"""The part of a start that has begun with a stage, for the log."""


class PodSpawner(PlatformSpawner, KubeSpawner):
    """Runs a person's server as a pod.

    KubeSpawner (7.1) brings the connection to the cluster and the server's environment; starting, watching and ending
    are the platform's own, so that a start waits for nothing but the cluster and an end always has a reason.
    """

    fleet_source = AnyTrait(help="A function of a `ClusterApi` that returns the `Fleet`.").tag(config=True)
    folders = AnyTrait(help="What makes people's folders in the tree: a `FolderMaker`.").tag(config=True)
    command = AnyTrait(COMMAND, help="What starts a server in an environment's image.").tag(config=True)

    _shared: ClassVar[Fleet | None] = None
    _strange: ClassVar[set[str]] = set()

    def __init__(self, **kwargs: Any) -> None:
        self._uid = ""
        self._parts: dict[str, float] = {}
        self._settling: asyncio.Future[None] | None = None
        self._last_seen: Json | None = None
        self._known = False
        self._node_lost = False
        self._over = False
        super().__init__(**kwargs)

    @classmethod
    async def _started_fleet(cls, source: Callable[[ClusterApi], Fleet]) -> Fleet:
        if PodSpawner._shared is None:
            PodSpawner._shared = source(ClusterApi(shared_client("CoreV1Api").api_client))
        fleet = PodSpawner._shared
        await fleet.start()
        return fleet

    @classmethod
    async def troubles(cls, config: HubConfig) -> Json:
        """Return what is the matter with the cluster's nodes (see `Fleet.troubles`), before the first server, too."""
        if PodSpawner._shared is None:
            load_config()
        return (await cls._started_fleet(config.PodSpawner.fleet_source)).troubles()

    async def fleet(self) -> Fleet:
        """Return the fleet of this hub, once all its pods are known."""
        fleet = await self._started_fleet(self.fleet_source)
        self.namespace = fleet.namespace(self.user.name)
        return fleet

    @property
    def _key(self) -> Key:
        return self.namespace, server_label(self.name)

    # State

    def load_state(self, state: dict[str, Any]) -> None:
        """Take what an earlier hub kept; the pod itself is looked for by the first poll."""
        super().load_state(state)
        self.load_common_state(state)
        self._known, self._over = bool(state.get("pod_uid")), False
        self._uid = state.get("pod_uid", "")

    def get_state(self) -> dict[str, Any]:
        """Return what is kept over a restart of the hub and told by the API (scope ``admin:server_state``)."""
        state: dict[str, Any] = super().get_state() | self.common_state()
        if self._known and not self._over:
            state["pod_uid"] = self._uid
            pod = self._last_seen
            if pod is not None:
                state["node"] = node_of(pod)
                # By its digest: what really runs.
                state["image"] = container_status(pod).get("imageID") or self.image
        return state

    def clear_state(self) -> None:
        """Forget the pod that ended, or could not be ended; how it ended stays.

        JupyterHub makes another spawner for the next server, whose pod a late look of this one has to leave alone.
        """
        super().clear_state()
        self._asked = None
        self._known, self._node_lost, self._over = False, False, True
        self._last_seen = None
        self._uid = ""

    # Starting

    async def _start(self) -> str:
        self._parts = {"asked": time.monotonic()}
        try:
            fleet = await asyncio.wait_for(self.fleet(), _CLUSTER_S)
        except TimeoutError as err:
            raise HubError("server-cluster", reason="its API does not answer") from err
        options, person, _state = await self.read_request()
        self.image = fleet.environment(options.environment.id).image
        self._stages.tell("namespace", 4)
        maker: FolderMaker = self.folders
        await asyncio.gather(fleet.ensure_namespace(person), maker.ensure(person), self._end_leftovers(fleet))
        self._last_end = None
        self._known = self._node_lost = self._over = False
        self.pod_name = f"{server_label(self.name)}-{secrets.token_hex(3)}"
        self._stages.tell("queue", 10)
        self._parts["prepared"] = time.monotonic()
        if fleet.storage.nowhere:
            raise HubError("server-storage", nodes=", ".join(fleet.storage.unwell))
        pod = await fleet.create_pod(self._plan(fleet, options, person))
        self._last_seen, self._uid, self._known = pod, pod["metadata"]["uid"], True
        start = _Start(self, fleet, options)
        try:
            address = await start.until_ready()
        except BaseException as err:
            if isinstance(err, HubError) and err.code == "server-home":
                maker.forget(person.username)
            fleet.watch.forget(self._key, start.pod_changed)
            await asyncio.shield(self._delete(fleet, grace_s=0))
            raise
        self._parts["accepting"] = time.monotonic()
        self._stages.tell("ready", 98)
        fleet.watch.listen(self._key, self._changed)
        asyncio.get_running_loop().call_later(_SETTLE_AFTER_S, self._settle_soon, fleet, self._uid)
        return origin(self._last_seen, address)

    def _started_with(self) -> dict[str, Any]:
        began, *rest = self._parts.items()
        parts = {name: round(1e3 * (at - began[1])) for name, at in rest}
        where = {"pod": self.pod_name, "node": node_of(self._last_seen), "image": self.image}
        return {**where, "parts_ms": parts, **self._picked}

    def _settle_soon(self, fleet: Fleet, uid: str) -> None:
        """Hold the server to its processors, if it is still the one that was started."""
        pod = self._last_seen
        if uid != self._uid or self._over or pod is None:
            return
        allowed = pod["spec"]["containers"][0].get("resources", {}).get("limits", {}).get("cpu", 0)
        cpus = float(self._picked.get("cpus") or 0)
        if cpus and quantity(allowed) > cpus:
            self._settling = asyncio.ensure_future(fleet.settle(self.namespace, self.pod_name, cpus=cpus))

    async def _end_leftovers(self, fleet: Fleet) -> None:
        """End what is left of this server: a start that a killed hub had begun."""
        left = [pod for pod in fleet.watch.pods_of(self._key) if "deletionTimestamp" not in pod["metadata"]]
        for pod in left:
            await fleet.delete_pod(self.namespace, pod["metadata"]["name"], grace_s=0)

    def _plan(self, fleet: Fleet, options: ServerOptions, person: Person) -> ServerPlan:
        size = options.resources
        limits = Limits(memory_bytes=int(size.memory), processes=size.processes, cpus=size.cpus)
        if options.next:
            self.default_url = options.next
        home = f"/home/{person.username}"
        variables = {
            **person_variables(person, home=home, environment=options.environment.id, language=current_language()),
            **limit_variables(memory_bytes=limits.memory_bytes, cpus=limits.cpus, most_threads=64),
            # Where no policy is enforced, other pods reach its ports.
            **dask_variables(),
            # Unix sockets of kernels need a short path on a local disk.
            "JUPYTER_RUNTIME_DIR": "/tmp/jupyter",  # noqa: S108 - inside the pod, and only its own
            **{name: str(value) for name, value in self.get_env().items() if value is not None},
        }
        authority = fleet.authority
        if authority is not None:
            variables |= authority.variables(pod=self.pod_name, namespace=self.namespace)
            variables["JUPYTERHUB_SERVICE_URL"] = variables["JUPYTERHUB_SERVICE_URL"].replace("http:", "https:", 1)
        environment = fleet.environment(options.environment.id)
        return ServerPlan(
            person=person,
            server=self.name,
            pod=self.pod_name,
            environment=options.environment.id,
            size=size.id,
            image=environment.image,
            pull_policy=environment.pull_policy,
            command=(*self._command(environment, home, tls=authority is not None), *self.get_args()),
            variables=variables,
            limits=limits,
            placement=Placement(avoid=fleet.storage.unwell),
            tls=authority is not None,
        )

    def _command(self, environment: ClusterEnvironment, home: str, *, tls: bool) -> tuple[str, ...]:
        """Return what starts a server in an environment's image."""
        if not environment.command:
            return tuple(self.command)
        first = ("/bin/sh", "-c", STOCK_START, "astrocloud-tls") if tls else ()
        # As the platform's own start has it: a path in the server is the path in VOSpace, and one begins at home.
        return (*first, *environment.command, "--ServerApp.root_dir=/", f"--ServerApp.preferred_dir={home}")

    # While it runs

    def _changed(self, pod: Json) -> None:
        """Notice the end at once: nobody else should have the address while the proxy still sends people there."""
        if pod["metadata"]["uid"] != self._uid:
            return
        self._last_seen = pod
        fleet = PodSpawner._shared
        over = has_ended(pod) or (fleet is not None and fleet.nodes.silent(node_of(pod)))
        if over and self._callbacks and not self._stop_pending and not self._starting:
            task = asyncio.ensure_future(self.poll_and_notify())
            task.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def poll(self) -> int | None:
        """Return `None` while the server runs or starts, else its exit code (0 when nobody knows)."""
        if self._starting:
            return None
        if self._over:
            return self._exit_code
        fleet = await self.fleet()
        pod = self._find(fleet)
        if not self._known:
            return self._exit_code
        if pod is not None and not has_ended(pod):
            if fleet.storage.cut_off(node_of(pod), running_since(pod)):
                self.ask_to_end("storage")
                await self._note_end(fleet, pod)
                return self._exit_code
            if not fleet.nodes.silent(node_of(pod)):
                return None
            uid, address = self._uid, pod.get("status", {}).get("podIP")
            if address and await accepts(str(address), SERVER_PORT):
                return None
            if self._over or self._uid != uid:
                # Somebody else found that out meanwhile, and another one may have been started.
                return await self.poll()
            self._node_lost = True
        await self._note_end(fleet, pod or self._last_seen)
        return self._exit_code

    def _find(self, fleet: Fleet) -> Json | None:
        """Return the server's pod as it is now; one that a killed hub had just started is found, too."""
        pod = fleet.watch.pod(self.namespace, self.pod_name) if self._known else None
        if pod is None and not self._known:
            there = [each for each in fleet.watch.pods_of(self._key) if not has_ended(each)]
            pod = there[0] if there else None
            self._known = pod is not None
        if pod is not None:
            if not self._uid or self._uid != pod["metadata"]["uid"]:
                self.pod_name, self._uid = pod["metadata"]["name"], pod["metadata"]["uid"]
            if self._last_seen is None and not has_ended(pod):
                # The hub that started it may have ended before it did so.
                self._last_seen = pod
                self._settle_soon(fleet, self._uid)
            self._last_seen = pod
            fleet.watch.listen(self._key, self._changed)
        return pod

    async def _note_end(self, fleet: Fleet, pod: Json | None) -> None:
        self._over = True
        fleet.watch.forget(self._key, self._changed)
        end, name = end_of_pod(pod, asked=self._asked, node_lost=self._node_lost), self.pod_name
        if self._asked is None or self._asked[0] != "failed":
            self._last_end = end
        self._exit_code = end.exit_code or 0
        # One that is on its way out anyway keeps the time it was given.
        if pod is None or self._node_lost or self._asked or "deletionTimestamp" not in pod["metadata"]:
            with suppress(HubError):
                await self._delete(fleet, grace_s=0)
        # From here on the next server may have been started.
        if pod is not None and end.reason == "exited" and (message := await fleet.eviction(pod)):
            noted, end = end, replace(end, reason="evicted", what=what_ran_out(message), node=node_of(pod))
            if self._last_end is noted:
                self._last_end = end
        _log.info("server-ended", user=self.user.name, server=self.name, pod=name, **end.document())

    async def _delete(self, fleet: Fleet, *, grace_s: int) -> None:
        await fleet.delete_pod(self.namespace, self.pod_name, grace_s=grace_s, uid=self._uid)

    # Stopping

    async def stop(self, now: bool = False) -> None:
        """Stop the server: gently, and after `stop_grace_s` (at once with `now`) by force."""
        self.ask_to_end("stopped")
        if self._over:
            return
        fleet = await self.fleet()
        pod = self._find(fleet)
        if not self._known:
            return
        if pod is not None:
            ended = asyncio.Event()

            def changed(seen: Json) -> None:
                if seen["metadata"]["uid"] == self._uid:
                    self._last_seen = seen
                    if terminated(seen) is not None or fleet.watch.pod(self.namespace, self.pod_name) is None:
                        ended.set()

            fleet.watch.listen(self._key, changed)
            try:
                grace_s = 0 if now else round(self.stop_grace_s)
                await self._delete(fleet, grace_s=grace_s)
                with suppress(TimeoutError):
                    # The node's own part takes a second or two besides.
                    await asyncio.wait_for(ended.wait(), grace_s + 5)
            finally:
                fleet.watch.forget(self._key, changed)
        await self._note_end(fleet, self._last_seen)

    async def get_url(self) -> str:
        """Return where the server is by its pod: the hub may have been killed before it wrote that down."""
        address = (self._last_seen or {}).get("status", {}).get("podIP")
        if address and self.server is not None:
            found = origin(self._last_seen, address)
            # Who asks takes over host and port, but not this: JupyterHub 6.1 sets `protocol`, which is nothing.
            self.server.proto = found.partition(":")[0]
            return f"{found}{self.server.base_url}"
        return str(await super().get_url())

    @classmethod
    async def look_after(cls, users: Any) -> None:
        """End pods that no server of `users` (the hub's) has: a hub was killed before it knew of them."""
        fleet = cls._shared
        if fleet is None:
            return
        known = {
            f"{spawner.namespace}/{spawner.pod_name}"
            for user in list(users.values())
            for spawner in list(user.spawners.values())
            if spawner.active
        }
        strangers = {pod["metadata"]["uid"]: pod for pod in fleet.strangers(known)}
        # Only those that were strange before, too: one that starts right now is in nobody's list for a moment.
        again = [pod for uid, pod in strangers.items() if uid in cls._strange]
        cls._strange = set(strangers)
        for pod in again:
            metadata = pod["metadata"]
            _log.warning("stray-pod-ended", namespace=metadata["namespace"], pod=metadata["name"])
            with suppress(HubError):
                await fleet.delete_pod(metadata["namespace"], metadata["name"], grace_s=8, uid=metadata["uid"])


class _Start:
    """One start, from the pod's creation until its server accepts connections."""

    def __init__(self, spawner: PodSpawner, fleet: Fleet, options: ServerOptions) -> None:
        self._spawner = spawner
        self._fleet = fleet
        self._options = options
        self._changed = asyncio.Event()
        self._events: list[Json] = []
        self._gone = False
        self._began = time.monotonic()
        self._since: dict[str, float] = {}

    async def until_ready(self) -> str:
        """Return the server's address. Raises `HubError`."""
        spawner = self._spawner
        self._fleet.watch.listen(spawner._key, self.pod_changed)
        spawner._last_seen = self._fleet.watch.pod(spawner.namespace, spawner.pod_name) or spawner._last_seen
        assert spawner._last_seen is not None
        follower = asyncio.get_running_loop().call_later(_EVENTS_AFTER_S, self._follow)
        self._task: asyncio.Task[None] | None = None
        try:
            return await self._loop()
        finally:
            follower.cancel()
            if self._task is not None:
                self._task.cancel()
                await asyncio.gather(self._task, return_exceptions=True)

    def pod_changed(self, pod: Json) -> None:
        """Look at the pod again."""
        if pod["metadata"]["uid"] == self._spawner._uid:
            self._spawner._last_seen = pod
            self._gone = "deletionTimestamp" in pod["metadata"]
            self._changed.set()

    def _follow(self) -> None:
        pod = self._spawner._last_seen
        assert pod is not None
        self._task = asyncio.create_task(self._fleet.follow_events(pod, self._events, self._changed))

    async def _loop(self) -> str:
        told = ("queue", "")
        while True:
            pod = self._spawner._last_seen
            assert pod is not None
            if self._gone and terminated(pod) is None:
                raise HubError("server-cluster", reason="its pod was deleted while it started")
            self._changed.clear()
            seen = starts.look(pod, starts.own_events(pod, self._events))
            if (seen.stage, str(seen.parameters)) != told:
                told = (seen.stage, str(seen.parameters))
                self._spawner._stages.tell(seen.stage, seen.percent, **seen.parameters)
            if seen.failure is not None:
                raise seen.failure
            self._spawner._parts.setdefault(_PART.get(seen.stage, "placed"), time.monotonic())
            if seen.address and await accepts(seen.address, SERVER_PORT):
                return seen.address
            await self._check_patience(seen, pod)
            pause_s = _ACCEPT_EVERY_S if seen.address else 0.5
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), pause_s)

    async def _check_patience(self, seen: starts.Look, pod: Json) -> None:
        """Raise `HubError` when something has kept the start from going on for too long."""
        kind = seen.stage if seen.trouble or seen.address else ""
        now = time.monotonic()
        self._since = {kind: self._since.get(kind, now)} if kind else {}
        waited_s = now - self._since.get(kind, now)
        if kind == "no-room" and waited_s >= self._fleet.queue_wait_s:
            raise await self._no_room(pod, seen.trouble)
        if kind == "pull-again" and waited_s >= _PULL_AGAIN_S:
            raise starts.image_failure(node_of(pod), seen.trouble)
        if kind in {"placed", "queue"} and waited_s >= _MOUNT_AGAIN_S:
            reason, node = seen.trouble.rstrip("."), node_of(pod)
            if not node:
                raise HubError("server-volume-unbound", reason=reason)
            raise HubError("server-volume", node=node, reason=reason)
        limit_s = self._spawner.ready_timeout_s
        if seen.address and waited_s >= limit_s:
            raise HubError("server-slow", seconds=limit_s, log="")

    async def _no_room(self, pod: Json, trouble: str) -> HubError:
        size = self._options.resources
        fits = await self._fleet.fitting(self._options.environment.resources, pod["spec"])
        return HubError(
            "server-no-room",
            resources=size.id,
            memory_gib=f"{int(size.memory) / 2**30:.3g}",
            cpus=f"{size.cpus:g}",
            fits=", ".join(fits) or "-",
            reason=trouble,
        )


def origin(pod: Json | None, address: str) -> str:
    """Return where the server in `pod` at `address` is called: by the name that its certificate is for, if it has one.

    It is the pod that says so: one that was started before TLS was switched on goes on as it was.
    """
    assert pod is not None
    # Whatever else a cluster puts into pods may come first.
    (server,) = (each for each in pod["spec"]["containers"] if each["name"] == CONTAINER)
    if any(port.get("name") == objects.SECURE for port in server.get("ports") or []):
        metadata = pod["metadata"]
        host = host_of(address, pod=metadata["name"], namespace=metadata["namespace"])
        return f"https://{host}:{SERVER_PORT}"
    host = f"[{address}]" if ":" in address else address
    return f"http://{host}:{SERVER_PORT}"


async def accepts(host: str, port: int) -> bool:
    """Tell whether something at `host` accepts connections at `port`."""
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(host, port), _TRY_S)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
