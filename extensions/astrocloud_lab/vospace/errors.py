"""Refusals of a VOSpace service as the exceptions that Python has for them."""

from __future__ import annotations

import errno
import json
from typing import Final

EXISTS: Final = "DuplicateNode"
NO_FOLDER: Final = "ContainerNotFound"
LINK_FOUND: Final = "LinkFound"

_BY_FAULT: Final[dict[str, tuple[type[OSError], int]]] = {
    "NodeNotFound": (FileNotFoundError, errno.ENOENT),
    NO_FOLDER: (FileNotFoundError, errno.ENOENT),
    EXISTS: (FileExistsError, errno.EEXIST),
    "PermissionDenied": (PermissionError, errno.EACCES),
    "NodeLocked": (PermissionError, errno.EPERM),
    "TypeNotSupported": (IsADirectoryError, errno.EISDIR),
    "QuotaExceeded": (OSError, errno.EDQUOT),
    "NodeBusy": (OSError, errno.EBUSY),
    LINK_FOUND: (OSError, errno.ELOOP),
}
_BY_STATUS: Final[dict[int, tuple[type[OSError], int]]] = {
    401: (PermissionError, errno.EACCES),
    403: (PermissionError, errno.EACCES),
    404: (FileNotFoundError, errno.ENOENT),
    409: (FileExistsError, errno.EEXIST),
    413: (OSError, errno.EFBIG),
    507: (OSError, errno.ENOSPC),
}


def error_of(status: int, text: str, path: str) -> OSError:
    """Return the exception for an answer.

    Parameters
    ----------
    status
        The status of HTTP; 0 for the fault of a job.
    text
        The body: the standard's fault and a sentence, or a problem document.
    path
        What the request was about.

    Returns
    -------
    OSError
        With the fault's name in its attribute ``fault``.
    """
    fault, _, sentence = text.strip().partition(" ")
    if text.startswith("{"):
        try:
            problem = json.loads(text)
            fault, sentence = problem.get("fault", ""), problem.get("detail", "")
        except ValueError:
            sentence = ""
    fault = fault.rstrip(":")
    kind, number = _BY_FAULT.get(fault) or _BY_STATUS.get(status) or (OSError, errno.EIO)
    reason = " ".join(sentence.split())[:500] or f"the service answered {status or fault}"
    error = kind(number, reason, path)
    error.fault = fault  # type: ignore[attr-defined]
    return error


def fault_of(error: BaseException) -> str:
    """Return the standard's name of the fault behind an exception, empty if there is none."""
    fault: str = getattr(error, "fault", "")
    return fault
