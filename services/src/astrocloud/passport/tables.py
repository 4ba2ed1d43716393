"""The passport's tables. Nothing secret is in them but hashes and what is encrypted."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import Boolean, Column, Float, ForeignKey, Index, Integer, String, Table, Text, TypeDecorator

from astrocloud.core.database import metadata

if TYPE_CHECKING:
    from sqlalchemy import Dialect


class Utc(TypeDecorator[datetime]):
    """An aware UTC time, kept as seconds since 1970: compares alike in SQLite and PostgreSQL."""

    impl = Float(53)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: "Dialect") -> float | None:  # noqa: ARG002, RUF100
        """Return `value` as the database keeps it."""
        return None if value is None else value.timestamp()

    def process_result_value(self, value: Any | None, dialect: "Dialect") -> datetime | None:  # noqa: ARG002, RUF100
        """Return what the database keeps as a time."""
        return None if value is None else datetime.fromtimestamp(value, UTC)


people = Table(
    "passport_people",
    metadata,
    Column("username", String(32), primary_key=True),
    Column("uid", Integer, nullable=False, unique=True),
    Column("gid", Integer, nullable=False),
    Column("status", String(16), nullable=False),
    Column("admin", Boolean, nullable=False),
    Column("display_name", String(200), nullable=False),
    Column("email", String(254), nullable=False),
    Column("language", String(8), nullable=False),
    Column("created_at", Utc, nullable=False),
    Column("sessions_valid_after", Integer, nullable=False),
)

groups = Table(
    "passport_groups",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("gid", Integer, nullable=False, unique=True),
    Column("removed", Boolean, nullable=False),
)

members = Table(
    "passport_members",
    metadata,
    Column("group_name", String(32), ForeignKey("passport_groups.name"), primary_key=True),
    Column("username", String(32), ForeignKey("passport_people.username"), primary_key=True, index=True),
)

links = Table(
    "passport_identities",
    metadata,
    Column("issuer", String(400), primary_key=True),
    Column("subject", String(255), primary_key=True),
    Column("username", String(32), ForeignKey("passport_people.username"), nullable=False, index=True),
)

counters = Table(
    "passport_counters",
    metadata,
    Column("name", String(16), primary_key=True),
    Column("last", Integer, nullable=False),
)

passwords = Table(
    "passport_passwords",
    metadata,
    Column("username", String(32), ForeignKey("passport_people.username"), primary_key=True),
    Column("hash", String(255), nullable=False),
    Column("changed_at", Utc, nullable=False),
)

invites = Table(
    "passport_links",
    metadata,
    Column("hash", String(64), primary_key=True),
    Column("purpose", String(8), nullable=False),
    Column("username", String(32), nullable=False, index=True),
    Column("expires_at", Utc, nullable=False),
)

sessions = Table(
    "passport_sessions",
    metadata,
    Column("hash", String(64), primary_key=True),
    Column("public_id", String(32), nullable=False, unique=True),
    Column("username", String(32), ForeignKey("passport_people.username"), nullable=False, index=True),
    Column("created_at", Utc, nullable=False),
    Column("auth_time", Utc, nullable=False),
    Column("expires_at", Utc, nullable=False),
    Column("agent", String(200), nullable=False),
    Column("address", String(64), nullable=False),
)

failures = Table(
    "passport_failures",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("count", Integer, nullable=False),
    Column("last_at", Utc, nullable=False, index=True),
)

hub_tasks = Table(
    "passport_hub_tasks",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("username", String(32), nullable=False),
    Column("work", String(16), nullable=False),
    Column("tries", Integer, nullable=False),
    Column("requested_at", Utc, nullable=False),
)

keys = Table(
    "passport_keys",
    metadata,
    Column("kid", String(64), primary_key=True),
    Column("sealed", Text, nullable=False),
    Column("created_at", Utc, nullable=False),
    Column("signs_from", Utc, nullable=False),
)

codes = Table(
    "passport_codes",
    metadata,
    Column("hash", String(64), primary_key=True),
    Column("grant_id", String(32), nullable=False),
    Column("client_id", String(64), nullable=False),
    Column("username", String(32), nullable=False, index=True),
    Column("session_id", String(32), nullable=False),
    Column("redirect_uri", Text, nullable=False),
    Column("scope", String(200), nullable=False),
    Column("nonce", Text, nullable=False),
    Column("challenge", String(128), nullable=False),
    Column("auth_time", Utc, nullable=False),
    Column("expires_at", Utc, nullable=False),
    Column("used", Boolean, nullable=False),
)

tokens = Table(
    "passport_tokens",
    metadata,
    Column("hash", String(64), primary_key=True),
    Column("kind", String(8), nullable=False),
    Column("grant_id", String(32), nullable=False),
    Column("client_id", String(64), nullable=False),
    Column("username", String(32), nullable=False),
    Column("session_id", String(32), nullable=False),
    Column("scope", String(200), nullable=False),
    Column("nonce", Text, nullable=False),
    Column("auth_time", Utc, nullable=False),
    Column("issued_at", Utc, nullable=False),
    Column("expires_at", Utc, nullable=False),
    Column("revoked", Boolean, nullable=False),
)
Index("ix_passport_tokens_grant_id", tokens.c.grant_id)
Index("ix_passport_tokens_session_id", tokens.c.session_id)
Index("ix_passport_tokens_username", tokens.c.username)
