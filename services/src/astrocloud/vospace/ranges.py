"""Byte ranges and conditions of HTTP (RFC 9110, sections 13 and 14), as rules on values."""

import re
from collections.abc import Sequence
from email.utils import parsedate_to_datetime
from typing import Final

RANGES_LIMIT: Final = 64
"""More ranges than this in one request are not honoured: the whole is sent."""

_SPEC: Final = re.compile(r"\s*(\d{0,19})\s*-\s*(\d{0,19})\s*\Z")


class Unsatisfiable(ValueError):  # noqa: N818 - HTTP's word
    """No part of what was asked for exists."""


def parse_ranges(header: str | None, size: int) -> Sequence[tuple[int, int]] | None:
    """Return the parts of `size` bytes that `header` asks for, as (first, after the last); `None`: the whole.

    Raises
    ------
    Unsatisfiable
        When none of them exists.
    """
    if header is None:
        return None
    unit, separator, specs = header.partition("=")
    if not separator or unit.strip().lower() != "bytes":
        return None
    found: list[tuple[int, int]] = []
    parts = specs.split(",")
    if len(parts) > RANGES_LIMIT:
        return None
    for part in parts:
        if not part.strip():
            continue
        match = _SPEC.match(part)
        if match is None or not (match[1] or match[2]):
            return None
        first, last = match[1], match[2]
        if not first:
            start, end = max(0, size - int(last)), size
        else:
            start, end = int(first), min(size, int(last) + 1) if last else size
            if last and int(last) < int(first):
                return None
        if start < end:
            found.append((start, end))
    if not found:
        raise Unsatisfiable
    # Ranges that overlap ask for the same bytes again and again (RFC 9110, section 14.2): then all of it is sent.
    if sum(end - start for start, end in found) > size and len(found) > 1:
        return None
    return found


def tag_matches(header: str, tag: str | None, *, weak: bool) -> bool:
    """Whether the entity tag `tag` (`None`: nothing is there) is among those of `header`."""
    if header.strip() == "*":
        return tag is not None
    if tag is None:
        return False
    accepted = {tag, f"W/{tag}"} if weak else {tag}
    return any(part in accepted for part in re.findall(r'(?:W/)?"[^"]*"', header))


def seconds_of(header: str | None) -> int | None:
    """Return an HTTP date in seconds since the epoch, or `None` for what is none."""
    if not header:
        return None
    try:
        return int(parsedate_to_datetime(header).timestamp())
    except (ValueError, TypeError, OverflowError):
        return None
