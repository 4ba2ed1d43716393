"""A real VOSpace service on a real port, with people who are known by their tokens."""

import base64
import hashlib
import io
import os
import socket
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

import aiohttp
from aiohttp import web
from lxml import etree
from yarl import URL

from astrocloud.config import Config, parse_config
from astrocloud.core.auth import Principal
from astrocloud.core.database import open_database, sqlite_url, upgrade_database
from astrocloud.core.layout import DataFolder
from astrocloud.core.runtime import Runtime
from astrocloud.core.secrets import SecretFiles
from astrocloud.core.web import Service, build_app, build_direct_app, end
from astrocloud.vospace.factory import build_vospace
from astrocloud.vospace.identity import Identity
from astrocloud.vospace.models import Person

AUTHORITY = "astrocloud.local~vospace"
VOS = "{http://www.ivoa.net/xml/VOSpace/v2.0}"
XSI = "{http://www.w3.org/2001/XMLSchema-instance}"
CORE = "ivo://ivoa.net/vospace/core#"

TEAM = 30001
PEOPLE = {
    "ada": Person("ada", Identity(20001, 20001, (TEAM,)), {"team": TEAM}),
    "bob": Person("bob", Identity(20002, 20002, (TEAM,)), {"team": TEAM}),
    "eve": Person("eve", Identity(20003, 20003, ()), {}),
}


class FakePeople:
    """The directory of people, without a passport."""

    async def person(self, name: str) -> Person | None:
        return PEOPLE.get(name)


class FakeLogin:
    """Sign-in without a hub: a token is ``NAME`` or ``NAME.read`` (only to read)."""

    def routes(self) -> Sequence[web.AbstractRouteDef]:
        return []

    async def principal(self, request: web.Request) -> Principal | None:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        name, _, only = token.partition(".")
        if scheme.lower() != "bearer" or name not in PEOPLE:
            return None
        scopes = {"custom:vospace:read"} if only else {"custom:vospace:read", "custom:vospace:write"}
        return Principal(name, "user", admin=False, groups=frozenset(), scopes=frozenset(scopes), by_cookie=False)


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str = ""

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def fault(self) -> str:
        """The name of the fault, as clients read it."""
        return self.text.split(None, 1)[0]

    @property
    def xml(self) -> ElementTree.Element:
        return ElementTree.fromstring(self.body)

    @property
    def properties(self) -> dict[str, str]:
        """The node's properties."""
        return {p.get("uri", ""): p.text or "" for p in self.xml.findall(f"{VOS}properties/{VOS}property")}

    @property
    def type(self) -> str:
        return self.xml.get(f"{XSI}type", "").removeprefix("vos:")

    @property
    def children(self) -> list[str]:
        """The children's URIs."""
        return [n.get("uri", "") for n in self.xml.findall(f"{VOS}nodes/{VOS}node")]

    @property
    def names(self) -> list[str]:
        return [uri.rsplit("/", 1)[1] for uri in self.children]


SCHEMAS = {
    "http://www.ivoa.net/xml/VOSpace/v2.0": "vospace",
    "http://www.ivoa.net/xml/UWS/v1.0": "uws",
    "http://www.ivoa.net/xml/VOSIAvailability/v1.0": "vosi",
    "http://www.ivoa.net/xml/VOSICapabilities/v1.0": "capabilities",
}
"""Namespace of a document -> its schema in `schemas`. Any other document is a mistake."""


@cache
def _schemas(name: str) -> list[etree.XMLSchema]:
    # See schemas/README.md for the second one.
    folders = [Path(__file__).parent / "schemas", *map(Path, filter(None, [os.environ.get("IVOA_SCHEMAS")]))]
    files = [folder / f"{name}.xsd" for folder in folders]
    return [etree.XMLSchema(etree.parse(file)) for file in files if file.exists()]


def validate(body: bytes) -> None:
    """Fail unless `body` is a document as its standard says."""
    root = etree.fromstring(body)
    namespace = etree.QName(root).namespace or ""
    assert namespace in SCHEMAS, f"no schema is known for {root.tag}"
    for schema in _schemas(SCHEMAS[namespace]):
        schema.assertValid(root)


def is_xml(answer: Answer) -> bool:
    """Whether it is said to be XML, however that is spelled."""
    kind = answer.headers.get("Content-Type", "").split(";")[0].strip().lower()
    return kind in {"text/xml", "application/xml"} or kind.endswith("+xml")


def uri(path: str) -> str:
    return f"vos://{AUTHORITY}{path}"


def node_xml(
    path: str,
    kind: str | None = "ContainerNode",
    properties: Mapping[str, str | None] | None = None,
    target: str | None = None,
) -> str:
    """A node document as a client writes it."""
    parts = []
    for name, text in (properties or {}).items():
        full = name if ":" in name else CORE + name
        parts.append(
            f'<vos:property uri="{full}" xsi:nil="true"/>'
            if text is None
            else f'<vos:property uri="{full}">{text}</vos:property>'
        )
    aim = f"<vos:target>{target}</vos:target>" if target else ""
    declared = f' xsi:type="vos:{kind}"' if kind else ""
    return (
        f'<vos:node xmlns:vos="{VOS[1:-1]}" xmlns:xsi="{XSI[1:-1]}"{declared} uri="{uri(path)}">'
        f"<vos:properties>{''.join(parts)}</vos:properties>{aim}</vos:node>"
    )


def digest(data: bytes) -> str:
    return "md5=" + base64.b64encode(hashlib.md5(data).digest()).decode()


@dataclass
class Space:
    """A running service and somebody who talks to it."""

    url: str
    root: Path
    session: aiohttp.ClientSession
    who: str | None = "ada"
    service: Service | None = None
    data: DataFolder | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    around: str = ""
    """Where bytes have a way of their own."""
    people: Mapping[str, Person] = field(default_factory=lambda: PEOPLE)
    tokens: Mapping[str, str] = field(default_factory=dict)
    """Name -> token, where that is not the same."""

    @property
    def base(self) -> str:
        return f"{self.url}/services/vospace"

    def as_(self, who: str | None) -> "Space":
        return replace(self, who=who)

    async def __call__(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, **kwargs: Any
    ) -> Answer:
        token = self.tokens.get(self.who or "", self.who)
        sent = {**({"Authorization": f"Bearer {token}"} if token else {}), **(headers or {})}
        address = path if path.startswith("http") else self.base + path
        address = "".join(char if char.isascii() else quote(char) for char in address)
        kwargs.setdefault("allow_redirects", False)
        if isinstance(kwargs.get("data"), bytes):
            kwargs["data"] = io.BytesIO(kwargs["data"])
        async with self.session.request(method, URL(address, encoded=True), headers=sent, **kwargs) as response:
            answer = Answer(response.status, response.headers, await response.read(), str(response.url))
        # What people put is as they put it. HEAD has no body.
        if is_xml(answer) and method != "HEAD" and "/files/" not in path and "/shared/" not in path:
            assert answer.headers["Content-Type"] == "text/xml; charset=utf-8"
            validate(answer.body)
        return answer

    async def get(self, path: str, **kwargs: Any) -> Answer:
        return await self("GET", path, **kwargs)

    async def put(self, path: str, data: Any = b"", **kwargs: Any) -> Answer:
        return await self("PUT", path, data=data, **kwargs)

    async def mkdir(self, path: str, **kwargs: Any) -> Answer:
        return await self("PUT", f"/nodes{path}", data=node_xml(path), **kwargs)

    async def upload(self, path: str, data: bytes = b"x", **kwargs: Any) -> Answer:
        return await self("PUT", f"/files{path}", data=data, **kwargs)

    async def set(self, path: str, properties: Mapping[str, str | None], kind: str | None = None) -> Answer:
        return await self("POST", f"/nodes{path}", data=node_xml(path, kind, properties))

    async def node(self, path: str, query: str = "") -> Answer:
        return await self("GET", f"/nodes{path}{query}")

    def posix(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def write(self, path: str, data: bytes = b"x", *, who: str = "ada", mode: int = 0o644) -> Path:
        """Write a file as a notebook of `who` would."""
        file = self.posix(path)
        file.write_bytes(data)
        if os.geteuid() == 0:
            os.chown(file, self.people[who].identity.uid, self.people[who].identity.gid)
        file.chmod(mode)
        return file

    def make(self, path: str, *, who: str = "ada", mode: int = 0o755) -> Path:
        folder = self.posix(path)
        folder.mkdir()
        if os.geteuid() == 0:
            os.chown(folder, self.people[who].identity.uid, self.people[who].identity.gid)
        folder.chmod(mode)
        return folder


_empty_database: list[bytes] = []
"""A database with its schema, made once: that takes longer than most tests."""


@asynccontextmanager
async def running(
    folder: Path,
    config: Mapping[str, Any] | None = None,
    *,
    tls: ssl.SSLContext | None = None,
    way_around: bool = False,
    shared_database: str = "",
    drain_s: int = 0,
) -> AsyncIterator[Space]:
    """Run a service whose data is in `folder`, over HTTPS with the server's context `tls`.

    With `way_around` bytes have a port of their own, as they do on one machine. A `shared_database` is others', too.
    Told to end, it goes on for `drain_s` seconds with what is under way.
    """
    data = DataFolder(folder)
    data.make()
    settings: Config = parse_config(dict(config or {}), source="test")
    database = data.databases / "astrocloud.sqlite"
    if not database.exists() and _empty_database and not shared_database:
        database.write_bytes(_empty_database[0])
    engine = open_database(shared_database or sqlite_url(data.databases), owner="vospace")
    upgrade_database(engine)
    if not shared_database and not _empty_database:
        engine.dispose()  # the last connection writes everything back into the one file
        _empty_database.append(database.read_bytes())

    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    public = f"https://localhost:{port}" if tls else f"http://127.0.0.1:{port}"
    beside = socket.socket()
    beside.bind(("127.0.0.1", 0))
    around = public.replace(str(port), str(beside.getsockname()[1])) if way_around else ""
    runtime = Runtime("127.0.0.1", port, public, 0, 0, port, bytes_url=around)
    service = build_vospace(
        config=settings,
        runtime=runtime,
        secrets=SecretFiles(data.secrets),
        data=data,
        engine=engine,
        login=FakeLogin(),  # type: ignore[arg-type]
        people=FakePeople(),
    )
    app = build_app([service], config=settings)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    await web.SockSite(runner, listening, ssl_context=tls).start()
    direct = web.AppRunner(build_direct_app([service], config=settings), shutdown_timeout=1)
    await direct.setup()
    await web.SockSite(direct, beside, ssl_context=tls).start()
    timeout = aiohttp.ClientTimeout(total=60)
    connector = aiohttp.TCPConnector(ssl=tls is None)  # the test's own certificate is signed by nobody
    async with aiohttp.ClientSession(timeout=timeout, auto_decompress=False, connector=connector) as session:
        try:
            yield Space(runtime.public_url, data.tree, session, service=service, data=data, around=around)
        finally:
            await session.close()
            await end(runner, direct, within_s=drain_s)
            engine.dispose()
