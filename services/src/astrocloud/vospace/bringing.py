"""Moves and copies that can be begun again: by an attempt after one whose process ended, at whichever moment."""

import json
import threading

from astrocloud.core.uws.jobs import Taken, Turn
from astrocloud.vospace import acl, copying, locks
from astrocloud.vospace.births import is_marked
from astrocloud.vospace.domain import Nodes
from astrocloud.vospace.errors import Fault
from astrocloud.vospace.models import NodePath, Person
from astrocloud.vospace.removing import Removed

_ABSENT = frozenset({"vospace-node-not-found", "vospace-container-not-found"})


class Bringing:
    """One move or copy.

    Before anything appears, its place and its mark (`births`) are kept with the job. An attempt that finds that very
    thing there knows that the one before had done it; without such a mark nothing had appeared.

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
        self._moved: str | None = None

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
            found = self._is_there(target, mark["inode"])
            if found:
                # Copied to another file system, and perhaps not removed from the old one.
                if mark["source"] is not None and self._is_there(source, mark["source"]):
                    self._remove_copied(source, target)
                return target
            if found is not None:
                raise Fault("vospace-duplicate-node", uri=str(target))
        work = self._nodes.copy if self._copies else self._nodes.move
        into = self._turn.mark is None  # else that was decided by the attempt before
        return work(self._person, source, target, into=into, tell=self._tell, appear=self._appear)

    def _tell(self, _size: int, _files: int) -> None:
        if self.stop.is_set():
            raise Taken

    def _appear(self, path: NodePath, mark: str) -> None:
        self._tell(0, 0)
        # A move appears as itself, and only if that cannot be, as a copy.
        source = self._moved
        self._moved = None if self._copies else mark
        self._turn.keep(json.dumps({"to": str(path), "inode": mark, "source": source}))

    def _is_there(self, path: NodePath, mark: str | int) -> bool | None:
        """Whether what has `mark` is at `path`; `None`: nothing is."""
        try:
            with self._nodes.acting(self._person, path, acl.WRITE), self._nodes.tree.place(path) as place:
                return is_marked(str(mark), place.folder, place.name)
        except FileNotFoundError:
            return None
        except Fault as fault:
            if fault.code in _ABSENT:
                return None
            raise

    def _remove_copied(self, source: NodePath, target: NodePath) -> None:
        """Remove `source`, of which an attempt before made the copy `target`, as long as all of it is there as well.

        Raises
        ------
        Fault
            As `Nodes.delete`; ``NodeBusy`` for what came or changed since.
        """
        nodes, removed = self._nodes, Removed()
        with nodes.account.busy(source):
            try:
                with nodes.acting(self._person, source, acl.WRITE):
                    locks.check_unlocked(nodes.tree, source)
                    locks.check_unlocked_below(nodes.tree, source)
                    copied = copying.Taken()
                    with nodes.tree.place(source) as old, nodes.tree.place(target) as new:
                        copied.note_alike(old.folder, old.name, new.folder, new.name)
                    nodes.tree.remove(source, removed, only=copied)
            finally:
                if source.top != target.top:
                    nodes.account.refund(source, size=removed.size, files=removed.files)
