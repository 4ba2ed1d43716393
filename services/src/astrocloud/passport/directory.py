"""The directory as the command line uses it: straight on the database, the platform running or not."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from astrocloud.passport.errors import PersonUnknown
from astrocloud.passport.models import Identity, Person

if TYPE_CHECKING:
    from astrocloud.passport.accounts import Accounts
    from astrocloud.passport.people import People


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Somebody in the directory."""

    username: str
    uid: int
    gid: int
    status: str
    admin: bool
    groups: tuple[str, ...]
    """Names of groups."""
    display_name: str = ""
    email: str = ""

    @classmethod
    def of(cls, person: Person) -> "Entry":
        """Return `person` as an entry."""
        return cls(
            username=person.username,
            uid=person.uid,
            gid=person.gid,
            status=person.status,
            admin=person.admin,
            groups=tuple(group.name for group in person.groups),
            display_name=person.display_name,
            email=person.email,
        )

    def document(self) -> dict[str, Any]:
        """Return the entry as JSON has it."""
        return {
            "username": self.username,
            "uid": self.uid,
            "gid": self.gid,
            "status": self.status,
            "admin": self.admin,
            "groups": list(self.groups),
            "display_name": self.display_name,
            "email": self.email,
        }


@dataclass(frozen=True, kw_only=True)
class Added:
    """Somebody who was just added."""

    username: str
    uid: int
    invite: str | None
    """The address at which they choose a password; `None` when they have one or sign in elsewhere."""

    def __repr__(self) -> str:
        return f"Added(username={self.username!r}, uid={self.uid})"


class Directory:
    """The directory, without HTTP.

    Parameters
    ----------
    people
        The directory's rules.
    accounts
        The embedded passport's accounts; `None` when another passport is used.
    link_address
        Makes the address of a link from its secret.
    issuer
        The external passport's issuer, if that is used.
    """

    def __init__(
        self,
        *,
        people: "People",
        accounts: "Accounts | None",
        link_address: Callable[[str], str],
        issuer: str = "",
    ) -> None:
        self._people = people
        self._accounts = accounts
        self._link_address = link_address
        self._issuer = issuer

    def add(
        self,
        username: str,
        *,
        admin: bool = False,
        groups: Sequence[str] = (),
        password: str | None = None,
        name: str = "",
        email: str = "",
        subject: str | None = None,
    ) -> Added:
        """Add a person; groups that are not there are made.

        Parameters
        ----------
        password
            Their password; without one (and with the embedded passport) an invite link is made.
        name
            What to call them.
        subject
            Who they are at the external passport.

        Raises
        ------
        PassportError
            When the username, a group's name or the password is refused.
        """
        if password is not None and self._accounts is not None:
            self._accounts.check_new_password(password, username=username)
        identity = Identity(issuer=self._issuer, subject=subject) if subject and self._issuer else None
        person = self._people.create(
            username,
            admin=admin,
            groups=groups,
            display_name=name or "",
            email=email,
            identity=identity,
            make_groups=True,
        )
        invite = None
        if self._accounts is not None:
            if password is not None:
                self._accounts.set_password(username, password)
            else:
                invite = self._link_address(self._accounts.make_link(username, "invite"))
        return Added(username=person.username, uid=person.uid, invite=invite)

    def ensure(self, username: str, *, password: str | None) -> Entry:
        """Return the account `username`, added with `password` if it is not there; one that is there stays as it is.

        Raises
        ------
        PassportError
            When the username is refused, or was somebody's who has been removed.
        """
        try:
            return self.get(username)
        except PersonUnknown:
            self.add(username, password=password)
            return self.get(username)

    def get(self, username: str) -> Entry:
        """Return one person. Raises `PassportError` (``person-unknown``)."""
        return Entry.of(self._people.get(username))

    def list(self) -> list[Entry]:
        """Return everybody by username, without removed people."""
        return [Entry.of(person) for person in self._people.list()]

    def disable(self, username: str) -> Entry:
        """Shut a person out, within half a minute everywhere while the platform runs."""
        return Entry.of(self._people.disable(username))

    def enable(self, username: str) -> Entry:
        """Let a person in (again)."""
        return Entry.of(self._people.enable(username))

    def remove(self, username: str) -> None:
        """Remove a person for good; name and ids stay taken, files stay where they are."""
        self._people.remove(username)

    def setup_link(self) -> str | None:
        """Return the address that makes the first administrator, once; `None` when there are people already.

        An earlier set-up link stops working. `None` too when the passport is an external one.
        """
        if self._accounts is None:
            return None
        secret = self._accounts.make_setup_link()
        return None if secret is None else self._link_address(secret)
