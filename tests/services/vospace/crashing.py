"""Kills an operation at each of its steps in turn, and looks at what is there then.

Run as a program of its own, because it forks: ``python -m tests.services.vospace.crashing FOLDER``. Prints a line of
JSON for each operation and step: what could be seen after the kill, and after the sweep that follows.
"""

import errno
import functools
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine
from sqlalchemy.pool import StaticPool

from astrocloud.core.database import metadata
from astrocloud.vospace import attributes, posix, scanning, walking
from astrocloud.vospace.domain import Nodes
from astrocloud.vospace.gate import Gate
from astrocloud.vospace.identity import can_switch
from astrocloud.vospace.models import LINK, Authority, NodePath, NodeRequest, is_hidden
from astrocloud.vospace.myfiles.trash import Trash
from astrocloud.vospace.myfiles.works import Task, Works
from astrocloud.vospace.partial import Partials
from astrocloud.vospace.people import Owners
from astrocloud.vospace.resuming import Resuming
from astrocloud.vospace.storage import Tree
from astrocloud.vospace.uploads import Expected
from tests.services.vospace.platform import PEOPLE

ADA = PEOPLE["ada"]
STEPS = (
    "write",
    "writev",
    "fsync",
    "rename",
    "unlink",
    "rmdir",
    "mkdir",
    "ftruncate",
    "utime",
    "open",
    "fchmod",
    "fchown",
    "copy_file_range",
    "symlink",
    "setxattr",
    "removexattr",
)


class NoQuotas:
    def charge(self, top: NodePath, *, size: int, files: int, done: bool = False) -> None:
        pass

    def usage(self, top: NodePath) -> None:
        return None

    def enter(self, top: NodePath) -> None:
        pass

    def leave(self, top: NodePath) -> None:
        pass


def path(text: str) -> NodePath:
    return NodePath.from_url(text)


def put(nodes: Nodes) -> None:
    upload = nodes.begin_upload(ADA, path("/home/ada/f"))
    upload.write(b"new")
    upload.commit(md5="0" * 32)


def database() -> Engine:
    engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    metadata.create_all(engine)
    return engine


def put_new(nodes: Nodes) -> None:
    upload = nodes.begin_upload(ADA, path("/home/ada/n"))
    upload.write_all([b"fre", b"sh"])
    upload.commit(md5=None, expected=Expected(must_be_new=True))


def resumed(nodes: Nodes) -> None:
    """An upload in two parts, the last of which puts it in its place."""
    uploads = Resuming(nodes=nodes, partials=Partials(database()))
    begun = uploads.begin(ADA, path("/home/ada/f"), length=3, replaces=True)
    for part in (b"n", b"ew"):
        with uploads.opened(ADA, begun) as upload:
            uploads.append(begun, upload, part)
            uploads.finish(begun, upload)


def trash_of(nodes: Nodes) -> Trash:
    return Trash(nodes=nodes, engine=database(), as_root=can_switch(), days=30)


def thrown(nodes: Nodes) -> tuple[Trash, NodePath]:
    """A trash with the folder in it: what happened before the step that may be the last."""
    trash = trash_of(nodes)
    place = trash.put(ADA, path("/home/ada/d"))
    assert place is not None
    return trash, place


def replaced(nodes: Nodes) -> None:
    """My files: a folder is copied to where another has the name."""
    task = Task(kind="copy", items=[path("/home/ada/x/d")], target=path("/home/ada"), conflict="replace")
    Works(nodes=nodes, trash=trash_of(nodes)).run(ADA, task)
    assert not task.problems, task.problems


def other_file_system(nodes: Nodes) -> None:
    """A move between two file systems, as a project's own volume is one."""
    real = posix.rename_new

    def rename_new(source: bytes, source_folder: int, target: bytes, target_folder: int) -> None:
        if os.fstat(source_folder).st_ino != os.fstat(target_folder).st_ino:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        real(source, source_folder, target, target_folder)

    posix.rename_new = rename_new
    nodes.move(ADA, path("/home/ada/d"), path("/project/team/d"))


OPERATIONS: dict[str, Callable[[Nodes], Any]] = {
    "put": put,
    "put-new": put_new,
    "resumed": resumed,
    "link": lambda nodes: nodes.create(ADA, NodeRequest(path("/home/ada/n"), LINK, {}, "vos:x")),
    "move": lambda nodes: nodes.move(ADA, path("/home/ada/d"), path("/home/ada/moved")),
    "other-file-system": other_file_system,
    "copy": lambda nodes: nodes.copy(ADA, path("/home/ada/d"), path("/home/ada/copied")),
    "delete": lambda nodes: nodes.delete(ADA, path("/home/ada/d")),
    "delete-one": lambda nodes: nodes.delete_one(ADA, path("/home/ada/f")),
    "delete-all": lambda nodes: walking.delete_all(nodes, ADA, path("/home/ada/d"), threading.Event()),
    "replace": replaced,
    "trash": lambda nodes: trash_of(nodes).put(ADA, path("/home/ada/d")),
}
THEN: dict[str, Callable[[Nodes], Callable[[], Any]]] = {
    "restore": lambda nodes: functools.partial(lambda trash, place: trash.restore(ADA, place), *thrown(nodes)),
    "purge": lambda nodes: functools.partial(lambda trash, _place: trash.sweep(time.time() + 1), *thrown(nodes)),
}
"""What needs something to have been done before."""


def work_of(name: str, nodes: Nodes) -> Callable[[], Any]:
    """Return the operation `name`, ready to be done."""
    return THEN[name](nodes) if name in THEN else functools.partial(OPERATIONS[name], nodes)


def make(folder: Path) -> Nodes:
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("home/ada/d/e", "home/ada/x/d", "project/team"):
        (folder / name).mkdir(parents=True)
    (folder / "home/ada/f").write_bytes(b"old")
    (folder / "home/ada/x/d/new").write_bytes(b"new")
    for name in ("1", "2", "e/3"):
        (folder / "home/ada/d" / name).write_bytes(name.encode())
    (folder / "home/ada/d/l").symlink_to("e/3")
    for found in (folder / "home/ada", folder / "project/team", *(folder / "home/ada").rglob("*")):
        if os.geteuid() == 0:
            os.chown(found, ADA.identity.uid, ADA.identity.gid, follow_symlinks=False)
    kept = attributes.Kept(None, {"ivo://ivoa.net/vospace/core#title": "kept"})
    for name in ("f", "d", "d/1"):
        attributes.write_kept(str(folder / "home/ada" / name), kept)
    tree = Tree(folder)
    return Nodes(
        tree=tree,
        authority=Authority("astrocloud.local"),
        owners=Owners(folder),
        quotas=NoQuotas(),
        gate=Gate(tree=tree, closed=not can_switch()),
    )


def seen(folder: Path, *, hidden: bool) -> dict[str, str]:
    """What a listing shows (or, with `hidden`, everything): bytes, where links lead, and the property of a few."""
    found: dict[str, str] = {}
    for place, folders, files in os.walk(folder):
        if not hidden:
            folders[:] = [name for name in folders if not is_hidden(name.encode())]
        for name in [*folders, *files]:
            file = Path(place) / name
            if hidden or not is_hidden(name.encode()):
                shown = file.relative_to(folder).as_posix()
                found[shown] = "/" if file.is_dir() else f"-> {os.readlink(file)}" if file.is_symlink() else read(file)
    return found


def read(file: Path) -> str:
    title = attributes.read_kept(str(file)).properties.get("ivo://ivoa.net/vospace/core#title", "")
    return f"{file.read_text()} {title}".strip()


def killed_at(step: int, work: Callable[[], Any]) -> bool:
    """Do `work` in a child that is killed at its `step`-th step; return whether it was done before."""
    child = os.fork()
    if child == 0:
        count = 0

        def counted(function: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(function)
            def call(*args: Any, **kwargs: Any) -> Any:
                nonlocal count
                count += 1
                if count > step:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*args, **kwargs)

            return call

        for name in STEPS:
            setattr(os, name, counted(getattr(os, name)))
        posix.rename_new = counted(posix.rename_new)
        try:
            work()
        except BaseException:  # noqa: BLE001
            os.abort()  # not one of the kills: a mistake
        os._exit(0)
    _pid, status = os.waitpid(child, 0)
    assert not os.WIFSIGNALED(status) or os.WTERMSIG(status) == signal.SIGKILL, "the operation failed"
    return not os.WIFSIGNALED(status)


def main(folder: Path) -> None:
    for name in (*OPERATIONS, *THEN):
        step, done = 0, False
        while not done:
            nodes = make(folder / name)
            work = work_of(name, nodes)
            before = seen(folder / name, hidden=False)
            done = killed_at(step, work)
            visible = seen(folder / name, hidden=False)
            for top in ("home/ada", "project/team"):
                descriptor = os.open(folder / name / top, os.O_RDONLY)
                scanning.sweep(descriptor, older_than_s=0)
                os.close(descriptor)
            everything = seen(folder / name, hidden=True)
            line = {"operation": name, "step": step, "done": done, "before": before}
            print(json.dumps({**line, "visible": visible, "swept": everything}))
            nodes.tree.close()
            step += 1


if __name__ == "__main__":
    main(Path(sys.argv[1]))
