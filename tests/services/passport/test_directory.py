"""The directory as the command line uses it, with no platform running."""

import stat
from pathlib import Path

import pytest
from sqlalchemy import text

from astrocloud.config import Config, parse_config
from astrocloud.core.database import open_database, sqlite_url
from astrocloud.core.layout import DataFolder
from astrocloud.passport.errors import PassportError
from astrocloud.passport.factory import Directory, open_directory
from tests.services.passport.harness import PASSWORD


@pytest.fixture
def data(tmp_path: Path) -> DataFolder:
    folder = DataFolder(tmp_path / "data")
    folder.make()
    return folder


@pytest.fixture
def directory(data: DataFolder) -> Directory:
    return open_directory(Config(), data, public_url="https://stars.example")


def code_of(error: pytest.ExceptionInfo[PassportError]) -> str:
    return error.value.code


def test_person_without_password_gets_an_invite(directory: Directory) -> None:
    added = directory.add("ada", admin=True, groups=("stars", "dust"), name="Ada  Lovelace", email="ada@example.org")
    assert added.invite is not None
    assert added.invite.startswith("https://stars.example/services/passport/link?key=")
    assert added.invite.rsplit("=")[-1] not in repr(added)
    entry = directory.get("ada")
    assert entry.document() == {
        "username": "ada",
        "uid": 200_000,
        "gid": 200_000,
        "status": "active",
        "admin": True,
        "groups": ["dust", "stars"],
        "display_name": "Ada Lovelace",
        "email": "ada@example.org",
    }


def test_ids_and_names_are_never_given_twice(directory: Directory) -> None:
    first = directory.add("ada", password=PASSWORD)
    directory.remove("ada")
    assert directory.list() == []
    with pytest.raises(PassportError) as refused:
        directory.add("ada", password=PASSWORD)
    assert code_of(refused) == "username-taken"
    assert directory.add("bob", password=PASSWORD).uid == first.uid + 1


def test_ids_start_where_the_configuration_says(data: DataFolder) -> None:
    early = parse_config({"people": {"first_uid": 5000, "first_gid": 9000}}, source="test")
    assert open_directory(early, data).add("ada", groups=("stars",)).uid == 5000
    assert open_directory(Config(), data).add("bob").uid == 200_000
    assert open_directory(early, data).add("eva").uid == 200_001


def test_refused_password_leaves_nobody_behind(directory: Directory) -> None:
    for password, code in [
        ("tiny-1", "password-short"),
        ("x" * 2000, "password-long"),
        ("aaaaaaaaaaaa", "password-weak"),
        ("ada-ada-ada-1", "password-weak"),
    ]:
        with pytest.raises(PassportError) as refused:
            directory.add("ada", password=password)
        assert code_of(refused) == code
        assert password not in str(refused.value)
    assert directory.list() == []


def test_last_administrator_stays(directory: Directory) -> None:
    directory.add("ada", admin=True, password=PASSWORD)
    for change in (directory.disable, directory.remove):
        with pytest.raises(PassportError) as refused:
            change("ada")
        assert code_of(refused) == "last-admin"
    directory.add("bob", admin=True, password=PASSWORD)
    assert directory.disable("ada").status == "disabled"
    assert directory.enable("ada").status == "active"


def test_unknown_person_is_named(directory: Directory) -> None:
    with pytest.raises(PassportError, match="ghost"):
        directory.get("ghost")
    with pytest.raises(PassportError):
        directory.disable("../ghost")


def test_setup_link_is_there_until_there_is_somebody(directory: Directory) -> None:
    first, second = directory.setup_link(), directory.setup_link()
    assert first is not None
    assert second is not None
    assert first != second
    directory.add("ada", admin=True)
    assert directory.setup_link() is None


def test_external_passport_has_neither_links_nor_passwords(data: DataFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OIDC_SECRET", "s")
    passport = {
        "kind": "oidc",
        "issuer": "https://id.example",
        "client_id": "x",
        "client_secret": {"env": "OIDC_SECRET"},
    }
    directory = open_directory(parse_config({"passport": passport}, source="test"), data)
    assert directory.setup_link() is None
    assert directory.add("ada", subject="42").invite is None
    with pytest.raises(PassportError) as refused:
        directory.add("bob", subject="42")
    assert code_of(refused) == "identity-linked"
    assert [entry.username for entry in directory.list()] == ["ada"]


def test_no_secret_is_kept_as_it_is(directory: Directory, data: DataFolder) -> None:
    directory.add("ada", password=PASSWORD)
    invite = directory.add("bob").invite
    assert invite is not None
    kept = b"".join(path.read_bytes() for path in data.databases.iterdir())
    assert PASSWORD.encode() not in kept
    assert invite.rsplit("=")[-1].encode() not in kept
    assert b"$argon2id$" in kept
    assert stat.S_IMODE(data.databases.stat().st_mode) == 0o700


def test_database_of_a_newer_version_is_refused(directory: Directory, data: DataFolder) -> None:
    directory.add("ada")
    engine = open_database(sqlite_url(data.databases))
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE alembic_version SET version_num = 'passport_9999' WHERE version_num LIKE 'passport%'")
        )
    engine.dispose()
    with pytest.raises(Exception, match="passport_9999"):
        open_directory(Config(), data)


def test_migrations_make_what_the_tables_say(directory: Directory, data: DataFolder) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    from astrocloud.core.database import metadata

    directory.list()
    engine = open_database(sqlite_url(data.databases))
    with engine.connect() as connection:
        found = compare_metadata(MigrationContext.configure(connection), metadata)
    engine.dispose()
    assert [difference for difference in found if "passport" in str(difference)] == []
