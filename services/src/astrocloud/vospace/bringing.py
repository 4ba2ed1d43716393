"""Moves and copies that can be begun again: by an attempt after one whose process ended, at whichever moment."""

import json
import os
import threading

from astrocloud.core.uws.jobs import Taken, Turn
from astrocloud.vospace import acl
from astrocloud.vospace.domain import Nodes
from astrocloud.vospace.errors import Fault
from astrocloud.vospace.models import NodePath, Person

_ABSENT = frozenset({"vospace-node-not-found", "vospace-container-not-found"})


class Bringing:
    """One move or copy.

    Before anything appears, its place and its inode are kept with the job. An attempt that finds that very thing there
    knows that the one before had done it; without such a mark nothing had appeared.

    Parameters
    ----------
    nodes
        The rules.
    person
        Whose permissions hold.
    turn
        The attempt.
    copies
        Whether the source stays.
    """

    def __init__(self, *, nodes: Nodes, person: Person, turn: Turn, copies: bool) -> None:
        self._nodes = nodes
        self._person = person
        self._turn = turn
        self._copies = copies
        self.stop = threading.Event()
        """Ends it, as long as nothing has appeared."""
        self._moved: int | None = None

    def bring(self, source: NodePath, target: NodePath) -> NodePath:
        """Bring `source` to `target`, or into it when it is a folder; return where it is now; for a worker thread.

        Raises
        ------
        Fault
            As `Nodes.move` and `Nodes.copy`.
        Taken
            When it was ended.
        """
        if self._turn.mark is not None:
            mark = json.loads(self._turn.mark)
            target = NodePath.from_url(mark["to"])
            found = self._inode(target)
            if found == mark["inode"]:
                # Copied to another file system, and perhaps not removed from the old one.
                if mark["source"] is not None and self._inode(source) == mark["source"]:
                    self._nodes.delete(self._person, source)
                return target
            if found is not None:
                raise Fault("vospace-duplicate-node", uri=str(target))
        work = self._nodes.copy if self._copies else self._nodes.move
        into = self._turn.mark is None  # else that was decided by the attempt before
        return work(self._person, source, target, into=into, tell=self._tell, appear=self._appear)

    def _tell(self, _size: int, _files: int) -> None:
        if self.stop.is_set():
            raise Taken

    def _appear(self, path: NodePath, inode: int) -> None:
        self._tell(0, 0)
        # A move appears as itself, and only if that cannot be, as a copy.
        source = self._moved
        self._moved = None if self._copies else inode
        self._turn.keep(json.dumps({"to": str(path), "inode": inode, "source": source}))

    def _inode(self, path: NodePath) -> int | None:
        try:
            with self._nodes.acting(self._person, path, acl.WRITE), self._nodes.tree.place(path) as place:
                return os.stat(place.name, dir_fd=place.folder, follow_symlinks=False).st_ino
        except FileNotFoundError:
            return None
        except Fault as fault:
            if fault.code in _ABSENT:
                return None
            raise
