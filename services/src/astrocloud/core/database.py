"""The services' database: SQLite (WAL) on one machine, PostgreSQL on Kubernetes.

Every service keeps its tables in its own ``storage.py``, on the shared `metadata`, and its schema changes in its own
``migrations`` folder: one Alembic branch a service, so that no service waits for another's revision.
"""

import fcntl
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import Engine, MetaData, create_engine, event

from astrocloud.core.errors import StartError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from alembic.config import Config as AlembicConfig

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


def sqlite_url(folder: Path) -> str:
    """Return the address of the services' SQLite database in `folder`."""
    return f"sqlite:///{folder / 'astrocloud.sqlite'}"


def open_database(url: str) -> Engine:
    """Return an engine for `url`; SQLite in WAL mode with foreign keys on, waiting up to 10 s for a writer."""
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
    """Keep two processes from upgrading one SQLite file at once (PostgreSQL's DDL is transactional)."""
    if engine.dialect.name != "sqlite" or not engine.url.database:
        yield
        return
    with Path(engine.url.database).with_suffix(".upgrade-lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
