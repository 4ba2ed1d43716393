"""Structured logs: one JSON object a line, a constant event and its fields, never a secret."""

import logging
import re
import sys
from collections.abc import MutableMapping
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
