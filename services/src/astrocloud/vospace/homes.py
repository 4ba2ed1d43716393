"""A person's folders in the tree, made where they are missing: VOSpace may be used before any server ever ran."""

import os
import threading
import time
from pathlib import Path
from typing import Final

from astrocloud.vospace.errors import Fault
from astrocloud.vospace.models import Person

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LOOKED_AT_S: Final = 15


class Homes:
    """Makes home and project folders.

    Parameters
    ----------
    tree
        The folder that has ``home`` and ``project``.
    as_root
        Whether folders can be given to people.
    """

    def __init__(self, tree: Path, *, as_root: bool) -> None:
        self._tree = tree
        self._as_root = as_root
        self._done: dict[str, tuple[float, Person]] = {}
        self._lock = threading.Lock()

    def are_there(self, person: Person) -> bool:
        """Whether the folders of `person` were looked at a moment ago; asks no file system."""
        until, known = self._done.get(person.name or "", (0.0, None))
        return time.monotonic() < until and known == person

    def ensure(self, person: Person) -> None:
        """Make the home of `person` and the folders of the person's groups, where they are missing.

        Raises
        ------
        Fault
            ``InternalFault`` when something else is in the place of a folder.
        """
        if person.name is None or self.are_there(person):
            return
        with self._lock:
            identity = person.identity
            self._make("home", person.name, mode=0o700, owner=(identity.uid, identity.gid))
            for group, gid in person.groups.items():
                # Setgid: what is made inside belongs to the group. The folder itself stays the platform's.
                self._make("project", group, mode=0o2770, owner=(0, gid))
            if len(self._done) > 10_000:
                self._done.clear()
            self._done[person.name] = (time.monotonic() + _LOOKED_AT_S, person)

    def _make(self, top: str, name: str, *, mode: int, owner: tuple[int, int]) -> None:
        if name in {"", ".", ".."} or "/" in name:
            raise Fault("vospace-internal-fault", what=f"no folder can be named {name!r}")
        try:
            outer = os.open(self._tree / top, _FOLDER)
            try:
                fresh = _made(outer, name)
                inner = os.open(name, _FOLDER, dir_fd=outer)
            finally:
                os.close(outer)
        except OSError as err:
            raise Fault("vospace-internal-fault", what=f"/{top}/{name} is unusable: {err.strerror}") from err
        try:
            status = os.fstat(inner)
            # Not ours alone to make: a folder still without its owner was begun by somebody who did not finish.
            if fresh or (self._as_root and (status.st_uid, status.st_gid) == (0, 0)):
                if self._as_root:
                    os.fchown(inner, *owner)
                os.fchmod(inner, mode)
            elif self._as_root and top == "home" and status.st_uid != owner[0]:
                raise Fault("vospace-internal-fault", what=f"/home/{name} belongs to user id {status.st_uid}")
        finally:
            os.close(inner)


def _made(outer: int, name: str) -> bool:
    try:
        # Nobody but the platform until the owner is right.
        os.mkdir(name, 0o700, dir_fd=outer)
    except FileExistsError:
        return False
    return True
