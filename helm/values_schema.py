"""Write the JSON Schema of the chart's values, from the same models that the platform reads its configuration by.

``python helm/values_schema.py`` rewrites ``helm/astrocloud/values.schema.json``; a test holds the two together.
"""

# ruff: noqa: N815, RUF012 - names are Kubernetes' own; pydantic copies defaults.

import json
import re
import sys
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field, create_model

from astrocloud.config import Block, Config, LocalizedText
from astrocloud.core.runtime import SERVICES
from astrocloud.environments import load_catalogue
from astrocloud.environments.models import IDENTIFIER, ImageMenu, ResourceChoice

FILE: Final = Path(__file__).parent / "astrocloud" / "values.schema.json"

Bytes = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$")]
"""A Kubernetes quantity of bytes; ``500m`` would be half a byte."""

Labels = dict[str, str]
_KEY = r"^([a-z0-9]([a-z0-9.-]*[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?$"
_SELECTED = [f"app.kubernetes.io/{each}" for each in ("name", "instance", "component")]
# What a cluster takes: those of people's servers go through the hub, and nobody else would say so before none starts.
PodLabels = Annotated[
    dict[str, Annotated[str, Field(pattern=r"^([A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?)?$", max_length=63)]],
    Field(json_schema_extra={"propertyNames": {"pattern": _KEY, "not": {"enum": _SELECTED}}}),
]
PodAnnotations = Annotated[Labels, Field(json_schema_extra={"propertyNames": {"pattern": _KEY}})]
Raw = dict[str, Any]
"""An object that is given to Kubernetes as it is, which then checks it."""


class Image(Block):
    """An image, best named by its digest."""

    repository: str = Field(min_length=1, pattern=r"^[^@]+$")
    """The registry and path, without tag or digest."""
    tag: str = ""
    """The tag; empty: the chart's version. Not looked at where there is a digest."""
    digest: str = Field(default="", pattern=r"^(sha256:[0-9a-f]{64})?$")
    """The digest, which names these bytes and no others."""
    pullPolicy: Literal["IfNotPresent", "Always", "Never"] = "IfNotPresent"
    """When a node asks the registry."""


class ImagePullSecret(Block):
    """A Secret with the sign-in to a registry."""

    name: str
    """Its name, in the chart's namespace."""


class ServiceAccount(Block):
    """The account a workload has at the cluster's API."""

    create: bool = True
    """Whether the chart makes it."""
    name: str = ""
    """Its name; empty: made from the release's."""
    annotations: Labels = {}
    """Annotations of the account."""


class PlainAccount(ServiceAccount):
    """The account of a workload that has no rights at the cluster's API, and no token for it."""

    create: bool = False
    """Whether the chart makes it; where there is none it is the namespace's `default`."""


class Pods(Block):
    """What all pods take."""

    nodeSelector: Labels = {}
    """Labels that their nodes have."""
    tolerations: list[Raw] = []
    """Taints that they bear."""
    podAnnotations: PodAnnotations = {}
    """Annotations of the pods, besides the platform's own."""
    podLabels: PodLabels = {}
    """Labels of the pods, besides the platform's own."""
    priorityClassName: str = ""
    """Their priority class; empty: the chart's own for such a workload, if it makes them."""


class Placed(Pods):
    """What every workload takes."""

    resources: Raw = {}
    """Requests and limits of the container."""
    affinity: Raw = {}
    """Where it would rather run."""
    extraEnv: list[Raw] = []
    """More environment variables, as Kubernetes writes them."""


class Workload(Placed):
    """What every workload but the hub takes."""

    serviceAccount: PlainAccount = PlainAccount()
    """Its account: for what a cloud gives to accounts, such as a role at its storage."""


class Hook(Placed):
    """A pod that runs once, for an installation, an upgrade or a test."""

    nodeSelector: Labels = {}
    """Labels that its node has; empty: those of `services.passport`."""
    tolerations: list[Raw] = []
    """Taints that it bears; empty: those of `services.passport`."""


class Job(Hook):
    """A hook that runs before what a release makes is there."""

    priorityClassName: str = ""
    """Its priority class, which is there before the release is."""


class Hub(Placed):
    """JupyterHub."""

    image: Image
    """Its image."""
    serviceAccount: ServiceAccount = ServiceAccount()
    """Its account: the only one here that may make pods."""


class ProxyService(Block):
    """The Service that people's requests come in by."""

    type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = "ClusterIP"
    """How it is reached."""
    port: int = Field(default=80, ge=1, le=65535)
    """Its port."""
    nodePort: int | None = Field(default=None, ge=1, le=65535)
    """Its port on every node, where its type has one."""
    annotations: Labels = {}
    """Annotations, e.g. for a load balancer."""


class Proxy(Workload):
    """The proxy in front of everything."""

    image: Image
    """Its image."""
    service: ProxyService = ProxyService()
    """How people reach it."""


class ServiceWorkload(Workload):
    """One of the platform's services."""

    replicas: int = Field(default=1, ge=1, le=20)
    """How many of it run."""


class BytesService(ProxyService):
    """The Service by which clients reach VOSpace around the proxy; there is one where `config.vospace.bytes_url` is."""


class VospaceWorkload(ServiceWorkload):
    """The service that people's files are reached by."""

    drainSeconds: int = Field(default=600, ge=1, le=86400)
    """How long a pod that is to end goes on with transfers and jobs that are under way."""
    bytesService: BytesService = BytesService()
    """The way of bytes around the proxy."""


class BundledDatabase(Workload):
    """A PostgreSQL of the chart's own: one replica on one volume."""

    image: Image
    """Its image: Debian's PostgreSQL 15 with the platform's two databases."""
    size: Bytes = "10Gi"
    """The size of its volume."""
    storageClassName: str | None = None
    """The class of its volume; empty: the cluster's default."""
    tls: bool = True
    """Whether it takes encrypted connections alone, by a certificate that the chart's job makes and the parts check."""
    uid: int = Field(default=999, ge=1)
    """The user id it runs as, the image's own."""


class ExternalDatabase(Block):
    """A PostgreSQL that the operator runs."""

    host: str = ""
    """Its name or address."""
    port: int = Field(default=5432, ge=1, le=65535)
    """Its port."""
    user: str = "astrocloud"
    """The account there; it owns the two databases."""
    passwordSecret: str = ""
    """A Secret with the key ``database-password`` and, where its certificate is from nobody whom everybody knows, the
    authority's as ``database-ca``."""
    sslmode: Literal["require", "verify-ca", "verify-full", "disable"] = "verify-full"
    """How its certificate is checked."""


class Database(Block):
    """Where the platform's records are."""

    kind: Literal["bundled", "external"] = "bundled"
    """Whose PostgreSQL it is."""
    bundled: BundledDatabase
    """The chart's own."""
    external: ExternalDatabase = ExternalDatabase()
    """The operator's."""


class ClaimTree(Block):
    """The tree on a volume that many nodes can mount."""

    existingClaim: str = ""
    """A claim that is there; empty: the chart makes one, and leaves it when it is uninstalled."""
    size: Bytes = "100Gi"
    """The size of the volume."""
    storageClassName: str | None = None
    """A class whose volumes are ReadWriteMany; empty: the cluster's default."""


class NfsTree(Block):
    """The tree on an NFS server."""

    server: str = ""
    """Its name or address."""
    path: str = "/"
    """The exported folder."""
    mountOptions: list[str] = ["nfsvers=4.2", "hard", "noatime"]
    """How nodes mount it."""


class GlusterfsTree(Pods):
    """The tree on a GlusterFS volume, which a DaemonSet mounts on the nodes."""

    image: Image
    """The image of what mounts it."""
    servers: list[Annotated[str, Field(pattern=r"^(\[[0-9A-Fa-f:.]+\]|[^\[\]]+)$")]] = []
    """Names or addresses of servers that know the volume, without a port; the next is asked if one is away."""
    volume: str = Field(default="", pattern=r"^[A-Za-z0-9_-]*$")
    """The volume's name."""
    folder: str = Field(default="astrocloud", pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")
    """The folder at the top of the volume that is the tree; made where it is missing."""
    ipv6: bool = False
    """Whether the servers are reached by IPv6."""
    options: list[str] = []
    """More arguments of the client, e.g. `--lru-limit=131072`."""
    hostPath: str = Field(default="/var/lib/astrocloud", pattern=r"^/[^:]+$")
    """The folder on the nodes below which the volume is mounted."""
    port: int = Field(default=9127, ge=1024, le=65535)
    """Where it tells its health and its metrics, on the nodes' own addresses."""
    resources: Raw = {}
    """Requests and limits of what mounts the volume."""
    nodeSelector: Labels = {}
    """The nodes that mount it; VOSpace and people's servers go to no others."""
    tolerations: list[Raw] = [{"operator": "Exists"}]
    """Taints that it bears."""
    extraEnv: list[Raw] = []
    """More environment variables, as Kubernetes writes them."""
    priorityClassName: str = "system-node-critical"
    """Its priority class: whoever uses files on a node depends on it."""


class Tree(Block):
    """The one file tree."""

    kind: Literal["claim", "nfs", "glusterfs"] = "claim"
    """What it lies on."""
    claim: ClaimTree = ClaimTree()
    """Settings for ``claim``."""
    nfs: NfsTree = NfsTree()
    """Settings for ``nfs``."""
    glusterfs: GlusterfsTree
    """Settings for ``glusterfs``."""


class ArchiveVolume(Block):
    """The archive on a volume of its own."""

    existingClaim: str = ""
    """A claim in the release's namespace; many nodes can mount its volume."""


class ArchiveBucket(Block):
    """An archive in an S3 bucket, which servers read by fsspec."""

    endpoint: str = ""
    """The address of the S3 server, with `https://`; empty: Amazon's."""
    bucket: str = ""
    """The bucket, with a prefix if need be."""
    region: str = ""
    """Its region, where the server has regions."""
    secret: str = ""
    """A Secret with the keys `key` and `secret`, which may only read the bucket, because people can see them;
    empty: anybody may read the bucket."""
    networks: list[str] = []
    """Where the server is, such as `10.1.2.0/24`, if that is a private network: people's servers may connect there."""


class ArchiveStorage(Block):
    """What everybody may read and nobody may write."""

    kind: Literal["tree", "claim", "s3"] = "tree"
    """Where it is: the folder `archive` of the tree, a volume of its own, or a bucket besides that folder."""
    claim: ArchiveVolume = ArchiveVolume()
    """Settings for ``claim``."""
    s3: ArchiveBucket = ArchiveBucket()
    """Settings for ``s3``."""


class Storage(Block):
    """People's files."""

    tree: Tree
    """The tree that servers and VOSpace share."""
    archive: ArchiveStorage = ArchiveStorage()
    """Data that everybody reads."""


class EnvironmentImage(ImageMenu):
    """What a server of one environment runs, and what the menu says of it in place of the environment's own words."""

    image: Image
    """Its image."""
    command: list[str] = []
    """What starts a server in it, such as `[jupyterhub-singleuser]` for an image that knows nothing of the platform;
    empty: the platform's own start."""


class OwnEnvironment(EnvironmentImage):
    """An environment that the platform does not bring along."""

    name: LocalizedText
    """What the menu calls it."""
    description: LocalizedText
    """What it is good for, in one or two sentences."""
    resources: tuple[ResourceChoice, ...] = Field(min_length=1)
    """The sizes that can be picked; the first is the default."""


class _Offered(Block):
    model_config = ConfigDict(extra="allow", json_schema_extra={"propertyNames": {"pattern": IDENTIFIER}})
    __pydantic_extra__: dict[str, OwnEnvironment]


_BROUGHT: Final[dict[str, Any]] = {
    environment.id: (EnvironmentImage | None, Field(default=None, description=f"{environment.name.en}."))
    for environment in load_catalogue()
}
OfferedEnvironments = create_model("OfferedEnvironments", __base__=_Offered, **_BROUGHT)
"""The environments on the menu: those that the platform describes, and the operator's own."""


class Reserve(Block):
    """How much of its limits a server is sure of, and a node must have free for it: the rest is shared."""

    memory: float = Field(default=0.5, gt=0, le=1)
    """The part of its memory."""
    cpus: float = Field(default=0.1, gt=0, le=1)
    """The part of its processors."""


class ServerPods(Pods):
    """People's own servers on the cluster."""

    namespacePrefix: str = Field(default="astro-", pattern=r"^[a-z][a-z0-9-]{0,29}-$")
    """What the names of people's namespaces begin with; 31 characters at most, as a username has up to 32."""
    reserve: Reserve = Reserve()
    """How much of its limits a server is sure of."""
    queueWaitSeconds: int = Field(default=6, ge=0, le=3600)
    """How long a server waits for room, in seconds; more where the cluster grows when it is full."""
    tmpSize: Bytes = "10Gi"
    """How much a server may hold in ``/tmp``, on its node's disk."""
    dns: list[Raw] | None = None
    """Where names are looked up, as peers of a network policy; by default the namespace kube-system."""
    egress: list[Raw] | None = None
    """Where servers may connect to besides the platform, as egress rules of a network policy; by default the internet
    without private networks."""


class BeforeUpgrade(Job):
    """The images of the menu to come, fetched before an upgrade changes anything.

    What is said of pods is for the job that waits; what fetches is as the prepuller is.
    """

    enabled: bool = True
    """Whether an upgrade waits for them."""
    timeoutSeconds: int = Field(default=240, ge=1, le=86400)
    """How long it waits at most, in seconds; then it goes on without the nodes that have not got them. Less than the
    ``--timeout`` of Helm, after which the upgrade fails."""


class Prepuller(Pods):
    """Fetches the environments' images to every node before somebody waits for them."""

    enabled: bool = True
    """Whether it runs."""
    resources: Raw = {}
    """Requests and limits of each of its containers, which do nothing."""
    affinity: Raw = {}
    """On which of these nodes."""
    nodeSelector: Labels = {}
    """The nodes it looks after; empty: those of people's servers."""
    tolerations: list[Raw] = []
    """Taints that it bears, besides those of people's servers."""
    beforeUpgrade: BeforeUpgrade = BeforeUpgrade()
    """Before an upgrade."""


class Secrets(Block):
    """The platform's own keys and tokens."""

    existingSecret: str = ""
    """A Secret that holds all of them, certificates too: the operator guide lists its keys. Empty: a job makes them
    once, inside the cluster, and keeps them for ever."""
    job: Job = Job()
    """That job."""


class Ingress(Block):
    """People's requests by an Ingress."""

    enabled: bool = False
    """Whether there is one."""
    className: str = ""
    """The class of its controller."""
    annotations: Labels = {}
    """Settings for the controller."""
    hosts: list[str] = []
    """The names it answers to."""
    bytesHosts: list[str] = []
    """The names at which bytes of VOSpace go around the proxy: the host of `config.vospace.bytes_url`."""
    tls: list[Raw] = []
    """Its certificates, as Kubernetes writes them."""


class Gateway(Block):
    """People's requests by the Gateway API."""

    enabled: bool = False
    """Whether there is a route."""
    parentRefs: list[Raw] = []
    """The gateways that it hangs on."""
    hostnames: list[str] = []
    """The names it answers to."""
    bytesHostnames: list[str] = []
    """The names at which bytes of VOSpace go around the proxy: the host of `config.vospace.bytes_url`."""


class NetworkPolicies(Block):
    """Who may connect to what."""

    enabled: bool = True
    """Whether the chart writes policies. They hold only where the cluster's network enforces them."""
    from_: list[Raw] = Field(default=[], alias="from")
    """Who reaches the proxy, as a policy's ``from``; empty: everybody."""
    except_: list[Annotated[str, Field(pattern=r"^[0-9a-fA-F:.]+/[0-9]{1,3}$")]] = Field(default=[], alias="except")
    """Networks at public addresses that are none of people's business, such as that of the nodes and of the cluster's
    API: neither servers nor transfers reach them. Private networks are never reached."""
    dns: list[Raw] = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}]
    """Where names are looked up, as a policy's ``to``; add the address of a cache that runs on the nodes."""


class AdmissionPolicy(Block):
    """What the cluster itself refuses the hub, whatever its rights say."""

    enabled: bool = True
    """Whether the chart writes the policy; it is the whole cluster's, and concerns nobody but the hub's account."""
    hostPaths: list[Annotated[str, Field(pattern=r"^/[^.]+[^/]$")]] = []
    """Folders of the nodes below which the file tree may be, where its volume is of the kind ``hostPath``."""


class PriorityClasses(Block):
    """Who is kept when a node runs out."""

    create: bool = True
    """Whether the chart makes them; they are the whole cluster's."""


class Monitoring(Block):
    """Prometheus."""

    from_: list[Raw] = Field(default=[], alias="from")
    """Where Prometheus runs, as a policy's ``from``: it reaches the hub and the services then."""
    labels: Labels = {}
    """Labels of ServiceMonitors and of the PrometheusRule, by which a Prometheus chooses them: kube-prometheus-stack
    takes those with `release` and its own release's name."""
    runbooks: str = Field(default="", pattern=r"^(https?://[^#]+)?$")
    """The page of the runbooks as you publish it: alerts link to it as ``runbook_url``."""
    serviceMonitor: bool = False
    """Whether the chart writes ServiceMonitors, whose kind has to be known to the cluster."""
    alerts: bool = False
    """Whether the chart writes a PrometheusRule with the platform's alerts; its kind has to be known, too."""
    dashboards: bool = False
    """Whether the chart writes dashboards as ConfigMaps with the label ``grafana_dashboard``, which Grafana's sidecar
    reads."""


class Tls(Block):
    """Where the platform's own parts speak TLS; what people reach it by is in front of it."""

    internal: bool = True
    """Whether the parts speak it with each other and with people's servers, by certificates that are made here."""
    alsoPlain: bool = False
    """Whether the hub and VOSpace answer servers without it, too. For the upgrade that switches `internal` on: servers
    that were started before go on by it, and it is taken away when they have ended."""
    front: bool = False
    """Whether the proxy, and VOSpace where bytes go around it, answer by TLS as well. What is in front of them has to
    be told; it takes `internal`."""


_KINDS: Final[dict[str, type[ServiceWorkload]]] = {"vospace": VospaceWorkload}
_EACH_SERVICE: Final[dict[str, Any]] = {
    name: (kind, Field(default=kind(), description=f"The service {name}."))
    for name, kind in ((name, _KINDS.get(name, ServiceWorkload)) for name in SERVICES)
}
Services = create_model(
    "Services",
    __base__=Block,
    image=(Image, Field(description="The one image of all services.")),
    **_EACH_SERVICE,
)
"""One block a service, for the services that there are."""


class Values(Block):
    """The values of the chart ``astrocloud``."""

    config: Config = Config()
    """The platform's configuration: the same block as in astrocloud.yaml."""
    nameOverride: str = ""
    """What the chart is called in names."""
    fullnameOverride: str = ""
    """What all names begin with."""
    imagePullSecrets: list[ImagePullSecret] = []
    """Sign-ins to registries."""
    hub: Hub
    """JupyterHub."""
    proxy: Proxy
    """The proxy."""
    services: Services
    """The platform's services."""
    environments: OfferedEnvironments
    """The environments on the menu, by their ids."""
    servers: ServerPods = ServerPods()
    """People's own servers."""
    database: Database
    """The database."""
    storage: Storage
    """People's files."""
    prepuller: Prepuller = Prepuller()
    """Fetching images ahead."""
    secrets: Secrets = Secrets()
    """Keys and tokens."""
    tests: Hook = Hook()
    """The pods of `helm test`."""
    tls: Tls = Tls()
    """Where the platform's own parts speak TLS."""
    ingress: Ingress = Ingress()
    """An Ingress."""
    gateway: Gateway = Gateway()
    """A route of the Gateway API."""
    networkPolicies: NetworkPolicies = NetworkPolicies()
    """Network policies."""
    admissionPolicy: AdmissionPolicy = AdmissionPolicy()
    """What the hub may make."""
    priorityClasses: PriorityClasses = PriorityClasses()
    """Priority classes."""
    monitoring: Monitoring = Monitoring()
    """Prometheus."""
    global_: Raw = Field(default={}, alias="global")
    """What Helm gives to all charts of a release."""


def schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of the chart's values."""
    made: dict[str, Any] = Values.model_json_schema()
    # Helm fills in values.yaml before it checks, and an operator's file may leave out any of it.
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_plain(made)}


def _plain(node: Any, *, names: bool = False) -> Any:
    """Return `node` without titles and defaults, which are in values.yaml, and without Markdown's double ticks.

    `names` tells that the keys of `node` are those of fields, of which one may be called ``default``, too.
    """
    if isinstance(node, list):
        return [_plain(item) for item in node]
    if not isinstance(node, dict):
        return node
    kept = {}
    for key, value in node.items():
        if names:
            kept[key] = _plain(value)
        elif key == "description":
            kept[key] = re.sub(r"\s+", " ", value.replace("``", "`"))
        elif key not in {"default", "title"}:
            kept[key] = _plain(value, names=key in {"properties", "$defs"})
    return kept


def text() -> str:
    """Return the file's text."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
    sys.stdout.write(f"{FILE}\n")
