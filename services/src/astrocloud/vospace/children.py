"""A folder's children as one person sees them, taken a batch at a time."""

import os
from collections.abc import Iterator

from astrocloud.vospace.identity import acting_as
from astrocloud.vospace.models import Node, NodePath, Person
from astrocloud.vospace.reading import Reader


class Children:
    """The children of one folder, taken a batch at a time in worker threads; to be closed."""

    def __init__(
        self, *, folder: int, path: NodePath, reader: Reader, person: Person, detail: str, limit: int | None
    ) -> None:
        self._folder = folder
        self._path = path
        self._reader = reader
        self._person = person
        self._detail = detail
        self._left = limit
        self._wanted = 16
        self.names: Iterator[bytes] = iter(())

    def next_batch(self) -> list[Node]:
        """Return the next children that the person may see; an empty list at the end. Batches grow from 16 to 4096."""
        found: list[Node] = []
        with acting_as(self._person.identity):
            while len(found) < self._wanted and self._left != 0:
                name = next(self.names, None)
                if name is None:
                    break
                node = self._reader.child(self._folder, self._path, name, self._detail)
                if node is not None:
                    found.append(node)
                    if self._left is not None:
                        self._left -= 1
        self._wanted = min(4096, self._wanted * 4)
        return found

    def close(self) -> None:
        """Let go of the folder."""
        close = getattr(self.names, "close", None)
        if close is not None:
            close()
        if self._folder >= 0:
            os.close(self._folder)
            self._folder = -1
