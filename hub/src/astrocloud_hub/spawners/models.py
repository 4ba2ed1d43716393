"""What the parts of the spawners pass between them."""

from dataclasses import dataclass
from typing import Any

from astrocloud_hub.errors import HubError


@dataclass(frozen=True, kw_only=True)
class Group:
    """One of the platform's groups."""

    name: str
    """Its name, also that of its folder below ``/project``."""
    gid: int
    """Its number in the file tree."""


@dataclass(frozen=True, kw_only=True)
class Person:
    """Whose server it is: what the passport's directory says of somebody."""

    username: str
    uid: int
    """The person's own user id; never that of somebody else."""
    gid: int
    """The person's own group."""
    groups: tuple[Group, ...] = ()
    """The groups besides it, sorted by name."""

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> "Person":
        """Return the person that the directory's `document` tells of.

        Raises
        ------
        HubError
            ``person-ids`` when the document lacks an id or names one of the system's (below 1000).
        """
        name = str(document.get("username", ""))
        try:
            groups = tuple(
                sorted(
                    (Group(name=str(each["name"]), gid=int(each["gid"])) for each in document.get("groups") or ()),
                    key=lambda group: group.name,
                )
            )
            person = cls(username=name, uid=int(document["uid"]), gid=int(document["gid"]), groups=groups)
        except (KeyError, TypeError, ValueError) as err:
            raise HubError("person-ids", user=name) from err
        # The directory hands out ids from its own range; a small one would be a system account's, 0 the machine.
        if min(person.uid, person.gid, *(group.gid for group in groups), 1000) < 1000 or not name:
            raise HubError("person-ids", user=name)
        return person

    def names(self) -> tuple[str, str]:
        """Return ``passwd`` and ``group`` files in which only the person's own names are."""
        passwd = [
            "root:x:0:0:root:/root:/usr/sbin/nologin",
            f"{self.username}:x:{self.uid}:{self.gid}::/home/{self.username}:/bin/bash",
            "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin",
        ]
        groups = ["root:x:0:", "tty:x:5:", f"{self.username}:x:{self.gid}:"]
        groups += [f"{group.name}:x:{group.gid}:{self.username}" for group in self.groups if group.gid != self.gid]
        return "\n".join(passwd) + "\n", "\n".join([*groups, "nogroup:x:65534:"]) + "\n"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much of the machine one server may use."""

    memory_bytes: int
    """The most memory all of its processes may use together."""
    processes: int
    """How many processes and threads, at most."""
    cpus: float
    """How many processors' worth of time, at most."""
