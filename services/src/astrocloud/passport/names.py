"""Usernames and names of groups: which are allowed, and how one is derived from what an external passport says."""

import re
import unicodedata
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any, Final

from astrocloud.passport.errors import NameRefused

USERNAME: Final = re.compile(r"[a-z](?:[a-z0-9-]{0,30}[a-z0-9])?\Z", re.ASCII)
"""A username or a group's name: also a folder, a path segment, a host's label and a Kubernetes name."""

LONGEST: Final = 32

_MACHINE: Final = """
root daemon bin sys sync games man lp mail news uucp proxy www-data backup list irc gnats nobody nogroup systemd
systemd-network systemd-resolve messagebus sshd postgres postmaster hostmaster webmaster abuse security
"""
_PLATFORM: Final = """
hub services service user users api static login logout signup oauth proxy portal passport vospace batch courses
archive usage storage astrocloud operator jupyter jupyterhub jovyan home project course tutorials tmp shared public
all any anonymous everyone me none null self system
"""
RESERVED: Final = frozenset([*_MACHINE.split(), *_PLATFORM.split()])
"""Names that nobody gets: accounts that a machine may have, and paths and parts of this platform. ``admin`` is none:
it means nothing here."""


def check_username(name: str) -> str:
    """Return `name` if it may be a username (whether it is free is another question).

    Raises
    ------
    NameRefused
        ``username-refused``.
    """
    if not USERNAME.match(name):
        raise NameRefused("username-refused", username=shown(name))
    if name in RESERVED:
        raise NameRefused("username-reserved", username=name)
    return name


def check_group(name: str) -> str:
    """Return `name` if it may be a group's name. Raises `NameRefused` (``group-refused``) if not."""
    if not USERNAME.match(name) or name in RESERVED:
        raise NameRefused("group-refused", group=shown(name))
    return name


def shown(text: str, *, limit: int = 64) -> str:
    """Return `text` as an error may repeat it: at most `limit` characters, controls and lone surrogates replaced."""
    clean = "".join(
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(char) in {"Cc", "Cf", "Cs", "Co", "Cn"} else char
        for char in text[:limit]
    )
    return clean + ("…" if len(text) > limit else "")


def derive_username(claims: Mapping[str, Any], *, taken: Callable[[str], bool]) -> str:
    """Return a free username for a newcomer.

    The first of ``preferred_username``, ``email`` (its part before the @) and ``name`` from which three or more ASCII
    letters and digits remain is used; nothing is transliterated, because a wrong romanisation of a person's name is
    worse than none. Without one it is ``u`` and a number. A name that is taken gets a number behind it.

    Parameters
    ----------
    claims
        What the passport says about the newcomer.
    taken
        Whether a username was ever given away.
    """
    base = next((folded for folded in map(_fold, _candidates(claims)) if folded), "")
    if not base:
        return next(name for name in (f"u{number}" for number in count(1)) if not taken(name))
    if base not in RESERVED and not taken(base):
        return base
    for number in count(2):
        suffix = f"-{number}"
        name = base[: LONGEST - len(suffix)].rstrip("-") + suffix
        if not taken(name):
            return name
    raise AssertionError  # count() has no end


def _candidates(claims: Mapping[str, Any]) -> list[str]:
    """Return the texts to try, in order, each cut to a length that cannot cost anything."""
    found = [claims.get("preferred_username"), claims.get("email"), claims.get("name")]
    return [text[:256].split("@", 1)[0] for text in found if isinstance(text, str)]


def _fold(text: str) -> str:
    """Return the ASCII username inside `text`, or an empty text when too little remains."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    name = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")
    name = name.lstrip("0123456789-")[:LONGEST].rstrip("-")
    return name if len(name) >= 3 and USERNAME.match(name) else ""
