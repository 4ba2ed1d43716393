"""The data folder: where it is, who may enter, its secrets and its addresses."""

import json
import multiprocessing
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from astrocloud.core.errors import StartError
from astrocloud.core.layout import DataFolder, project_folder
from astrocloud.core.runtime import Runtime, write_json
from astrocloud.core.secrets import SecretFiles


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


class TestPlace:
    def test_the_variable_names_it(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
        monkeypatch.setenv("ASTROCLOUD_DATA", str(tmp_path / "here"))
        assert DataFolder.from_environment().root == tmp_path / "here"
        monkeypatch.setenv("ASTROCLOUD_DATA", "there")
        assert DataFolder.from_environment().root == Path.cwd() / "there"

    def test_without_it_the_xdg_data_home_is_used(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
        monkeypatch.delenv("ASTROCLOUD_DATA", raising=False)
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.delenv("XDG_DATA_HOME", raising=False)
        assert DataFolder.from_environment().root == tmp_path / ".local/share/astrocloud"
        monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "xdg"))
        assert DataFolder.from_environment().root == tmp_path / "xdg/astrocloud"
        # XDG Base Directory Specification 0.8: a relative path is invalid and ignored.
        monkeypatch.setenv("XDG_DATA_HOME", "relative")
        assert DataFolder.from_environment().root == tmp_path / ".local/share/astrocloud"

    def test_a_home_that_nobody_has_is_one_sentence(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("ASTROCLOUD_DATA", "~no-such-person-here/data")
        with pytest.raises(StartError) as caught:
            DataFolder.from_environment()
        assert caught.value.code == "data-folder"
        assert "~no-such-person-here/data" in str(caught.value)


class TestMaking:
    @pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
    def test_modes_hold_whatever_the_umask_is(self, tmp_path: Path, umask: int):
        data = DataFolder(tmp_path / "data")
        before = os.umask(umask)
        try:
            data.make()
        finally:
            os.umask(before)
        assert mode(data.root) == 0o711
        for private in (data.secrets, data.databases, data.logs, data.logs / "servers", data.run):
            assert mode(private) == 0o700
        for shared in (data.tree, data.environments, data.tree / "home", data.tree / "project", data.tree / "archive"):
            assert mode(shared) == 0o755

    def test_making_it_again_keeps_what_is_there(self, tmp_path: Path):
        data = DataFolder(tmp_path)
        data.make()
        (data.tree / "home/ada").mkdir()
        data.root.chmod(0o751)
        data.make()
        assert (data.tree / "home/ada").is_dir()
        assert mode(data.root) == 0o751

    def test_a_place_that_cannot_be_written_is_one_sentence(self, tmp_path: Path):
        file = tmp_path / "file"
        file.touch()
        for root in (file, file / "below", Path("/proc/astrocloud")):
            with pytest.raises(StartError) as caught:
                DataFolder(root).make()
            assert caught.value.code == "data-folder"
            assert str(root) in caught.value.sentence("zh")


def test_the_projects_folders_are_found(repository: Path):
    assert project_folder("images") == repository / "images"
    assert project_folder("no-such-folder") is None


def _read_secret(folder: Path, start: "multiprocessing.synchronize.Barrier", found: "multiprocessing.Queue[str]"):
    start.wait(30)
    found.put(SecretFiles(folder).get("race").get_secret_value())


class TestSecrets:
    def test_one_is_made_once_and_only_its_owner_reads_it(self, tmp_path: Path):
        files = SecretFiles(tmp_path)
        first = files.get("hub-cookie").get_secret_value()
        assert len(bytes.fromhex(first)) == 32
        assert SecretFiles(tmp_path).get("hub-cookie").get_secret_value() == first
        assert files.get("other").get_secret_value() != first
        assert mode(tmp_path / "hub-cookie") == 0o600
        assert sorted(path.name for path in tmp_path.iterdir()) == ["hub-cookie", "other"]

    def test_it_is_never_shown(self, tmp_path: Path):
        files = SecretFiles(tmp_path)
        secret = files.get("internal")
        assert secret.get_secret_value() not in f"{files!r} {secret!r} {secret}"

    def test_processes_that_make_it_at_once_read_the_same(self, tmp_path: Path):
        context = multiprocessing.get_context("spawn")
        start, found = context.Barrier(4), context.Queue()
        workers = [context.Process(target=_read_secret, args=(tmp_path, start, found)) for _ in range(4)]
        for worker in workers:
            worker.start()
        answers = {found.get(timeout=60) for _ in workers}
        for worker in workers:
            worker.join(60)
            assert worker.exitcode == 0
        assert len(answers) == 1
        assert [path.name for path in tmp_path.iterdir()] == ["race"]


class TestAddresses:
    def choose(self, data: DataFolder, **changes: object) -> Runtime:
        return Runtime.choose(data, **{"bind": "127.0.0.1", "port": 8000, "public_url": None, **changes})

    @pytest.fixture
    def data(self, tmp_path: Path) -> DataFolder:
        data = DataFolder(tmp_path)
        data.make()
        return data

    @pytest.mark.parametrize(
        ("bind", "public_url", "shown"),
        [
            ("127.0.0.1", None, "http://127.0.0.1:8000"),
            ("0.0.0.0", None, "http://127.0.0.1:8000"),
            ("::", None, "http://127.0.0.1:8000"),
            ("::1", None, "http://[::1]:8000"),
            ("10.0.0.5", None, "http://10.0.0.5:8000"),
            ("127.0.0.1", "https://astro.example.org/", "https://astro.example.org"),
        ],
    )
    def test_the_public_address_is_what_people_type(self, data: DataFolder, bind: str, public_url: str, shown: str):
        assert self.choose(data, bind=bind, public_url=public_url).public_url == shown

    @pytest.mark.parametrize(
        ("changes", "bytes_url"),
        [
            ({}, "http://127.0.0.1:8001"),
            ({"bind": "::1"}, "http://[::1]:8001"),
            ({"certificate": "c", "key": "k"}, "https://127.0.0.1:8001"),
            ({"public_url": "http://astro.example.org:8000/"}, "http://astro.example.org:8001"),
            # Behind a web server nobody knows whether the other port can be reached.
            ({"public_url": "https://astro.example.org"}, ""),
            ({"public_url": "https://astro.example.org:8000"}, ""),
            ({"bytes_port": 0}, ""),
        ],
    )
    def test_bytes_have_an_address_where_the_platform_itself_is_reached(
        self, data: DataFolder, changes: dict, bytes_url: str
    ):
        assert self.choose(data, **{"bytes_port": 8001, **changes}).bytes_url == bytes_url

    def test_internal_ports_are_kept_so_that_servers_find_the_hub_again(self, data: DataFolder):
        first = self.choose(data)
        assert len({first.port, first.proxy_api_port, first.hub_port, first.services_port}) == 4
        assert self.choose(data) == first == Runtime.read(data)

    def test_a_port_that_somebody_else_has_is_replaced(self, data: DataFolder):
        first = self.choose(data)
        with socket.create_server(("127.0.0.1", first.hub_port)):
            second = self.choose(data)
        assert second.hub_port != first.hub_port
        assert second.services_port == first.services_port

    @pytest.mark.skipif(os.geteuid() != 0, reason="everybody is the same user where root does not run the platform")
    def test_a_server_cannot_take_the_port_of_a_part_that_died(self, data: DataFolder):
        earlier = {"bind": "", "port": 1, "public_url": "", "proxy_api_port": 40001, "hub_port": 40002}
        (data.run / "runtime.json").write_text(json.dumps({**earlier, "services_port": 40003}))
        chosen = self.choose(data)
        take = "import os, socket, sys; os.setuid(20001); socket.create_server(('127.0.0.1', int(sys.argv[1])))"
        for port in (chosen.proxy_api_port, chosen.hub_port, chosen.services_port):
            done = subprocess.run([sys.executable, "-c", take, str(port)], capture_output=True, text=True, check=False)
            assert "PermissionError" in done.stderr

    @pytest.mark.parametrize("text", ["", "{", "[]", '{"hub_port": 1}', None])
    def test_a_damaged_record_is_written_anew(self, data: DataFolder, text: str | None):
        kept = {"bind": "", "port": 1, "public_url": "", "proxy_api_port": 99999, "hub_port": "x", "services_port": -1}
        (data.run / "runtime.json").write_text(json.dumps(kept) if text is None else text)
        assert self.choose(data) == Runtime.read(data)

    def test_a_document_is_replaced_whole(self, tmp_path: Path):
        for document in ({"a": 1}, {"b": "x" * 10000}):
            write_json(tmp_path / "status.json", document)
            assert json.loads((tmp_path / "status.json").read_text()) == document
        assert [path.name for path in tmp_path.iterdir()] == ["status.json"]
