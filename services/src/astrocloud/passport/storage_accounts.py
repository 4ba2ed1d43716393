"""Accounts in the database: passwords, links, sessions, failed tries."""

from datetime import datetime

from sqlalchemy import Connection, delete, insert, select, update

from astrocloud.passport.models import Failures, Link, Session
from astrocloud.passport.tables import failures, invites, passwords, sessions


class AccountTransaction:
    """The part of a transaction that is about accounts."""

    _connection: Connection

    # passwords

    def password_hash(self, username: str) -> str | None:
        """Return the hash of somebody's password, or `None` without one."""
        query = select(passwords.c.hash).where(passwords.c.username == username)
        found: str | None = self._connection.execute(query).scalar_one_or_none()
        return found

    def set_password_hash(self, username: str, password_hash: str, *, now: datetime) -> None:
        """Keep the hash of a new password."""
        values = {"hash": password_hash, "changed_at": now}
        changed = self._connection.execute(update(passwords).where(passwords.c.username == username).values(**values))
        if not changed.rowcount:
            self._connection.execute(insert(passwords).values(username=username, **values))

    def drop_password(self, username: str) -> None:
        """Forget somebody's password."""
        self._connection.execute(delete(passwords).where(passwords.c.username == username))

    # invite, reset and set-up links

    def add_link(self, link: Link, *, link_hash: str) -> None:
        """Keep a link by the hash of its secret."""
        self._connection.execute(
            insert(invites).values(
                hash=link_hash, purpose=link.purpose, username=link.username, expires_at=link.expires_at
            )
        )

    def link_by_hash(self, link_hash: str) -> Link | None:
        """Return a link that was not used yet, expired or not."""
        row = self._connection.execute(select(invites).where(invites.c.hash == link_hash)).one_or_none()
        return Link(purpose=row.purpose, username=row.username, expires_at=row.expires_at) if row is not None else None

    def use_link(self, link_hash: str) -> bool:
        """Use a link up. Returns whether it was there: of two that try, one succeeds."""
        return self._connection.execute(delete(invites).where(invites.c.hash == link_hash)).rowcount == 1

    def drop_links(self, username: str) -> None:
        """Drop somebody's links; of nobody (``""``) the set-up links."""
        self._connection.execute(delete(invites).where(invites.c.username == username))

    # sessions

    def add_session(self, session: Session, *, session_hash: str) -> None:
        """Keep a session by the hash of its secret."""
        self._connection.execute(
            insert(sessions).values(
                hash=session_hash,
                public_id=session.public_id,
                username=session.username,
                created_at=session.created_at,
                auth_time=session.auth_time,
                expires_at=session.expires_at,
                agent=session.agent,
                address=session.address,
            )
        )

    def session_by_hash(self, session_hash: str, *, now: datetime) -> Session | None:
        """Return a session that is not over."""
        query = select(sessions).where(sessions.c.hash == session_hash, sessions.c.expires_at > now)
        row = self._connection.execute(query).one_or_none()
        return _session(row) if row is not None else None

    def session_is_open(self, public_id: str, *, now: datetime) -> bool:
        """Whether the session `public_id` is not over."""
        query = select(sessions.c.hash).where(sessions.c.public_id == public_id, sessions.c.expires_at > now)
        return self._connection.execute(query).one_or_none() is not None

    def sessions_of(self, username: str, *, now: datetime) -> list[Session]:
        """Return somebody's sessions, the newest first."""
        query = (
            select(sessions)
            .where(sessions.c.username == username, sessions.c.expires_at > now)
            .order_by(sessions.c.created_at.desc())
        )
        return [_session(row) for row in self._connection.execute(query)]

    def set_auth_time(self, public_id: str, auth_time: datetime) -> None:
        """Note that the password was proved again in a session."""
        self._connection.execute(update(sessions).where(sessions.c.public_id == public_id).values(auth_time=auth_time))

    def drop_session(self, public_id: str) -> None:
        """End a session."""
        self._connection.execute(delete(sessions).where(sessions.c.public_id == public_id))

    def drop_sessions(self, username: str, *, but: str = "") -> None:
        """End all sessions of somebody, except the one with the public id `but`."""
        self._connection.execute(delete(sessions).where(sessions.c.username == username, sessions.c.public_id != but))

    # failed tries

    def failures(self, key: str) -> Failures | None:
        """Return the failed tries under `key`, or `None` without any."""
        row = self._connection.execute(select(failures).where(failures.c.key == key)).one_or_none()
        return Failures(count=row._mapping["count"], last_at=row.last_at) if row is not None else None

    def set_failures(self, key: str, found: Failures) -> None:
        """Keep the failed tries under `key`."""
        values = {"count": found.count, "last_at": found.last_at}
        changed = self._connection.execute(update(failures).where(failures.c.key == key).values(**values))
        if not changed.rowcount:
            self._connection.execute(insert(failures).values(key=key, **values))

    def drop_failures(self, key: str) -> None:
        """Forget the failed tries under `key`."""
        self._connection.execute(delete(failures).where(failures.c.key == key))

    # cleaning up

    def drop_old_account_rows(self, *, now: datetime, failures_before: datetime) -> None:
        """Drop expired links and sessions, and failed tries that no longer count."""
        self._connection.execute(delete(invites).where(invites.c.expires_at <= now))
        self._connection.execute(delete(sessions).where(sessions.c.expires_at <= now))
        self._connection.execute(delete(failures).where(failures.c.last_at < failures_before))


def _session(row: object) -> Session:
    values = row._mapping  # type: ignore[attr-defined]
    return Session(**{name: values[name] for name in Session.__dataclass_fields__})
