"""What people may where the platform cannot act as them: it is not root, and to the kernel everybody is the platform.

Then a person has their own home and the folders of their own groups, reads ``archive`` and ``course``, and of all
else what it lets everybody read. Where the platform is root the kernel decides, and this lets everything pass.
"""

import os
import stat

from astrocloud.vospace import acl, posix
from astrocloud.vospace.errors import Fault
from astrocloud.vospace.identity import Identity
from astrocloud.vospace.models import NodePath, Person
from astrocloud.vospace.storage import Tree


class Gate:
    """Decides what the kernel cannot.

    Parameters
    ----------
    tree
        The files.
    closed
        Whether the kernel cannot tell people apart.
    """

    def __init__(self, *, tree: Tree, closed: bool) -> None:
        self._tree = tree
        self.closed = closed

    def identity(self, person: Person) -> Identity:
        """Return the identity that permission bits are compared with."""
        if not self.closed or person.name is None:
            return person.identity
        return Identity(os.geteuid(), os.getegid(), tuple(os.getgroups()))

    def check(self, person: Person, path: NodePath, want: int) -> None:
        """Refuse `person` the permissions `want` on `path`. Raises `Fault` (``PermissionDenied``)."""
        if not self.closed or self._is_own(person, path):
            return
        if want & acl.WRITE or (not self._is_for_all(path) and not self._lets_everybody(path, want)):
            raise Fault("vospace-permission-denied", uri=str(path))

    def _is_own(self, person: Person, path: NodePath) -> bool:
        if person.name is None or len(path.parts) < 2:
            return False
        top, name = path.parts[0], path.parts[1]
        if top == b"home":
            return name == person.name.encode()
        return top == b"project" and name in {group.encode() for group in person.groups}

    def _is_for_all(self, path: NodePath) -> bool:
        return len(path.parts) < 2 or path.parts[0] in {b"archive", b"course"}

    def _lets_everybody(self, path: NodePath, want: int) -> bool:
        for depth in range(1, len(path.parts) + 1):
            part = NodePath(path.parts[:depth])
            last = depth == len(path.parts)
            try:
                descriptor = posix.open_beneath(self._tree.descriptor, part.parts, os.O_PATH | os.O_NOFOLLOW)
            except OSError:
                return False
            try:
                status = os.fstat(descriptor)
            finally:
                os.close(descriptor)
            needed = acl.PASS if not last else want
            # Everybody's own bits: to the kernel all here belongs to one user, maybe the very one called nobody.
            if not stat.S_ISLNK(status.st_mode) and status.st_mode & needed != needed:
                return False
        return True
