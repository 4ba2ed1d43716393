"""Give a forked process its person's home and name in place of the parent's, wherever an import has looked at them.

Packages keep what they find while they are imported: in variables, defaults of traits
(JupyterLab's folder of settings), closures. The parent looks for its own home and name in
all its objects once, and a child changes what was found.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterable, Iterator
from pathlib import PurePath
from types import CellType
from typing import Any

Holder = tuple[Any, Any]
"""An object, and the key, the position or the name of what is in it."""

NAMES = ("HOME", "USER")
"""The variables whose values are looked for."""

_holders: list[Holder] = []
_parents: dict[str, str] = {}


def remember() -> int:
    """Note where home and name of this process, the parent, have got into; return in how many places.

    After everything is imported. Both have to be words that are found nowhere else.
    """
    for name in NAMES:
        _parents[name] = os.environ[name]
    objects = gc.get_objects()
    # A class is changed by its attributes: its dictionary alone would leave caches of the interpreter behind.
    classes = [each for each in objects if isinstance(each, type)]
    skipped = {id(each) for cls in classes for each in gc.get_referents(cls) if type(each) is dict}
    skipped |= {id(os.environ._data)}  # type: ignore[attr-defined]
    found: list[Holder] = []
    for each in objects:
        if id(each) not in skipped and each is not objects:
            found += _holders_in(each)
    _holders[:] = found
    return len(_holders)


def _holders_in(holder: Any) -> Iterator[Holder]:
    kind = type(holder)
    pairs: Iterable[tuple[Any, Any]]
    if kind is dict:
        pairs = holder.items()
    elif kind is list:
        pairs = enumerate(holder)
    elif kind is CellType:
        try:
            pairs = [(None, holder.cell_contents)]
        except ValueError:  # empty
            return
    else:
        try:
            pairs = object.__getattribute__(holder, "__dict__").items()
        except AttributeError:
            return
    for key, value in list(pairs):
        if _names_home(value):
            yield holder, key
        elif type(value) is dict and not gc.is_tracked(value) and value is not _parents:
            # One with nothing but simple values, which the collector does not list.
            yield from _holders_in(value)


def _names_home(value: Any) -> bool:
    if type(value) is tuple:
        return any(isinstance(each, (str, PurePath)) and _names_home(each) for each in value)
    return isinstance(value, (str, PurePath)) and any(known in str(value) for known in _parents.values())


def move() -> None:
    """Put this process's home and name there instead."""
    for holder, key in _holders:
        kind = type(holder)
        if kind is CellType:
            holder.cell_contents = _moved(holder.cell_contents)
        elif kind is dict or kind is list:
            holder[key] = _moved(holder[key])
        elif isinstance(holder, type):
            setattr(holder, key, _moved(vars(holder)[key]))
        else:
            object.__setattr__(holder, key, _moved(vars(holder)[key]))
    _holders.clear()


def _moved(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_moved(each) if isinstance(each, (str, PurePath)) else each for each in value)
    text = str(value)
    for name, known in _parents.items():
        text = text.replace(known, os.environ.get(name, ""))
    return text if isinstance(value, str) else type(value)(text)
