"""What is passed between the parts of the passport. Times are aware UTC."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

Status = Literal["active", "pending", "disabled", "removed"]
"""``pending``: asked for an account, not yet approved; ``removed``: a tombstone that keeps name and ids from reuse."""

LinkPurpose = Literal["invite", "reset", "setup"]
"""``setup`` makes the first administrator and belongs to nobody yet."""

HubWork = Literal["disable", "remove", "sessions"]
"""What is to be ended at the hub: servers and tokens; the hub's user as well; only browsers' sessions."""


def utc_now() -> datetime:
    """Return the time now."""
    return datetime.now(UTC)


@dataclass(frozen=True, kw_only=True)
class Group:
    """A group of people, with a folder below ``/project``."""

    name: str
    gid: int
    members: tuple[str, ...] = ()
    """Usernames, sorted; left empty where a group is only named."""


@dataclass(frozen=True, kw_only=True)
class Person:
    """Somebody with a username here."""

    username: str
    uid: int
    gid: int
    status: Status
    admin: bool
    display_name: str
    """What to call the person; may be empty."""
    email: str
    """An address to show, never a key; may be empty."""
    language: str
    """``en`` or ``zh``; empty when the person never chose."""
    created_at: datetime
    sessions_valid_after: int
    """Sessions from before this time are over, in seconds since 1970; 0: none were ended."""
    groups: tuple[Group, ...] = ()
    """The groups the person is in, by name."""
    has_password: bool = False
    """Whether the person can sign in at the embedded passport."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Somebody as an external passport knows them."""

    issuer: str
    subject: str
    claims: Mapping[str, Any] = field(default_factory=dict)
    """Display values, none of which identifies anybody."""


@dataclass(frozen=True, kw_only=True)
class Link:
    """An invite, reset or set-up link, without its secret."""

    purpose: LinkPurpose
    username: str
    """Whose; empty for ``setup``."""
    expires_at: datetime


@dataclass(frozen=True, kw_only=True)
class Session:
    """One browser that is signed in at the embedded passport."""

    public_id: str
    """Names the session on the account page and in id tokens (``sid``); opens nothing."""
    username: str
    created_at: datetime
    auth_time: datetime
    """When the person last proved the password in it."""
    expires_at: datetime
    agent: str
    """The browser's name for itself, shortened."""
    address: str
    """Where it came from."""


@dataclass(frozen=True, kw_only=True)
class Failures:
    """Failed tries of one account or from one address."""

    count: int
    last_at: datetime


@dataclass(frozen=True, kw_only=True)
class HubTask:
    """Something to be ended at the hub."""

    id: int
    username: str
    work: HubWork
    tries: int


@dataclass(frozen=True, kw_only=True)
class StoredKey:
    """A signing key as it is kept."""

    kid: str
    sealed: str
    """The private JWK, encrypted."""
    created_at: datetime
    signs_from: datetime
    """From when on it signs, unless a later one does."""


@dataclass(frozen=True, kw_only=True)
class Code:
    """An authorization code, without its secret."""

    client_id: str
    username: str
    session_id: str
    redirect_uri: str
    scope: str
    nonce: str
    challenge: str
    auth_time: datetime
    expires_at: datetime
    grant_id: str
    """Names everything that comes of this code, so that a replay can take it back."""


@dataclass(frozen=True, kw_only=True)
class Token:
    """An access or refresh token of the embedded provider, without its secret."""

    kind: Literal["access", "refresh"]
    client_id: str
    username: str
    session_id: str
    grant_id: str
    scope: str
    nonce: str
    auth_time: datetime
    issued_at: datetime
    expires_at: datetime
    revoked: bool = False
    """Revoked, or a refresh token that was used."""
