"""Copies of tutorials in a person's home: the rules, without HTTP.

A tutorial is a file ``ID.LANG.ipynb`` in a folder that nobody may write to.  A
person works on a copy in ``~/tutorials``.  Opening a tutorial again opens the copy
that is there, changed or not: what a person did is what they expect to find.  A
fresh copy gets a number.  Nothing is ever overwritten.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

DEFAULT_FOLDER = Path("/tutorials")
FOLDER_ENV = "ASTROCLOUD_TUTORIALS"
LANGUAGES = ("en", "zh")
MOST_COPIES = 999

_ID = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_ID_LENGTH = 64


class TutorialError(Exception):
    """A tutorial cannot be opened.

    Attributes
    ----------
    code
        Key of the text, and stable.
    status
        HTTP status that fits.
    values
        What the text names.
    """

    status = 400

    def __init__(self, code: str, **values: str) -> None:
        super().__init__(f"{code}: {values}")
        self.code = code
        self.values = values


class TutorialMissingError(TutorialError):
    """No such tutorial is installed."""

    status = 404


class TutorialCopyError(TutorialError):
    """The copy cannot be written."""

    status = 409


def folder() -> Path:
    """Return the folder of the tutorials."""
    return Path(os.environ.get(FOLDER_ENV) or DEFAULT_FOLDER)


def check_id(text: str) -> str:
    """Return ``text`` if it is a tutorial's name: ``[a-z0-9]`` and single hyphens, up to 64.

    Raises
    ------
    TutorialError
        Otherwise.
    """
    if len(text) > _ID_LENGTH or not _ID.fullmatch(text):
        raise TutorialError("tutorial.error.id", value=text[:_ID_LENGTH])
    return text


def check_language(text: str) -> str:
    """Return ``text`` if it is a language of the tutorials.

    Raises
    ------
    TutorialError
        Otherwise.
    """
    if text not in LANGUAGES:
        raise TutorialError("tutorial.error.language", value=text[:16])
    return text


def installed(source: Path, language: str) -> list[str]:
    """Return the names of the tutorials in a language, sorted."""
    ending = f".{language}.ipynb"
    with contextlib.suppress(OSError):
        return sorted(path.name.removesuffix(ending) for path in source.glob(f"*{ending}"))
    return []


def open_copy(*, source: Path, home: Path, tutorial: str, language: str, fresh: bool) -> Path:
    """Return the person's copy of a tutorial, made if there is none.

    Parameters
    ----------
    source
        Folder of the tutorials.
    home
        The person's home.
    tutorial, language
        Which one; checked.
    fresh
        Whether to make a new, numbered copy when there is one.

    Raises
    ------
    TutorialMissingError
        If it is not installed in this language.
    TutorialCopyError
        If the copy cannot be written.
    """
    original = source / f"{tutorial}.{language}.ipynb"
    target_folder = home / "tutorials"
    first = target_folder / original.name
    if first.is_file() and not fresh:
        return first
    try:
        content = original.read_bytes()
    except OSError:
        raise TutorialMissingError(
            "tutorial.error.missing", value=tutorial, installed=", ".join(installed(source, language))
        ) from None
    try:
        target_folder.mkdir(exist_ok=True)
    except FileExistsError:
        raise TutorialCopyError("tutorial.error.folder", value=str(target_folder)) from None
    except OSError as error:
        raise _not_written(target_folder, error) from error
    if not fresh:
        return _write_new(first, content)
    for number in range(1, MOST_COPIES + 1):
        name = first if number == 1 else target_folder / f"{tutorial}-{number}.{language}.ipynb"
        if not os.path.lexists(name):
            return _write_new(name, content)
    raise _not_written(target_folder, f"{MOST_COPIES} copies")


def _not_written(path: Path, reason: object) -> TutorialCopyError:
    text = reason.strerror if isinstance(reason, OSError) and reason.strerror else str(reason)
    return TutorialCopyError("tutorial.error.write", value=str(path), reason=text)


def _write_new(target: Path, content: bytes) -> Path:
    """Write ``target`` at once or not at all; one that appeared meanwhile is left as it is."""
    beside = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        beside.write_bytes(content)
        # A link fails where a rename would overwrite.
        with contextlib.suppress(FileExistsError):
            os.link(beside, target)
    except OSError as error:
        raise _not_written(target, error) from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()
    return target


def came_from_here(headers: Mapping[str, str], host: str) -> bool:
    """Return whether a navigation was made on purpose from this origin.

    A link on another site must not put files into a home.  Browsers say where a
    navigation started (``Sec-Fetch-Site``; ``none`` is the address bar or a
    bookmark); older ones at least name the page (``Referer``).

    Parameters
    ----------
    headers
        Of the request.
    host
        What the browser calls this server: ``Host``.
    """
    site = headers.get("Sec-Fetch-Site")
    if site is not None:
        return site in {"same-origin", "none"}
    referer = headers.get("Referer", "")
    scheme, _, rest = referer.partition("://")
    return scheme in {"http", "https"} and rest.split("/", 1)[0] == host
