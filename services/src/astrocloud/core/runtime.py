"""What the parts of one running platform must know of each other: addresses and scopes.

On one machine the supervisor writes it once to ``run/runtime.json`` and every part reads it there; ports are chosen
at the first start and kept, because people's servers outlive a restart of the hub and go on calling the same address.
On a cluster the chart writes it: see `astrocloud.core.cluster`.
"""

import json
import os
import random
import socket
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from astrocloud.core.cluster import BYTES_PORT, HUB_PORT, SERVICE_PORT, TLS_PORT, Cluster, read_cluster
from astrocloud.core.layout import DataFolder
from astrocloud.core.trust import NONE, Trust

CUSTOM_SCOPES: Final = {
    "custom:portal:use": "See one's own servers, environments and announcements.",
    "custom:people:admin": "Create, disable and reset people's accounts.",
    "custom:announcements:admin": "Write announcements for everybody.",
    "custom:vospace:read": "Read files by VOSpace.",
    "custom:vospace:write": "Write files by VOSpace.",
}
"""The platform's scopes besides the hub's own, and what each is for."""

SERVICES: Final = ("portal", "passport", "vospace")
"""Services with an address of their own, ``/services/NAME/``; each is also an OAuth client of the hub."""

_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})


@dataclass(frozen=True)
class Door:
    """Where a part listens for the others."""

    address: str
    """The address; empty: all there are."""
    port: int
    files: tuple[Path, Path] | None = None
    """Its certificate and its key, where it speaks TLS."""


@dataclass(frozen=True)
class Runtime:
    """Addresses of one running platform."""

    bind: str
    """The address that people's browsers reach."""
    port: int
    """The port that people's browsers reach."""
    public_url: str
    """The platform's address as people type it, without a final slash."""
    proxy_api_port: int
    """Where configurable-http-proxy takes its routes, on loopback."""
    hub_port: int
    """Where the hub listens, on loopback."""
    services_port: int
    """Where the services listen, on loopback."""
    bytes_port: int = field(default=0, kw_only=True)
    """The port of the way for bytes around the proxy, at `bind`; 0: there is none."""
    bytes_url: str = field(default="", kw_only=True)
    """That way's address as clients reach it, without a final slash; empty: they do not, or there is none."""
    certificate: str = field(default="", kw_only=True)
    """The file of the certificate with which the platform itself speaks HTTPS; empty: it speaks plain HTTP."""
    key: str = field(default="", kw_only=True)
    """The file of its private key."""

    @property
    def scheme(self) -> str:
        """What the platform itself speaks at `port`: ``http`` or ``https``."""
        return "https" if self.certificate else "http"

    @property
    def listen(self) -> str:
        """The address on which the hub and the services listen; empty: all there are."""
        return "127.0.0.1"

    @property
    def trust(self) -> Trust:
        """Whose certificates a part takes from the others."""
        return NONE

    def doors(self, part: str) -> list[Door]:
        """Return where the hub or a service listens for the other parts."""
        return [Door(self.listen, self.hub_port if part == "hub" else self.services_port)]

    def bytes_files(self, part: str) -> tuple[Path, Path] | None:
        """Return the certificate and the key with which `part` answers for bytes, `None` for plain HTTP."""
        return (Path(self.certificate), Path(self.key)) if self.certificate else None

    @property
    def own_bytes_port(self) -> int:
        """The port at which a process of ours itself listens for bytes; 0: none, or another one listens for it."""
        return 0

    def drain_s(self, service: str) -> int:
        """Return how long `service` goes on with what is under way when it is told to end, in seconds."""
        # Whoever ends the platform on one machine waits for it.
        return 2

    @property
    def hub_url(self) -> str:
        """The hub, called directly."""
        return f"http://127.0.0.1:{self.hub_port}"

    @property
    def hub_api_url(self) -> str:
        """The hub's REST API, called directly."""
        return f"{self.hub_url}/hub/api"

    def service_url(self, name: str) -> str:
        """Return where the service `name` is, called directly."""
        return f"http://127.0.0.1:{self.services_port}"

    @property
    def services_url(self) -> str:
        """The services, where all are in one process."""
        return self.service_url("portal")

    @property
    def proxy_url(self) -> str:
        """The proxy, called directly."""
        return f"{self.scheme}://{_shown(self.bind)}:{self.port}"

    @property
    def proxy_api_url(self) -> str:
        """The proxy's REST API."""
        return f"http://127.0.0.1:{self.proxy_api_port}"

    @staticmethod
    def read(data: DataFolder) -> "Runtime":
        """Return what the supervisor wrote, on a cluster what the chart did.

        Raises
        ------
        FileNotFoundError
            If no platform ever ran there.
        ConfigError
            As `read_cluster` does.
        """
        cluster = read_cluster(data)
        if cluster is not None:
            return ClusterRuntime.of(cluster, data.secrets)
        return Runtime(**json.loads((data.run / "runtime.json").read_text(encoding="utf-8")))

    @classmethod
    def choose(
        cls,
        data: DataFolder,
        *,
        bind: str,
        port: int,
        public_url: str | None,
        bytes_port: int = 0,
        certificate: str = "",
        key: str = "",
    ) -> "Runtime":
        """Return and write the addresses to use, keeping earlier internal ports where they are still free."""
        try:
            before = cls.read(data)
            kept = [before.proxy_api_port, before.hub_port, before.services_port]
        except (FileNotFoundError, ValueError, TypeError):
            kept = [0, 0, 0]
        chosen: list[int] = []
        reserved = reserved_ports()
        for wanted in kept:
            candidates = [] if reserved and wanted not in reserved else [wanted]
            candidates += random.sample(reserved, min(len(reserved), 50))
            chosen.append(_free_port([*candidates, 0, 0, 0, 0], taken={port, *chosen}))
        scheme = "https" if certificate else "http"
        public_url = (public_url or f"{scheme}://{_shown(bind)}:{port}").rstrip("/")
        runtime = cls(
            bind,
            port,
            public_url,
            *chosen,
            bytes_port=bytes_port,
            bytes_url=_bytes_url(public_url, scheme=scheme, port=port, bytes_port=bytes_port),
            certificate=certificate,
            key=key,
        )
        write_json(data.run / "runtime.json", asdict(runtime))
        return runtime


@dataclass(frozen=True)
class ClusterRuntime(Runtime):
    """Addresses of a platform whose parts are pods: each is reached by the name of its Service."""

    cluster: Cluster
    secrets: Path
    """Where the part's own secrets are, with its certificate and the platform's authority."""

    @classmethod
    def of(cls, cluster: Cluster, secrets: Path) -> "ClusterRuntime":
        """Return the addresses that the chart wrote."""
        return cls("", 8000, cluster.public_url.rstrip("/"), 8001, HUB_PORT, SERVICE_PORT, cluster, secrets)

    @property
    def listen(self) -> str:
        """All addresses: who may connect is the network policies' to say."""
        return ""

    @property
    def trust(self) -> Trust:
        """The authority of the platform's own parts."""
        return Trust((self.secrets / "platform-ca",)) if self.cluster.tls.internal else NONE

    def doors(self, part: str) -> list[Door]:
        """Return where `part` listens: by TLS alone where there is any, but for what old servers call."""
        plain = Door(self.listen, self.hub_port if part == "hub" else self.services_port)
        tls = self.cluster.tls
        if not tls.internal:
            return [plain]
        doors = [Door(self.listen, TLS_PORT, self._files(part))]
        return [*doors, plain] if tls.also_plain and part in {"hub", "vospace"} else doors

    def bytes_files(self, part: str) -> tuple[Path, Path] | None:
        """Return those of `part`, where what is in front of the platform is spoken to by TLS."""
        return self._files(part) if self.cluster.tls.front else None

    def _files(self, part: str) -> tuple[Path, Path]:
        return self.secrets / f"{part}-certificate", self.secrets / f"{part}-key"

    @property
    def own_bytes_port(self) -> int:
        """The port of VOSpace's pods that is around the proxy."""
        return BYTES_PORT

    def drain_s(self, service: str) -> int:
        """Return what the chart says."""
        return self.cluster.drain_s.get(service, 20)

    @property
    def hub_url(self) -> str:
        """The hub's Service."""
        return self.cluster.hub

    def service_url(self, name: str) -> str:
        """Return the Service of the service `name`."""
        return self.cluster.services[name]

    @property
    def proxy_url(self) -> str:
        """The proxy's Service."""
        return self.cluster.proxy

    @property
    def proxy_api_url(self) -> str:
        """The Service of the proxy's REST API."""
        return self.cluster.proxy_api


def _shown(bind: str) -> str:
    """Return how the address `bind` stands in a URL of this machine."""
    if bind in {"0.0.0.0", "::"}:  # noqa: S104 - compared, not listened on
        return "127.0.0.1"
    return f"[{bind}]" if ":" in bind else bind


def _bytes_url(public_url: str, *, scheme: str, port: int, bytes_port: int) -> str:
    """Return where clients reach `bytes_port` who reach the platform at `public_url`; empty when that is not known.

    Who comes to another port or by another scheme comes by a web server, which knows nothing of this way.
    """
    public = urlsplit(public_url)
    if not bytes_port or (public.scheme, public.port) != (scheme, port):
        return ""
    host = public.hostname or ""
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{bytes_port}"


def kept_bytes_port(data: DataFolder) -> int:
    """Return the port that bytes had at the last start, 0 for none."""
    try:
        port = Runtime.read(data).bytes_port
    except (OSError, ValueError, TypeError):
        return 0
    return port if isinstance(port, int) else 0


def reserved_ports() -> list[int]:
    """Return the ports that root's processes alone can listen on, none when this is not root.

    People's servers share the loopback address. One of them could take the port of a part that has just died, and get
    the passwords and the secrets meant for it; these ports it cannot take. Ports that a service has by name are left
    to it.
    """
    if os.geteuid() != 0:
        return []
    try:
        first_open = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text(encoding="ascii"))
    except (OSError, ValueError):
        first_open = 1024
    return [port for port in range(512, min(first_open, 1024)) if not _has_name(port)]


def _has_name(port: int) -> bool:
    try:
        socket.getservbyport(port)
    except OSError:
        return False
    return True


def public_address(public_url: str, *, host: str, target: str) -> str | None:
    """Return where a browser goes that came by another name of this machine's loopback address, else `None`.

    Signing in leads through `public_url`, and cookies belong to one name: who starts at ``localhost`` where the
    platform is at ``127.0.0.1`` would come back without them.

    Parameters
    ----------
    public_url
        The platform's address.
    host
        The name and port that the browser asked for.
    target
        The path and query that it asked for.
    """
    try:
        public, asked = urlsplit(public_url), urlsplit(f"//{host}")
        names, ports = (public.hostname, asked.hostname), (public.port or 80, asked.port or 80)
    except ValueError:
        return None
    if names[0] == names[1] or not _LOOPBACK.issuperset(names) or ports[0] != ports[1] or not target.startswith("/"):
        return None
    return public_url.rstrip("/") + target


def _free_port(candidates: Sequence[int], *, taken: set[int]) -> int:
    """Return the first of the loopback ports `candidates` that nobody has; 0 is one that the kernel gives."""
    for candidate in candidates:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", candidate))
            except (OSError, OverflowError, TypeError):  # taken, or no port at all in a damaged record
                continue
            port = int(probe.getsockname()[1])
            if port not in taken:
                return port
    msg = "no free port on the loopback address"
    raise OSError(msg)


def write_json(path: Path, document: object) -> None:
    """Write `document` to `path` so that a reader finds the old text or the new one, never half of it."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    fresh.replace(path)
