"""What the parts of the portal pass between them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final, Literal, Protocol, get_args


class Text(Protocol):
    """A text in both languages."""

    def in_language(self, language: str) -> str:
        """Return the text in `language` (``en`` or ``zh``)."""
        ...


class Size(Protocol):
    """How much of the machine a server may use."""

    @property
    def id(self) -> str:
        """What user options call it."""
        ...

    @property
    def name(self) -> Text:
        """What the menu calls it."""
        ...

    @property
    def memory(self) -> int:
        """The most memory, in bytes."""
        ...

    @property
    def cpus(self) -> float:
        """How many processors' worth of time, at most."""
        ...

    @property
    def processes(self) -> int:
        """How many processes and threads, at most."""
        ...


class Deprecation(Protocol):
    """Why an environment should not be picked any more."""

    @property
    def reason(self) -> Text:
        """One sentence."""
        ...

    @property
    def until(self) -> date | None:
        """The last day on which it can be started, if that is decided."""
        ...


class Environment(Protocol):
    """An environment that can be picked."""

    @property
    def id(self) -> str:
        """Its id in user options."""
        ...

    @property
    def name(self) -> Text:
        """What the menu calls it."""
        ...

    @property
    def description(self) -> Text:
        """What it is good for."""
        ...

    @property
    def software(self) -> Mapping[str, str]:
        """Package -> version of the software worth telling."""
        ...

    @property
    def resources(self) -> Sequence[Size]:
        """The sizes that can be picked; the first is the default."""
        ...

    @property
    def tutorials(self) -> Sequence[str]:
        """The ids of the tutorials that run in it."""
        ...

    @property
    def deprecated(self) -> Deprecation | None:
        """Why it should not be picked any more, or `None`."""
        ...


class Tutorial(Protocol):
    """A notebook in each language."""

    @property
    def id(self) -> str:
        """Its id."""
        ...

    @property
    def title(self) -> Text:
        """What lists call it."""
        ...

    @property
    def summary(self) -> Text:
        """What a person learns."""
        ...

    @property
    def minutes(self) -> int:
        """How long a person needs for it."""
        ...


class Menu(Protocol):
    """What can be started: the catalogue as the portal needs it."""

    def environments(self) -> Sequence[Environment]:
        """Return the environments, the one to offer first in front."""
        ...

    def tutorials(self) -> Mapping[str, Tutorial]:
        """Return id -> tutorial."""
        ...

    def state(self, environment: str) -> str:
        """Return ``ready``, ``making`` or ``absent`` (made at its first use). Reads a few small files."""
        ...


State = Literal["starting", "running", "stopping", "stopped"]
"""What a server does now."""

REASONS: Final = (
    "exited",
    "out-of-memory",
    "killed",
    "idle",
    "stopped",
    "disabled",
    "failed",
    "host-restart",
    "platform-stop",
    "evicted",
    "node-lost",
    "storage",
    "drained",
    "preempted",
    "deleted",
    "unknown",
)
"""Why a server ended; each has the texts ``portal.end-REASON`` and ``portal.next-REASON``."""

RAN_OUT: Final = ("memory", "disk", "inodes", "processes", "tmp")
"""What a node can run out of; each has the text ``portal.ran-out-WHAT``."""

SEVERE_REASONS: Final = frozenset({"out-of-memory", "killed", "failed", "evicted", "node-lost", "storage"})
"""Ends that somebody should do something about."""


@dataclass(frozen=True, kw_only=True)
class End:
    """Why a server is not running any more."""

    reason: str
    """One of `REASONS`."""
    by: str = ""
    """Who ended it, when somebody did."""
    at: datetime | None = None
    exit_code: int | None = None
    """Above 128 for a signal; `None` when nobody saw it."""
    code: str = ""
    """The error's code, for ``failed``."""
    what: str = ""
    """What its node ran out of, for ``evicted``; one of `RAN_OUT`."""
    node: str = ""
    """The node it ran on, for ends that are the node's."""


@dataclass(frozen=True, kw_only=True)
class Server:
    """Somebody's server as the hub tells it."""

    owner: str
    name: str
    """Its name at the hub, empty for the default server."""
    title: str
    """What its owner calls it; empty when never said."""
    state: State
    url: str
    """Its path, ending with a slash."""
    environment: str = ""
    """The id of its environment; empty when it was started elsewhere, without one."""
    size: str = ""
    started: datetime | None = None
    last_activity: datetime | None = None
    end: End | None = None
    """Why it ended last; never set while it runs."""

    @property
    def active(self) -> bool:
        """Whether it runs, or is about to."""
        return self.state != "stopped"


Severity = Literal["info", "warning", "critical"]
SEVERITIES: Final[tuple[Severity, ...]] = get_args(Severity)
"""How urgent an announcement is, the least first."""


@dataclass(frozen=True, kw_only=True)
class Announcement:
    """What an administrator tells everybody."""

    id: int
    """0 as long as it is not kept."""
    severity: Severity
    title_en: str
    title_zh: str
    text_en: str
    text_zh: str
    starts_at: datetime
    """Shown from then on."""
    ends_at: datetime | None
    """Shown until then; `None`: until it is removed."""
    author: str

    def title(self, language: str) -> str:
        """Return the title in `language`."""
        return self.title_zh if language == "zh" else self.title_en

    def text(self, language: str) -> str:
        """Return the text in `language`."""
        return self.text_zh if language == "zh" else self.text_en

    def shown_at(self, moment: datetime) -> bool:
        """Whether people see it at `moment`."""
        return self.starts_at <= moment and (self.ends_at is None or moment < self.ends_at)

    def document(self) -> dict[str, Any]:
        """Return it as the API tells it."""
        return {
            "id": self.id,
            "severity": self.severity,
            "title": {"en": self.title_en, "zh": self.title_zh},
            "text": {"en": self.text_en, "zh": self.text_zh},
            "starts_at": self.starts_at.isoformat(),
            "ends_at": self.ends_at.isoformat() if self.ends_at else None,
        }


class AnnouncementStore(Protocol):
    """Where announcements are kept."""

    def all(self) -> Sequence[Announcement]:
        """Return all of them, the latest start first."""
        ...

    def get(self, number: int) -> Announcement | None:
        """Return one, or `None`."""
        ...

    def save(self, announcement: Announcement) -> Announcement:
        """Keep a new one (id 0) or a changed one; return it with its id. Raises `KeyError` when it is gone."""
        ...

    def remove(self, number: int) -> bool:
        """Remove one; whether it was there."""
        ...


def by_id(environments: Iterable[Environment], name: str) -> Environment | None:
    """Return the environment `name`, or `None`."""
    return next((each for each in environments if each.id == name), None)
