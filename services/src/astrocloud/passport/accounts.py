"""Accounts of the embedded passport: signing in, sessions, links, passwords, asking for an account."""

import hashlib
import math
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from astrocloud.passport.errors import LinkRefused, PassportError, SignInRefused
from astrocloud.passport.models import Link, LinkPurpose, Person, Session, utc_now
from astrocloud.passport.names import shown
from astrocloud.passport.people import admitted, existing
from astrocloud.passport.throttle import FORGOTTEN_AFTER, Throttle

if TYPE_CHECKING:
    from astrocloud.passport.passwords import Passwords
    from astrocloud.passport.people import People
    from astrocloud.passport.storage import Storage, Transaction

PENDING_LIMIT: Final = 200
"""How many may wait for approval at once: a stranger cannot fill the directory."""


def secret_hash(secret: str) -> str:
    """Return the hash under which a random secret is kept (256 random bits need no slow one)."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Browser:
    """Where a request comes from."""

    address: str
    agent: str = ""


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A session that was just opened."""

    secret: str
    """The cookie's value, kept nowhere."""
    session: Session
    person: Person

    def __repr__(self) -> str:
        return f"Opened(session={self.session.public_id!r})"


class Accounts:
    """The accounts.

    Parameters
    ----------
    storage
        Where they are kept.
    people
        The directory.
    passwords
        Checks and hashes passwords.
    invite_lifetime_s, session_lifetime_s
        How long links and sessions work, in seconds.
    registration
        Whether people may ask for an account themselves.
    clock
        Returns the time now.
    """

    def __init__(
        self,
        *,
        storage: "Storage",
        people: "People",
        passwords: "Passwords",
        invite_lifetime_s: int,
        session_lifetime_s: int,
        registration: bool = False,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._storage = storage
        self._people = people
        self._passwords = passwords
        self._invite_lifetime = timedelta(seconds=invite_lifetime_s)
        self._session_lifetime = timedelta(seconds=session_lifetime_s)
        self.registration = registration
        self._clock = clock
        self._throttle = Throttle(clock=clock)

    @property
    def password_min_length(self) -> int:
        """The shortest password taken, in characters."""
        return self._passwords.min_length

    # signing in

    def sign_in(self, name: str, password: str, browser: Browser) -> Opened:
        """Open a session for whoever has this username (or e-mail address) and password.

        Raises
        ------
        SignInRefused
            ``sign-in-wrong``, whichever of the two was wrong; only with the right password ``account-disabled``
            or ``account-pending``.
        TooManyTries
            ``too-many-requests``, without a look at the password.
        """
        name = name.strip()[:254]
        tries = (("account", name), ("address", browser.address))
        with self._storage.begin() as tx:
            self._throttle.admit(tx, *tries)
            # Counted before the password is looked at: many tries at once get no further than many in a row.
            self._throttle.count(tx, *tries)
            username = self._username_of(tx, name)
            password_hash = tx.password_hash(username)
        if not self._passwords.matches(password_hash, password):
            raise SignInRefused("sign-in-wrong")
        with self._storage.begin() as tx:
            # The password may have been changed while it was compared.
            if tx.password_hash(username) != password_hash:
                raise SignInRefused("sign-in-wrong")
            person = admitted(tx.person(username))
            self._throttle.forget(tx, *tries)
            return self._open(tx, person, browser)

    def _username_of(self, tx: "Transaction", name: str) -> str:
        """Return the username that was meant: an address counts when exactly one active person has it."""
        if "@" not in name:
            return name.lower()
        found = tx.people_with_email(name)
        return found[0] if len(found) == 1 else ""

    def _open(self, tx: "Transaction", person: Person, browser: Browser) -> Opened:
        secret, now = secrets.token_urlsafe(32), self._clock()
        session = Session(
            public_id=secrets.token_hex(16),
            username=person.username,
            created_at=now,
            # Never before `sessions_valid_after`, which is rounded up.
            auth_time=max(now, _time(person.sessions_valid_after, now)),
            expires_at=now + self._session_lifetime,
            agent=shown(browser.agent, limit=199),
            address=browser.address[:64],
        )
        tx.add_session(session, session_hash=secret_hash(secret))
        return Opened(secret=secret, session=session, person=person)

    def session(self, secret: str) -> tuple[Session, Person] | None:
        """Return the session that a cookie opens and whose it is, or `None` when it is over."""
        if not secret:
            return None
        with self._storage.begin() as tx:
            session = tx.session_by_hash(secret_hash(secret), now=self._clock())
            person = tx.person(session.username) if session is not None else None
        if session is None or person is None or person.status != "active":
            return None
        return session, person

    def sessions(self, username: str) -> list[Session]:
        """Return somebody's sessions, the newest first."""
        with self._storage.begin() as tx:
            return tx.sessions_of(username, now=self._clock())

    def end_session(self, username: str, public_id: str) -> None:
        """End one of somebody's own sessions and what came of it; nothing happens to another's."""
        with self._storage.begin() as tx:
            if any(session.public_id == public_id for session in tx.sessions_of(username, now=self._clock())):
                tx.drop_session(public_id)
                tx.revoke_session_tokens(public_id)

    # links

    def make_link(self, username: str, purpose: LinkPurpose) -> str:
        """Return the secret of a new invite or reset link; earlier links of the same person stop working.

        A reset ends the old password and every session at once.
        """
        with self._storage.begin() as tx:
            existing(tx, username)
            if purpose == "reset":
                tx.drop_password(username)
                self._people.end_access(tx, username, work="sessions")
            return self._add_link(tx, username, purpose)

    def make_setup_link(self) -> str | None:
        """Return the secret of a link that makes the first administrator, or `None` when there is anybody already."""
        with self._storage.begin() as tx:
            return None if tx.count_people() else self._add_link(tx, "", "setup")

    def _add_link(self, tx: "Transaction", username: str, purpose: LinkPurpose) -> str:
        secret = secrets.token_urlsafe(32)
        tx.drop_links(username)
        expires_at = self._clock() + self._invite_lifetime
        tx.add_link(Link(purpose=purpose, username=username, expires_at=expires_at), link_hash=secret_hash(secret))
        return secret

    def link(self, secret: str, browser: Browser) -> Link:
        """Return what a link is for, without using it up.

        Raises
        ------
        LinkRefused
            ``link-used``: used up, expired, replaced by a later one, or never there.
        TooManyTries
            ``too-many-requests``.
        """
        tries = (("link", browser.address),)
        with self._storage.begin() as tx:
            self._throttle.admit(tx, *tries)
            found = self._good_link(tx, secret)
            if found is None:
                self._throttle.count(tx, *tries)
        if found is None:
            raise LinkRefused("link-used")
        return found

    def _good_link(self, tx: "Transaction", secret: str) -> Link | None:
        found = tx.link_by_hash(secret_hash(secret))
        if found is None or found.expires_at <= self._clock():
            return None
        if found.purpose == "setup":
            return None if tx.count_people() else found
        person = tx.person(found.username)
        return found if person is not None and person.status == "active" else None

    def use_link(self, secret: str, password: str, browser: Browser, *, username: str = "") -> Opened:
        """Use a link up: set the password of its person and sign them in.

        Parameters
        ----------
        username
            For a set-up link, the username of the first administrator.

        Raises
        ------
        LinkRefused, TooManyTries
            As `link` does.
        PasswordRefused
            The link stays good.
        NameRefused
            For a set-up link; it stays good.
        """
        link = self.link(secret, browser)
        username = username if link.purpose == "setup" else link.username
        password_hash = self._passwords.hash(self._passwords.check_new(password, username=username))
        with self._storage.begin() as tx:
            if self._good_link(tx, secret) != link or not tx.use_link(secret_hash(secret)):
                raise LinkRefused("link-used")
            if link.purpose == "setup":
                self._people.create_within(tx, username, admin=True, status="active")
            tx.set_password_hash(username, password_hash, now=self._clock())
            if link.purpose != "setup":
                self._people.end_access(tx, username, work="sessions")
            return self._open(tx, existing(tx, username), browser)

    # passwords

    def change_password(self, session: Session, *, old: str, new: str, browser: Browser) -> None:
        """Change the password of whoever is signed in with `session`; all their other sessions end.

        Raises
        ------
        SignInRefused
            ``password-old-wrong``.
        PasswordRefused
            ``password-short``, ``password-long``, ``password-weak``.
        TooManyTries
            ``too-many-requests``.
        """
        tries = (("account", session.username), ("address", browser.address))
        with self._storage.begin() as tx:
            self._throttle.admit(tx, *tries)
            self._throttle.count(tx, *tries)
            old_hash = tx.password_hash(session.username)
        if not self._passwords.matches(old_hash, old):
            raise SignInRefused("password-old-wrong")
        with self._storage.begin() as tx:
            self._throttle.forget(tx, *tries)
        new_hash = self._passwords.hash(self._passwords.check_new(new, username=session.username))
        with self._storage.begin() as tx:
            if tx.password_hash(session.username) != old_hash:
                raise SignInRefused("password-old-wrong")
            tx.set_password_hash(session.username, new_hash, now=self._clock())
            valid_after = self._people.end_access(tx, session.username, work="sessions", but_session=session.public_id)
            tx.set_auth_time(session.public_id, _time(valid_after, self._clock()))

    def set_password(self, username: str, password: str) -> None:
        """Set a password as an operator does; all sessions end. Raises `PasswordRefused`."""
        password_hash = self._passwords.hash(self._passwords.check_new(password, username=username))
        with self._storage.begin() as tx:
            had_one = existing(tx, username).has_password
            tx.set_password_hash(username, password_hash, now=self._clock())
            if had_one:
                self._people.end_access(tx, username, work="sessions")

    def check_new_password(self, password: str, *, username: str) -> None:
        """Check a password before anything is made that needs it. Raises `PasswordRefused`."""
        self._passwords.check_new(password, username=username)

    # asking for an account

    def register(
        self, username: str, password: str, browser: Browser, *, display_name: str, email: str, language: str
    ) -> None:
        """Ask for an account, which an administrator then approves.

        Raises
        ------
        PassportError
            ``registration-closed``, ``registration-full``, ``email-refused``.
        NameRefused, PasswordRefused, TooManyTries
            As elsewhere. A username that is taken is told: it is public in every shared path.
        """
        if not self.registration:
            raise PassportError("registration-closed")
        tries = (("register", browser.address),)
        with self._storage.begin() as tx:
            self._throttle.admit(tx, *tries)
            self._throttle.count(tx, *tries)
        password_hash = self._passwords.hash(self._passwords.check_new(password, username=username))
        with self._storage.begin() as tx:
            if tx.count_people(status="pending") >= PENDING_LIMIT:
                raise PassportError("registration-full")
            self._people.create_within(
                tx,
                username,
                admin=False,
                status="pending",
                display_name=display_name,
                email=email,
                language=language,
            )
            tx.set_password_hash(username, password_hash, now=self._clock())

    def clean_up(self) -> None:
        """Drop what is over."""
        now = self._clock()
        with self._storage.begin() as tx:
            tx.drop_old_account_rows(now=now, failures_before=now - FORGOTTEN_AFTER)
            tx.drop_old_provider_rows(before=now - timedelta(days=1))


def _time(seconds: int, like: datetime) -> datetime:
    """Return the time `seconds` after 1970 in the zone of `like`."""
    return datetime.fromtimestamp(math.ceil(seconds), like.tzinfo)
