"""A folder as one file, made while it is sent: nothing is written to disk, and no more than a piece is in memory."""

import io
import os
import stat
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final

from astrocloud.vospace import posix
from astrocloud.vospace.models import is_hidden

TYPES: Final = {"zip": "application/zip", "tar": "application/x-tar"}
_STEP: Final = 1 << 20
_ZIP_BEGINS: Final = 315532800  # 1980, before which a zip cannot date anything
_ZIP_ENDS: Final = 4354819198  # the end of 2107, after which it cannot either

Found = tuple[int, str, os.stat_result]
"""A place descriptor, the path in the archive, and the status of one file, folder or link."""


class _Pipe(io.RawIOBase):
    """A file that can only be written, and hands on what is written to it in pieces of about a megabyte."""

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self._send = send
        self._held = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        view = memoryview(data)  # type: ignore[arg-type]
        self._held += view
        if len(self._held) >= _STEP:
            self.flush()
        return view.nbytes

    def flush(self) -> None:
        if self._held:
            self._send(bytes(self._held))
            self._held.clear()


def write(folder: int, name: str, form: str, send: Callable[[bytes], None]) -> None:
    """Hand the open folder `folder`, as an archive in which it is called `name`, to `send` piece by piece.

    Parameters
    ----------
    form
        ``zip`` (stored, not compressed) or ``tar``.
    """
    pack(_walk(folder, name), form, send)


def pack(found: Iterator[Found], form: str, send: Callable[[bytes], None]) -> None:
    """Hand what is `found` to `send` piece by piece, as an archive.

    What this thread's identity may not read is left out, as listings leave it out; links are kept as links in a tar and
    left out of a zip.
    """
    pipe = _Pipe(send)
    if form == "zip":
        with zipfile.ZipFile(pipe, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            for place, path, status in found:
                _add_to_zip(archive, place, path, status)
    else:
        with tarfile.open(fileobj=pipe, mode="w|", format=tarfile.PAX_FORMAT, bufsize=_STEP) as archive_tar:
            for place, path, status in found:
                _add_to_tar(archive_tar, place, path, status)
    pipe.flush()


def below(place: int, path: str, depth: int = 0) -> Iterator[Found]:
    """Yield what the descriptor `place` names, called `path` in the archive, and all in it when it is a folder."""
    status = os.fstat(place)
    if not stat.S_ISDIR(status.st_mode):
        yield place, path, status
        return
    folder = os.open(posix.proc_path(place), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield from _walk(folder, path, depth)
    finally:
        os.close(folder)


def _walk(folder: int, name: str, depth: int = 0) -> Iterator[Found]:
    posix.check_depth(depth)
    yield folder, name, os.fstat(folder)
    for child in sorted(map(os.fsencode, os.listdir(folder))):
        if is_hidden(child):
            continue
        with suppress(FileNotFoundError, PermissionError):
            place = os.open(child, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            try:
                yield from below(place, f"{name}/{os.fsdecode(child)}", depth + 1)
            finally:
                os.close(place)


def _opened(place: int) -> io.FileIO | None:
    try:
        return io.FileIO(os.open(posix.proc_path(place), os.O_RDONLY | os.O_CLOEXEC), "rb")
    except PermissionError:
        return None


def _add_to_zip(archive: zipfile.ZipFile, place: int, path: str, status: os.stat_result) -> None:
    shown = path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    date = time.gmtime(min(max(status.st_mtime, _ZIP_BEGINS), _ZIP_ENDS))[:6]
    if stat.S_ISDIR(status.st_mode):
        archive.writestr(zipfile.ZipInfo(f"{shown}/", date), b"")
        return
    source = _opened(place) if stat.S_ISREG(status.st_mode) else None
    if source is None:
        return
    with source:
        entry = zipfile.ZipInfo(shown, date)
        entry.external_attr = (stat.S_IMODE(status.st_mode) & 0o777 | stat.S_IFREG) << 16
        with archive.open(entry, "w", force_zip64=status.st_size >= 1 << 31) as inside:
            left = status.st_size  # a file that grows meanwhile is cut where it ended at first
            while left and (data := source.read(min(_STEP, left))):
                inside.write(data)
                left -= len(data)


def _add_to_tar(archive: tarfile.TarFile, place: int, path: str, status: os.stat_result) -> None:
    entry = tarfile.TarInfo(path)
    entry.mtime = int(status.st_mtime)
    entry.mode = stat.S_IMODE(status.st_mode) & 0o777
    if stat.S_ISDIR(status.st_mode):
        entry.type = tarfile.DIRTYPE
        archive.addfile(entry)
    elif stat.S_ISLNK(status.st_mode):
        entry.type = tarfile.SYMTYPE
        entry.linkname = os.fsdecode(os.readlink(b"", dir_fd=place))
        archive.addfile(entry)
    elif stat.S_ISREG(status.st_mode) and (source := _opened(place)) is not None:
        with source:
            entry.size = os.fstat(source.fileno()).st_size
            archive.addfile(entry, _Padded(source, entry.size))  # type: ignore[arg-type]


class _Padded:
    """Reads exactly as many bytes as a tar header has announced: zeros for those a file lost meanwhile."""

    def __init__(self, source: io.FileIO, size: int) -> None:
        self._source = source
        self._left = size

    def read(self, size: int) -> bytes:
        wanted = min(size, self._left)
        data = self._source.read(wanted) or b""
        data += b"\0" * (wanted - len(data))
        self._left -= wanted
        return data
