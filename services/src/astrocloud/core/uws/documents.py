"""UWS 1.1 documents."""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Final
from xml.sax.saxutils import escape as _escape
from xml.sax.saxutils import quoteattr

from astrocloud.core.uws.models import Job

NAMESPACE: Final = "http://www.ivoa.net/xml/UWS/v1.0"
_DECLARED: Final = (
    f'xmlns:uws="{NAMESPACE}" xmlns:xlink="http://www.w3.org/1999/xlink" '
    'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
)
_HEAD: Final = '<?xml version="1.0" encoding="UTF-8"?>\n'
_FORBIDDEN: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_NIL: Final = ' xsi:nil="true"'


def _clean(text: str) -> str:
    """Return `text` without the characters that XML 1.0 forbids, escaped."""
    return _escape(_FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text))


def moment(value: datetime | None) -> str:
    """Return a time as UWS writes it."""
    return f"{value:%Y-%m-%dT%H:%M:%S}.{value.microsecond // 1000:03d}Z" if value is not None else ""


def _time(name: str, value: datetime | None) -> str:
    return f"<uws:{name}{'' if value else _NIL}>{moment(value)}</uws:{name}>\n"


def job(found: Job) -> str:
    """Return the document of a job."""
    run_id = f"<uws:runId>{_clean(found.run_id)}</uws:runId>\n" if found.run_id else ""
    owner = f"<uws:ownerId>{_clean(found.owner)}</uws:ownerId>\n" if found.owner else f"<uws:ownerId{_NIL}/>\n"
    info = f"<uws:jobInfo>{_inner(found.info)}</uws:jobInfo>\n" if found.info else ""
    return (
        f'{_HEAD}<uws:job {_DECLARED} version="1.1">\n'
        f"<uws:jobId>{found.id}</uws:jobId>\n{run_id}{owner}"
        f"<uws:phase>{found.phase}</uws:phase>\n"
        f"<uws:quote{_NIL}/>\n"
        f"{_time('creationTime', found.created_at)}"
        f"{_time('startTime', found.started_at)}"
        f"{_time('endTime', found.ended_at)}"
        f"<uws:executionDuration>{found.duration_s}</uws:executionDuration>\n"
        f"{_time('destruction', found.destruction_at)}"
        f"{_parameters(found)}{_results(found)}{_error(found)}{info}"
        "</uws:job>\n"
    )


def _inner(document: str) -> str:
    """Return `document` without its XML declaration, to stand inside another."""
    return document.partition("?>\n")[2] if document.startswith("<?xml") else document


def _parameters(found: Job) -> str:
    inside = "".join(
        f"<uws:parameter id={quoteattr(name)}>{_clean(value)}</uws:parameter>\n"
        for name, value in found.parameters.items()
    )
    return f"<uws:parameters>\n{inside}</uws:parameters>\n"


def _results(found: Job) -> str:
    parts = []
    for result in found.results:
        extra = f" mime-type={quoteattr(result.mime_type)}" if result.mime_type else ""
        extra += f' size="{result.size}"' if result.size is not None else ""
        parts.append(f"<uws:result id={quoteattr(result.id)} xlink:href={quoteattr(result.href)}{extra}/>\n")
    return f"<uws:results>\n{''.join(parts)}</uws:results>\n"


def _error(found: Job) -> str:
    if found.error is None:
        return ""
    kind = "transient" if found.error.transient else "fatal"
    detail = "true" if found.error.detail else "false"
    message = f"<uws:message>{_clean(found.error.message)}</uws:message>"
    return f'<uws:errorSummary type="{kind}" hasDetail="{detail}">{message}</uws:errorSummary>\n'


def results(found: Job) -> str:
    """Return the document of a job's results alone."""
    return _HEAD + _results(found).replace("<uws:results>", f"<uws:results {_DECLARED}>", 1)


def parameters(found: Job) -> str:
    """Return the document of a job's parameters alone."""
    return _HEAD + _parameters(found).replace("<uws:parameters>", f"<uws:parameters {_DECLARED}>", 1)


def jobs(found: Sequence[Job], *, url: str) -> str:
    """Return the list of jobs, each with its address below `url`."""
    parts = []
    for one in found:
        run_id = f"<uws:runId>{_clean(one.run_id)}</uws:runId>" if one.run_id else ""
        owner = f"<uws:ownerId>{_clean(one.owner)}</uws:ownerId>" if one.owner else ""
        parts.append(
            f'<uws:jobref id="{one.id}" xlink:href={quoteattr(f"{url}/{one.id}")} xlink:type="simple">'
            f"<uws:phase>{one.phase}</uws:phase>{run_id}{owner}"
            f"<uws:creationTime>{moment(one.created_at)}</uws:creationTime></uws:jobref>\n"
        )
    return f'{_HEAD}<uws:jobs {_DECLARED} version="1.1">\n{"".join(parts)}</uws:jobs>\n'
