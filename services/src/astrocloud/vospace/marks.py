"""Whose unfinished work a hidden folder is: marked with it, so that a sweep removes nothing but what that person may.

Who may rename in a folder can give any folder in it a name that looks like ours. A mark cannot be made up: it is signed
for one inode and one name. A folder without one is left to people.
"""

import hashlib
import hmac
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from astrocloud.vospace.identity import Identity, acting_as, current

NAME: Final = "user.astrocloud.unfinished"
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Marks:
    """Makes and reads them.

    Parameters
    ----------
    key
        Known to every process of the service and to nobody else.
    """

    def __init__(self, key: bytes) -> None:
        self._key = hashlib.sha256(b"vospace-unfinished:" + key).digest()

    def put(self, folder: int, hidden: bytes) -> None:
        """Mark the folder `folder` (a readable descriptor) as unfinished work of this thread's identity at `hidden`.

        A file system that keeps no marks, and a folder that may not be marked, are no error: it is not swept then.
        """
        who = current()
        text = " ".join(map(str, (who.uid, who.gid, *who.groups))).encode()
        with suppress(OSError):
            os.setxattr(folder, NAME, self._tag(folder, hidden, text) + b" " + text)

    def take(self, folder: int) -> None:
        """Take the mark away again."""
        with suppress(OSError):
            os.removexattr(folder, NAME)

    def take_at(self, folder: int, name: bytes) -> None:
        """Take the mark from what has the name `name` in `folder`, when that is a folder."""
        with suppress(OSError):
            inner = os.open(name, _FOLDER, dir_fd=folder)
            try:
                self.take(inner)
            finally:
                os.close(inner)

    def whose(self, folder: int, hidden: bytes) -> Identity | None:
        """Return who left the folder `folder` at the name `hidden`, or `None` when that was none of our work."""
        try:
            tag, _, text = os.getxattr(folder, NAME).partition(b" ")
        except OSError:
            return None
        if not hmac.compare_digest(tag, self._tag(folder, hidden, text)):
            return None
        uid, gid, *groups = map(int, text.split())
        return Identity(uid, gid, tuple(groups))

    def _tag(self, folder: int, hidden: bytes, text: bytes) -> bytes:
        what = b"%d %s\0%s" % (os.fstat(folder).st_ino, text, hidden)
        return hmac.new(self._key, what, hashlib.sha256).hexdigest()[:40].encode()

    @contextmanager
    def marked(self, folder: int, name: bytes, hidden: bytes) -> Iterator[None]:
        """Mark the folder `name` in `folder` as work that will have the name `hidden`; if it fails, not any more.

        Raises
        ------
        OSError
            When it cannot be opened.
        """
        inner = os.open(name, _FOLDER, dir_fd=folder)
        try:
            self.put(inner, hidden)
            try:
                yield
            except BaseException:
                self.take(inner)
                raise
        finally:
            os.close(inner)


@contextmanager
def acting_again(who: Identity) -> Iterator[None]:
    """Let the block be done as `who`, to whom a mark belongs: the platform itself, or a person."""
    if who.uid == 0:
        yield
        return
    with acting_as(who):
        yield
