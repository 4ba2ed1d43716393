"""The services' database: SQLite (WAL) on one machine, PostgreSQL on Kubernetes.

Every service keeps its tables in its own ``storage.py``, on the shared `metadata`, and its schema changes in its own
``migrations`` folder: one Alembic branch a service, so that no service waits for another's revision.
"""

import fcntl
import os
import time
import zlib
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy.orm  # noqa: F401 - what is imported on demand, by two threads at once, is found half made
import structlog
from sqlalchemy import Connection, Engine, MetaData, create_engine, event, text
from sqlalchemy.exc import OperationalError

from astrocloud.core.cluster import postgresql_url, read_cluster
from astrocloud.core.errors import StartError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from alembic.config import Config as AlembicConfig

    from astrocloud.core.layout import DataFolder

metadata: Final = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)
"""All tables of all services."""

OWNERS: Final = ("core/uws", "passport", "portal", "vospace")
"""Packages that have tables: services, and what they share."""

_TURNS: Final = 0x61737472
_UPGRADES: Final = _TURNS + 1
"""Namespaces of PostgreSQL's advisory locks, which all users of a database share."""

_log = structlog.get_logger()


def sqlite_url(folder: Path) -> str:
    """Return the address of the services' SQLite database in `folder`."""
    return f"sqlite:///{folder / 'astrocloud.sqlite'}"


def database_url(data: "DataFolder", name: str) -> str:
    """Return the address of the database `name`: ``astrocloud`` of the services, ``jupyterhub`` of the hub.

    It never holds a password. On a cluster that is written to a file in `data` that only this process's user reads.
    """
    cluster = read_cluster(data)
    if cluster is None:
        return f"sqlite:///{data.databases / f'{name}.sqlite'}"
    passwords = data.run / "pgpass"
    password = (data.secrets / "database-password").read_text(encoding="utf-8").rstrip("\n")
    escaped = password.replace("\\", "\\\\").replace(":", "\\:")
    fresh = data.run / f".pgpass.{os.getpid()}"
    # libpq does not read one that others could.
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(f"*:*:*:*:{escaped}\n")
    fresh.replace(passwords)
    return postgresql_url(cluster.database, name, passwords=passwords, authority=data.secrets / "database-ca")


def open_database(url: str, *, owner: str = "all") -> Engine:
    """Return an engine for `url`, on which one transaction of `owner` runs at a time.

    SQLite is used in WAL mode with foreign keys on and waits up to 10 s for a writer.

    Parameters
    ----------
    owner
        Whose transactions these are: a service's, or those of whoever works on its tables in its place. On PostgreSQL
        the transactions of different owners do not wait for each other.
    """
    if url.startswith("postgresql"):
        return _open_postgresql(url, owner=owner)
    engine = create_engine(url, connect_args={"timeout": 10} if url.startswith("sqlite") else {})
    if engine.dialect.name == "sqlite":

        @event.listens_for(engine, "connect")
        def _prepare(connection: object, _record: object) -> None:
            cursor = connection.cursor()  # type: ignore[attr-defined]
            cursor.execute("PRAGMA journal_mode=WAL")
            cursor.execute("PRAGMA synchronous=NORMAL")
            cursor.execute("PRAGMA foreign_keys=ON")
            cursor.close()

        @event.listens_for(engine, "begin")
        def _begin(connection: object) -> None:
            # A deferred transaction that reads first can fail at its first write when another writes in between.
            connection.exec_driver_sql("BEGIN IMMEDIATE")  # type: ignore[attr-defined]

    return engine


def _open_postgresql(url: str, *, owner: str) -> Engine:
    # pre_ping: a database that was restarted must cost nobody an error.
    engine = create_engine(url, pool_pre_ping=True, pool_size=5, max_overflow=15, pool_timeout=20)
    take_turns = text("SELECT pg_advisory_xact_lock(:space, :owner)").bindparams(
        space=_TURNS, owner=zlib.crc32(owner.encode()) & 0x7FFFFFFF
    )

    keep_no_nul(engine)

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # What SQLite's BEGIN IMMEDIATE is on one machine: whoever reads and then writes, as choosing the next user id
        # does, meets no other that does so, in whichever replica.
        connection.execute(take_turns)

    return engine


def keep_no_nul(engine: Engine) -> None:
    """Let texts with a zero byte be looked for, and not found, on PostgreSQL as on SQLite.

    No text there holds one, and it refuses a statement with such a parameter; what somebody sends as a name must not
    be a fault of ours. U+FFFD stands in its place, which is in no name.
    """

    def replace(value: Any) -> Any:
        if isinstance(value, str):
            return value.replace("\0", "\ufffd") if "\0" in value else value
        if isinstance(value, dict):
            return {name: replace(each) for name, each in value.items()}
        return type(value)(map(replace, value)) if isinstance(value, list | tuple) else value

    @event.listens_for(engine, "before_cursor_execute", retval=True)
    def _replace(
        connection: Connection, _cursor: object, statement: str, parameters: Any, *_: object
    ) -> tuple[str, Any]:
        return statement, replace(parameters) if connection.dialect.name == "postgresql" else parameters


def wait_for_database(engine: Engine, *, within_s: float = 300.0) -> None:
    """Return when the database takes connections: on a cluster all parts start at once, and it takes longest.

    Raises
    ------
    StartError
        ``database-away`` when it does not in `within_s` seconds.
    """
    deadline = time.monotonic() + within_s
    told: set[str] = set()
    while True:
        try:
            engine.connect().close()
        except OperationalError as err:
            # The driver's own sentence names the address and never the password.
            reason = str(err.orig).strip().splitlines()[0]
            if time.monotonic() > deadline:
                raise StartError("database-away", reason=reason) from None
            # It changes: what cannot be found at first may refuse the password, or have a wrong certificate, then.
            if reason not in told:
                _log.warning("database-awaited", reason=reason)
                told.add(reason)
            time.sleep(0.5)
        else:
            return


def upgrade_database(engine: Engine) -> None:
    """Bring the schema up to date.

    Raises
    ------
    StartError
        ``database-newer`` when the database was written by a newer version of the platform.
    """
    from alembic import command
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    config = _alembic(engine)
    scripts = ScriptDirectory.from_config(config)
    known = {script.revision for script in scripts.walk_revisions()}
    with _one_at_a_time(engine), engine.connect() as connection:
        present = set(MigrationContext.configure(connection).get_current_heads())
        connection.rollback()
        if unknown := present - known:
            raise StartError("database-newer", revision=", ".join(sorted(unknown)))
        if present != set(scripts.get_heads()):
            config.attributes["connection"] = connection
            command.upgrade(config, "heads")
            connection.commit()


def _alembic(engine: Engine) -> "AlembicConfig":
    from alembic.config import Config as AlembicConfig

    package = resources.files("astrocloud")
    folders = [str(package / owner / "migrations") for owner in OWNERS]
    config = AlembicConfig()
    config.set_main_option("script_location", str(package / "core" / "migrations"))
    config.set_main_option("path_separator", "newline")
    config.set_main_option("version_locations", "\n".join(f for f in folders if Path(f).is_dir()))
    config.attributes["engine"] = engine
    return config


@contextmanager
def _one_at_a_time(engine: Engine) -> "Iterator[None]":
    """Keep two processes from upgrading one database at once: replicas of all services start together."""
    if engine.dialect.name == "postgresql":
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as guard:
            guard.execute(text("SELECT pg_advisory_lock(:space, 0)").bindparams(space=_UPGRADES))
            try:
                yield
            finally:
                # The pool keeps the connection, and with it the lock, unless it is given back.
                guard.execute(text("SELECT pg_advisory_unlock(:space, 0)").bindparams(space=_UPGRADES))
        return
    if engine.dialect.name != "sqlite" or not engine.url.database:
        yield
        return
    with Path(engine.url.database).with_suffix(".upgrade-lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
