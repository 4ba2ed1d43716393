"""The services' database: brought up to date, refused when newer, and written by many at once."""

import importlib
import multiprocessing
import re
import sqlite3
from pathlib import Path

import pytest
import structlog
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.pool import NullPool

from astrocloud.core.database import (
    keep_no_nul,
    metadata,
    open_database,
    sqlite_url,
    upgrade_database,
    wait_for_database,
)
from astrocloud.core.errors import StartError
from tests.repository.files import REPOSITORY


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    engine = open_database(sqlite_url(tmp_path))
    yield engine
    engine.dispose()


def revisions(engine: Engine) -> set[str]:
    with engine.connect() as connection:
        return {row[0] for row in connection.execute(text("SELECT version_num FROM alembic_version"))}


def test_an_empty_database_gets_every_table_as_the_code_knows_it(engine: Engine):
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    package = REPOSITORY / "services/src"
    uses = re.compile(r"^from astrocloud\.core\.database import .*\bmetadata\b", re.MULTILINE)
    for path in sorted(package.rglob("*.py")):
        if "migrations" not in path.parts and uses.search(path.read_text(encoding="utf-8")):
            importlib.import_module(".".join(path.relative_to(package).with_suffix("").parts))
    upgrade_database(engine)
    with engine.connect() as connection:
        found = compare_metadata(MigrationContext.configure(connection), metadata)
    assert metadata.tables
    # Revisions and tables that the code defines must be the same thing.
    assert not found


def test_one_that_is_up_to_date_is_left_alone(engine: Engine, tmp_path: Path):
    upgrade_database(engine)
    before = revisions(engine)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE witness (a INTEGER)"))
    upgrade_database(engine)
    assert revisions(engine) == before
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM witness")).scalar_one() == 0


def test_one_that_a_newer_version_wrote_is_refused_and_left_as_it_is(engine: Engine):
    upgrade_database(engine)
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO alembic_version VALUES ('from_tomorrow')"))
    with pytest.raises(StartError) as caught:
        upgrade_database(engine)
    assert caught.value.code == "database-newer"
    assert "from_tomorrow" in str(caught.value)
    assert "from_tomorrow" in revisions(engine)


def _upgrade(folder: Path, start: "multiprocessing.synchronize.Barrier") -> None:
    start.wait(60)
    engine = open_database(sqlite_url(folder))
    upgrade_database(engine)
    engine.dispose()


def test_processes_that_upgrade_at_once_do_it_once(tmp_path: Path):
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(3)
    workers = [context.Process(target=_upgrade, args=(tmp_path, start)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]


def _count_up(folder: Path, start: "multiprocessing.synchronize.Barrier", times: int) -> None:
    engine = open_database(sqlite_url(folder))
    start.wait(60)
    for _ in range(times):
        with engine.begin() as connection:
            # Reads first, writes afterwards: what a deferred transaction loses.
            value = connection.execute(text("SELECT value FROM counter")).scalar_one()
            connection.execute(text("UPDATE counter SET value = :value"), {"value": value + 1})
    engine.dispose()


def test_two_that_read_and_then_write_lose_nothing(engine: Engine, tmp_path: Path):
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE counter (value INTEGER)"))
        connection.execute(text("INSERT INTO counter VALUES (0)"))
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(2)
    workers = [context.Process(target=_count_up, args=(tmp_path, start, 40)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
        assert worker.exitcode == 0
    with engine.connect() as connection:
        assert connection.execute(text("SELECT value FROM counter")).scalar_one() == 80


def test_it_is_in_wal_mode_and_keeps_foreign_keys(engine: Engine):
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE parent (id INTEGER PRIMARY KEY)"))
        connection.execute(text("CREATE TABLE child (parent INTEGER REFERENCES parent (id))"))
    with engine.connect() as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar_one() == "wal"
    with pytest.raises(IntegrityError), engine.begin() as connection:
        connection.execute(text("INSERT INTO child VALUES (7)"))


def test_a_transaction_that_fails_changes_nothing(engine: Engine, tmp_path: Path):
    def fail() -> None:
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE half (a INTEGER)"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    reader = sqlite3.connect(tmp_path / "astrocloud.sqlite")
    assert reader.execute("SELECT count(*) FROM sqlite_master WHERE name = 'half'").fetchone() == (0,)
    reader.close()


@pytest.mark.parametrize("given", [{"name": "ada\0"}, [{"name": "ada\0"}]])
def test_a_zero_byte_is_never_sent_to_postgresql(engine: Engine, monkeypatch: pytest.MonkeyPatch, given: object):
    """It refuses the whole statement: what somebody sends as a name would be a fault of ours."""
    with engine.connect() as connection:
        connection.execute(text("CREATE TABLE people (name TEXT)"))
        keep_no_nul(engine)
        monkeypatch.setattr(engine.dialect, "name", "postgresql")
        connection.execute(text("INSERT INTO people VALUES (:name)"), given)
        monkeypatch.undo()
        sent = [row[0] for row in connection.execute(text("SELECT name FROM people"))]
    assert sent == ["ada\ufffd"]


def test_who_waits_for_a_database_tells_each_reason_once(monkeypatch: pytest.MonkeyPatch):
    """A wrong certificate may show only after its name was found at last."""
    answers = iter(["no such host", "no such host", "certificate verify failed", "no such host"])

    def connect() -> sqlite3.Connection:
        for reason in answers:
            raise sqlite3.OperationalError(f"{reason}\nand more of it")
        return sqlite3.connect(":memory:")

    monkeypatch.setattr("time.sleep", lambda _: None)
    engine = create_engine("sqlite://", creator=connect, poolclass=NullPool)
    with structlog.testing.capture_logs() as captured:
        wait_for_database(engine)

    assert [each["reason"] for each in captured] == ["no such host", "certificate verify failed"]


def test_a_database_that_stays_away_is_told_with_the_reason():
    def connect() -> sqlite3.Connection:
        raise sqlite3.OperationalError("certificate verify failed")

    engine = create_engine("sqlite://", creator=connect, poolclass=NullPool)
    with pytest.raises(StartError, match=r"certificate verify failed.*certificate are right"):
        wait_for_database(engine, within_s=-1)
