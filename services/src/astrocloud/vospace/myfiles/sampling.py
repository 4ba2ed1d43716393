"""Every so-many-th number of a large array in a file, so that a preview of it need not fetch all of it.

What the bytes mean is not known here and not asked: the page reads the header and says where the array is.
"""

import os
import threading
from dataclasses import dataclass
from typing import Final

from astrocloud.core.errors import RequestError
from astrocloud.vospace.errors import invalid_argument

READ_LIMIT: Final = 512 << 20
"""How many bytes one sample may be made of at most."""
SIDE_LIMIT: Final = 2048
"""How many rows, and how many numbers of a row, one sample has at most."""
_PIECE: Final = 1 << 20
"""How much of a file is read at once, in bytes."""
_FAR_APART: Final = 16 << 10
"""Numbers so many bytes apart are read one by one: what lies between them would be read for nothing."""
_WAIT_S: Final = 5
_running: Final = threading.BoundedSemaphore(2)
"""How many samples are taken at once."""
_places: Final = threading.BoundedSemaphore(6)
"""How many are taken or wait: each has a thread, and other requests need threads, too."""
_CODES: Final = {1: "B", 2: "H", 4: "I", 8: "Q"}


@dataclass(frozen=True)
class Sample:
    """Which numbers of a two-dimensional array are wanted."""

    offset: int
    """Where the array begins in the file, in bytes."""
    item: int
    """The size of a number in bytes."""
    width: int
    """How many numbers a row of the array has."""
    height: int
    """How many rows the array has."""
    step: int
    """Every how-many-th number of every how-many-th row."""

    def check(self) -> None:
        """Raise `Fault` (``InvalidArgument``) for what cannot be or would be too much."""
        reason = ""
        if self.item not in _CODES:
            reason = f"numbers of {self.item} bytes; allowed: 1, 2, 4, 8"
        elif not (self.step >= 1 and self.width >= 1 and self.height >= 1):
            reason = "step, width and height are at least 1"
        elif max(self.columns, self.rows) > SIDE_LIMIT:
            reason = (
                f"a sample of {self.columns} x {self.rows}; at most {SIDE_LIMIT} x {SIDE_LIMIT}: take a larger step"
            )
        elif self.width * self.item * self.rows > READ_LIMIT:
            reason = f"rows of {self.width * self.item} bytes are too long for a sample"
        if reason:
            raise invalid_argument(reason)

    @property
    def columns(self) -> int:
        """How many numbers of a row are in the sample."""
        return -(-self.width // self.step)

    @property
    def rows(self) -> int:
        """How many rows are."""
        return -(-self.height // self.step)


def take(descriptor: int, sample: Sample) -> bytes:
    """Return the numbers of `sample`, row by row as the file has them; zeros where the file is too short.

    Beside the answer it holds no more than `_PIECE` bytes, however far apart the numbers are.

    Raises
    ------
    Fault
        As `Sample.check`.
    RequestError
        ``too-many-requests`` when as many are being taken, and wait, as may.
    """
    sample.check()
    if not _places.acquire(blocking=False):
        raise RequestError("too-many-requests", wait_s=_WAIT_S)
    try:
        with _running:
            return _taken(descriptor, sample)
    finally:
        _places.release()


def _taken(descriptor: int, sample: Sample) -> bytes:
    size, item = os.fstat(descriptor).st_size, sample.item
    apart = sample.step * item
    at_once = max(1, _PIECE // apart) if apart < _FAR_APART else 1
    found = bytearray()
    for row in range(sample.rows):
        begin = sample.offset + row * sample.step * sample.width * item
        if begin >= size:
            break
        for column in range(0, sample.columns, at_once):
            start = begin + column * apart
            if start >= size:
                break
            count = min(at_once, sample.columns - column)
            data = os.pread(descriptor, (count - 1) * apart + item, start)
            data += b"\0" * (-len(data) % item)
            found += memoryview(data).cast(_CODES[item])[:: sample.step].tobytes()  # type: ignore[call-overload]
        found += bytes((row + 1) * sample.columns * item - len(found))
    found += bytes(sample.rows * sample.columns * item - len(found))
    return bytes(found)
