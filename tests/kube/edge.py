"""What stands in front of a platform, as a cluster's ingress controller or gateway: nginx, by what the cluster says.

No such controller is to be had here, so this one reads as much of an Ingress, an HTTPRoute, a Service and a Secret as
they do: hosts, paths, ports by name or number, the certificate, and what protocol a Service speaks.
"""

import base64
import shutil
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from tests.kube.installation import Installation
from tests.support.nginx import serving
from tests.support.person import Person

HOST: Final = "astro.example.test"
BYTES_HOST: Final = "bytes.example.test"

_FRONT: Final = """
    ssl_certificate {folder}/tls.crt;
    ssl_certificate_key {folder}/tls.key;
    map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
    proxy_http_version 1.1;
    proxy_buffering off;
    proxy_request_buffering off;
    proxy_read_timeout 1h;
    proxy_ssl_verify on;
    proxy_ssl_trusted_certificate {folder}/platform-ca;
    proxy_set_header Host $http_host;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection $connection_upgrade;
    proxy_set_header X-Real-IP $remote_addr;
    proxy_set_header X-Forwarded-For $remote_addr;
    proxy_set_header X-Forwarded-Host $http_host;
    proxy_set_header X-Forwarded-Proto $scheme;
    server {{ listen 127.0.0.1:{port} ssl default_server; return 404; }}
{servers}
"""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Where requests go that are for `host` and below `path`."""

    host: str
    path: str
    service: str
    port: str | int


def rules(platform: Installation, kind: Literal["ingress", "httproute"]) -> Iterator[Rule]:
    """Yield what the cluster says of the platform's addresses."""
    for each in platform.kube.get(kind, "-n", platform.namespace)["items"]:
        spec = each["spec"]
        for rule in spec["rules"]:
            if kind == "ingress":
                for path in rule["http"]["paths"]:
                    assert path["pathType"] == "Prefix"
                    to = path["backend"]["service"]
                    port = to["port"].get("name") or to["port"]["number"]
                    yield Rule(host=rule["host"], path=path["path"], service=to["name"], port=port)
                continue
            (to,) = rule["backendRefs"]
            for host in spec["hostnames"]:
                for match in rule["matches"]:
                    assert match["path"]["type"] == "PathPrefix"
                    yield Rule(host=host, path=match["path"]["value"], service=to["name"], port=to["port"])


def _server(platform: Installation, found: Rule, *, port: int) -> str:
    service: dict[str, Any] = platform.kube.get("service", "-n", platform.namespace, found.service)
    (to,) = [each for each in service["spec"]["ports"] if found.port in {each["name"], each["port"]}]
    scheme = to.get("appProtocol", "http")
    # Below a prefix is what is the same up to a slash.
    below = "/" if found.path == "/" else f"~ ^{found.path}(/|$)"
    return (
        f"    server {{ listen 127.0.0.1:{port} ssl; server_name {found.host}; location {below} {{"
        f" proxy_ssl_name {found.service}.{platform.namespace}.svc;"
        f" proxy_pass {scheme}://{service['spec']['clusterIP']}:{to['port']}; }} }}"
    )


def _held(platform: Installation, secret: str, key: str) -> bytes:
    data = platform.kube.get("secret", "-n", platform.namespace, secret)["data"]
    return base64.b64decode(data[key])


@contextmanager
def standing_in_front(
    platform: Installation, kind: Literal["ingress", "httproute"], folder: Path, *, certificate: str
) -> Iterator[None]:
    """Serve the platform at its public address meanwhile.

    Parameters
    ----------
    certificate
        The Secret with the certificate of its names.
    """
    port = urlsplit(platform.values["config"]["public_url"]).port
    assert port is not None
    folder.mkdir()
    for name in ("tls.crt", "tls.key"):
        (folder / name).write_bytes(_held(platform, certificate, name))
    shutil.copy("/etc/ssl/certs/ca-certificates.crt", folder / "platform-ca")
    if platform.values.get("tls", {}).get("front"):
        (folder / "platform-ca").write_bytes(_held(platform, f"{platform.name}-secrets", "platform-ca"))
    servers = "\n".join(_server(platform, found, port=port) for found in rules(platform, kind))
    with serving(folder, _FRONT.format(folder=folder, port=port, servers=servers), port=port):
        yield


class NamesHere(AbstractResolver):
    """Every name is this machine's."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        assert host in {HOST, BYTES_HOST}, host
        found = ResolveResult(
            hostname=host, host="127.0.0.1", port=port, family=socket.AF_INET, proto=0, flags=socket.AI_NUMERICHOST
        )
        return [found]

    async def close(self) -> None:
        """Nothing is open."""


class Outside(Person):
    """A person who comes by the public names, and believes the authority of their certificate."""

    def __init__(self, username: str, password: str, *, url: str, authority: str) -> None:
        super().__init__(url, username, password)
        self._authority = authority

    def connector(self) -> aiohttp.BaseConnector:
        context = ssl.create_default_context(cadata=self._authority)
        return aiohttp.TCPConnector(resolver=NamesHere(), ssl=context)
