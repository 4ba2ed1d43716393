"""Who people are to the file system: asked of the passport, which owns user ids and groups."""

import asyncio
import os
import threading
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import aiohttp
from pydantic import SecretStr

from astrocloud.core.errors import RequestError
from astrocloud.core.trust import NONE, Trust
from astrocloud.vospace.identity import Identity
from astrocloud.vospace.models import Person
from astrocloud.vospace.reading import Names

CACHE_S: Final = 15
"""How long the passport's answer is believed, in seconds."""

FOLDERS_CACHE_S: Final = 30
"""How long the owners of home and project folders are remembered, in seconds; new folders are seen at once."""

OWNERLESS_S: Final = 60
"""How long a folder without an owner is known that nobody is giving one any more, in seconds."""


class People(Protocol):
    """What the service must know of people."""

    async def person(self, name: str) -> Person | None:
        """Return the active person `name`, or `None`."""


class PassportPeople:
    """People as the passport's internal interface tells of them.

    Parameters
    ----------
    url
        Where the services listen, called directly.
    secret
        The secret that the platform's parts share.
    trust
        Whose certificate is taken there.
    """

    def __init__(self, *, url: str, secret: SecretStr, trust: Trust = NONE) -> None:
        self._trust = trust
        self._url = f"{url}/services/passport/api/internal/people"
        self._secret = secret
        self._known: dict[str, tuple[float, Person | None]] = {}
        self._asking: dict[str, asyncio.Task[Person | None]] = {}

    async def person(self, name: str) -> Person | None:
        """Return the active person `name`, or `None`. Raises `RequestError` when the passport does not answer."""
        until, person = self._known.get(name, (0.0, None))
        if time.monotonic() < until:
            return person
        # Of many requests at once one asks.
        task = self._asking.get(name)
        if task is None:
            task = self._asking[name] = asyncio.create_task(self._ask(name))
            task.add_done_callback(lambda _task: self._asking.pop(name, None))
        return await asyncio.shield(task)

    async def _ask(self, name: str) -> Person | None:
        headers = {"Authorization": f"Bearer {self._secret.get_secret_value()}"}
        timeout = aiohttp.ClientTimeout(total=10)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.get(f"{self._url}/{name}", headers=headers, ssl=self._trust.context()) as response,
            ):
                if response.status == 404:
                    person = None
                elif response.status == 200:
                    person = person_of(await response.json())
                else:
                    raise RequestError("unavailable", part="passport")
        except (aiohttp.ClientError, TimeoutError, ValueError, KeyError, TypeError) as err:
            raise RequestError("unavailable", part="passport") from err
        if len(self._known) > 10_000:
            self._known.clear()
        self._known[name] = (time.monotonic() + CACHE_S, person)
        return person


def person_of(document: Mapping[str, Any]) -> Person | None:
    """Return the person that the passport's `document` describes, or `None` when the account is not active."""
    if document.get("status", "active") != "active":
        return None
    groups = {str(group["name"]): int(group["gid"]) for group in document["groups"]}
    identity = Identity(int(document["uid"]), int(document["gid"]), tuple(sorted(groups.values())))
    return Person(str(document["username"]), identity, groups)


def _by_number(names: Mapping[str, int]) -> dict[int, str]:
    return {number: name for name, number in names.items()}


class _Folder(NamedTuple):
    inode: int
    uid: int
    gid: int

    @property
    def is_owned(self) -> bool:
        return bool(self.uid | self.gid)


@dataclass(frozen=True)
class _Seen:
    until: float
    users: Mapping[str, int] = field(default_factory=dict)
    groups: Mapping[str, int] = field(default_factory=dict)
    names: Names = field(default_factory=Names)
    """The same by numbers, made once: there may be thousands, and every request asks."""
    changed: tuple[tuple[int, ...], ...] | None = None
    """What was told of the two outer folders when they were read."""
    homes: Mapping[str, _Folder] = field(default_factory=dict)
    projects: Mapping[str, _Folder] = field(default_factory=dict)


class Owners:
    """Names behind the file system's numbers: each home belongs to its person, each project folder to its group.

    Parameters
    ----------
    tree
        The folder that has ``home`` and ``project``.
    """

    def __init__(self, tree: Path) -> None:
        self._tree = tree
        self._seen = _Seen(0.0)
        self._ownerless: dict[int, float] = {}
        """Folders without an owner, by their inodes, and since when they are known, by the monotonic clock."""
        self._lock = threading.Lock()

    def names(self, person: Person) -> Names:
        """Return the names that `person` may be shown: everybody's who has a home, and every project's.

        Who is not signed in is shown none: whose a public file is, and whom else it is shared with, is not public.
        """
        if person.name is None:
            return Names()
        seen = self._look()
        users, groups = seen.names.users, seen.names.groups
        if users.get(person.identity.uid) != person.name:
            users = {**users, person.identity.uid: person.name}
        if not person.groups.items() <= seen.groups.items():
            groups = _by_number({**seen.groups, **person.groups})
        return Names(users, groups)

    def uid(self, name: str) -> int | None:
        """Return the user id of the person `name`, or `None` for somebody without a home."""
        return self._look().users.get(name)

    def gid(self, name: str, person: Person) -> int | None:
        """Return the group id of the group `name`, or `None`."""
        return person.groups.get(name) or self._look().groups.get(name)

    def _look(self) -> _Seen:
        # Others make homes too: the hub, and every other replica of this service.
        changed = tuple(_changed(self._tree / top) for top in ("home", "project"))
        with self._lock:
            seen, now = self._seen, time.monotonic()
            if now >= seen.until:
                seen = _Seen(now + FOLDERS_CACHE_S)
            elif changed == seen.changed:
                return seen
            self._seen = self._read(seen, changed)
            return self._seen

    def _read(self, seen: _Seen, changed: tuple[tuple[int, ...], ...]) -> _Seen:
        homes, projects = _folders(self._tree / "home", seen.homes), _folders(self._tree / "project", seen.projects)
        users = {name: folder.uid for name, folder in homes.items() if folder.is_owned}
        groups = {name: folder.gid for name, folder in projects.items() if folder.is_owned}
        # Of two homes with one owner, as a copy beside the first, nobody knows whose they are. Without the right to
        # switch all are the platform's own.
        owners = Counter(users.values())
        users = {name: number for name, number in users.items() if owners[number] == 1}
        # Nothing tells when a folder that was made a moment ago gets its owner: it is looked for again.
        ownerless = {folder.inode for folder in (*homes.values(), *projects.values()) if not folder.is_owned}
        now = time.monotonic()
        self._ownerless = {inode: self._ownerless.get(inode, now) for inode in ownerless}
        waits = any(now - since < OWNERLESS_S for since in self._ownerless.values())
        names = Names(_by_number(users), _by_number(groups))
        return _Seen(seen.until, users, groups, names, None if waits else changed, homes, projects)


def _changed(folder: Path) -> tuple[int, ...]:
    # Opened, because clients of NFS tell what they remember, for half a minute or more, of a folder that is not.
    try:
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return ()
    try:
        status = os.fstat(opened)
    finally:
        os.close(opened)
    # The links besides: two folders may be made within one tick of the file system's clock.
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_nlink


def _folders(outer: Path, known: Mapping[str, _Folder]) -> dict[str, _Folder]:
    """Return the folders in `outer`; asks only of those that are not `known`, which takes long for thousands."""
    found = {}
    with suppress(FileNotFoundError), os.scandir(outer) as entries:
        for entry in entries:
            before = known.get(entry.name)
            if before is not None and before.is_owned and before.inode == entry.inode():
                found[entry.name] = before
                continue
            with suppress(FileNotFoundError):  # gone meanwhile
                if entry.is_dir(follow_symlinks=False):
                    status = entry.stat(follow_symlinks=False)
                    found[entry.name] = _Folder(entry.inode(), status.st_uid, status.st_gid)
    return found
