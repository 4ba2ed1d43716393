"""All of people's pods on one cluster: what sends them there, and knows them."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import structlog

from astrocloud.core.cluster import Cluster, ClusterEnvironment
from astrocloud.core.layout import DataFolder
from astrocloud.environments.models import ResourceChoice
from astrocloud_hub.errors import HubError
from astrocloud_hub.spawners.environments import CatalogueSource
from astrocloud_hub.spawners.kube import objects
from astrocloud_hub.spawners.kube.api import ClusterApi, ClusterError
from astrocloud_hub.spawners.kube.certificates import ServerAuthority
from astrocloud_hub.spawners.kube.models import LABEL, Ground, Json, PullSecret, Quota, ServerPlan
from astrocloud_hub.spawners.kube.nodes import NodeWatch
from astrocloud_hub.spawners.kube.refusals import refusal
from astrocloud_hub.spawners.kube.room import Room, free_room
from astrocloud_hub.spawners.kube.storage import StorageWatch
from astrocloud_hub.spawners.kube.watching import PodWatch
from astrocloud_hub.spawners.models import Person

_NOT_THE_SOURCE: Final = frozenset(
    {
        "accessModes",
        "capacity",
        "claimRef",
        "persistentVolumeReclaimPolicy",
        "storageClassName",
        "volumeAttributesClassName",
        "volumeMode",
    }
)
"""What of a volume's spec does not say where its bytes are."""

_CREATED_ONCE: Final = frozenset({"PersistentVolume", "PersistentVolumeClaim", "Secret"})
"""What cannot be changed once it is there."""

_TREE_KEPT_S: Final = 30
"""How long the tree is taken to be where it was: the claim may have been made anew on other bytes."""
_EVENTS_S: Final = 3.0
"""How long the events of a pod that has ended are waited for."""
_QUOTA_SETTLES_S: Final = 5
"""How long after it was changed the cluster may still count with a quota as it was before, in seconds."""

_log = structlog.get_logger()


class Fleet:
    """People's pods, and what they need around them.

    Parameters
    ----------
    api
        The cluster.
    cluster
        What the chart says of it.
    quota
        What one person may use at once.
    pull
        The folder with the sign-ins to registries, a folder each.
    authority
        What makes the certificates of servers, where they are called by TLS.
    """

    def __init__(
        self,
        *,
        api: ClusterApi,
        cluster: Cluster,
        quota: Quota,
        pull: Path | None = None,
        authority: ServerAuthority | None = None,
    ) -> None:
        self.authority = authority
        self._api = api
        self._cluster = cluster
        self._quota = quota
        self._pull = pull
        self._ground: Ground | None = None
        self._ground_until = 0.0
        self._made: dict[str, str] = {}
        self._quota_set: dict[str, float] = {}
        self._starting = asyncio.Lock()
        labels = Ground(cluster=cluster, tree={}, quota=quota).pod_labels
        self.watch = PodWatch(api=api, labels=labels)
        self.nodes = NodeWatch(api=api, tell=self.watch.look_again)
        self.storage = StorageWatch(api=api, cluster=cluster)

    async def start(self) -> None:
        """Return when all pods are known. Raises `HubError` ``server-cluster`` when the cluster does not answer."""
        try:
            await self.watch.start()
        except ClusterError as err:
            raise HubError("server-cluster", reason=str(err)[:300]) from err
        self.nodes.start()
        self.storage.start()

    async def stop(self) -> None:
        """Watch no more; pods stay."""
        await self.watch.stop()
        await self.nodes.stop()
        await self.storage.stop()

    def troubles(self) -> Json:
        """Return what is the matter with the cluster's nodes, as the portal's page of events takes it.

        ``known`` is false while nobody can tell: what was the matter before may still be. What is over has ``until``.
        """
        now = datetime.now(UTC)
        silent = [
            {"node": node, "state": "silent", "since": (now - timedelta(seconds=seconds)).isoformat(timespec="seconds")}
            for node, seconds in sorted(self.nodes.silences().items())
        ]
        mounts = [{"node": node, "state": "mount", "since": since} for node, since in self.storage.since.items()]
        over = [{**each, "state": "mount"} for each in self.storage.remounts]
        return {"known": self.nodes.sure and self.storage.sure, "nodes": silent + mounts + over}

    def namespace(self, username: str) -> str:
        """Return the name of a person's namespace."""
        return f"{self._cluster.servers.namespace_prefix}{username}"

    def environment(self, environment: str) -> ClusterEnvironment:
        """Return what servers of an environment are started from. Raises `HubError` ``server-environment-image``."""
        images = self._cluster.servers.environments
        if environment not in images:
            raise HubError(
                "server-environment-image", environment=environment, allowed=", ".join(sorted(images)) or "-"
            )
        return images[environment]

    @property
    def queue_wait_s(self) -> int:
        """How long a server waits for room, in seconds."""
        return self._cluster.servers.queue_wait_s

    async def ground(self) -> Ground:
        """Return the cluster as people's servers need to know it, as it was lately.

        Raises
        ------
        HubError
            ``server-cluster`` when that cannot be found out.
        """
        async with self._starting:
            if self._ground is None or time.monotonic() >= self._ground_until:
                self._ground = Ground(
                    cluster=self._cluster,
                    tree=await self._source(self._cluster.servers.tree_claim),
                    archive=await self._source(self._cluster.servers.archive_claim),
                    quota=self._quota,
                    pull_secrets=await asyncio.to_thread(pull_secrets, self._pull, self._cluster),
                )
                self._ground_until = time.monotonic() + _TREE_KEPT_S
        return self._ground

    async def _source(self, named: str) -> Json:
        """Return where the bytes are of one of the release's claims; nothing for none."""
        if not named:
            return {}
        claims = f"/api/v1/namespaces/{self._cluster.namespace}/persistentvolumeclaims"
        try:
            claim = await self._api.get(f"{claims}/{named}")
            name = claim["spec"].get("volumeName")
            if not name:
                raise HubError("server-cluster", reason=f"the claim {named} has no volume yet")
            volume = await self._api.get(f"/api/v1/persistentvolumes/{name}")
        except ClusterError as err:
            raise HubError("server-cluster", reason=str(err)[:300]) from err
        return {key: value for key, value in volume["spec"].items() if key not in _NOT_THE_SOURCE}

    # Sending

    async def ensure_namespace(self, person: Person) -> None:
        """Make a person's namespace and what is in it, where it is not as it should be.

        Raises
        ------
        HubError
            ``server-namespace`` when it is somebody else's, or what `refusal` says.
        """
        made = objects.namespace_objects(await self.ground(), person)
        name = made[0]["metadata"]["name"]
        wanted = made[0]["metadata"]["annotations"][f"{LABEL}/made-from"]
        if self._made.get(name) == wanted:
            return
        try:
            found = await self._api.get(f"/api/v1/namespaces/{name}")
        except ClusterError as err:
            if err.status != 404:
                raise refusal(err.status, err.message, namespace=name) from err
            found = None
        if found is not None:
            self._check_ours(found, person)
            if (found["metadata"].get("annotations") or {}).get(f"{LABEL}/made-from") == wanted:
                self._made[name] = wanted
                return
        try:
            await self._make_all(made)
        except ClusterError as err:
            raise refusal(err.status, err.message, namespace=name) from err
        self._made[name] = wanted
        _log.info("namespace-made", user=person.username, namespace=name)

    def _check_ours(self, found: Json, person: Person) -> None:
        labels = found["metadata"].get("labels") or {}
        told = {
            f"{LABEL}/release": self._cluster.release,
            f"{LABEL}/release-namespace": self._cluster.namespace,
            f"{LABEL}/user": person.username,
        }
        if any(labels.get(key) != value for key, value in told.items()):
            raise HubError("server-namespace", namespace=found["metadata"]["name"])
        if found["metadata"].get("deletionTimestamp"):
            raise HubError("server-namespace-ending", namespace=found["metadata"]["name"])

    async def _make_all(self, made: Sequence[Json]) -> None:
        namespace, *rest = made
        self._quota_set[namespace["metadata"]["name"]] = time.monotonic()
        digest = namespace["metadata"]["annotations"]
        # It says what is in it when all of that is there.
        await self._api.apply({**namespace, "metadata": {**namespace["metadata"], "annotations": {}}})
        new = await asyncio.gather(*map(self._make, rest))
        claimed = {
            each["spec"]["volumeName"] for each, is_new in zip(rest, new, strict=True) if is_new and _claims(each)
        }
        for each, is_new in zip(rest, new, strict=True):
            if each["kind"] == "PersistentVolume" and not is_new and each["metadata"]["name"] in claimed:
                await self._free(each)
        await self._api.apply({**namespace, "metadata": {**namespace["metadata"], "annotations": digest}})

    async def _make(self, made: Json) -> bool:
        """Make an object as it should be; tell whether it is known to be new."""
        if made["kind"] not in _CREATED_ONCE:
            await self._api.apply(made)
            return False
        try:
            await self._create(made)
        except ClusterError as err:
            if err.status != 409:
                raise
            return False
        return True

    async def _create(self, made: Json) -> Json:
        """Create an object; once more if it is too much for a quota that has just been changed."""
        changed_s = self._quota_set.get(made["metadata"].get("namespace", ""), -_QUOTA_SETTLES_S)
        while True:
            try:
                return await self._api.create(made)
            except ClusterError as err:
                settled = time.monotonic() - changed_s >= _QUOTA_SETTLES_S
                if settled or err.status != 403 or "exceeded quota" not in err.message:
                    raise
            await asyncio.sleep(0.2)

    async def _free(self, made: Json) -> None:
        """Let a volume be claimed again whose claim went with a namespace that somebody deleted."""
        path = f"/api/v1/persistentvolumes/{made['metadata']['name']}"
        found = await self._api.get(path)
        if made["metadata"]["labels"].items() <= (found["metadata"].get("labels") or {}).items():
            await self._api.change(path, {"spec": {"claimRef": {"uid": None, "resourceVersion": None}}})

    async def create_pod(self, plan: ServerPlan) -> Json:
        """Create the pod of a server and return it. Raises what `refusal` says."""
        namespace = self.namespace(plan.person.username)
        # What its namespace was made for, a moment ago.
        made = objects.pod(self._ground or await self.ground(), plan)
        try:
            try:
                return await self._create(made)
            except ClusterError as err:
                # Somebody deleted the namespace since it was made.
                if err.status != 404 or self._made.pop(namespace, None) is None:
                    raise
            await self.ensure_namespace(plan.person)
            return await self._create(made)
        except ClusterError as err:
            raise refusal(err.status, err.message, namespace=namespace) from err

    async def delete_pod(self, namespace: str, name: str, *, grace_s: int, uid: str = "") -> None:
        """Ask for the end of a pod. Raises `HubError` ``server-cluster``."""
        try:
            await self._api.delete_pod(namespace, name, grace_s=grace_s, uid=uid)
        except ClusterError as err:
            raise HubError("server-cluster", reason=str(err)[:300]) from err

    async def settle(self, namespace: str, name: str, *, cpus: float) -> None:
        """Hold a server that has started to the processors that were chosen."""
        try:
            await self._api.change(f"/api/v1/namespaces/{namespace}/pods/{name}/resize", objects.resized(cpus))
        except ClusterError as err:
            # It has more than it should, and goes on.
            _log.warning("server-not-settled", namespace=namespace, pod=name, reason=str(err)[:300])

    # Looking

    async def follow_events(self, pod: Json, seen: list[Json], changed: asyncio.Event) -> None:
        """Add the events about `pod` to `seen` as they come, and set `changed`, until cancelled."""
        path = f"/api/v1/namespaces/{pod['metadata']['namespace']}/events"
        selector = f"involvedObject.uid={pod['metadata']['uid']}"
        while True:
            try:
                found = await self._api.get(path, fieldSelector=selector)
                seen[:] = found["items"]
                changed.set()
                version = str(found["metadata"]["resourceVersion"])
                async for event in self._api.watch(path, version=version, seconds=60, fieldSelector=selector):
                    if event["type"] in {"ADDED", "MODIFIED"}:
                        seen.append(event["object"])
                        changed.set()
            except ClusterError as err:
                # They only say more than the pod does.
                _log.debug("events-not-read", reason=str(err)[:300])
                await asyncio.sleep(1)

    async def eviction(self, pod: Json) -> str:
        """Return how a node said that it evicted `pod`; empty when it did not, or that cannot be found out.

        Of a server that ends well when it is told to end, the pod itself does not say so.
        """
        metadata = pod["metadata"]
        selector = f"involvedObject.uid={metadata['uid']},reason=Evicted"
        with suppress(ClusterError, TimeoutError):
            found = await asyncio.wait_for(
                self._api.get(f"/api/v1/namespaces/{metadata['namespace']}/events", fieldSelector=selector), _EVENTS_S
            )
            return next((str(event.get("message", "")) for event in found["items"]), "")
        return ""

    async def fitting(self, choices: Sequence[ResourceChoice], spec: Json) -> list[str]:
        """Return the ids of the sizes for which there is room now; none when that cannot be found out.

        Parameters
        ----------
        choices
            The sizes there are.
        spec
            The spec of the pod for which there was no room.
        """
        try:
            nodes, pods = await asyncio.gather(
                self._api.get("/api/v1/nodes", resourceVersion="0"), self._api.get("/api/v1/pods", resourceVersion="0")
            )
        except ClusterError as err:
            _log.warning("room-not-known", reason=str(err)[:300])
            return []
        free = free_room(nodes["items"], pods["items"], spec)
        reserve = self._cluster.servers.reserve
        return [
            choice.id
            for choice in choices
            if any(
                room.holds(
                    Room(memory_bytes=int(choice.memory) * reserve.memory, cpus=choice.cpus * reserve.cpus),
                )
                for room in free
            )
        ]

    def strangers(self, known: set[str]) -> list[Json]:
        """Return running pods that are not among `known` (``NAMESPACE/NAME``): nobody will ever stop them."""
        found: list[Any] = []
        for pod in self.watch.pods():
            metadata = pod["metadata"]
            if "deletionTimestamp" not in metadata and f"{metadata['namespace']}/{metadata['name']}" not in known:
                found.append(pod)
        return found


def _claims(made: Json) -> bool:
    return bool(made["kind"] == "PersistentVolumeClaim")


def fleet_of(
    api: ClusterApi,
    *,
    cluster: Cluster,
    catalogue: CatalogueSource,
    servers: int,
    authority: ServerAuthority | None = None,
) -> Fleet:
    """Return the fleet of a hub.

    Parameters
    ----------
    api
        The cluster.
    cluster
        What the chart says of it.
    catalogue
        The environments and their sizes: a person may run `servers` of the largest at once.
    servers
        How many servers one person may run.
    authority
        What makes the certificates of servers, where they are called by TLS.
    """
    sizes = [size for environment in catalogue.catalogue for size in environment.resources]
    memory, cpus = max(int(size.memory) for size in sizes), max(size.cpus for size in sizes)
    pods = servers + objects.ENDING
    quota = Quota(
        pods=pods,
        memory_bytes=pods * memory,
        # Whatever was chosen, a start may use more.
        cpus=pods * max(cpus, objects.START_CPUS),
        largest_memory_bytes=memory,
    )
    pull = DataFolder.from_environment().pull_secrets
    return Fleet(api=api, cluster=cluster, quota=quota, pull=pull, authority=authority)


def pull_secrets(folder: Path | None, cluster: Cluster) -> tuple[PullSecret, ...]:
    """Return the sign-ins to registries that the chart names, as they are now.

    Raises
    ------
    HubError
        ``server-pull-secret`` when there is no such Secret, or not of that kind.
    """
    found = []
    if folder is None:
        return ()
    for named in cluster.servers.image_pull_secrets:
        try:
            config = (folder / named["name"] / ".dockerconfigjson").read_bytes()
        except OSError as err:
            raise HubError("server-pull-secret", name=named["name"], namespace=cluster.namespace) from err
        found.append(PullSecret(name=named["name"], config=config))
    return tuple(found)
