"""Structured logs: one JSON object a line, a constant event and its fields, never a secret."""

import logging
import os
import re
import sys
from collections.abc import MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import structlog

_SECRET_FIELD: Final = re.compile(r"token|secret|password|authorization|cookie|code_verifier", re.IGNORECASE)


def hide_secrets(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace the value of every field whose name says that it is secret."""
    for name in event:
        if _SECRET_FIELD.search(name):
            event[name] = "(hidden)"
    return event


def passed_on() -> dict[str, str]:
    """Return the header with which a part asks another for the request it answers: one id in all their logs."""
    known = structlog.contextvars.get_contextvars().get("request_id")
    return {"X-Request-ID": str(known)} if known else {}


def configure_logs(*, level: str = "info", part: str) -> None:
    """Send this process's logs, those of libraries too, to standard error as JSON lines that name `part`."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        # Without the values of variables, which are secrets as likely as not.
        structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False)),
        lambda _logger, _method, event: {"part": part, **event},
        hide_secrets,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(ensure_ascii=False),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    # One line a request is ours to write (core.web); aiohttp's own would say it twice.
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)


def shorten(log: Path, *, limit_bytes: int = 10_000_000, kept_bytes: int = 1_000_000) -> None:
    """Begin `log` anew when it is longer than `limit_bytes`, and keep its end as ``.1``.

    A process may be writing it meanwhile, one that appends. On a full disk the log is begun anew all the same.
    """
    with suppress(OSError), log.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        if size <= limit_bytes:
            return
        file.seek(size - kept_bytes)
        end = file.read(kept_bytes)
        with suppress(OSError):
            descriptor = os.open(log.with_name(f"{log.name}.1"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as kept:
                kept.write(end[end.find(b"\n") + 1 :])
        file.truncate(0)
