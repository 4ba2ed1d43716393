"""Opening a file to send its bytes: the descriptor that passed the permission check is the one that is sent."""

import os
import stat
from dataclasses import dataclass

from astrocloud.vospace import attributes, posix
from astrocloud.vospace.errors import Fault
from astrocloud.vospace.models import TYPE, NodePath
from astrocloud.vospace.reading import content_type
from astrocloud.vospace.storage import Tree, refusal
from astrocloud.vospace.uploads import etag


@dataclass(frozen=True)
class OpenFile:
    """A file that may be read, open."""

    path: NodePath
    descriptor: int
    status: os.stat_result
    content_type: str
    md5: str | None
    """The sum of its bytes in hexadecimal, where it is known."""

    @property
    def etag(self) -> str:
        """Its strong entity tag."""
        return etag(self.status)

    def close(self) -> None:
        """Close it."""
        os.close(self.descriptor)


def open_file(tree: Tree, path: NodePath) -> OpenFile:
    """Return the file that `path` leads to, open for reading; called inside `identity.acting_as`.

    Raises
    ------
    Fault
        ``NodeNotFound``, ``PermissionDenied``, ``LinkFound`` (out of the tree), ``TypeNotSupported`` for a folder, and
        for devices and pipes, which are never opened.
    """
    path = tree.follow(path)
    with tree.node(path) as place:
        status = os.fstat(place)
        if not stat.S_ISREG(status.st_mode):
            what = "a folder; ask for a view of it (zip, tar)" if stat.S_ISDIR(status.st_mode) else "no regular file"
            raise Fault("vospace-type-not-supported", uri=str(path), type=what)
        try:
            descriptor = os.open(posix.proc_path(place), os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY)
        except OSError as err:
            raise refusal(err, path) from err
    try:
        status = os.fstat(descriptor)
        inside = posix.proc_path(descriptor)
        kind = attributes.read_kept(inside).properties.get(TYPE) or content_type(path.shown_name)
        return OpenFile(path, descriptor, status, kind, attributes.read_md5(inside, status))
    except BaseException:
        os.close(descriptor)
        raise
