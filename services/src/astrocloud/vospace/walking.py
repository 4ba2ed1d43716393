"""Work on a node and all below it, one node at a time, counted: what clients start as a job of its own."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass

from astrocloud.vospace.domain import Nodes
from astrocloud.vospace.errors import Fault
from astrocloud.vospace.models import NodePath, NodeRequest, Person
from astrocloud.vospace.posix import DEEPEST


@dataclass
class Count:
    """What became of the nodes."""

    done: int = 0
    failed: int = 0


def _below(nodes: Nodes, person: Person, path: NodePath, *, count: Count, depth: int = 0) -> Iterator[NodePath]:
    """Yield all nodes below `path` that the person may see, the deepest first, then `path` itself."""
    if depth > DEEPEST:
        count.failed += 1
        return
    try:
        node = nodes.get(person, path, "min")
        if node.kind == "ContainerNode":
            children = nodes.children(person, path, detail="min")
            try:
                while batch := children.next_batch():
                    for child in batch:
                        if child.kind == "ContainerNode":
                            yield from _below(nodes, person, child.path, count=count, depth=depth + 1)
                        else:
                            yield child.path
            finally:
                children.close()
    except Fault:
        count.failed += 1
        return
    yield path


def delete_all(nodes: Nodes, person: Person, path: NodePath, stop: threading.Event) -> Count:
    """Remove `path` and all below it as far as the person may; what may not be removed stays.

    Raises
    ------
    Fault
        When `path` itself cannot even be looked at.
    """
    nodes.get(person, path, "min")
    count = Count()
    changed: set[NodePath] = set()
    for found in _below(nodes, person, path, count=count):
        if stop.is_set():
            break
        try:
            nodes.delete_one(person, found, lasting=False)
        except Fault:
            count.failed += 1
        else:
            count.done += 1
            changed.discard(found)
            changed.add(found.parent)
    # Once for each folder that stays, not once for each node.
    for folder in changed:
        nodes.make_lasting(person, folder)
    return count


def set_all(nodes: Nodes, person: Person, request: NodeRequest, stop: threading.Event) -> Count:
    """Change the properties of a node and all below it, as far as the person may.

    Raises
    ------
    Fault
        When the node itself cannot even be looked at.
    """
    nodes.get(person, request.path, "min")
    count = Count()
    for found in _below(nodes, person, request.path, count=count):
        if stop.is_set():
            break
        try:
            nodes.set(person, NodeRequest(found, None, request.properties))
            count.done += 1
        except Fault as fault:
            # A link has no properties of its own: nothing to do there.
            count.failed += fault.code != "vospace-operation-not-supported"
    return count
