"""Locks of two kinds: a person's, which keep a node as it is, and those that let one change come after the other."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from astrocloud.vospace import attributes, posix
from astrocloud.vospace.errors import Fault
from astrocloud.vospace.identity import as_platform
from astrocloud.vospace.models import IS_LOCKED, NodePath
from astrocloud.vospace.storage import Tree

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def is_locked(place: str) -> bool:
    """Whether somebody locked the node at `place`, as `posix.proc_path` names it."""
    return attributes.read_kept(place).properties.get(IS_LOCKED) == "true"


def locked_below(folder: int, path: NodePath, depth: int = 0) -> NodePath | None:
    """Return a locked node below the folder `path`, whose name is in the open folder `folder`; `None`: there is none.

    To be called as the platform: a lock holds whether or not somebody may read it. Deeper than anything is worked on
    nothing is found.
    """
    if depth > posix.DEEPEST:
        return None
    with suppress(FileNotFoundError, NotADirectoryError):
        inner = os.open(path.name, _FOLDER, dir_fd=folder)
        try:
            with os.scandir(inner) as entries:
                batch = [(os.fsencode(entry.name), entry.is_dir(follow_symlinks=False)) for entry in entries]
            for name, is_folder in batch:
                child = path / name
                with suppress(FileNotFoundError):
                    if is_locked(posix.proc_path(inner, name)):
                        return child
                    if is_folder and (found := locked_below(inner, child, depth + 1)) is not None:
                        return found
        finally:
            os.close(inner)
    return None


_turns = tuple(threading.Lock() for _ in range(64))


@contextmanager
def one_after_the_other(node: int) -> Iterator[None]:
    """Let changes of what the descriptor `node` names, which are read, changed and written, not lose each other.

    Of this process; two processes that share a file system do not wait for each other.
    """
    status = os.fstat(node)
    with _turns[hash((status.st_dev, status.st_ino)) % len(_turns)]:
        yield


def check_unlocked(tree: Tree, path: NodePath) -> None:
    """Refuse to change a node that somebody locked, or that is in a locked folder."""
    with tree.node(path) as descriptor:
        kept = attributes.read_kept(posix.proc_path(descriptor))
    if kept.properties.get(IS_LOCKED) == "true":
        raise Fault("vospace-node-locked", uri=str(path))
    check_parent_unlocked(tree, path)


def check_unlocked_below(tree: Tree, path: NodePath) -> None:
    """Refuse to take away a folder with something in it that somebody locked."""
    with tree.place(path) as place, as_platform():
        locked = locked_below(place.folder, path)
    if locked is not None:
        # Which one is not told: it may be in a folder that this person may not look into.
        raise Fault("vospace-node-locked", uri=f"{path}/…")


def check_parent_unlocked(tree: Tree, path: NodePath) -> None:
    """Refuse to change what is in a folder that somebody locked."""
    try:
        with tree.node(path.parent) as descriptor:
            kept = attributes.read_kept(posix.proc_path(descriptor))
    except Fault:
        return  # the change itself will say it better
    if kept.properties.get(IS_LOCKED) == "true":
        raise Fault("vospace-node-locked", uri=str(path.parent))
