"""Public links: whoever has one may read one file, or one folder and all in it, until it ends or is revoked."""

import base64
import hashlib
import hmac
import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from pydantic import SecretStr
from sqlalchemy import Column, Engine, Float, LargeBinary, Row, String, Table, delete, insert, select

from astrocloud.core.database import metadata
from astrocloud.vospace import acl, posix
from astrocloud.vospace.births import is_marked
from astrocloud.vospace.domain import Nodes
from astrocloud.vospace.errors import Fault, invalid_argument
from astrocloud.vospace.identity import can_switch
from astrocloud.vospace.models import NodePath, Person

EACH_LIMIT: Final = 1000
"""How many links one person may have at once."""
_table: Final = Table(
    "vospace_links",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("owner", String(64), nullable=False, index=True),
    Column("path", LargeBinary(8192), nullable=False),
    Column("created_at", Float(53), nullable=False),
    Column("expires_at", Float(53), nullable=False),
    # The mark of the thing. Without the device: its number is another after a reboot, and nothing is renamed across.
    Column("inode", String(20), nullable=True),
)


@dataclass(frozen=True)
class Link:
    """One link."""

    id: str
    owner: str
    """Whose permissions hold for whoever has it."""
    path: NodePath
    created_at: float
    expires_at: float
    inode: str | None = None
    """What was at the path when it was made; `None`: not known."""


class Links:
    """Keeps the links; every method is for a worker thread.

    The database alone does not let anybody use one: its address has a mark that only this service can make.

    Parameters
    ----------
    engine
        The database.
    secret
        Known to every process of the service.
    longest_s
        How long a link may work at most, in seconds.
    """

    def __init__(self, *, engine: Engine, secret: SecretStr, longest_s: float) -> None:
        self._engine = engine
        self._key = hashlib.sha256(b"vospace-links:" + secret.get_secret_value().encode()).digest()
        self.longest_s = longest_s

    def make(self, owner: str, path: NodePath, *, lifetime_s: float, mark: str) -> Link:
        """Return a new link to `path`, where now is what has `mark`.

        Raises
        ------
        Fault
            ``InvalidArgument`` for a lifetime or a number that is not allowed.
        """
        if not 0 < lifetime_s <= self.longest_s:
            days = f"{self.longest_s / 86400:g}"
            raise invalid_argument(f"a link for {lifetime_s:g} s; allowed: more than 0 s, at most {days} days")
        if len(self.of_owner(owner)) >= EACH_LIMIT:
            raise invalid_argument(f"there are {EACH_LIMIT} links of {owner} already; revoke some")
        now = time.time()
        link = Link(secrets.token_hex(16), owner, path, now, now + lifetime_s, mark)
        with self._engine.begin() as connection:
            connection.execute(delete(_table).where(_table.c.expires_at <= now))
            connection.execute(insert(_table).values(**{**vars(link), "path": b"/".join(path.parts)}))
        return link

    def token(self, link: Link) -> str:
        """Return what stands in the address of `link`."""
        return f"{link.id}{self._mark(link.id)}"

    def find(self, token: str) -> Link:
        """Return the link with this token. Raises `Fault` (``files-link-gone``), whatever is wrong with it."""
        link_id, mark = token[:32], token[32:]
        if not hmac.compare_digest(mark.encode("utf-8", "replace"), self._mark(link_id).encode()):
            raise Fault("files-link-gone")
        with self._engine.begin() as connection:
            row = connection.execute(select(_table).where(_table.c.id == link_id)).first()
        if row is None or row.expires_at <= time.time():
            raise Fault("files-link-gone")
        return _link(row)

    def of_owner(self, owner: str) -> list[Link]:
        """Return the links of `owner` that work, the newest first."""
        query = select(_table).where(_table.c.owner == owner, _table.c.expires_at > time.time())
        with self._engine.begin() as connection:
            return [_link(row) for row in connection.execute(query.order_by(_table.c.created_at.desc()))]

    def revoke(self, owner: str, link_id: str) -> None:
        """End a link at once. Raises `Fault` (``files-link-gone``), for somebody else's as well."""
        with self._engine.begin() as connection:
            ours = delete(_table).where(_table.c.id == link_id[:32], _table.c.owner == owner)
            if not connection.execute(ours).rowcount:
                raise Fault("files-link-gone")

    def _mark(self, link_id: str) -> str:
        mark = hmac.new(self._key, link_id.encode("utf-8", "replace"), hashlib.sha256).digest()[:15]
        return base64.urlsafe_b64encode(mark).decode()


@contextmanager
def opened(nodes: Nodes, person: Person, link: Link, path: NodePath) -> Iterator[int]:
    """Give a descriptor of `path`, which is in what `link` is to, as a place; the block is done as `person`, its owner.

    Whoever may rename a folder on the way could put another thing of the owner's there, and would read it with the
    owner's permissions. So what is at the link's path is opened first, passing no symbolic link; then it is looked at
    through the descriptor, and all below it is reached from there: what takes its place meanwhile is never seen.

    Raises
    ------
    Fault
        ``files-link-gone`` for what is not what the link was made for, and what the path itself is refused for.
    """
    below = path.parts[len(link.path.parts) :]
    with nodes.acting(person, path, acl.READ), nodes.tree.node(link.path) as top:
        _check(nodes, person, link, top)
        if not below:
            yield top
            return
        try:
            descriptor = posix.open_beneath(top, below, os.O_PATH | os.O_NOFOLLOW)
        except OSError as err:
            raise Fault("files-link-gone") from err
        try:
            if stat.S_ISLNK(os.fstat(descriptor).st_mode):
                raise Fault("files-link-gone")
            yield descriptor
        finally:
            os.close(descriptor)


def _check(nodes: Nodes, person: Person, link: Link, top: int) -> None:
    """Refuse the open thing `top` in the place of `link`, if it is not what its owner made the link for.

    Another thing is only taken for the same, written anew, when the owner alone can have put it there, or when it is a
    file that those who could may read anyway.
    """
    status = os.fstat(top)
    is_file = stat.S_ISREG(status.st_mode)
    if can_switch() and status.st_uid != person.identity.uid:
        raise Fault("files-link-gone")
    if not is_file and not stat.S_ISDIR(status.st_mode):
        raise Fault("files-link-gone")
    group_reads = is_file and bool(status.st_mode & stat.S_IRGRP)
    if not is_marked(link.inode, top) and not group_reads and not _only_owner_renames(nodes, person, link.path):
        raise Fault("files-link-gone")


def _only_owner_renames(nodes: Nodes, person: Person, path: NodePath) -> bool:
    """Whether nobody but `person` (and the platform) can give another thing the place `path`."""
    for depth in range(2, len(path.parts)):
        with nodes.tree.node(NodePath(path.parts[:depth])) as descriptor:
            status = os.fstat(descriptor)
        # With an access control list the group's bits are its mask.
        if status.st_uid not in {0, person.identity.uid} or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return False
    return True


def _link(row: Row[tuple[object, ...]]) -> Link:
    values = dict(row._mapping)
    values["path"] = NodePath(tuple(values["path"].split(b"/")))
    return Link(**values)
