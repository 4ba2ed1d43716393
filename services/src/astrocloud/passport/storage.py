"""The directory of people in the database: translation only, no rule is decided here.

A `Transaction` is what the domain works with; it is committed when its block ends and undone when that raises.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, Row, delete, exists, func, insert, select, update

from astrocloud.passport.models import Group, HubTask, HubWork, Identity, Person
from astrocloud.passport.storage_accounts import AccountTransaction
from astrocloud.passport.storage_provider import ProviderTransaction
from astrocloud.passport.tables import counters, groups, hub_tasks, links, members, passwords, people


class Transaction(AccountTransaction, ProviderTransaction):
    """One transaction on everything the passport keeps."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    # people

    def next_id(self, counter: str, *, first: int) -> int:
        """Return the next number of `counter`, which never gives one twice and starts at `first`."""
        changed = self._connection.execute(
            update(counters).where(counters.c.name == counter).values(last=counters.c.last + 1)
        )
        if not changed.rowcount:
            self._connection.execute(insert(counters).values(name=counter, last=first))
        last: int = self._connection.execute(select(counters.c.last).where(counters.c.name == counter)).scalar_one()
        if last < first:  # the configured start was raised
            last = first
            self._connection.execute(update(counters).where(counters.c.name == counter).values(last=last))
        return last

    def name_was_given(self, username: str) -> bool:
        """Whether `username` is, or ever was, somebody's."""
        return bool(self._connection.execute(select(exists().where(people.c.username == username))).scalar())

    def add_person(self, person: Person) -> None:
        """Keep a new person."""
        self._connection.execute(
            insert(people).values(
                username=person.username,
                uid=person.uid,
                gid=person.gid,
                status=person.status,
                admin=person.admin,
                display_name=person.display_name,
                email=person.email,
                language=person.language,
                created_at=person.created_at,
                sessions_valid_after=person.sessions_valid_after,
            )
        )

    def person(self, username: str) -> Person | None:
        """Return the person `username`, a removed one too, or `None`."""
        row = self._connection.execute(_people_query().where(people.c.username == username)).one_or_none()
        return _person(row, self._groups_of([username])) if row is not None else None

    def people(self, *, removed: bool = False) -> list[Person]:
        """Return everybody by username, with `removed` the tombstones too."""
        query = _people_query().order_by(people.c.username)
        if not removed:
            query = query.where(people.c.status != "removed")
        rows = self._connection.execute(query).all()
        memberships = self._groups_of(None)
        return [_person(row, memberships) for row in rows]

    def people_with_email(self, email: str) -> list[str]:
        """Return the usernames of active people with the address `email`, in whatever case."""
        query = select(people.c.username).where(
            func.lower(people.c.email) == email.lower(), people.c.status == "active"
        )
        return list(self._connection.execute(query.limit(2)).scalars())

    def count_people(self, *, status: str | None = None, admin: bool | None = None) -> int:
        """Return how many people there are, without tombstones."""
        query = select(func.count()).select_from(people).where(people.c.status != "removed")
        if status is not None:
            query = query.where(people.c.status == status)
        if admin is not None:
            query = query.where(people.c.admin == admin)
        return int(self._connection.execute(query).scalar_one())

    def change_person(self, username: str, **values: Any) -> None:
        """Set columns of a person."""
        if values:
            self._connection.execute(update(people).where(people.c.username == username).values(**values))

    def forget_person(self, username: str) -> None:
        """Drop a person without a trace: only for one who never was active."""
        self._connection.execute(delete(passwords).where(passwords.c.username == username))
        self._connection.execute(delete(members).where(members.c.username == username))
        self._connection.execute(delete(people).where(people.c.username == username))

    # groups

    def group(self, name: str, *, removed: bool = False) -> Group | None:
        """Return the group `name` with its members, or `None`."""
        query = select(groups).where(groups.c.name == name)
        if not removed:
            query = query.where(groups.c.removed.is_(False))
        row = self._connection.execute(query).one_or_none()
        if row is None:
            return None
        named = select(members.c.username).where(members.c.group_name == name).order_by(members.c.username)
        return Group(name=row.name, gid=row.gid, members=tuple(self._connection.execute(named).scalars()))

    def groups(self) -> list[Group]:
        """Return all groups by name, with their members."""
        found: dict[str, list[str]] = {}
        for row in self._connection.execute(select(members).order_by(members.c.username)):
            found.setdefault(row.group_name, []).append(row.username)
        rows = self._connection.execute(select(groups).where(groups.c.removed.is_(False)).order_by(groups.c.name))
        return [Group(name=row.name, gid=row.gid, members=tuple(found.get(row.name, ()))) for row in rows]

    def add_group(self, group: Group) -> None:
        """Keep a new group, without members."""
        self._connection.execute(insert(groups).values(name=group.name, gid=group.gid, removed=False))

    def remove_group(self, name: str) -> None:
        """Take a group away; its name and gid stay as a tombstone."""
        self._connection.execute(delete(members).where(members.c.group_name == name))
        self._connection.execute(update(groups).where(groups.c.name == name).values(removed=True))

    def set_groups_of(self, username: str, names: Sequence[str]) -> None:
        """Make `names` the groups of a person."""
        self._connection.execute(delete(members).where(members.c.username == username))
        if names:
            rows = [{"group_name": name, "username": username} for name in sorted(set(names))]
            self._connection.execute(insert(members), rows)

    def _groups_of(self, usernames: Sequence[str] | None) -> dict[str, list[Group]]:
        query = (
            select(members.c.username, groups.c.name, groups.c.gid)
            .join(groups, groups.c.name == members.c.group_name)
            .order_by(groups.c.name)
        )
        if usernames is not None:
            query = query.where(members.c.username.in_(usernames))
        found: dict[str, list[Group]] = {}
        for row in self._connection.execute(query):
            found.setdefault(row.username, []).append(Group(name=row.name, gid=row.gid))
        return found

    # identities at external passports

    def linked(self, identity: Identity) -> str | None:
        """Return the username linked to `identity`, or `None`."""
        query = select(links.c.username).where(links.c.issuer == identity.issuer, links.c.subject == identity.subject)
        found: str | None = self._connection.execute(query).scalar_one_or_none()
        return found

    def link(self, identity: Identity, username: str) -> None:
        """Link `identity` to a person."""
        self._connection.execute(
            insert(links).values(issuer=identity.issuer, subject=identity.subject, username=username)
        )

    # what is to be ended at the hub

    def add_hub_task(self, username: str, work: HubWork, *, now: datetime) -> None:
        """Ask for `work` at the hub."""
        row = {"username": username, "work": work, "tries": 0, "requested_at": now}
        self._connection.execute(insert(hub_tasks).values(**row))

    def hub_tasks(self, *, limit: int = 100) -> list[HubTask]:
        """Return what waits, the least tried first."""
        query = select(hub_tasks).order_by(hub_tasks.c.tries, hub_tasks.c.id).limit(limit)
        return [
            HubTask(id=row.id, username=row.username, work=row.work, tries=row.tries)
            for row in self._connection.execute(query)
        ]

    def hub_task_done(self, task_id: int) -> None:
        """Drop what was done."""
        self._connection.execute(delete(hub_tasks).where(hub_tasks.c.id == task_id))

    def hub_task_failed(self, task_id: int) -> None:
        """Count one more try."""
        self._connection.execute(update(hub_tasks).where(hub_tasks.c.id == task_id).values(tries=hub_tasks.c.tries + 1))


def _people_query() -> Any:
    has_password = exists().where(passwords.c.username == people.c.username).label("has_password")
    return select(people, has_password)


def _person(row: Row[Any], memberships: dict[str, list[Group]]) -> Person:
    return Person(
        username=row.username,
        uid=row.uid,
        gid=row.gid,
        status=row.status,
        admin=bool(row.admin),
        display_name=row.display_name,
        email=row.email,
        language=row.language,
        created_at=row.created_at,
        sessions_valid_after=row.sessions_valid_after,
        groups=tuple(memberships.get(row.username, ())),
        has_password=bool(row.has_password),
    )


class Storage:
    """Everything the passport keeps, in one database.

    Parameters
    ----------
    engine
        The services' database.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @contextmanager
    def begin(self) -> Iterator[Transaction]:
        """Return a transaction: committed at the end of the block, undone when the block raises."""
        with self._engine.begin() as connection:
            yield Transaction(connection)
