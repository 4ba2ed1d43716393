"""What was told to be done survives a power failure: bytes are on the disk before their name, names before the answer.

No disk is cut off here. Each step is recorded as the operation takes it, and what would not be on the disk yet follows
from the steps: a change lasts once the file, or the folder of the name, was synchronized after it.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from astrocloud.vospace import posix, uploads
from astrocloud.vospace.models import is_hidden
from tests.services.vospace import crashing

CHANGES = ("write", "writev", "pwrite", "ftruncate", "fchmod", "fchown", "setxattr", "utime")
"""Calls that change what their first argument names: a descriptor, or the path of one below ``/proc``."""


class Disk:
    """What would be lost now."""

    def __init__(self) -> None:
        self.unsynced: dict[int, set[str]] = {}
        """Inode -> what was done to it since it was synchronized: bytes, attributes, or names in it."""
        self.placed_too_early: list[str] = []
        self.syncs = 0

    def changed(self, what: int | str | bytes, change: str) -> None:
        status = os.stat(what)
        self.unsynced.setdefault(status.st_ino, set()).add(change)

    def synced(self, descriptor: int) -> None:
        self.syncs += 1
        self.unsynced.pop(os.fstat(descriptor).st_ino, None)

    def placed(self, folder: int, name: bytes) -> None:
        """Remember what of the thing that gets a name that people see is not on the disk, all below it included."""
        self._look(f"/proc/self/fd/{folder}/{os.fsdecode(name)}", name)

    def _look(self, place: str, name: bytes) -> None:
        status = os.lstat(place)
        if lost := self.unsynced.get(status.st_ino):
            self.placed_too_early.append(f"{name!r}: {sorted(lost)}")
        if os.path.isdir(place) and not os.path.islink(place):
            for child in os.listdir(place):
                self._look(f"{place}/{child}", os.fsencode(child))

    def left(self, folders: list[Path]) -> dict[str, set[str]]:
        """Return what would be lost of what can be seen in `folders` and below."""
        found = {}
        for top in folders:
            for place, inner, files in os.walk(top):
                inner[:] = [name for name in inner if not is_hidden(name.encode())]
                for path in [place, *(os.path.join(place, name) for name in files)]:
                    if lost := self.unsynced.get(os.lstat(path).st_ino):
                        found[os.path.relpath(path, top)] = lost
        return found


@contextmanager
def recorded() -> Iterator[Disk]:
    """Record every step inside the block."""
    disk = Disk()

    def after(name: str, note: Callable[..., None], module: Any = os) -> Any:
        real = getattr(module, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            result = real(*args, **kwargs)
            note(result, *args, **kwargs)
            return result

        return patch.object(module, name, call)

    def changes(name: str) -> Any:
        return after(name, lambda _result, what, *_rest, **_named: disk.changed(what, name))

    def opened(result: int, _path: Any, flags: int, *_rest: Any, dir_fd: int | None = None) -> None:
        if flags & os.O_CREAT and dir_fd is not None:
            disk.changed(dir_fd, "open")
            disk.changed(result, "open")

    def named(name: str) -> Any:
        def note(_result: Any, *names: Any, dir_fd: int, **_rest: Any) -> None:
            # A hidden name that is still there after a power failure is swept.
            if name not in {"unlink", "rmdir"} or not is_hidden(names[0]):
                disk.changed(dir_fd, name)

        return after(name, note)

    def renamed(_result: Any, _old: bytes, new: bytes, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        moved(None, _old, src_dir_fd, new, dst_dir_fd)

    def moved(_result: Any, _old: bytes, old_folder: int, new: bytes, new_folder: int) -> None:
        if not is_hidden(new):
            disk.placed(new_folder, new)
        disk.changed(old_folder, "rename")
        disk.changed(new_folder, "rename")

    def copied(_result: Any, _source: int, target: int, *_rest: Any) -> None:
        disk.changed(target, "copy_file_range")

    patches = [
        *(changes(name) for name in CHANGES),
        *(named(name) for name in ("unlink", "rmdir", "mkdir", "symlink")),
        after("open", opened),
        after("fsync", lambda _result, descriptor: disk.synced(descriptor)),
        after("rename", renamed),
        after("rename_new", moved, posix),
        after("copy_file_range", copied),
    ]
    try:
        for each in patches:
            each.start()
        yield disk
    finally:
        for each in reversed(patches):
            each.stop()


OPERATIONS = [name for name in (*crashing.OPERATIONS, *crashing.THEN) if name != "other-file-system"]


@pytest.mark.parametrize("name", OPERATIONS)
def test_all_of_it_is_on_the_disk_when_it_is_done(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "tree"
    nodes = crashing.make(folder)
    work = crashing.work_of(name, nodes)
    try:
        with recorded() as disk:
            work()
        assert disk.placed_too_early == []
        assert disk.left([folder / "home" / "ada", folder / "project"]) == {}
        assert disk.syncs
    finally:
        nodes.tree.close()


def test_the_record_tells_of_bytes_that_were_never_synchronized(tmp_path: Path) -> None:
    nodes = crashing.make(tmp_path / "tree")
    with recorded() as disk:
        recording = os.fsync

        def only_folders(descriptor: int) -> None:
            if os.path.isdir(f"/proc/self/fd/{descriptor}"):
                recording(descriptor)

        with patch.object(os, "fsync", only_folders):
            crashing.work_of("put", nodes)()
    assert len(disk.placed_too_early) == 1
    assert "write" in disk.placed_too_early[0]
    assert list(disk.left([tmp_path / "tree" / "home" / "ada"])) == ["f"]
    nodes.tree.close()


def test_the_record_tells_of_a_name_that_was_never_synchronized(tmp_path: Path) -> None:
    nodes = crashing.make(tmp_path / "tree")
    with patch.object(uploads, "sync_folder", lambda _folder: None), recorded() as disk:
        crashing.work_of("put", nodes)()
    assert disk.left([tmp_path / "tree" / "home" / "ada"]) == {".": {"open", "rename"}}
    nodes.tree.close()
