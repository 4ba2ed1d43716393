"""Uploads in parts: begun, continued after whatever interrupted them, and put in their place when they are whole."""

import fcntl
import hashlib
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from astrocloud.vospace.domain import Nodes
from astrocloud.vospace.errors import Fault, invalid_argument
from astrocloud.vospace.models import NodePath, Person
from astrocloud.vospace.partial import Partial, Partials
from astrocloud.vospace.uploads import Expected, Upload

LIFETIME_S: Final = 7 * 86400
"""How long an upload can be resumed after it began, in seconds."""

TOLD_S: Final = 86400
"""How long it is told of an upload that it came whole, to who lost the answer, in seconds."""

_SUM_UP_TO_BYTES: Final = 1 << 30
"""Larger files are not read again for their MD5 when they are whole."""


class Resuming:
    """Uploads in parts; every method is for a worker thread.

    Parameters
    ----------
    nodes
        The rules.
    partials
        Where they are kept.
    """

    def __init__(self, *, nodes: Nodes, partials: Partials) -> None:
        self._nodes = nodes
        self._partials = partials

    def begin(self, person: Person, path: NodePath, *, length: int, replaces: bool) -> Partial:
        """Begin an upload of `length` bytes to `path`.

        Raises
        ------
        Fault
            As `Nodes.begin_upload`; ``QuotaExceeded``; ``DuplicateNode`` when it must not replace what is there.
        """
        if person.name is None:
            raise Fault("vospace-permission-denied", uri=str(path))
        upload = self._nodes.begin_upload(person, path)
        try:
            if upload.replaced is not None and not replaces:
                raise Fault("vospace-duplicate-node", uri=str(path))
            old = upload.replaced.status.st_size if upload.replaced is not None else 0
            partial = Partial(
                id=secrets.token_urlsafe(24),
                owner=person.name,
                path=upload.path,
                hidden=upload.hidden,
                length=length,
                charged=max(0, length - old),
                new_files=int(upload.created),
                replaces=replaces,
                expires_at=time.time() + LIFETIME_S,
            )
            with self._nodes.account.charged(upload.path, size=partial.charged, files=partial.new_files):
                self._partials.add(partial)
        except BaseException:
            upload.abandon()
            raise
        upload.close()
        if length == 0:
            with self.opened(person, partial) as empty:
                self.finish(partial, empty)
        return partial

    def get(self, person: Person, upload_id: str) -> Partial:
        """Return the upload. Raises `Fault` (``NodeNotFound``), for somebody else's as well."""
        partial = self._partials.get(upload_id)
        if partial is None or partial.owner != person.name or partial.expires_at <= time.time():
            raise Fault("vospace-node-not-found", uri="/uploads/" + upload_id[:64])
        return partial

    def offset(self, person: Person, partial: Partial) -> int:
        """Return how many bytes have arrived."""
        if partial.placed:
            return partial.length
        with self._nodes.folder_of(person, partial.path) as folder:
            return os.stat(partial.hidden, dir_fd=folder, follow_symlinks=False).st_size

    @contextmanager
    def opened(self, person: Person, partial: Partial) -> Iterator[Upload]:
        """Give the upload to go on with. Raises `Fault` (``NodeBusy``) while another request does."""
        upload = self.open(person, partial)
        try:
            yield upload
        finally:
            upload.close()

    def open(self, person: Person, partial: Partial) -> Upload:
        """Return the upload to go on with; to be closed. Raises `Fault` (``NodeBusy``) while another request does."""
        upload = self._nodes.reopen_upload(person, partial.path, partial.hidden)
        try:
            fcntl.flock(upload.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            upload.size = os.lseek(upload.descriptor, 0, os.SEEK_END)
        except BlockingIOError:
            upload.close()
            raise Fault("vospace-node-busy", uri=str(partial.path)) from None
        except BaseException:
            upload.close()
            raise
        return upload

    def append(self, partial: Partial, upload: Upload, data: bytes | bytearray) -> None:
        """Write `data` behind what is there. Raises `Fault` (``InvalidArgument``) for more than was announced."""
        if upload.size + len(data) > partial.length:
            raise invalid_argument(f"more bytes came than the {partial.length} that were announced")
        upload.write(data)

    def finish(self, partial: Partial, upload: Upload) -> bool:
        """Put the upload in its place if it is whole; return whether it was.

        Raises
        ------
        Fault
            As `Upload.commit`.
        """
        if upload.size < partial.length:
            return False
        md5 = _md5(upload.descriptor) if upload.size <= _SUM_UP_TO_BYTES else None
        counted = [0, 0]

        def account(replaced: os.stat_result | None) -> None:
            size = upload.size - (replaced.st_size if replaced is not None else 0) - partial.charged
            files = (0 if replaced is not None else 1) - partial.new_files
            self._nodes.account.charge(partial.path, size=size, files=files)
            counted[:] = size, files

        with self._nodes.account.busy(partial.path):
            try:
                upload.commit(md5=md5, expected=Expected(must_be_new=not partial.replaces), account=account)
            except BaseException:
                self._nodes.account.charge(partial.path, size=-counted[0], files=-counted[1])
                raise
            if not self._partials.finish(partial.id, expires_at=time.time() + TOLD_S):
                # Broken off when it was in its place already: what was given back then is used all the same.
                with suppress(Fault):
                    self._nodes.account.charge(partial.path, size=partial.charged, files=partial.new_files)
        return True

    def cancel(self, person: Person, partial: Partial) -> None:
        """Leave no trace of the upload; what is in its place stays there."""
        if not partial.placed:
            with suppress(Fault, FileNotFoundError), self._nodes.folder_of(person, partial.path) as folder:
                os.unlink(partial.hidden, dir_fd=folder)
        if self._partials.remove(partial.id):
            self._nodes.account.charge(partial.path, size=-partial.charged, files=-partial.new_files)

    def forget_expired(self) -> int:
        """Forget uploads that nobody may resume any more; the sweep then takes their files. Return how many."""
        expired = self._partials.expired(time.time())
        for partial in expired:
            if self._partials.remove(partial.id):
                self._nodes.account.charge(partial.path, size=-partial.charged, files=-partial.new_files)
        return len(expired)


def _md5(descriptor: int) -> str:
    running = hashlib.md5(usedforsecurity=False)
    position = 0
    while data := os.pread(descriptor, 1 << 20, position):
        running.update(data)
        position += len(data)
    return running.hexdigest()
