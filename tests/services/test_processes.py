"""The supervisor's hold on processes: found, ended, collected, never one of somebody else's."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from astrocloud.config import parse_config
from astrocloud.core.errors import StartError
from astrocloud.core.layout import DataFolder
from astrocloud.supervisor import programs
from astrocloud.supervisor.processes import Part, descendants, end_all, reap_orphans, stat_of
from astrocloud.supervisor.supervisor import check_port, is_running, only_one
from tests.support.platform import wait_until

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)",
]
# A process with a child and a grandchild; it prints both their ids.
FAMILY = [
    "/bin/sh",
    "-c",
    "/bin/sh -c 'sleep 600 & echo $! $$; wait' & wait",
]


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes to end after the test."""
    found: list[subprocess.Popen[str]] = []
    yield found
    for process in found:
        for pid in [*descendants(process.pid), process.pid]:
            if stat_of(pid) is not None:
                os.kill(pid, signal.SIGKILL)
        process.wait(20)
        if process.stdout:
            process.stdout.close()


def gone(pid: int) -> bool:
    stat = stat_of(pid)
    return stat is None or stat.state == "Z"


class TestFinding:
    def test_a_process_is_named_by_its_start_for_ever(self):
        mine = stat_of(os.getpid())
        assert mine is not None
        assert mine.parent == os.getppid()
        assert mine == stat_of(os.getpid()) or mine.started_ticks == stat_of(os.getpid()).started_ticks
        assert stat_of(2**22 + 1) is None

    def test_a_name_with_brackets_and_spaces_is_read(self, tmp_path: Path, started: list[subprocess.Popen[str]]):
        program = tmp_path / "a) S 1 (b"
        program.symlink_to("/bin/sleep")
        process = subprocess.Popen([str(program), "600"], text=True)
        started.append(process)
        wait_until(lambda: (stat_of(process.pid) or 0) and stat_of(process.pid).state == "S", within_s=20, what="sleep")
        assert stat_of(process.pid).parent == os.getpid()

    def test_all_descendants_are_found_parents_first(self, started: list[subprocess.Popen[str]]):
        process = subprocess.Popen(FAMILY, stdout=subprocess.PIPE, text=True)
        started.append(process)
        grandchild, child = map(int, process.stdout.readline().split())
        assert descendants(process.pid) == [child, grandchild]
        assert set(descendants(os.getpid())) >= {process.pid, child, grandchild}
        assert descendants(2**22 + 1) == []


class TestEnding:
    async def test_what_ends_when_asked_is_asked(self, started: list[subprocess.Popen[str]]):
        process = subprocess.Popen(SLEEP, text=True)
        started.append(process)
        await end_all([process.pid], patience_s=30)
        assert process.wait(20) == -signal.SIGTERM

    async def test_what_does_not_is_killed(self, started: list[subprocess.Popen[str]]):
        process = subprocess.Popen(STUBBORN, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout.readline() == "up\n"
        await end_all([process.pid], patience_s=0.2)
        assert process.wait(20) == -signal.SIGKILL

    async def test_what_is_not_there_is_no_error(self):
        await end_all([2**22 + 1], patience_s=0.1)
        await end_all([], patience_s=0.1)

    def test_orphans_come_to_a_subreaper_and_are_ended_with_it(self):
        script = textwrap.dedent("""
            import asyncio, os, subprocess, sys
            from astrocloud.supervisor.processes import become_subreaper, descendants, end_all, reap_orphans
            become_subreaper()
            # A child that leaves a grandchild of its own session behind, as a hub that is killed leaves servers.
            subprocess.run(["/bin/sh", "-c", "setsid sleep 600 & sleep 600 & exit 0"], start_new_session=True)
            left = descendants(os.getpid())
            print(len(left), flush=True)
            asyncio.run(end_all(left, patience_s=10))
            reap_orphans(set())
            print(len(descendants(os.getpid())), flush=True)
            children = open(f"/proc/self/task/{os.getpid()}/children").read().split()
            print(len(children))
        """)
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
        assert done.stdout.split() == ["2", "0", "0"], done.stderr

    def test_a_child_that_was_started_elsewhere_keeps_its_exit_status(self, started: list[subprocess.Popen[str]]):
        process = subprocess.Popen(["/bin/sh", "-c", "exit 7"], text=True)
        started.append(process)
        wait_until(lambda: gone(process.pid), within_s=20, what="the child's end")
        reap_orphans(set())
        assert process.wait(20) == 7


class TestPart:
    def part(self, tmp_path: Path, *command: str, **environment: str) -> Part:
        return Part(name="probe", command=command, environment=environment, log=tmp_path / "probe.log")

    async def test_it_runs_in_the_environment_given_and_is_logged(self, tmp_path: Path):
        part = self.part(tmp_path, "/bin/sh", "-c", "echo $WORD; env | wc -l >&2; exit 3", WORD="hello")
        assert part.pid is None
        await part.start()
        assert await part.wait() == 3
        assert part.pid is None
        assert part.last_lines().splitlines()[0] == "hello"
        assert (tmp_path / "probe.log").stat().st_mode & 0o077 == 0

    async def test_it_can_be_started_again_and_its_log_goes_on(self, tmp_path: Path):
        part = self.part(tmp_path, "/bin/echo", "again")
        for _ in range(3):
            await part.start()
            assert await part.wait() == 0
        assert part.last_lines(2) == "again\nagain"
        assert (tmp_path / "probe.log").read_text() == "again\n" * 3

    async def test_a_long_log_is_begun_anew(self, tmp_path: Path):
        (tmp_path / "probe.log").write_bytes(b"x" * 10_000_001)
        part = self.part(tmp_path, "/bin/echo", "new")
        await part.start()
        await part.wait()
        assert (tmp_path / "probe.log").read_text() == "new\n"
        assert (tmp_path / "probe.log.1").stat().st_size == 10_000_001

    async def test_its_log_stays_short_while_it_runs(self, tmp_path: Path):
        log, work = tmp_path / "probe.log", "trap 'echo more' USR1; yes | head -c 11000000; echo; echo last; "
        part = self.part(tmp_path, "/bin/sh", "-c", work + "while :; do sleep 0.05; done")
        await part.start()
        part.shorten_log()
        await asyncio.to_thread(
            wait_until, lambda: b"last\n" in log.read_bytes()[-20:], within_s=20, what="the whole output"
        )
        part.shorten_log()
        assert log.stat().st_size == 0
        kept = (tmp_path / "probe.log.1").read_bytes()
        assert kept.startswith(b"y\n")
        assert b"last" in kept[-20:]
        assert len(kept) <= 1_000_000
        part.send(signal.SIGUSR1)
        await asyncio.to_thread(wait_until, lambda: log.read_bytes() == b"more\n", within_s=20, what="a line more")
        part.send(signal.SIGKILL)
        await part.wait()

    async def test_signals_go_to_it_while_it_runs_and_nowhere_after(self, tmp_path: Path):
        part = self.part(tmp_path, "/bin/sleep", "600")
        part.send(signal.SIGTERM)
        await part.start()
        assert os.getsid(part.pid) == part.pid
        part.send(signal.SIGTERM)
        assert await part.wait() == -signal.SIGTERM
        part.send(signal.SIGTERM)

    async def test_its_exit_status_is_not_taken_by_the_collector_of_orphans(self, tmp_path: Path):
        part = self.part(tmp_path, "/bin/sh", "-c", "exit 5")
        await part.start()
        pid = part.pid
        assert pid is not None
        deadline = time.monotonic() + 20
        while not gone(pid) and time.monotonic() < deadline:
            reap_orphans({pid})
            await asyncio.sleep(0)
        assert await part.wait() == 5

    def test_it_ends_when_the_supervisor_is_killed(self, tmp_path: Path):
        script = textwrap.dedent(f"""
            import asyncio, pathlib
            from astrocloud.supervisor.processes import Part
            async def main():
                part = Part(name="p", command={SLEEP!r}, environment={{}}, log=pathlib.Path({str(tmp_path)!r}) / "log")
                await part.start()
                print(part.pid, flush=True)
                await asyncio.sleep(600)
            asyncio.run(main())
        """)
        supervisor = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        pid = int(supervisor.stdout.readline())
        supervisor.kill()
        supervisor.wait(20)
        supervisor.stdout.close()
        wait_until(lambda: gone(pid), within_s=20, what="the part's end")


class TestChecks:
    def test_a_port_that_is_taken_is_said_to_be(self):
        import socket

        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            with pytest.raises(StartError) as caught:
                check_port("127.0.0.1", port)
            assert caught.value.code == "port-in-use"
            assert str(port) in str(caught.value)
        check_port("127.0.0.1", port)

    @pytest.mark.parametrize(
        "bind", ["203.0.113.7", "999.1.1.1", "no-such-host.invalid", "a" * 80, "a..b", "\x00", "é" * 70]
    )
    def test_an_address_that_is_not_ours_is_said_to_be(self, bind: str):
        with pytest.raises(StartError) as caught:
            check_port(bind, 8000)
        assert caught.value.code == "bind-address"

    def test_a_data_folder_is_held_by_one(self, tmp_path: Path):
        data = DataFolder(tmp_path)
        assert not is_running(data)
        data.make()
        assert not is_running(data)
        with only_one(data):
            assert is_running(data)
            with pytest.raises(StartError) as caught, only_one(data):
                pass
            assert caught.value.code == "already-running"
        assert not is_running(data)

    def test_asking_whether_it_runs_never_keeps_it_from_starting(self, tmp_path: Path):
        data = DataFolder(tmp_path)
        data.make()
        script = (
            "import pathlib, sys\n"
            "from astrocloud.core.layout import DataFolder\n"
            "from astrocloud.supervisor.supervisor import is_running\n"
            "data = DataFolder(pathlib.Path(sys.argv[1]))\n"
            "print('asking', flush=True)\n"
            "while True: is_running(data)\n"
        )
        asking = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        try:
            assert asking.stdout.readline() == "asking\n"
            for _ in range(300):
                with only_one(data):
                    pass
        finally:
            asking.kill()
            asking.wait(20)
            asking.stdout.close()


class TestPrograms:
    def test_a_part_gets_what_it_needs_of_the_environment_and_the_hub_alone_the_secrets(
        self, monkeypatch: pytest.MonkeyPatch
    ):
        block = {
            "kind": "oidc",
            "issuer": "https://id.example.org",
            "client_id": "x",
            "client_secret": {"env": "ASTROCLOUD_WORD"},
        }
        config = parse_config({"passport": block}, source="test")
        monkeypatch.setenv("ASTROCLOUD_WORD", "correct-horse")
        monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example.org")
        monkeypatch.setenv("SOME_CLOUD_KEY", "not-yours")
        base, for_hub = programs.passed_on(config)
        assert for_hub == {"ASTROCLOUD_WORD": "correct-horse"}
        assert base["HTTPS_PROXY"] == "http://proxy.example.org"
        assert not {"ASTROCLOUD_WORD", "SOME_CLOUD_KEY"} & set(base)

    def program(self, folder: Path, name: str, text: str) -> None:
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)

    def test_the_machines_node_is_used_when_it_is_new_enough(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        self.program(tmp_path / "bin", "node", "echo v22.1.0")
        monkeypatch.setenv("PATH", str(tmp_path / "bin"))
        assert programs.find_node() == str(tmp_path / "bin/node")

    @pytest.mark.parametrize("answer", ["echo v18.20.4", "echo nonsense", "exit 1", None])
    def test_without_one_the_sentence_says_what_to_do(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str | None
    ):
        (tmp_path / "bin").mkdir()
        if answer is not None:
            self.program(tmp_path / "bin", "node", answer)
        monkeypatch.setenv("PATH", str(tmp_path / "bin"))
        monkeypatch.setattr(programs, "find_spec", lambda _name: None)
        with pytest.raises(StartError) as caught:
            programs.find_node()
        assert caught.value.code == "program-missing"
        assert "node >= 20" in str(caught.value)
