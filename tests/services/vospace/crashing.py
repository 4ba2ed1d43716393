"""Kills an operation at each of its steps in turn, and looks at what is there then.

Run as a program of its own, because it forks: ``python -m tests.services.vospace.crashing FOLDER``. Prints a line of
JSON for each operation and step: what could be seen after the kill, and after the sweep that follows.
"""

import functools
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine
from sqlalchemy.pool import StaticPool

from astrocloud.core.database import metadata
from astrocloud.vospace import posix, scanning
from astrocloud.vospace.domain import Nodes
from astrocloud.vospace.gate import Gate
from astrocloud.vospace.identity import can_switch
from astrocloud.vospace.models import Authority, NodePath, is_hidden
from astrocloud.vospace.partial import Partials
from astrocloud.vospace.people import Owners
from astrocloud.vospace.resuming import Resuming
from astrocloud.vospace.storage import Tree
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
    "copy_file_range",
)


class NoQuotas:
    def charge(self, top: NodePath, *, size: int, files: int) -> None:
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
    upload = nodes.begin_upload(ADA, path("/home/ada/f"), length=3)
    upload.write(b"new")
    upload.commit(md5="0" * 32)


def resumed(nodes: Nodes) -> None:
    """An upload in two parts, the last of which puts it in its place."""
    engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    metadata.create_all(engine)
    uploads = Resuming(nodes=nodes, partials=Partials(engine))
    begun = uploads.begin(ADA, path("/home/ada/f"), length=3, replaces=True)
    for part in (b"n", b"ew"):
        with uploads.opened(ADA, begun) as upload:
            uploads.append(begun, upload, part)
            uploads.finish(begun, upload)


OPERATIONS: dict[str, Callable[[Nodes], Any]] = {
    "put": put,
    "put-new": lambda nodes: nodes.begin_upload(ADA, path("/home/ada/n"), length=0).commit(md5=None),
    "resumed": resumed,
    "move": lambda nodes: nodes.move(ADA, path("/home/ada/d"), path("/home/ada/moved")),
    "copy": lambda nodes: nodes.copy(ADA, path("/home/ada/d"), path("/home/ada/copied")),
    "delete": lambda nodes: nodes.delete(ADA, path("/home/ada/d")),
}


def make(folder: Path) -> Nodes:
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("home/ada/d/e", "project"):
        (folder / name).mkdir(parents=True)
    (folder / "home/ada/f").write_bytes(b"old")
    for name in ("1", "2", "e/3"):
        (folder / "home/ada/d" / name).write_bytes(name.encode())
    for found in ((folder / "home/ada"), *(folder / "home/ada").rglob("*")):
        if os.geteuid() == 0:
            os.chown(found, ADA.identity.uid, ADA.identity.gid)
    tree = Tree(folder)
    return Nodes(
        tree=tree,
        authority=Authority("astrocloud.local"),
        owners=Owners(folder),
        quotas=NoQuotas(),
        gate=Gate(tree=tree, closed=not can_switch()),
    )


def seen(folder: Path, *, hidden: bool) -> dict[str, str]:
    """What a listing shows (or, with `hidden`, everything)."""
    found: dict[str, str] = {}
    for place, folders, files in os.walk(folder / "home/ada"):
        if not hidden:
            folders[:] = [name for name in folders if not is_hidden(name.encode())]
        for name in [*folders, *files]:
            file = Path(place) / name
            if hidden or not is_hidden(name.encode()):
                shown = file.relative_to(folder / "home/ada").as_posix()
                found[shown] = file.read_text() if file.is_file() else "/"
    return found


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
    for name, operation in OPERATIONS.items():
        step, done = 0, False
        while not done:
            nodes = make(folder / name)
            before = seen(folder / name, hidden=False)
            done = killed_at(step, lambda nodes=nodes, operation=operation: operation(nodes))
            visible = seen(folder / name, hidden=False)
            home = os.open(folder / name / "home/ada", os.O_RDONLY)
            scanning.sweep(home, older_than_s=0)
            os.close(home)
            everything = seen(folder / name, hidden=True)
            line = {"operation": name, "step": step, "done": done, "before": before}
            print(json.dumps({**line, "visible": visible, "swept": everything}))
            nodes.tree.close()
            step += 1


if __name__ == "__main__":
    main(Path(sys.argv[1]))
