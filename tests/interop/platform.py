"""A whole running platform with people in it, as foreign clients meet it: hub, proxy and all."""

import asyncio
import json
import os
import shutil
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

from astrocloud.vospace.identity import Identity
from astrocloud.vospace.models import Person
from tests.services.vospace.platform import Space
from tests.support.platform import Platform, running_platform

PASSWORD = "a long enough password"
GROUP = "team"
NAMES = ("ada", "bob", "eve")
OUTSIDE = ("eve",)
"""Those who are in no group."""


@dataclass
class Inhabited:
    """A platform, its people and their tokens."""

    platform: Platform
    people: dict[str, Person] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)

    @property
    def tree(self) -> Path:
        return self.platform.data / "tree"

    @property
    def certificate(self) -> Path:
        """What a client must trust, where the platform speaks HTTPS."""
        return self.platform.data / "secrets" / "tls-certificate.pem"

    @property
    def bytes_url(self) -> str:
        """The address around the proxy."""
        url: str = json.loads((self.platform.data / "run" / "runtime.json").read_text())["bytes_url"]
        return url

    def add(self, name: str) -> None:
        """Add somebody, with a token that `astrocloud token` makes."""
        options = () if name in OUTSIDE else ("--group", GROUP)
        self.platform.add(name, PASSWORD, *options)
        self.tokens[name] = self.platform.run_json("token", name)["token"]

    def look(self) -> None:
        """Find out who people are to the file system, from the folders that their first request made."""
        gid = (self.tree / "project" / GROUP).stat().st_gid
        for name in NAMES:
            home = (self.tree / "home" / name).stat()
            groups = {} if name in OUTSIDE else {GROUP: gid}
            self.people[name] = Person(name, Identity(home.st_uid, home.st_gid, tuple(groups.values())), groups)

    def clear(self) -> None:
        """Take away all that an earlier test left in people's folders."""
        homes = [self.tree / "home" / name for name in NAMES]
        for folder in (*homes, self.tree / "project" / GROUP, self.tree / "archive"):
            for found in folder.iterdir():
                if found.is_dir() and not found.is_symlink():
                    shutil.rmtree(found)
                else:
                    found.unlink()
        for home in homes:
            for name in os.listxattr(home):
                os.removexattr(home, name)
            home.chmod(0o700)

    @asynccontextmanager
    async def space(self) -> AsyncIterator[Space]:
        """Its VOSpace, spoken to as ada."""
        secure = self.platform.scheme == "https"
        context = ssl.create_default_context(cafile=self.certificate) if secure else False
        connector = aiohttp.TCPConnector(ssl=context)
        timeout = aiohttp.ClientTimeout(total=120)
        async with aiohttp.ClientSession(timeout=timeout, auto_decompress=False, connector=connector) as session:
            yield Space(
                self.platform.url,
                self.tree,
                session,
                around=self.bytes_url,
                people=self.people,
                tokens=self.tokens,
            )


@contextmanager
def inhabited_platform(folder: Path, scheme: str) -> Iterator[Inhabited]:
    """Run a platform that speaks `scheme`, with ada, bob (both of a group) and eve."""
    folder.chmod(0o711)
    config = {"tls": "self-signed"} if scheme == "https" else {}
    with running_platform(folder, config=config) as platform:
        found = Inhabited(platform)
        for name in NAMES:
            found.add(name)
        asyncio.run(_first_requests(found))
        found.look()
        yield found


async def _first_requests(found: Inhabited) -> None:
    async with found.space() as space:
        for name in NAMES:
            answer = await space.as_(name).node(f"/home/{name}")
            if answer.status != 200:
                pytest.fail(f"{name} has no home: {answer.status} {answer.text}\n{found.platform.logs()}")
