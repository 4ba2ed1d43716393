"""What somebody asks for, in words, as what the file system keeps: shares and the targets of links."""

from collections.abc import Mapping

from astrocloud.vospace import rights
from astrocloud.vospace.errors import invalid_argument
from astrocloud.vospace.models import (
    GROUP_READ,
    GROUP_WRITE,
    IS_PUBLIC,
    PUBLIC_READ,
    USER_READ,
    USER_WRITE,
    Authority,
    Node,
    NodeRequest,
    Person,
    last_part,
)
from astrocloud.vospace.people import Owners


class Wishes:
    """Reads what is asked for.

    Parameters
    ----------
    authority
        How URIs are written and read.
    owners
        Names behind numbers.
    """

    def __init__(self, *, authority: Authority, owners: Owners) -> None:
        self._authority = authority
        self._owners = owners

    def link_target(self, request: NodeRequest) -> bytes:
        """Return where the link asked for leads to, as it is kept. Raises `Fault` (``InvalidArgument``)."""
        target = request.target or ""
        if not target:
            raise invalid_argument("a LinkNode needs a target, the URI that it leads to")
        if target.startswith("vos://") and self._authority.is_ours(target):
            inner = self._authority.parse(target)
            return b"/" + b"/".join(inner.parts)
        scheme, separator, _ = target.partition(":")
        if not separator or not scheme.isascii() or not scheme.replace("+", "a").replace("-", "a").isalnum():
            raise invalid_argument(f"the target {target[:200]!r} is no URI; write vos://… or https://…")
        encoded = target.encode()
        if len(encoded) > 2000 or b"\0" in encoded:
            raise invalid_argument("the target is longer than 2000 bytes, or holds a NUL")
        return encoded

    def rights(self, person: Person, changes: Mapping[str, str | None], *, current: Node | None) -> rights.Rights:
        """Return the shares that `changes` ask for. Raises `Fault` (``InvalidArgument``)."""
        public: bool | None = None
        for uri in (IS_PUBLIC, PUBLIC_READ):
            if uri in changes:
                text = (changes[uri] or "false").strip().lower()
                if text not in {"true", "false"}:
                    raise invalid_argument(f"{uri} is {text[:50]!r}; allowed: true, false")
                public = text == "true"
        if current is None and public is False:
            public = None  # that is what a new node is unless its folder is public
        return rights.Rights(
            public=public,
            group_read=self._gids(person, changes, GROUP_READ),
            group_write=self._gids(person, changes, GROUP_WRITE),
            user_read=self._uids(changes, USER_READ),
            user_write=self._uids(changes, USER_WRITE),
        )

    def _gids(self, person: Person, changes: Mapping[str, str | None], uri: str) -> frozenset[int] | None:
        if uri not in changes:
            return None
        found = set()
        for text in (changes[uri] or "").split():
            name = last_part(text)
            gid = self._owners.gid(name, person)
            if gid is None:
                raise invalid_argument(f"there is no group {name[:80]!r} (in {uri}); write {self._group_example()}")
            found.add(gid)
        return frozenset(found)

    def _group_example(self) -> str:
        return self._authority.group_uri("NAME") + " with the name of a group that has a project folder"

    def _uids(self, changes: Mapping[str, str | None], uri: str) -> frozenset[int] | None:
        if uri not in changes:
            return None
        found = set()
        for text in (changes[uri] or "").split():
            name = last_part(text)
            uid = self._owners.uid(name)
            if uid is None:
                example = self._authority.user_uri("NAME")
                raise invalid_argument(f"there is no person {name[:80]!r} with a home here (in {uri}); write {example}")
            found.add(uid)
        return frozenset(found)
