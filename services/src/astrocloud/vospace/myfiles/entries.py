"""What a page tells of a file, a folder or a link."""

import errno
import os
import stat
from collections.abc import Callable, Iterable
from typing import Any, Final

from astrocloud.vospace import acl, posix
from astrocloud.vospace.domain import Nodes
from astrocloud.vospace.errors import Fault
from astrocloud.vospace.models import (
    CONTAINER,
    CREATOR,
    DATE,
    IS_LOCKED,
    IS_PUBLIC,
    LENGTH,
    LINK,
    NAME_LIMIT_BYTES,
    NOBODY,
    TYPE,
    USER_READ,
    USER_WRITE,
    Node,
    NodePath,
    Person,
)
from astrocloud.vospace.reading import content_type

_ATTEMPTS: Final = 10
KINDS: Final = {CONTAINER: "folder", LINK: "link"}


def describe(node: Node) -> dict[str, Any]:
    """Return `node` as the page's script takes it: ``path`` is for the interface, ``name`` for reading."""
    told = node.properties
    kind = KINDS.get(node.kind, "file")
    found: dict[str, Any] = {
        "name": node.path.shown_name,
        "path": str(node.path),
        "kind": kind,
        "size": int(told.get(LENGTH, "0")) if kind == "file" else None,
        "modified": f"{told[DATE]}Z" if DATE in told else None,
        "owner": told.get(CREATOR, ""),
        "shared": bool(told.get(USER_READ) or told.get(USER_WRITE)),
        "public": told.get(IS_PUBLIC) == "true",
        "locked": told.get(IS_LOCKED) == "true",
    }
    if kind == "file":
        found["type"] = told.get(TYPE) or content_type(node.path.shown_name)
    if kind == "link":
        found["target"] = node.target
    return found


def describe_link(nodes: Nodes, person: Person, node: Node) -> dict[str, Any]:
    """Return the link `node` with what it leads to, as far as `person` may see that."""
    found = describe(node)
    try:
        with nodes.acting(person, node.path, acl.READ):
            there = nodes.tree.follow(node.path)
        aim = describe(nodes.get(person, there, "properties"))
    except (Fault, OSError):
        return found
    return {
        **found,
        "leads": {name: aim[name] for name in ("path", "kind", "size", "modified")} | {"type": aim.get("type")},
    }


def open_to_all(nodes: Nodes, path: NodePath) -> bool:
    """Whether somebody who is not signed in gets into the folder `path`, so that what all may read there is public."""
    try:
        with nodes.acting(NOBODY, path, acl.PASS), nodes.tree.node(path) as descriptor:
            status = os.fstat(descriptor)
            if not stat.S_ISDIR(status.st_mode):
                return False
            value = acl.read(posix.proc_path(descriptor)) if status.st_mode & stat.S_IRWXG else None
            return acl.permits(status, value, NOBODY.identity, acl.PASS)
    except (Fault, OSError):
        return False


def entry(nodes: Nodes, person: Person, path: NodePath) -> dict[str, Any]:
    """Return one entry. Raises `Fault` as `Nodes.get` does."""
    node = nodes.get(person, path, "properties")
    told = describe_link(nodes, person, node) if node.kind == LINK else describe(node)
    told["public"] = told["public"] and open_to_all(nodes, path.parent)
    return told


def standing(nodes: Nodes, person: Person, folder: NodePath, names: Iterable[bytes]) -> dict[bytes, dict[str, Any]]:
    """Return which of `names` something in `folder` has, with its kind and size as far as `person` may see them.

    A name that nothing can have is not among them, nor is any that a listing would not tell `person`.
    """
    found: dict[bytes, dict[str, Any]] = {}
    reader = nodes.reader(person)
    with nodes.acting(person, folder, acl.READ | acl.PASS), nodes.tree.node(folder) as place:
        if not nodes.tree.tells(folder / b"name"):
            return found
        for name in names:
            try:
                os.stat(name, dir_fd=place, follow_symlinks=False)
            except OSError as err:
                if err.errno in {errno.ENOENT, errno.ENAMETOOLONG}:
                    continue
                raise nodes.tree.refusal(err, folder) from err
            node = reader.child(place, folder, name, "properties")
            told = describe(node) if node is not None else {"kind": "file", "size": None}
            found[name] = {"kind": told["kind"], "size": told["size"]}
    return found


def kind_of(nodes: Nodes, person: Person, path: NodePath) -> str | None:
    """Return ``folder``, ``file`` or ``link``, or `None` where `person` finds nothing."""
    try:
        return KINDS.get(nodes.get(person, path, "min").kind, "file")
    except Fault as fault:
        if fault.code in {"vospace-node-not-found", "vospace-container-not-found"}:
            return None
        raise


def exists(nodes: Nodes, person: Person, path: NodePath) -> bool:
    """Whether `person` finds the name of `path` taken, be it by what they may not read.

    Where they may not know that it is not: whoever then takes the name is refused it.
    """
    with nodes.acting(person, path.parent, acl.READ | acl.PASS), nodes.tree.place(path) as place:
        try:
            return nodes.tree.tells(path) and posix.exists(place.folder, place.name)
        except OSError as err:
            raise nodes.tree.refusal(err, path) from err


def free_name(nodes: Nodes, person: Person, path: NodePath) -> NodePath:
    """Return `path`, or beside it ``NAME (2).EXTENSION`` with the first number that nothing has."""
    if not exists(nodes, person, path):
        return path
    stem, extension = _split(path.name)
    for number in range(2, 10_000):
        mark = f" ({number})".encode()
        room = NAME_LIMIT_BYTES - len(mark) - len(extension)
        candidate = path.parent / (cut(stem, room) + mark + extension)
        if not exists(nodes, person, candidate):
            return candidate
    raise Fault("vospace-duplicate-node", uri=str(path))


def bring_beside(nodes: Nodes, person: Person, path: NodePath, bring: Callable[[NodePath], NodePath]) -> NodePath:
    """Let `bring` put something at `path`, or at a free name beside it; return what it returns.

    Others may be as quick to take a name that was free: then the next one is tried.
    """
    for _attempt in range(_ATTEMPTS):
        free = free_name(nodes, person, path)
        try:
            return bring(free)
        except Fault as fault:
            if fault.code != "vospace-duplicate-node":
                raise
    raise Fault("vospace-duplicate-node", uri=str(path))


def _split(name: bytes) -> tuple[bytes, bytes]:
    """Return the stem and the extension of `name`: ``.tar.gz`` is one, and a name that begins with a dot has none."""
    stem, dot, extension = name.rpartition(b".")
    if not stem or len(extension) > 20:
        return name, b""
    if stem.endswith(b".tar"):
        stem, extension = stem[:-4], b"tar." + extension
    return stem, dot + extension


def cut(stem: bytes, room: int) -> bytes:
    """Return as much of `stem` as fits into `room` bytes without half a character."""
    return stem if len(stem) <= room else stem[:room].decode("utf-8", "ignore").encode()
