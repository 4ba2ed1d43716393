"""Work on many files at a person's request: copy, move, delete, restore, share; with progress, and a way to end it."""

import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from astrocloud.core.errors import RequestError
from astrocloud.vospace import acl, walking
from astrocloud.vospace.domain import Nodes
from astrocloud.vospace.errors import Fault
from astrocloud.vospace.models import NodePath, NodeRequest, Person
from astrocloud.vospace.myfiles.entries import bring_beside, cut, exists, free_name
from astrocloud.vospace.myfiles.trash import Trash

KINDS: Final = ("copy", "move", "trash", "delete", "restore", "share")
CONFLICTS: Final = ("keep", "replace", "skip")
"""What to do where a name is taken: give the new one another name, put the old one into the trash, or leave it be."""
PROBLEMS_TOLD: Final = 100


class Stopped(Exception):  # noqa: N818 - not an error: somebody asked for it
    """The work was ended before its time."""


@dataclass
class Task:
    """One piece of work, and how far it is. Written by one worker thread, read by others."""

    kind: str
    items: list[NodePath]
    target: NodePath | None = None
    conflict: str = "keep"
    properties: Mapping[str, str | None] = field(default_factory=dict)
    language: str = "en"
    total: int = 0
    done: int = 0
    skipped: int = 0
    failed: int = 0
    total_bytes: int = 0
    done_bytes: int = 0
    total_files: int = 0
    done_files: int = 0
    name: str = ""
    """What is worked on now."""
    problems: list[dict[str, str]] = field(default_factory=list)
    results: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)
    ended: bool = False

    def tell(self, size: int, files: int) -> None:
        """Count what has been copied. Raises `Stopped`."""
        self.done_bytes += size
        self.done_files += files
        if self.stop.is_set():
            raise Stopped

    def fail(self, path: NodePath, error: RequestError) -> None:
        """Remember that something could not be done."""
        self.failed += 1
        if len(self.problems) < PROBLEMS_TOLD:
            told = {"path": str(path), "name": path.shown_name, "code": error.code}
            self.problems.append({**told, "detail": error.sentence(self.language)})

    def document(self) -> dict[str, Any]:
        """Return how far it is."""
        names = ("total", "done", "skipped", "failed", "name", "problems", "results")
        counts = ("total_bytes", "done_bytes", "total_files", "done_files")
        return {"do": self.kind, **{name: getattr(self, name) for name in (*names, *counts)}}


class Works:
    """Does the work; every method is for a worker thread.

    Parameters
    ----------
    nodes
        The rules.
    trash
        Where deleted things go.
    """

    def __init__(self, *, nodes: Nodes, trash: Trash) -> None:
        self._nodes = nodes
        self._trash = trash

    def run(self, person: Person, task: Task) -> None:
        """Do all of `task`; what cannot be done is told in it, and the rest is done all the same."""
        step: Callable[[Person, Task, NodePath], NodePath | None] = {
            "copy": self._copy,
            "move": self._move,
            "trash": lambda who, _task, path: self._trash.put(who, path),
            "delete": self._delete,
            "restore": lambda who, _task, path: self._trash.restore(who, path),
            "share": self._share,
        }[task.kind]
        task.total = len(task.items)
        if task.kind == "copy":
            self._measure(person, task)
        for path in task.items:
            if task.stop.is_set():
                return
            task.name = path.shown_name
            try:
                result = step(person, task, path)
            except Stopped:
                return
            except RequestError as error:
                task.fail(path, error)
            else:
                task.done += 1
                if result is not None and len(task.results) < PROBLEMS_TOLD:
                    task.results.append(str(result))

    def _measure(self, person: Person, task: Task) -> None:
        for path in task.items:
            if task.stop.is_set():
                return
            try:
                size, files = self._nodes.measured(person, path)
            except Fault:
                continue  # told when its turn comes
            task.total_bytes += size
            task.total_files += files

    def _place(self, person: Person, task: Task, path: NodePath) -> NodePath | None:
        """Return where `path` goes; `None` when it is to be left out."""
        assert task.target is not None
        target = task.target / path.name
        if target == path and task.kind == "move":
            task.skipped += 1
            return None
        if not exists(self._nodes, person, target):
            return target
        if task.conflict == "skip" or (task.conflict == "replace" and target == path):
            task.skipped += 1
            return None
        if path.inside(target):
            return free_name(self._nodes, person, target)
        return target

    def _copy(self, person: Person, task: Task, path: NodePath) -> NodePath | None:
        def bring(place: NodePath) -> NodePath:
            return self._nodes.copy(person, path, place, into=False, tell=task.tell)

        return self._bring(person, task, path, bring, lambda place: self._nodes.delete(person, place))

    def _move(self, person: Person, task: Task, path: NodePath) -> NodePath | None:
        def bring(place: NodePath) -> NodePath:
            return self._nodes.move(person, path, place, into=False)

        def undo(place: NodePath) -> NodePath:
            return bring_beside(
                self._nodes, person, path, lambda free: self._nodes.move(person, place, free, into=False)
            )

        return self._bring(person, task, path, bring, undo)

    def _bring(
        self,
        person: Person,
        task: Task,
        path: NodePath,
        bring: Callable[[NodePath], NodePath],
        undo: Callable[[NodePath], object],
    ) -> NodePath | None:
        """Bring `path` to where it goes; what has the name there goes to the trash once all of the new one is there."""
        target = self._place(person, task, path)
        if target is None:
            return None
        if task.conflict == "keep":
            return bring_beside(self._nodes, person, target, bring)
        if task.conflict != "replace" or not exists(self._nodes, person, target):
            return bring(target)
        # No name of the kind that is swept: it may be all that there is of what is moved.
        beside = bring(target.parent / (b"." + cut(target.name, 200) + b".replacing-" + secrets.token_hex(8).encode()))
        thrown: NodePath | None = None
        try:
            thrown = self._trash.put(person, target)
            with self._nodes.acting(person, target, acl.WRITE):
                self._nodes.tree.rename(beside, target)
        except BaseException:
            try:
                if thrown is not None:
                    self._trash.restore(person, thrown)
            finally:
                undo(beside)
            raise
        return target

    def _delete(self, person: Person, _task: Task, path: NodePath) -> None:
        self._nodes.delete(person, path)

    def _share(self, person: Person, task: Task, path: NodePath) -> NodePath | None:
        """Share `path`, and all below it; the node itself first, so that a refusal is told as such."""
        self._nodes.set(person, NodeRequest(path, None, task.properties))
        count = walking.set_all(self._nodes, person, NodeRequest(path, None, task.properties), task.stop)
        task.done_files += count.done
        if count.failed:
            task.fail(path, Fault("files-share-partly", path=str(path), failed=count.failed, done=count.done))
        return path
