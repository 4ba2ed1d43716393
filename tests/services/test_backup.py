"""Backups: what is saved while the platform writes, what is brought back, and what is refused."""

import json
import shutil
import sqlite3
import stat
import threading
from pathlib import Path

import pytest

from astrocloud.core.errors import PlatformError
from astrocloud.core.layout import DataFolder
from astrocloud.core.secrets import SecretFiles
from astrocloud.operations.backup import backup, restore
from astrocloud.operations.hub import read_duration


def make_database(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE pair (a INTEGER, b INTEGER)")
    connection.execute("INSERT INTO pair VALUES (0, 0)")
    return connection


@pytest.fixture
def data(tmp_path: Path) -> DataFolder:
    """A data folder whose path holds what an address would read otherwise."""
    data = DataFolder(tmp_path / "my data%20?#")
    data.make()
    for name in ("jupyterhub", "astrocloud"):
        make_database(data.databases / f"{name}.sqlite").close()
    SecretFiles(data.secrets).get("hub-cookie")
    SecretFiles(data.secrets).get("internal")
    data.config_file.write_text("language: zh\n")
    home = data.tree / "home/ada"
    home.mkdir()
    (home / "天文.ipynb").write_text("{}")
    (home / "link").symlink_to("天文.ipynb")
    home.chmod(0o700)
    return data


def refused(code: str, run, *arguments, **options) -> PlatformError:
    with pytest.raises(PlatformError) as caught:
        run(*arguments, **options)
    assert caught.value.code == code
    assert caught.value.sentence("zh")
    return caught.value


def pairs(path: Path) -> list[tuple[int, int]]:
    connection = sqlite3.connect(path)
    try:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return connection.execute("SELECT a, b FROM pair").fetchall()
    finally:
        connection.close()


def test_everything_but_the_homes_comes_back(data: DataFolder, tmp_path: Path):
    manifest = backup(data, tmp_path / "saved")
    assert manifest["tree"] == str(data.tree)
    assert not manifest["tree_included"]
    assert json.loads((tmp_path / "saved/manifest.json").read_text()) == manifest
    other = DataFolder(tmp_path / "other")
    assert restore(other, tmp_path / "saved") == manifest
    for name in ("hub-cookie", "internal"):
        assert (other.secrets / name).read_bytes() == (data.secrets / name).read_bytes()
        assert stat.S_IMODE((other.secrets / name).stat().st_mode) == 0o600
    assert other.config_file.read_text() == "language: zh\n"
    assert pairs(other.databases / "jupyterhub.sqlite") == [(0, 0)]
    assert not list((other.tree / "home").iterdir())


def test_homes_come_back_with_modes_and_links(data: DataFolder, tmp_path: Path):
    assert backup(data, tmp_path / "saved", homes=True)["tree_included"]
    other = DataFolder(tmp_path / "other")
    restore(other, tmp_path / "saved")
    home = other.tree / "home/ada"
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert (home / "link").is_symlink()
    assert (home / "天文.ipynb").read_text() == "{}"


def test_only_the_operator_can_read_a_backup(data: DataFolder, tmp_path: Path):
    backup(data, tmp_path / "saved")
    files = [path for path in (tmp_path / "saved").rglob("*") if path.is_file()]
    assert stat.S_IMODE((tmp_path / "saved").stat().st_mode) == 0o700
    assert not [path for path in files if path.name != "manifest.json" and stat.S_IMODE(path.stat().st_mode) != 0o600]


def test_a_database_that_is_written_meanwhile_is_saved_as_at_one_moment(data: DataFolder, tmp_path: Path):
    ending = threading.Event()
    begun = threading.Event()

    def write() -> None:
        connection = sqlite3.connect(data.databases / "astrocloud.sqlite", isolation_level=None, timeout=30)
        number = 0
        while not ending.is_set():
            number += 1
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("UPDATE pair SET a = ?", (number,))
            connection.execute("UPDATE pair SET b = ?", (number,))
            connection.execute("COMMIT")
            begun.set()
        connection.close()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert begun.wait(30)
        backup(data, tmp_path / "saved")
    finally:
        ending.set()
        writer.join(30)
    [(a, b)] = pairs(tmp_path / "saved/db/astrocloud.sqlite")
    assert a == b > 0
    assert [path.name for path in sorted((tmp_path / "saved/db").iterdir())] == [
        "astrocloud.sqlite",
        "jupyterhub.sqlite",
    ]


class TestSavingIsRefused:
    def test_where_something_is_already(self, data: DataFolder, tmp_path: Path):
        (tmp_path / "there").mkdir()
        refused("backup-folder", backup, data, tmp_path / "there")

    def test_where_no_platform_is(self, tmp_path: Path):
        refused("backup-nothing", backup, DataFolder(tmp_path / "nowhere"), tmp_path / "saved")
        assert not (tmp_path / "saved").exists()

    def test_of_a_damaged_database_and_leaves_nothing_behind(self, data: DataFolder, tmp_path: Path):
        (data.databases / "jupyterhub.sqlite").write_bytes(b"no database at all" * 1000)
        error = refused("backup-folder", backup, data, tmp_path / "saved")
        assert "jupyterhub.sqlite" in str(error)
        assert not (tmp_path / "saved").exists()

    def test_of_homes_into_themselves(self, data: DataFolder):
        refused("backup-homes", backup, data, data.tree / "saved", homes=True)


class TestRestoringIsRefused:
    @pytest.fixture
    def saved(self, data: DataFolder, tmp_path: Path) -> Path:
        backup(data, tmp_path / "saved", homes=True)
        return tmp_path / "saved"

    @pytest.fixture
    def other(self, tmp_path: Path) -> DataFolder:
        return DataFolder(tmp_path / "other")

    def change(self, saved: Path, **changes: object) -> None:
        manifest = json.loads((saved / "manifest.json").read_text())
        (saved / "manifest.json").write_text(json.dumps({**manifest, **changes}))

    def test_over_what_is_there(self, saved: Path, other: DataFolder):
        other.root.mkdir()
        (other.root / "note").touch()
        refused("restore-not-empty", restore, other, saved)
        assert [path.name for path in other.root.iterdir()] == ["note"]

    def test_but_not_over_what_a_fresh_disk_holds(self, saved: Path, other: DataFolder):
        (other.root / "lost+found").mkdir(parents=True)
        restore(other, saved)
        assert (other.databases / "astrocloud.sqlite").exists()

    def test_over_a_file(self, saved: Path, other: DataFolder):
        other.root.touch()
        refused("restore-not-empty", restore, other, saved)

    @pytest.mark.parametrize(
        "text", ["", "[]", "{}", '{"files": 3, "format": 1}', '{"files": [1], "format": 1}', "\xff"]
    )
    def test_from_a_manifest_that_is_none(self, saved: Path, other: DataFolder, text: str):
        (saved / "manifest.json").write_text(text, encoding="latin-1")
        refused("restore-no-backup", restore, other, saved)
        assert not other.root.exists()

    def test_from_a_folder_without_manifest(self, tmp_path: Path, other: DataFolder):
        refused("restore-no-backup", restore, other, tmp_path / "nowhere")

    def test_from_one_of_a_later_layout(self, saved: Path, other: DataFolder):
        self.change(saved, format=2, version="9.0.0")
        assert "9.0.0" in str(refused("restore-newer", restore, other, saved))

    @pytest.mark.parametrize(
        "name",
        ["../outside", "/etc/passwd", "db/../../outside", "run/lock", "nothing", "secrets", "tree/home/ada/link"],
    )
    def test_from_one_that_names_other_files(self, saved: Path, other: DataFolder, tmp_path: Path, name: str):
        (tmp_path / "outside").touch()
        (saved / "run").mkdir()
        (saved / "run/lock").touch()
        self.change(saved, files=[name])
        refused("restore-no-backup", restore, other, saved)
        assert not other.root.exists()

    def test_from_one_whose_file_is_a_link_out_of_it(self, saved: Path, other: DataFolder):
        (saved / "secrets/internal").unlink()
        (saved / "secrets/internal").symlink_to("/etc/passwd")
        refused("restore-no-backup", restore, other, saved)

    def test_from_one_whose_homes_are_gone(self, saved: Path, other: DataFolder):
        shutil.rmtree(saved / "tree")
        refused("restore-no-backup", restore, other, saved)
        assert not other.root.exists()


@pytest.mark.parametrize(
    ("text", "seconds"), [("1", 1), ("3600", 3600), ("90s", 90), ("15m", 900), ("12h", 43200), ("366d", 366 * 86400)]
)
def test_a_duration_is_read(text: str, seconds: int):
    assert read_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "0d", "-1", "1.5h", "1w", "d", "367d", "9" * 40, "1 h", "１２h", "1h\n"])
def test_what_is_no_duration_is_refused(text: str):
    refused("bad-duration", read_duration, text)
