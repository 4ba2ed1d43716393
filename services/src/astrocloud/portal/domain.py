"""The portal's rules: which server a start means, what an announcement may be. No HTTP, no SQL."""

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import quote

from astrocloud.portal.errors import PortalError
from astrocloud.portal.models import (
    SEVERITIES,
    Announcement,
    Environment,
    Menu,
    Server,
    Size,
    Tutorial,
    by_id,
)

TITLE_LIMIT: Final = 60
"""The longest name a person can give a server, in characters."""
_NAME_LIMIT: Final = 30
"""The longest name the hub takes for a server."""
ANNOUNCEMENT_TITLE_LIMIT: Final = 120
ANNOUNCEMENT_TEXT_LIMIT: Final = 2000
_FURTHEST: Final = timedelta(days=3660)


@dataclass(frozen=True, kw_only=True)
class Start:
    """A server to start."""

    name: str
    """Its name at the hub."""
    title: str
    """What its owner calls it; empty for none."""
    options: Mapping[str, str]
    """The hub's user options."""
    replaces: str | None = None
    """A stopped server to forget first, because the hub counts it."""


def lab_path(path: str) -> str:
    """Return `path`, one of the file tree, for JupyterLab's address, where it is the same; empty if it is none."""
    parts = [part for part in path.split("/") if part]
    known = parts[:1] and parts[0] in {"home", "project", "archive", "course"}
    if not known or any(part in {".", ".."} or not part.isprintable() for part in parts):
        return ""
    return "".join("/" + quote(part, safe="") for part in parts)


def pick_environment(menu: Menu, name: str) -> Environment:
    """Return the environment `name`, the first one for an empty name. Raises ``environment-unknown``."""
    environments = menu.environments()
    found = by_id(environments, name) if name else environments[0]
    if found is None:
        allowed = ", ".join(each.id for each in environments)
        raise PortalError("environment-unknown", environment=name[:64], allowed=allowed)
    return found


def pick_size(environment: Environment, name: str) -> Size:
    """Return the size `name` of `environment`, the first one for an empty name. Raises ``environment-resources``."""
    for size in environment.resources:
        if not name or size.id == name:
            return size
    allowed = ", ".join(size.id for size in environment.resources)
    raise PortalError("environment-resources", environment=environment.id, resources=name[:64], allowed=allowed)


def pick_tutorial(menu: Menu, name: str) -> Tutorial:
    """Return the tutorial `name`. Raises ``tutorial-unknown``."""
    tutorials = menu.tutorials()
    if name not in tutorials:
        raise PortalError("tutorial-unknown", tutorial=name[:64], allowed=", ".join(tutorials))
    return tutorials[name]


def check_title(title: str) -> str:
    """Return `title` as the hub takes it: one line without doubled spaces. Raises ``server-title``."""
    cleaned = " ".join(unicodedata.normalize("NFC", title).split())
    if len(cleaned) > TITLE_LIMIT or not all(char.isprintable() for char in cleaned):
        raise PortalError("server-title", title=cleaned[:TITLE_LIMIT], limit=TITLE_LIMIT)
    return cleaned


def plan_start(
    *,
    environment: Environment,
    size: Size,
    title: str,
    servers: Sequence[Server],
    limit: int,
) -> Start:
    """Return which server to start for somebody who has `servers`.

    Without a title it is the default server, or the first free one of ``ID``, ``ID-2``, … when that runs. With one it
    is a named server; a stopped one of the same title is used again.

    Parameters
    ----------
    environment, size
        What was picked.
    title
        What the person wants to call it; may be empty.
    servers
        All of the person's servers, stopped ones too.
    limit
        How many may run at once; the hub keeps one less with names, besides the default server.

    Raises
    ------
    PortalError
        ``server-limit``, ``server-running`` (one with this title runs already), ``server-title``.
    """
    title = check_title(title)
    running = [server for server in servers if server.active]
    for server in running:
        if title and server.title == title:
            raise PortalError("server-running", title=title)
    if len(running) >= limit:
        names = ", ".join(server.title or server.name or server.environment for server in running)
        raise PortalError("server-limit", limit=limit, running=names)
    options = {"environment": environment.id, "resources": size.id}
    name = _free_name(environment, title, servers)
    named = [server for server in servers if server.name]
    if name and len(named) >= max(limit - 1, 1) and all(server.name != name for server in named):
        stopped = [server for server in named if not server.active]
        if not stopped:
            # All named ones run, so the default one does not: it has no title, but it starts.
            return Start(name="", title="", options=options)
        # The hub counts stopped servers too; the one that ended first is missed least.
        return Start(name=name, title=title, options=options, replaces=min(stopped, key=_ended_at).name)
    return Start(name=name, title=title, options=options)


def _ended_at(server: Server) -> datetime:
    moment = server.end.at if server.end else server.last_activity
    return moment or datetime.min.replace(tzinfo=UTC)


def _free_name(environment: Environment, title: str, servers: Sequence[Server]) -> str:
    if title:
        for server in servers:
            if server.title == title:
                return server.name
    elif not any(server.active and not server.name for server in servers):
        return ""
    base = _slug(title) or environment.id
    # An untitled start may take over a stopped server of the same name, a titled one must not.
    taken = {server.name for server in servers if title or server.active or server.title not in {"", server.name}}
    number = 1
    while True:
        end = "" if number == 1 else f"-{number}"
        name = base[: _NAME_LIMIT - len(end)].rstrip("-") + end
        if name not in taken:
            return name
        number += 1


def _slug(title: str) -> str:
    """Return lower-case letters, digits and single hyphens, beginning with a letter; empty when nothing is left."""
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-0123456789")[:_NAME_LIMIT].rstrip("-")


def server_for(tutorial: str | None, *, menu: Menu, servers: Sequence[Server]) -> Server | None:
    """Return a running server in which `tutorial` (`None`: any file) can be opened, the one used last; else `None`."""
    good = {each.id for each in menu.environments() if tutorial is None or tutorial in each.tutorials}
    fitting = [server for server in servers if server.state == "running" and server.environment in good]
    return max(
        fitting,
        key=lambda server: server.last_activity or server.started or datetime.min.replace(tzinfo=UTC),
        default=None,
    )


def environment_for(tutorial: str | None, *, menu: Menu) -> Environment:
    """Return the environment to start for `tutorial`: the first that lists it, else the first of all."""
    environments = menu.environments()
    return next((each for each in environments if tutorial is not None and tutorial in each.tutorials), environments[0])


def check_announcement(
    fields: Mapping[str, str], *, number: int, author: str, now: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> Announcement:
    """Return the announcement that `fields` describe.

    Parameters
    ----------
    fields
        ``severity``, ``title_en``, ``title_zh``, ``text_en``, ``text_zh``, ``starts_at`` (empty: now) and ``ends_at``
        (empty: never); times as ISO 8601, UTC unless they say otherwise.
    number
        Its id, 0 for a new one.
    author
        Who writes it.
    now
        The clock.

    Raises
    ------
    PortalError
        ``announcement-severity``, ``announcement-text`` (missing or too long), ``announcement-time``.
    """
    severity = fields.get("severity", "info")
    if severity not in SEVERITIES:
        raise PortalError("announcement-severity", value=severity[:40], allowed=", ".join(SEVERITIES))
    texts: dict[str, str] = {}
    for name in ("title_en", "title_zh", "text_en", "text_zh"):
        value = fields.get(name, "").replace("\r\n", "\n").strip()
        limit = ANNOUNCEMENT_TITLE_LIMIT if name.startswith("title") else ANNOUNCEMENT_TEXT_LIMIT
        if not value or len(value) > limit or any(ord(char) < 0x20 and char != "\n" for char in value):
            raise PortalError("announcement-text", field=name, length=len(value), limit=limit)
        texts[name] = value
    moment = now().replace(second=0, microsecond=0)
    starts_at = _parse_time("starts_at", fields.get("starts_at", "")) or moment
    ends_at = _parse_time("ends_at", fields.get("ends_at", ""))
    if ends_at is not None and not starts_at < ends_at <= starts_at + _FURTHEST:
        raise PortalError("announcement-time", field="ends_at", value=ends_at.isoformat())
    return Announcement(
        id=number,
        severity=severity,
        starts_at=starts_at,
        ends_at=ends_at,
        author=author,
        **texts,
    )


def _parse_time(field: str, value: str) -> datetime | None:
    if not value.strip():
        return None
    try:
        moment = datetime.fromisoformat(value.strip())
    except ValueError as err:
        raise PortalError("announcement-time", field=field, value=value[:40]) from err
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    if not 2000 <= moment.year <= 2999:
        raise PortalError("announcement-time", field=field, value=value[:40])
    return moment.astimezone(UTC)
