"""What the portal's pages show of a server, an environment or a part: words chosen, numbers written out."""

from dataclasses import dataclass
from typing import Any, Final

from astrocloud.core import words
from astrocloud.portal.models import SEVERE_REASONS, End, Environment, Menu, Server, Size, by_id

BADGES: Final = {"running": "ok", "starting": "busy", "stopping": "busy", "stopped": "off"}
"""How each state of a server is coloured."""

HEALTH_BADGES: Final = {
    "ok": "ok",
    "away": "critical",
    "failed": "critical",
    "full": "critical",
    "making": "busy",
    "waiting": "off",
    "absent": "off",
    "off": "critical",
}
"""How each state of a part is coloured."""

NOT_WELL: Final = frozenset({"away", "failed", "full", "off"})
"""States of a part that mean trouble."""


def part_name(name: str, *, menu: Menu, language: str) -> str:
    """Return what people call a part of the platform."""
    kind, _, identifier = name.partition(":")
    if not identifier:
        return words.text(f"portal.part-{kind}", language)
    environment = by_id(menu.environments(), identifier)
    shown = environment.name.in_language(language) if environment else identifier
    return words.text(f"portal.part-{kind}", language, environment=shown)


def gibibytes(size_bytes: int) -> str:
    """Return `size_bytes` in GiB with at most one decimal."""
    return f"{size_bytes / 2**30:.1f}".removesuffix(".0")


def number(value: float) -> str:
    """Return `value` without a superfluous decimal."""
    return f"{value:g}"


def size_text(size: Size, language: str) -> str:
    """Return what a size means."""
    key = "portal.size-text-one" if size.cpus == 1 else "portal.size-text"
    return words.text(key, language, memory=gibibytes(int(size.memory)), cpus=number(size.cpus))


@dataclass(frozen=True, kw_only=True)
class ServerView:
    """A server as a page shows it."""

    server: Server
    title: str
    badge: str
    environment: str
    """The environment's name; empty when it is not known any more."""
    size: Size | None
    memory: str
    cpus: str
    why: str = ""
    """Why it ended."""
    next_step: str = ""
    severe: bool = False


def server_view(server: Server, *, menu: Menu, language: str, reader: str, idle_hours: str) -> ServerView:
    """Return how `reader` sees `server`."""
    environment = by_id(menu.environments(), server.environment)
    size = next((each for each in environment.resources if each.id == server.size), None) if environment else None
    name = environment.name.in_language(language) if environment else server.environment
    why, next_step = (
        end_texts(server.end, language=language, reader=reader, idle_hours=idle_hours) if server.end else ("", "")
    )
    return ServerView(
        server=server,
        title=server.title or _plain_title(server, name),
        badge=BADGES[server.state],
        environment=name,
        size=size,
        memory=gibibytes(int(size.memory)) if size else "",
        cpus=number(size.cpus) if size else "",
        why=why,
        next_step=next_step,
        severe=server.end is not None and server.end.reason in SEVERE_REASONS,
    )


def _plain_title(server: Server, environment: str) -> str:
    """Return the environment's name with the number of a second or third server of it."""
    if environment and not server.name:
        return environment
    if environment and server.name.startswith(server.environment):
        rest = server.name.removeprefix(server.environment).removeprefix("-")
        if not rest:
            return environment
        if rest.isdigit():
            return f"{environment} {rest}"
    return server.name or environment


def end_texts(end: End, *, language: str, reader: str, idle_hours: str) -> tuple[str, str]:
    """Return why a server ended and the next step, as `reader` should read it."""
    values: dict[str, Any] = {
        "by": end.by,
        "exit_code": "?" if end.exit_code is None else end.exit_code,
        "hours": idle_hours,
        "code": end.code or "?",
        "what": words.text(f"portal.ran-out-{end.what}", language) if end.what else "?",
        "node": end.node or "?",
    }
    reason = end.reason
    key = f"portal.end-{reason}"
    if reason == "stopped" and end.by in {"", reader}:
        key = "portal.end-stopped-self"
    if reason == "failed":
        known = end.code in words.error_codes()
        values["what"] = words.text(f"errors.{end.code}.title" if known else "portal.end-failed-unknown", language)
    # What cannot be mended by trying again has a next step of its own.
    own = f"portal.next-failed-{end.code}"
    following = own if reason == "failed" and own in words.catalogue() else f"portal.next-{reason}"
    return words.text(key, language, **values), words.text(following, language, **values)


def environment_document(environment: Environment, *, menu: Menu) -> dict[str, Any]:
    """Return an environment as the API tells it."""
    deprecated = environment.deprecated
    return {
        "id": environment.id,
        "name": both(environment.name),
        "description": both(environment.description),
        "software": dict(environment.software),
        "resources": [
            {
                "id": size.id,
                "name": both(size.name),
                "memory_bytes": int(size.memory),
                "cpus": size.cpus,
                "processes": size.processes,
            }
            for size in environment.resources
        ],
        "tutorials": list(environment.tutorials),
        "deprecated": both(deprecated.reason) if deprecated else None,
        "state": menu.state(environment.id),
    }


def server_document(server: Server, *, idle_hours: str) -> dict[str, Any]:
    """Return a server as the API tells it to its owner."""
    end = server.end
    said = {
        language: end_texts(end, language=language, reader=server.owner, idle_hours=idle_hours)
        for language in words.LANGUAGES
        if end is not None
    }
    return {
        "name": server.name,
        "title": server.title,
        "owner": server.owner,
        "state": server.state,
        "url": server.url,
        "environment": server.environment or None,
        "resources": server.size or None,
        "started": server.started.isoformat() if server.started else None,
        "last_activity": server.last_activity.isoformat() if server.last_activity else None,
        "last_end": None
        if end is None
        else {
            "reason": end.reason,
            "by": end.by,
            "at": end.at.isoformat() if end.at else None,
            "exit_code": end.exit_code,
            "code": end.code,
            "why": {language: why for language, (why, _) in said.items()},
            "next_step": {language: step for language, (_, step) in said.items()},
        },
    }


def both(text: Any) -> dict[str, str]:
    """Return a text in both languages."""
    return {language: text.in_language(language) for language in words.LANGUAGES}
