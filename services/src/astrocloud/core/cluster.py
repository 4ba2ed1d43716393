"""What is so only on a cluster: where the parts are, and what people's servers are made of.

The Helm chart writes it to ``cluster.yaml`` beside ``astrocloud.yaml``; where there is no such file the platform runs
on one machine.
"""

from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import quote, urlencode

import yaml
from pydantic import BaseModel, ByteSize, ConfigDict, Field, ValidationError

from astrocloud.core.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from astrocloud.core.layout import DataFolder

SERVICE_PORT: Final = 8080
"""Where every service listens in its own pod."""
HUB_PORT: Final = 8081
"""Where the hub listens in its pod."""
BYTES_PORT: Final = 8082
"""Where VOSpace listens in its pod for bytes that go around the proxy."""
TLS_PORT: Final = 8443
"""Where the hub and every service listen in their pods instead, where the parts speak TLS with each other.

Another port than without: after the upgrade that switches it on, both may be open for servers that were started before.
"""

_NOT_THE_INTERNET: Final = ("10.0.0.0/8", "100.64.0.0/10", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16")
"""Private networks, the cluster's own among them, and where a cloud tells a machine its secrets."""

_KEEPALIVE: Final = {"keepalives_idle": "5", "keepalives_interval": "2", "keepalives_count": "3"}
"""A connection whose other end is gone without a word, with its node, is given up after seconds, not after hours."""
_SILENT_MS: Final = 11_000
"""The same for one on which something was sent."""

_THE_HUBS: Final = "jupyterhub"
"""The hub's own database. It alone uses it, and rests inside transactions by design: whoever came first after a minute
of rest would be refused, were they ended. Services that hang in one keep the others from theirs."""

_AUTHORITIES: Final = "/etc/ssl/certs/ca-certificates.crt"


class ClusterBlock(BaseModel):
    """One block of ``cluster.yaml``: frozen, and no key that is not in it."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class ClusterDatabase(ClusterBlock):
    """The PostgreSQL that holds the platform's two databases, ``astrocloud`` and ``jupyterhub``."""

    host: str
    """Its name or address."""
    port: int = 5432
    """Its port."""
    user: str = "astrocloud"
    """The account there."""
    sslmode: Literal["disable", "require", "verify-ca", "verify-full"] = "verify-full"
    """How its certificate is checked, in libpq's words."""


class ClusterReserve(ClusterBlock):
    """How much of its limits a server is sure of, and a node must have free for it: the rest is shared."""

    memory: float = Field(default=0.5, gt=0, le=1)
    """The part of its memory."""
    cpus: float = Field(default=0.1, gt=0, le=1)
    """The part of its processors."""


class ClusterEnvironment(ClusterBlock):
    """An environment as people's servers are started from it."""

    image: str
    """Its image, best by digest."""
    pull_policy: Literal["IfNotPresent", "Always", "Never"] = "IfNotPresent"
    """When a node asks the registry for it."""
    command: tuple[str, ...] = ()
    """What starts a server in it, without the shell; empty: the platform's own start."""
    menu: dict[str, Any] = {}
    """What the menu says of it, in place of what its ``environment.yaml`` says: `environments.models.ImageMenu`."""


class ClusterServers(ClusterBlock):
    """What people's servers are made of."""

    namespace_prefix: str = "astro-"
    """What the names of people's namespaces begin with."""
    tree_claim: str = ""
    """The claim of the file tree, in the platform's own namespace."""
    archive_claim: str = ""
    """The claim whose volume everybody sees as ``/archive``, in the platform's own namespace; empty: it is the tree's
    folder of that name."""
    archive_egress: list[dict[str, Any]] = []
    """Where the archive's S3 server is, where that is not on the internet: egress rules of a network policy."""
    storage_namespace: str = ""
    """Where the pods are that mount the tree on the nodes, if any do: no server is sent to a node whose pod is not
    well."""
    node_selector: dict[str, str] = {}
    """Labels that their nodes have."""
    tolerations: list[dict[str, Any]] = []
    """Taints that they bear."""
    pod_annotations: dict[str, str] = {}
    """Annotations of their pods, besides the platform's own."""
    pod_labels: dict[str, str] = {}
    """Labels of their pods, besides the platform's own."""
    image_pull_secrets: list[dict[str, str]] = []
    """Sign-ins to registries, by their names in the platform's namespace."""
    priority_class: str = ""
    """Their priority class, if there is one."""
    environments: dict[str, ClusterEnvironment] = {}
    """The environments that people can pick, by their ids."""
    reserve: ClusterReserve = ClusterReserve()
    """How much of its limits a server is sure of."""
    queue_wait_s: int = Field(default=6, ge=0, le=3600)
    """How long a server waits for room, in seconds; more where the cluster grows when it is full."""
    tmp_size: ByteSize = ByteSize(10 * 2**30)
    """How much a server may hold in ``/tmp``, on its node's disk."""
    dns: list[dict[str, Any]] = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}]
    """Where names are looked up: peers of a network policy."""
    egress: list[dict[str, Any]] = [
        {"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": list(_NOT_THE_INTERNET)}}]},
        {"to": [{"ipBlock": {"cidr": "::/0", "except": ["fc00::/7", "fe80::/10"]}}]},
    ]
    """Where servers may connect to besides the platform: egress rules of a network policy; by default the internet."""


class ClusterTls(ClusterBlock):
    """Between which parts there is TLS."""

    internal: bool = False
    """Whether the parts, and people's servers, speak it with each other."""
    also_plain: bool = False
    """Whether the hub and VOSpace listen without it, too: for servers that were started before it was switched on."""
    front: bool = False
    """Whether the proxy speaks it to what is in front of it, and VOSpace where bytes go around the proxy."""


class Cluster(ClusterBlock):
    """The whole file."""

    release: str
    """The name of the Helm release."""
    namespace: str
    """The namespace of the platform's own parts."""
    public_url: str
    """The platform's address as people type it, without a final slash."""
    proxy: str
    """The proxy as other parts reach it."""
    proxy_api: str
    """The proxy's REST API."""
    proxy_pods: str = ""
    """The name that stands for the addresses of the proxy's pods themselves, which requests come from."""
    hub: str
    """The hub."""
    services: dict[str, str]
    """The name of a service -> where it is."""
    drain_s: dict[str, int] = {}
    """The name of a service -> how long it goes on with what is under way when it is told to end, in seconds."""
    database: ClusterDatabase
    """The database."""
    tls: ClusterTls = ClusterTls()
    """Between which parts there is TLS."""
    servers: ClusterServers = Field(default=ClusterServers())
    """People's servers."""


def read_cluster(data: "DataFolder") -> Cluster | None:
    """Return what the chart wrote for this part, `None` on one machine.

    Raises
    ------
    ConfigError
        ``config-yaml`` or ``config-value`` when the file is not what this version of the platform reads.
    """
    path = data.cluster_file
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except yaml.YAMLError as err:
        raise ConfigError("config-yaml", file=str(path), where="somewhere") from err
    try:
        return Cluster.model_validate(document)
    except ValidationError as err:
        fault = err.errors(include_url=False, include_input=False)[0]
        key = ".".join(map(str, fault["loc"]))
        raise ConfigError("config-value", file=str(path), key=key or "(top level)", reason=fault["msg"]) from None


def postgresql_url(database: ClusterDatabase, name: str, *, passwords: "Path", authority: "Path") -> str:
    """Return the address of the database `name`, without a password: libpq reads that from the file `passwords`.

    Parameters
    ----------
    authority
        The certificate that the server's is checked by, where there is such a file; else those that the machine trusts.
    """
    options = {
        "passfile": str(passwords),
        "sslmode": database.sslmode,
        "connect_timeout": "10",
        "application_name": f"astrocloud-{name}",
        **_KEEPALIVE,
        "tcp_user_timeout": str(_SILENT_MS),
        # A part that is lost in a transaction would keep all others from theirs.
        "options": " ".join(
            f"-c {name}={value}"
            for name, value in {
                **({} if name == _THE_HUBS else {"idle_in_transaction_session_timeout": "60s"}),
                **{f"tcp_{name}": value for name, value in _KEEPALIVE.items()},
                "tcp_user_timeout": _SILENT_MS,
            }.items()
        ),
    }
    if database.sslmode.startswith("verify"):
        options["sslrootcert"] = str(authority) if authority.exists() else _AUTHORITIES
    host = f"[{database.host}]" if ":" in database.host else database.host
    return f"postgresql+psycopg://{quote(database.user)}@{host}:{database.port}/{name}?{urlencode(options)}"
