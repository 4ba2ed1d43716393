"""`astrocloud up`: one platform in the foreground, that mends itself and ends with no process left."""

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from astrocloud.core.capabilities import SYS_RESOURCE
from astrocloud.core.layout import DataFolder
from astrocloud.operations.backup import restore
from astrocloud.supervisor.processes import descendants, stat_of
from tests.support.platform import COMMAND, Platform, free_port, running_platform, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

LEAN = {"environments": {"prepare_at_start": False}}
PARTS = ("proxy", "hub", "services")


def ask(platform: Platform, path: str, token: str | None = None) -> tuple[int, str]:
    """Return status and body of a request through the proxy."""
    headers = {"Accept": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(platform.url + path, headers=headers), timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as err:
        with err:
            return err.code, err.read().decode()
    except OSError as err:
        return 0, str(err)


def processes_of(platform: Platform) -> dict[int, int]:
    """Return every process of the platform: process id -> start time."""
    assert platform.process is not None
    found = [platform.process.pid, *descendants(platform.process.pid)]
    return {pid: stat.started_ticks for pid in found if (stat := stat_of(pid)) is not None}


def survivors(before: dict[int, int]) -> list[int]:
    return [pid for pid, ticks in before.items() if (s := stat_of(pid)) and s.started_ticks == ticks and s.state != "Z"]


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """One platform for the tests that leave it running."""
    with running_platform(tmp_path_factory.mktemp("up"), config=LEAN) as running:
        running.add("grace", "a long enough password", "--admin")  # the last administrator cannot be disabled
        yield running


def test_old_environments_are_removed_at_the_start(tmp_path: Path):
    with running_platform(tmp_path, config=LEAN) as fresh:
        fresh.stop()
        old = fresh.data / "environments" / "astro-0123456789ab"
        old.mkdir(parents=True)
        (old / "pyvenv.cfg").touch()
        fresh.start()
        wait_until(lambda: not old.exists() and str(old) in fresh.output, within_s=20, what="the removal")


class TestRunning:
    def test_the_ready_line_tells_an_address_that_answers(self, platform: Platform):
        assert f"Astrocloud is ready: {platform.url}\n" in platform.output
        for path in ("/", "/hub/health", "/services/portal/ready", "/services/passport/ready"):
            status, body = ask(platform, path)
            assert status == 200, (path, body)

    def test_it_listens_beyond_loopback_only_where_told(self, platform: Platform):
        ports = set()
        for pid in processes_of(platform):
            done = subprocess.run(["ls", "-l", f"/proc/{pid}/fd"], capture_output=True, text=True, check=False)
            ports |= set(re.findall(r"socket:\[(\d+)\]", done.stdout))
        lines = [
            line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]
        ]
        addresses = {line[1].rpartition(":")[0] for line in lines if line[3] == "0A" and line[9] in ports}
        assert addresses == {"0100007F"}

    def test_the_status_names_every_part(self, platform: Platform):
        report = platform.run_json("status")
        assert report["running"]
        assert report["url"] == platform.url
        assert set(report["parts"]) >= {"hub", "proxy", "portal", "passport"}
        assert set(report["parts"].values()) == {"ok"}
        assert platform.url in platform.run("status").stdout

    def test_no_secret_is_in_an_argument_or_a_log(self, platform: Platform):
        secrets = [path.read_text().strip() for path in (platform.data / "secrets").iterdir() if path.is_file()]
        assert len(secrets) >= 4
        arguments = b" ".join(Path(f"/proc/{pid}/cmdline").read_bytes() for pid in processes_of(platform)).decode()
        logs = "".join(path.read_text(errors="replace") for path in (platform.data / "logs").rglob("*.log"))
        assert not [place for place in secrets if place in arguments]
        assert not [place for place in secrets if place in logs]
        assert not [place for place in secrets if place in platform.output]

    def test_nobody_else_reads_its_data(self, platform: Platform):
        for name in ("secrets", "db", "logs", "run"):
            assert (platform.data / name).stat().st_mode & 0o077 == 0
        for path in (platform.data / "secrets").iterdir():
            assert path.stat().st_mode & 0o077 == 0

    def test_what_writes_files_is_held_to_quotas_of_the_file_system(self, platform: Platform):
        status = Path(f"/proc/{platform.part('services')}/status").read_text()
        held = {line.partition(":")[0]: int(line.split()[1], 16) for line in status.splitlines() if "Cap" in line}
        assert held["CapEff"] & 1 << 7 or os.geteuid() != 0  # still becomes other people
        assert not (held["CapEff"] | held["CapPrm"]) & 1 << SYS_RESOURCE

    def test_a_second_one_on_the_same_data_is_refused(self, platform: Platform):
        done = subprocess.run(
            [*COMMAND, "up"],
            env={**platform.variables, "ASTROCLOUD_PORT": str(free_port())},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 2
        assert str(platform.data) in done.stderr
        assert done.stderr.count("\n") == 1
        assert ask(platform, "/hub/health")[0] == 200

    def test_people_are_added_listed_and_disabled_while_it_runs(self, platform: Platform):
        added = platform.run_json("user", "add", "carol", "--group", "stars")
        assert added["invite"].startswith(platform.url)
        assert ask(platform, added["invite"].removeprefix(platform.url))[0] == 200
        platform.run_json("user", "disable", "carol")
        [carol] = [p for p in platform.run_json("user", "list") if p["username"] == "carol"]
        assert carol["status"] == "disabled"

    def test_a_token_is_taken_by_every_service_until_its_person_is_disabled(self, platform: Platform):
        platform.add("dora", "a long enough password", "--admin")
        made = platform.run_json("token", "dora", "--expires", "1h")
        paths = ("/hub/api/user", "/services/portal/api/servers", "/services/passport/api/people")
        for path in paths:
            assert ask(platform, path)[0] in {401, 403}
            assert ask(platform, path, "0" * 32)[0] in {401, 403}
            status, body = ask(platform, path, made["token"])
            assert status == 200, (path, body)
        platform.run_json("user", "disable", "dora")
        wait_until(
            lambda: all(ask(platform, path, made["token"])[0] in {401, 403} for path in paths),
            within_s=30,
            what="the disabled person's token to be refused",
        )

    def test_a_narrow_token_does_no_more_than_it_says(self, platform: Platform):
        platform.add("erin", "a long enough password", "--admin")
        token = platform.run_json("token", "erin", "--scope", "custom:portal:use")["token"]
        assert ask(platform, "/services/portal/api/servers", token)[0] == 200
        assert ask(platform, "/services/passport/api/people", token)[0] == 403
        assert platform.run("token", "erin", "--scope", "custom:no:such").returncode == 2
        assert platform.run("token", "nobody-here").returncode == 2

    def test_it_is_saved_while_it_runs(self, platform: Platform, tmp_path: Path):
        platform.add("fred", "a long enough password")
        report = platform.run_json("backup", str(tmp_path / "saved"))
        assert {"db/jupyterhub.sqlite", "db/astrocloud.sqlite"} <= set(report["files"])
        data = DataFolder(tmp_path / "restored")
        restore(data, tmp_path / "saved")
        for name in ("jupyterhub", "astrocloud"):
            connection = sqlite3.connect(data.databases / f"{name}.sqlite")
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            connection.close()
        done = platform.run("user", "list", "--json")
        again = subprocess.run(
            [*COMMAND, "user", "list", "--json"],
            env={**platform.variables, "ASTROCLOUD_DATA": str(data.root)},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert json.loads(again.stdout) == json.loads(done.stdout)

    def test_the_logs_are_json_with_request_ids(self, platform: Platform):
        ask(platform, "/services/portal/health")
        lines = (platform.data / "logs/services.log").read_text().splitlines()
        requests = [entry for entry in map(json.loads, lines) if entry["event"] == "request"]
        assert requests
        assert all(entry["request_id"] and entry["service"] for entry in requests)

    def test_the_metrics_are_prometheus_text(self, platform: Platform):
        for path in ("/services/portal/metrics", "/services/passport/metrics"):
            status, body = ask(platform, path)
            assert status == 200
            assert "astrocloud_requests_total" in body


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_is_killed_comes_back(platform: Platform, part: str):
    killed = platform.part(part)
    others = {name: platform.part(name) for name in PARTS if name != part}
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: platform.part(part) not in {None, killed}, within_s=30, what=f"a new {part}")
    for path in ("/hub/health", "/services/portal/ready", "/services/passport/ready", "/"):
        wait_until(lambda path=path: ask(platform, path)[0] == 200, within_s=60, what=f"{path} to answer again")
    assert {name: platform.part(name) for name in others} == others
    wait_until(lambda: platform.run("status").returncode == 0, within_s=60, what="every part to be well")


def test_a_part_that_cannot_be_started_for_a_while_is_tried_again(platform: Platform):
    killed = platform.part("services")
    logs, away = platform.data / "logs", platform.data / "logs.away"
    logs.rename(away)
    try:
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: "part-not-started" in platform.output, within_s=30, what="a start that fails")
    finally:
        away.rename(logs)
    wait_until(lambda: ask(platform, "/services/portal/ready")[0] == 200, within_s=60, what="the services to be back")
    assert platform.part("services") != killed


class TestEnd:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_a_signal_ends_it_with_no_process_left(self, tmp_path: Path, number: signal.Signals):
        with running_platform(tmp_path, config=LEAN) as running:
            before = processes_of(running)
            assert len(before) >= 4
            assert running.stop(number) == 0
            assert not survivors(before)
            assert running.output.endswith("Ending; people's servers are stopped too.\n")
            assert running.run("status").returncode == 1
            assert not (running.data / "run/status.json").exists()

    def test_a_terminal_that_is_gone_does_not_keep_it_from_ending(self, tmp_path: Path):
        running = Platform(data=tmp_path / "data", port=free_port())
        running.data.mkdir()
        (running.data / "astrocloud.yaml").write_text(json.dumps(LEAN))
        process = subprocess.Popen(
            [*COMMAND, "up"], env=running.variables, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        running.process = process
        while not process.stdout.readline().startswith("Astrocloud is ready"):
            assert process.poll() is None
        before = processes_of(running)
        process.stdout.close()
        assert running.stop(signal.SIGHUP) == 0
        assert not survivors(before)

    def test_ctrl_c_in_a_terminal_reaches_it_alone(self, tmp_path: Path):
        # A terminal signals the whole foreground group; the parts are not in it, so that they end in order.
        with running_platform(tmp_path, config=LEAN) as running:
            group = os.getpgid(running.process.pid)
            assert all(os.getpgid(running.part(name)) != group for name in PARTS)

    def test_a_signal_while_it_starts_ends_it_too(self, tmp_path: Path):
        running = Platform(data=tmp_path / "data", port=free_port())
        with (tmp_path / "data.out").open("wb") as out:
            running.process = subprocess.Popen([*COMMAND, "up"], env=running.variables, stdout=out, stderr=out)
        before = wait_until(
            lambda: found if len(found := processes_of(running)) >= 3 else None, within_s=60, what="parts to start"
        )
        before = {**before, **processes_of(running)}
        assert running.stop() == 0, running.output
        assert not survivors(before)

    def test_a_killed_supervisor_takes_its_parts_along_and_the_next_one_starts(self, tmp_path: Path):
        with running_platform(tmp_path, config=LEAN) as running:
            before = processes_of(running)
            running.process.kill()
            running.process.wait(20)
            wait_until(lambda: not survivors(before), within_s=30, what="the parts' end")
            assert running.run("status").returncode == 1
            # A server whose sandbox the hub had just begun to make: only the process outside is on record.
            command = ["/bin/sh", "-c", "setsid sleep 600 & echo $!; wait"]
            record, group = running.data / "run/servers/ada..json", tmp_path / "group"
            record.parent.mkdir(exist_ok=True)
            group.mkdir()
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as outer:
                inner = int(outer.stdout.readline())
                known = {"pid": outer.pid, "started_ticks": stat_of(outer.pid).started_ticks}
                record.write_text(json.dumps({**known, "control_groups": [str(group)]}))
                running.start()
            assert ask(running, "/hub/health")[0] == 200
            wait_until(lambda: stat_of(inner) is None or stat_of(inner).state == "Z", within_s=20, what="its end")
            assert not record.exists()
            assert not group.exists()

    def test_a_start_and_an_end_log_no_error(self, tmp_path: Path):
        with running_platform(tmp_path, config=LEAN) as running:
            assert running.stop() == 0
            logged = (running.data / "logs/services.log").read_text().splitlines()
            assert logged
            assert not [line for line in logged if json.loads(line).get("level") in {"error", "critical"}]

    def test_a_part_that_cannot_start_is_named_and_nothing_is_left(self, tmp_path: Path):
        data = DataFolder(tmp_path / "data")
        data.make()
        (data.databases / "jupyterhub.sqlite").write_bytes(b"no database" * 1000)
        running = Platform(data=data.root, port=free_port())
        with (tmp_path / "data.out").open("wb") as out:
            running.process = subprocess.Popen([*COMMAND, "up"], env=running.variables, stdout=out, stderr=out)
        assert running.process.wait(120) == 2
        assert "hub.log" in running.output
        assert "astrocloud: " in running.output.splitlines()[-1]
        assert not descendants(running.process.pid)


def test_the_setup_link_is_printed_until_somebody_has_an_account(tmp_path: Path):
    with running_platform(tmp_path, config=LEAN) as running:
        link = wait_until(
            lambda: re.search(r"^\s*(http://\S+/services/passport/\S+)$", running.output, re.MULTILINE),
            within_s=30,
            what="the set-up link",
        )[1]
        assert link.startswith(running.url)
        assert ask(running, link.removeprefix(running.url))[0] == 200
        running.add("ada", "a long enough password", "--admin")
        first = json.loads((running.data / "run/runtime.json").read_text())
        assert running.stop() == 0
        running.start()
        wait_until(lambda: running.run("status").returncode == 0, within_s=30, what="every part to be well")
        assert "/services/passport/" not in running.output
        second = json.loads((running.data / "run/runtime.json").read_text())
        assert [second[name] for name in ("hub_port", "bytes_port")] == [first["hub_port"], first["bytes_port"]]


def test_nobody_gets_the_port_of_bytes_while_the_services_start_anew(tmp_path: Path):
    port = free_port()
    with running_platform(tmp_path, config=LEAN, ASTROCLOUD_BYTES_PORT=str(port)) as running:
        os.kill(running.part("services"), signal.SIGKILL)
        with pytest.raises(OSError, match="in use"):
            socket.create_server(("127.0.0.1", port))
        # Whoever asks meanwhile is answered when they are back.
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/services/vospace/files/home/ada/f", timeout=60)
        with refused.value as answer:
            assert answer.code == 403


def test_it_speaks_the_language_of_the_terminal(tmp_path: Path):
    with running_platform(tmp_path, config=LEAN, LANG="zh_CN.UTF-8") as running:
        assert "正在启动" in running.output
        # The ready line is for programs too, so it is the same in every language.
        assert f"Astrocloud is ready: {running.url}\n" in running.output


def test_listening_everywhere_without_a_public_address_is_said(tmp_path: Path) -> None:
    with running_platform(tmp_path, ASTROCLOUD_BIND="0.0.0.0") as open_to_all:
        assert "public_url" in wait_until(
            lambda: "public_url" in open_to_all.output and open_to_all.output, within_s=10, what="the advice"
        )
