"""Homes, limits, ends, options and records, each by itself."""

import os
import signal
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from astrocloud.core import words
from astrocloud.core.errors import PlatformError
from astrocloud.environments.catalogue import load_catalogue
from astrocloud_hub.spawners import limits
from astrocloud_hub.spawners.ends import REASONS, End, end_of
from astrocloud_hub.spawners.homes import make_folders
from astrocloud_hub.spawners.models import Group, Limits, Person
from astrocloud_hub.spawners.options import read_options, unpack_form
from astrocloud_hub.spawners.records import Process, Records, ServerRecord, boot_id, end_all
from tests.hub.harness import ENVIRONMENT, until

ADA = Person(username="ada", uid=20001, gid=20001, groups=(Group(name="survey", gid=30001),))
ROOT = os.geteuid() == 0
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("home", "project"):
        (tmp_path / name).mkdir()
    return tmp_path


class TestHomes:
    def test_a_home_is_made_once_and_only_for_its_person(self, tree: Path) -> None:
        make_folders(tree, ADA, as_root=ROOT)
        found = (tree / "home/ada").stat()
        assert found.st_mode & 0o7777 == 0o700
        assert not ROOT or (found.st_uid, found.st_gid) == (20001, 20001)
        project = (tree / "project/survey").stat()
        assert project.st_mode & 0o7777 == 0o2770
        (tree / "home/ada/file").touch()
        make_folders(tree, ADA, as_root=ROOT)
        assert (tree / "home/ada/file").exists()

    def test_a_link_in_the_place_of_a_home_is_not_followed(self, tree: Path) -> None:
        target = tree / "elsewhere"
        target.mkdir(mode=0o755)
        (tree / "home/ada").symlink_to(target)
        with pytest.raises(PlatformError) as caught:
            make_folders(tree, ADA, as_root=ROOT)
        assert caught.value.code == "home-not-a-folder"
        # Nothing of the system's own words, which are English.
        assert caught.value.parameters == {"folder": str(tree / "home/ada")}
        assert target.stat().st_mode & 0o777 == 0o755

    @pytest.mark.skipif(not ROOT, reason="needs root")
    def test_somebody_elses_home_is_not_taken_over(self, tree: Path) -> None:
        (tree / "home/ada").mkdir()
        os.chown(tree / "home/ada", 20002, 20002)
        with pytest.raises(PlatformError) as caught:
            make_folders(tree, ADA, as_root=True)
        assert caught.value.code == "home-owner"
        assert (tree / "home/ada").stat().st_uid == 20002

    @pytest.mark.parametrize("name", ["..", ".", "", "a/b", "../x"])
    def test_a_name_that_is_no_name_makes_nothing(self, tree: Path, name: str) -> None:
        with pytest.raises(PlatformError):
            make_folders(tree, Person(username=name, uid=20001, gid=20001), as_root=ROOT)
        assert list((tree / "home").iterdir()) == []


class TestEnds:
    @pytest.mark.parametrize(
        ("told", "reason"),
        [
            ({"exit_code": 0}, "exited"),
            ({"exit_code": 1}, "exited"),
            ({"exit_code": 137}, "killed"),
            ({"exit_code": 137, "oom_kills": 1}, "out-of-memory"),
            # A kernel was killed for memory earlier; the server itself ended well.
            ({"exit_code": 0, "oom_kills": 1}, "exited"),
            ({"exit_code": None, "same_boot": False}, "host-restart"),
            ({"exit_code": 137, "oom_kills": 1, "asked": ("stopped", "ada")}, "stopped"),
            ({"exit_code": 0, "asked": ("idle", "")}, "idle"),
        ],
        ids=str,
    )
    def test_the_reason_is_what_is_known_best(self, told: dict[str, Any], reason: str) -> None:
        end = end_of(**{"asked": None, "oom_kills": 0, "same_boot": True, "now": NOW, **told})
        assert end.reason == reason
        assert end.at == "2026-01-02T03:04:05+00:00"

    def test_an_end_survives_as_a_document(self) -> None:
        end = end_of(asked=("stopped", "ben"), exit_code=0, oom_kills=0, same_boot=True, now=NOW)
        assert End(**end.document()) == end

    def test_every_reason_has_a_sentence(self) -> None:
        assert [reason for reason in REASONS if f"portal.end-{reason}" not in words.catalogue()] == []


class TestLimits:
    LIMITS = Limits(memory_bytes=2**30, processes=512, cpus=1.5)

    def test_version_2(self, tmp_path: Path) -> None:
        (tmp_path / "cgroup.controllers").write_text("cpu memory pids")
        controller = limits.Cgroup2(base=tmp_path)
        group = controller.make("ada.", self.LIMITS)
        folder = group.folders[0]
        written = {file.name: file.read_text() for file in folder.iterdir()}
        assert written == {"memory.max": "1073741824", "memory.swap.max": "0", "pids.max": "512"}
        (folder / "memory.events").write_text("low 0\nmax 7\noom 3\noom_kill 2\n")
        assert group.oom_kills() == 2
        (folder / "cpu.max").write_text("150000 100000")
        group.share_processors(2)
        assert (folder / "cpu.max").read_text() == "200000 100000"

    def test_version_1(self, tmp_path: Path) -> None:
        for name in ("memory", "pids", "cpu"):
            (tmp_path / name).mkdir()
        controller = limits.Cgroup1(memory=tmp_path / "memory", pids=tmp_path / "pids", cpu=tmp_path / "cpu")
        group = controller.make("ada.", self.LIMITS)
        written = {str(file.relative_to(tmp_path)): file.read_text() for file in tmp_path.glob("*/ada./*")}
        assert written == {
            "memory/ada./memory.limit_in_bytes": "1073741824",
            "memory/ada./memory.memsw.limit_in_bytes": "1073741824",
            "pids/ada./pids.max": "512",
            "cpu/ada./cpu.cfs_period_us": "100000",
            "cpu/ada./cpu.cfs_quota_us": "150000",
        }
        assert len(group.procs) == 3
        (group.folders[0] / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 4\n")
        assert group.oom_kills() == 4
        group.share_processors(2)
        changed = {str(file.relative_to(tmp_path)): file.read_text() for file in tmp_path.glob("*/ada./c*")}
        assert changed == {"cpu/ada./cpu.cfs_period_us": "100000", "cpu/ada./cpu.cfs_quota_us": "200000"}

    def test_where_nothing_can_be_written_rlimits_must_do(self, tmp_path: Path) -> None:
        assert limits.probe(mount=tmp_path / "none", own="").kind == "rlimit"
        (tmp_path / "cgroup.controllers").write_text("cpu")
        assert limits.probe(mount=tmp_path, own="0::/\n").kind == "rlimit"
        assert limits.Rlimits().make("x", self.LIMITS) is None

    def test_a_leftover_of_an_earlier_server_gets_out_of_the_way(self, tmp_path: Path) -> None:
        controller = limits.Cgroup2(base=tmp_path)
        first, second = controller.make("ada.", self.LIMITS), controller.make("ada.", self.LIMITS)
        assert first.folders != second.folders

    @pytest.mark.skipif(limits.probe().kind == "rlimit", reason="no control groups can be written on this machine")
    def test_what_the_probe_finds_works(self) -> None:
        group = limits.probe().make("a-test-of-ours", self.LIMITS)
        assert group is not None
        try:
            with subprocess.Popen(["sleep", "60"]) as process:
                for file in group.procs:
                    Path(file).write_text(str(process.pid))
                assert group.processes() == [process.pid]
                process.kill()
        finally:
            group.remove()
        assert not any(folder.exists() for folder in group.folders)


class TestOptions:
    @pytest.fixture
    def catalogue(self, tmp_path: Path) -> Any:
        folder = tmp_path / "stub"
        folder.mkdir()
        (folder / "environment.yaml").write_text(ENVIRONMENT, encoding="utf-8")
        (folder / "requirements.txt").write_text("pip==26.0\n", encoding="utf-8")
        return load_catalogue(tmp_path)

    def test_nothing_asked_for_is_the_first_of_each(self, catalogue: Any) -> None:
        found = read_options({}, catalogue)
        assert (found.environment.id, found.resources.id, found.next) == ("stub", "small", "")

    def test_a_form_gives_the_same_as_the_api(self, catalogue: Any) -> None:
        form = {"environment": ["stub"], "resources": ["large"], "next": [""], "_xsrf": ["x"]}
        assert unpack_form(form) == {"environment": "stub", "resources": "large"}
        assert read_options(unpack_form(form), catalogue).resources.id == "large"

    @pytest.mark.parametrize(
        "path", ["/lab", "/lab/tree/home/ada/x.ipynb", "/astrocloud/tutorials/open?tutorial=a&lang=zh"]
    )
    def test_a_page_of_the_server_may_come_first(self, catalogue: Any, path: str) -> None:
        assert read_options({"next": path}, catalogue).next == path

    @pytest.mark.parametrize(
        "path", ["http://x", "//x", "/lab//x", "/hub/logout", "lab", "/lab/../hub", "/lab\\x", "/lab/\nx", "/labx", 7]
    )
    def test_anything_else_may_not(self, catalogue: Any, path: Any) -> None:
        with pytest.raises(PlatformError) as caught:
            read_options({"next": path}, catalogue)
        assert caught.value.code == "server-option-value"


class TestRecords:
    def record(self, process: "subprocess.Popen[bytes]", **more: Any) -> ServerRecord:
        return ServerRecord(
            user="ada", server="", port=1, boot=boot_id(), outer=Process.find(process.pid), walls=False, **more
        )

    def test_a_record_is_found_again_and_tells_whether_it_lives(self, tmp_path: Path) -> None:
        records = Records(tmp_path / "servers")
        with subprocess.Popen(["sleep", "60"], start_new_session=True) as process:
            records.write(self.record(process))
            found = records.read("ada", "")
            assert found == self.record(process)
            assert found is not None
            assert found.alive
            process.kill()
        assert not found.alive
        assert list(records) == [found]
        records.remove("ada", "")
        assert records.read("ada", "") is None

    def test_another_process_with_the_same_id_is_not_it(self) -> None:
        mine = Process.find(os.getpid())
        assert mine is not None
        other = Process(pid=mine.pid, started=mine.started - 1)
        assert mine.alive
        assert not other.alive
        assert not other.signal(signal.SIGKILL)

    def test_a_record_of_another_boot_is_dead(self, tmp_path: Path) -> None:
        with subprocess.Popen(["sleep", "60"]) as process:
            record = self.record(process)
            earlier = ServerRecord(**{**record.__dict__, "boot": "another"})
            assert not earlier.alive
            assert not earlier.signal(signal.SIGKILL)
            process.kill()

    @pytest.mark.parametrize(
        "names", [("..", ""), ("a/b", ""), ("ada", "../x"), ("", "x"), ("Ada", ""), ("a" * 300, "")]
    )
    def test_a_name_never_leads_elsewhere(self, tmp_path: Path, names: tuple[str, str]) -> None:
        with pytest.raises(ValueError, match="no file"):
            Records(tmp_path).key(*names)

    def test_a_broken_record_is_passed_over(self, tmp_path: Path) -> None:
        (tmp_path / "ada..json").write_text("{")
        assert list(Records(tmp_path)) == []

    def test_ending_all_ends_what_does_not_want_to(self, tmp_path: Path) -> None:
        records = Records(tmp_path)
        stubborn = ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done"]
        with subprocess.Popen(stubborn, start_new_session=True, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            records.write(self.record(process))
            assert end_all(records, grace_s=0.1) == 1
            until(lambda: process.poll() is not None)
        assert list(records) == []
