"""A folder's children as one person sees them, taken a batch at a time."""

import os
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TypeVar

from astrocloud.vospace.identity import acting_as
from astrocloud.vospace.listing import Entry
from astrocloud.vospace.models import Child, Node, NodePath, Person
from astrocloud.vospace.reading import Reader

_T = TypeVar("_T")


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
        self._limit = limit
        self._wanted = 16
        self._open: list[Iterator[object]] = []
        self._seen: Iterator[Child] = iter(())

    def begin(self, entries: Iterator[Entry]) -> None:
        """Let `entries` be those to tell of."""
        seen = self._reader.children(self._folder, self._path, entries, self._detail)
        self._open = [seen, entries]
        self._seen = islice(seen, self._limit)

    def next_batch(self) -> list[Node]:
        """Return the next children that the person may see; an empty list at the end. Batches grow from 16 to 4096."""
        path = self._path
        return self.next_told(
            lambda batch: [Node(path / name, kind, properties, target) for name, kind, properties, target in batch]
        )

    def next_told(self, tell: Callable[[Iterable[Child]], _T]) -> _T:
        """Return what `tell`, which acts as the person, makes of the next batch; that is empty at the end."""
        wanted, self._wanted = self._wanted, min(4096, self._wanted * 4)
        with acting_as(self._person.identity):
            return tell(islice(self._seen, wanted))

    def close(self) -> None:
        """Let go of the folder."""
        for each in self._open:
            close = getattr(each, "close", None)
            if close is not None:
                close()
        if self._folder >= 0:
            os.close(self._folder)
            self._folder = -1
