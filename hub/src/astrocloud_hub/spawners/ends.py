"""Why a server ended."""

from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Any, Final, Literal, get_args

Reason = Literal[
    "exited", "out-of-memory", "killed", "idle", "stopped", "disabled", "failed", "host-restart", "platform-stop",
    "evicted", "node-lost", "drained", "preempted", "deleted", "storage",
]  # fmt: skip
"""Why: it ended by itself; the kernel ended it for want of memory; something killed it; nothing happened in it for
long; somebody stopped it; its person was disabled; it never came up; the machine, or the whole platform, went down.

On a cluster besides: its node ran out of something (`End.what`); its node did not answer any more; its node was cleared
for maintenance; something more important needed the room; its pod was deleted without the platform; its
node had to mount the file tree anew."""

REASONS: Final[tuple[Reason, ...]] = get_args(Reason)
"""All reasons; each has the texts ``portal.end-REASON`` and ``portal.next-REASON``."""

_KILLED: Final = 128 + 9


@dataclass(frozen=True, kw_only=True)
class End:
    """The end of one server."""

    reason: Reason
    by: str = ""
    """Who ended it, when somebody did."""
    at: str = ""
    """When that was noticed, ISO 8601 in UTC."""
    exit_code: int | None = None
    """The server's exit code, above 128 for a signal, or `None` when nobody saw it."""
    code: str = ""
    """The code of the error that kept it from starting, for ``failed``."""
    what: str = ""
    """What ran out, for ``evicted``: ``memory``, ``disk``, ``inodes``, ``processes`` or ``tmp``."""
    node: str = ""
    """The node it ran on, for ends that are the node's."""

    def document(self) -> dict[str, Any]:
        """Return what is kept in the spawner's state."""
        return asdict(self)

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> "End":
        """Return the end that another version of the platform may have kept as `document`."""
        known = {each.name for each in fields(cls)}
        return cls(**{key: value for key, value in document.items() if key in known})


def end_of(
    *,
    asked: tuple[Reason, str] | None,
    exit_code: int | None,
    oom_kills: int,
    same_boot: bool,
    now: datetime | None = None,
) -> End:
    """Return why a server ended.

    Parameters
    ----------
    asked
        Reason and name, when the platform or somebody ended it on purpose.
    exit_code
        Its exit code, or `None` when nobody saw it.
    oom_kills
        How many of its processes the kernel killed for want of memory at that end.
    same_boot
        Whether the machine has been up since the server started.
    now
        The time to note; the present one for `None`.
    """
    at = (now or datetime.now(UTC)).isoformat(timespec="seconds")
    if asked is not None:
        return End(reason=asked[0], by=asked[1], at=at, exit_code=exit_code)
    if not same_boot:
        return End(reason="host-restart", at=at)
    # With another code it ended by itself, be it because a process of it was killed.
    if oom_kills and (exit_code is None or exit_code >= _KILLED or exit_code == 1):
        return End(reason="out-of-memory", at=at, exit_code=exit_code)
    if exit_code == _KILLED:
        return End(reason="killed", at=at, exit_code=exit_code)
    return End(reason="exited", at=at, exit_code=exit_code)
