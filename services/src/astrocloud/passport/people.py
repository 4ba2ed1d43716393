"""The directory of people: who has which username, ids, groups and rights, and who may enter."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from astrocloud.passport.errors import NameRefused, PassportError, PersonUnknown, SignInRefused
from astrocloud.passport.models import Group, HubWork, Identity, Person, Status, utc_now
from astrocloud.passport.names import check_group, check_username, derive_username, shown

if TYPE_CHECKING:
    from astrocloud.passport.storage import Storage, Transaction

LANGUAGES: Final = ("en", "zh")
_EMAIL: Final = re.compile(r"[^\s@<>()\[\],;:\\\"]{1,64}@[A-Za-z0-9.-]{1,189}\Z")


@dataclass(frozen=True, kw_only=True)
class PeopleRules:
    """What the configuration says about people."""

    first_uid: int
    """The first uid (and gid of a person's own group) given away."""
    first_gid: int
    """The first gid of a shared group."""
    own_issuer: str = ""
    """The embedded passport's issuer; empty when another passport is used."""
    sign_up: str = "invited"
    """``open`` or ``invited``: whether whoever the external passport vouches for gets an account."""
    admins: frozenset[str] = frozenset()
    """Subjects at the external passport who are administrators."""


class People:
    """The directory.

    Parameters
    ----------
    storage
        Where it is kept.
    rules
        What the configuration says.
    clock
        Returns the time now.
    """

    def __init__(self, *, storage: "Storage", rules: PeopleRules, clock: Callable[[], datetime] = utc_now) -> None:
        self._storage = storage
        self._rules = rules
        self._clock = clock

    # looking

    def find(self, username: str) -> Person | None:
        """Return the person `username`, a removed one too, or `None`."""
        with self._storage.begin() as tx:
            return tx.person(username)

    def get(self, username: str) -> Person:
        """Return the person `username`. Raises `PersonUnknown` (``person-unknown``), also for a removed one."""
        with self._storage.begin() as tx:
            return existing(tx, username)

    def list(self) -> list[Person]:
        """Return everybody by username, without removed people."""
        with self._storage.begin() as tx:
            return tx.people()

    def groups(self) -> "Sequence[Group]":
        """Return all groups by name."""
        with self._storage.begin() as tx:
            return tx.groups()

    # adding

    def create(
        self,
        username: str,
        *,
        admin: bool = False,
        status: Status = "active",
        groups: Sequence[str] = (),
        display_name: str = "",
        email: str = "",
        language: str = "",
        identity: Identity | None = None,
        make_groups: bool = False,
    ) -> Person:
        """Add a person and return them with their new ids.

        Parameters
        ----------
        identity
            Who the person is at an external passport, when that is known.
        make_groups
            Whether groups that are not there are made.

        Raises
        ------
        NameRefused
            ``username-refused``, ``username-reserved``, or ``username-taken`` when it is or was somebody's.
        PersonUnknown
            ``group-unknown``.
        """
        with self._storage.begin() as tx:
            self.create_within(
                tx,
                username,
                admin=admin,
                status=status,
                display_name=display_name,
                email=email,
                language=language,
            )
            if make_groups:
                for name in groups:
                    self._ensure_group(tx, name)
            self._set_groups(tx, username, groups)
            if identity is not None:
                identity = _canonical(identity)
                if tx.linked(identity) is not None:
                    raise PassportError("identity-linked", subject=shown(identity.subject))
                tx.link(identity, username)
            return existing(tx, username)

    def create_within(
        self,
        tx: "Transaction",
        username: str,
        *,
        admin: bool,
        status: Status,
        display_name: str = "",
        email: str = "",
        language: str = "",
    ) -> None:
        """Add a person within a transaction that does more. Raises `NameRefused` as `create` does."""
        check_username(username)
        if tx.name_was_given(username):
            raise NameRefused("username-taken", username=username)
        number = tx.next_id("uid", first=self._rules.first_uid)
        tx.add_person(
            Person(
                username=username,
                uid=number,
                gid=number,
                status=status,
                admin=admin,
                display_name=clean_name(display_name),
                email=check_email(email),
                language=language if language in LANGUAGES else "",
                created_at=self._clock(),
                sessions_valid_after=0,
            )
        )

    # changing

    def change(
        self,
        username: str,
        *,
        admin: bool | None = None,
        display_name: str | None = None,
        email: str | None = None,
        language: str | None = None,
        groups: Sequence[str] | None = None,
    ) -> Person:
        """Change what is given of a person and return them.

        Raises
        ------
        PersonUnknown
            ``person-unknown``, ``group-unknown``.
        PassportError
            ``last-admin`` when nobody would administer the platform any more; ``email-refused``.
        """
        values: dict[str, Any] = {}
        if display_name is not None:
            values["display_name"] = clean_name(display_name)
        if email is not None:
            values["email"] = check_email(email)
        if language is not None:
            values["language"] = language if language in LANGUAGES else ""
        with self._storage.begin() as tx:
            person = existing(tx, username)
            if admin is not None and admin != person.admin:
                if not admin:
                    _keep_an_admin(tx, person)
                values["admin"] = admin
            tx.change_person(username, **values)
            if groups is not None:
                self._set_groups(tx, username, groups)
            return existing(tx, username)

    def disable(self, username: str) -> Person:
        """Shut a person out: sessions end here at once, servers and tokens at the hub soon after.

        Raises
        ------
        PersonUnknown
            ``person-unknown``.
        PassportError
            ``last-admin``.
        """
        with self._storage.begin() as tx:
            person = existing(tx, username)
            if person.status != "disabled":
                _keep_an_admin(tx, person)
                tx.change_person(username, status="disabled")
                self.end_access(tx, username, work="disable")
            return existing(tx, username)

    def enable(self, username: str) -> Person:
        """Let a disabled person in again, or approve one who asked for an account."""
        with self._storage.begin() as tx:
            existing(tx, username)
            tx.change_person(username, status="active")
            return existing(tx, username)

    def remove(self, username: str) -> None:
        """Remove a person for good. Username and ids stay taken; files are left to the operator.

        One who only asked for an account is forgotten entirely.

        Raises
        ------
        PersonUnknown
            ``person-unknown``.
        PassportError
            ``last-admin``.
        """
        with self._storage.begin() as tx:
            person = existing(tx, username)
            if person.status == "pending":
                tx.forget_person(username)
                return
            _keep_an_admin(tx, person)
            tx.set_groups_of(username, ())
            tx.drop_password(username)
            tx.change_person(username, status="removed", admin=False, display_name="", email="")
            self.end_access(tx, username, work="remove")

    def end_access(self, tx: "Transaction", username: str, *, work: HubWork, but_session: str = "") -> int:
        """End what gives a person access, and ask for the same at the hub.

        Returns
        -------
        int
            The time from which on sessions are good again, in seconds since 1970.
        """
        # Rounded up: a session of this very second may be older than the change, and signing in again is no loss.
        # Later than any before, because the hub notices by the number that sessions ended.
        person = tx.person(username)
        before = person.sessions_valid_after if person is not None else 0
        valid_after = max(math.ceil(self._clock().timestamp()), before + 1)
        tx.change_person(username, sessions_valid_after=valid_after)
        tx.drop_sessions(username, but=but_session)
        tx.revoke_person_tokens(username, but_session=but_session)
        if not but_session:
            tx.drop_links(username)
        tx.add_hub_task(username, work, now=self._clock())
        return valid_after

    # groups

    def add_group(self, name: str) -> Group:
        """Add a group. Raises `NameRefused` (``group-refused``, ``group-taken``)."""
        with self._storage.begin() as tx:
            if tx.group(name, removed=True) is not None:
                raise NameRefused("group-taken", group=name)
            return self._ensure_group(tx, name)

    def remove_group(self, name: str) -> None:
        """Remove a group; its name and gid stay taken. Raises `PersonUnknown` (``group-unknown``)."""
        with self._storage.begin() as tx:
            if tx.group(name) is None:
                raise PersonUnknown("group-unknown", group=shown(name))
            tx.remove_group(name)

    def set_members(self, name: str, usernames: Sequence[str]) -> Group:
        """Make `usernames` the members of a group. Raises `PersonUnknown` (``group-unknown``, ``person-unknown``)."""
        with self._storage.begin() as tx:
            group = tx.group(name)
            if group is None:
                raise PersonUnknown("group-unknown", group=shown(name))
            for username in {*usernames, *group.members}:
                theirs = {g.name for g in existing(tx, username).groups}
                tx.set_groups_of(username, sorted(theirs | {name} if username in usernames else theirs - {name}))
            return tx.group(name) or group

    def _ensure_group(self, tx: "Transaction", name: str) -> Group:
        check_group(name)
        found = tx.group(name, removed=True)
        if found is None:
            found = Group(name=name, gid=tx.next_id("gid", first=self._rules.first_gid))
            tx.add_group(found)
        return found

    def _set_groups(self, tx: "Transaction", username: str, names: Sequence[str]) -> None:
        for name in names:
            if tx.group(name) is None:
                raise PersonUnknown("group-unknown", group=shown(name))
        tx.set_groups_of(username, names)

    # entering

    def sign_in(self, identity: Identity) -> Person:
        """Return who `identity` is here; at a first sign-in, where that is open, make them an account.

        Raises
        ------
        SignInRefused
            ``account-disabled`` (also when removed), ``account-pending``, ``sign-up-closed``.
        """
        identity = _canonical(identity)
        if self._rules.own_issuer and identity.issuer == self._rules.own_issuer:
            with self._storage.begin() as tx:
                return admitted(tx.person(identity.subject))
        with self._storage.begin() as tx:
            username = tx.linked(identity)
            listed_admin = identity.subject in self._rules.admins
            if username is None:
                if self._rules.sign_up != "open" and not listed_admin:
                    raise SignInRefused("sign-up-closed", subject=shown(identity.subject))
                username = derive_username(identity.claims, taken=tx.name_was_given)
                self.create_within(tx, username, admin=listed_admin, status="active")
                tx.link(identity, username)
            person = admitted(tx.person(username))
            values = _display_values(identity)
            if listed_admin and not person.admin:
                values["admin"] = True
            tx.change_person(username, **values)
            return existing(tx, username)


def existing(tx: "Transaction", username: str) -> Person:
    """Return the person `username`. Raises `PersonUnknown` (``person-unknown``) for nobody or a removed one."""
    person = tx.person(username)
    if person is None or person.status == "removed":
        raise PersonUnknown("person-unknown", username=shown(username))
    return person


def admitted(person: Person | None) -> Person:
    """Return `person` if they may enter.

    Raises
    ------
    SignInRefused
        ``account-disabled``, also for one who was removed or never was; ``account-pending``.
    """
    if person is None or person.status in {"disabled", "removed"}:
        raise SignInRefused("account-disabled")
    if person.status == "pending":
        raise SignInRefused("account-pending")
    return person


def clean_name(text: str) -> str:
    """Return `text` as a name to show: one line of at most 200 characters, without controls."""
    return " ".join(shown(text, limit=199).split())


def check_email(text: str) -> str:
    """Return `text` as an address to show, or empty. Raises `PassportError` (``email-refused``) if it is none."""
    text = text.strip()
    if text and not (len(text) <= 254 and _EMAIL.match(text)):
        raise PassportError("email-refused", email=shown(text))
    return text


def _canonical(identity: Identity) -> Identity:
    """Return `identity` with its issuer as it is kept: without a final slash, which is added and left out at will."""
    return replace(identity, issuer=identity.issuer.rstrip("/"))


def _display_values(identity: Identity) -> dict[str, Any]:
    """Return the columns that follow what the passport says at each sign-in; never a reason to refuse somebody."""
    values: dict[str, Any] = {}
    name, email = identity.claims.get("name"), identity.claims.get("email")
    if isinstance(name, str) and name.strip():
        values["display_name"] = clean_name(name)
    if isinstance(email, str) and len(email) <= 254 and _EMAIL.match(email.strip()):
        values["email"] = email.strip()
    return values


def _keep_an_admin(tx: "Transaction", person: Person) -> None:
    if person.admin and person.status == "active" and tx.count_people(status="active", admin=True) <= 1:
        raise PassportError("last-admin", username=person.username)
