"""One open file: reading by ranges, writing as one upload that replaces the file when it is closed."""

from __future__ import annotations

import asyncio
import errno
import io
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from fsspec.asyn import sync
from fsspec.spec import AbstractBufferedFile

if TYPE_CHECKING:
    from astrocloud_lab.vospace.filesystem import VOSpaceFileSystem


class VOSpaceFile(AbstractBufferedFile):
    """A file that is read, or written from its beginning.

    What is written is sent while it is written and takes the old file's place when it is closed: readers see the old
    bytes or all of the new ones.
    """

    fs: VOSpaceFileSystem
    buffer: io.BytesIO
    closed: bool

    def __init__(self, fs: VOSpaceFileSystem, path: str, mode: str = "rb", **kwargs: Any) -> None:
        self._upload: Upload | None = None
        self._tag: str | None = None
        self._before = b""
        super().__init__(fs, path, mode, **kwargs)
        if "x" in mode and fs.exists(path):
            # Said at once; when it is closed the service decides, for another may have come first.
            self.closed = True
            raise FileExistsError(errno.EEXIST, "the file is there already", path)
        if mode == "ab":
            # Appending is writing anew with the old bytes first; VOSpace has no other way.
            self._before = fs.cat_file(path) if fs.exists(path) else b""
            self.loc = len(self._before)

    def _fetch_range(self, start: int, end: int) -> bytes:
        """Return the bytes from `start` to before `end`, of the file as it was at the first read."""
        data, tag = sync(self.fs.loop, self.fs.read_range, self.path, start, end, self._tag)
        self._tag = tag or self._tag
        return bytes(data)

    def _initiate_upload(self) -> None:
        if self._before:
            whole = io.BytesIO(self._before + self.buffer.getvalue())
            whole.seek(0, io.SEEK_END)
            self.buffer, self._before = whole, b""

    def _upload_chunk(self, final: bool = False) -> bool:
        """Send what is buffered; small files are sent as a whole when they are closed."""
        data = self.buffer.getvalue()
        exclusive = "x" in self.mode
        if final and self._upload is None and self.autocommit:
            sync(self.fs.loop, self.fs.write_bytes, self.path, data, exclusive)
            return True
        if self._upload is None:
            self._upload = sync(self.fs.loop, Upload.begin, self.fs, self.path, exclusive)
        sync(self.fs.loop, self._upload.add, data)
        if final and self.autocommit:
            self.commit()
        return True

    def commit(self) -> None:
        """Let what was written take its place."""
        if self._upload is not None:
            upload, self._upload = self._upload, None
            sync(self.fs.loop, upload.finish)

    def discard(self) -> None:
        """Forget what was written; the old file stays."""
        if self._upload is not None:
            upload, self._upload = self._upload, None
            sync(self.fs.loop, upload.cancel)

    def __exit__(self, *error: Any) -> None:
        """Close; after an exception what was written is forgotten, not put in its place half done."""
        if error and error[0] is not None and self.writable() and not self.closed:
            self.closed = True
            self.discard()
            return
        super().__exit__(*error)


class Upload:
    """An upload under way, fed piece by piece."""

    def __init__(self, task: asyncio.Task[None], pieces: asyncio.Queue[bytes | None]) -> None:
        self._task = task
        self._pieces = pieces

    @classmethod
    async def begin(cls, fs: VOSpaceFileSystem, path: str, exclusive: bool) -> Upload:
        """Begin an upload; its folder is made first, since it cannot be sent again."""
        await fs.make_room(path)
        pieces: asyncio.Queue[bytes | None] = asyncio.Queue(maxsize=2)

        async def body() -> AsyncIterator[bytes]:
            while (piece := await pieces.get()) is not None:
                yield piece

        task = asyncio.ensure_future(fs.put_stream(path, body, exclusive))
        return cls(task, pieces)

    async def add(self, data: bytes) -> None:
        """Send a piece, when those before it are on their way."""
        # Smaller ones leave the loop free for others meanwhile.
        for start in range(0, len(data), 1 << 18):
            await self._give(data[start : start + (1 << 18)])

    async def finish(self) -> None:
        """End the upload and wait until it is in place."""
        await self._give(None)
        await self._task

    async def cancel(self) -> None:
        """Break it off."""
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _give(self, piece: bytes | None) -> None:
        giving = asyncio.ensure_future(self._pieces.put(piece))
        await asyncio.wait([giving, self._task], return_when=asyncio.FIRST_COMPLETED)
        if giving.done():
            return
        giving.cancel()
        await self._task  # raises what ended it
        raise OSError(errno.EIO, "the service ended the upload before all was sent")
