"""Servers outlive the hub and the proxy, however they end."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import psutil
import pytest

from astrocloud_hub.spawners.records import Records
from tests.hub.harness import Platform, until


@pytest.fixture(autouse=True)
def _running(platform: Platform) -> None:
    if platform.hub is None or platform.hub.poll() is not None:
        platform.start_hub()
    if not platform.server("ada").get("ready"):
        platform.sign_in("ada")
        platform.start_server("ada")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_server_outlives_the_hub_and_is_found_again(platform: Platform, number: int) -> None:
    pid = platform.run("ada", "import os, secrets; mark = secrets.token_hex(); print(os.getppid(), mark)")
    platform.kill_hub(number)
    assert platform.run_directly("ada", "import os; print(os.getppid(), mark)") == pid
    platform.start_hub()
    assert platform.server("ada")["ready"]
    assert platform.run("ada", "import os; print(os.getppid(), mark)") == pid


def test_a_server_found_again_is_watched_stopped_and_its_end_known(platform: Platform) -> None:
    platform.kill_hub()
    platform.start_hub()
    platform.run("ada", "import threading, os; threading.Timer(0.2, lambda: os._exit(9)).start()")
    until(lambda: platform.server("ada").get("stopped"), what="its end is noticed")
    end = platform.server("ada")["state"]["last_end"]
    # The exit code of a process that is not the hub's child comes from what bwrap wrote down.
    assert (end["reason"], end["exit_code"]) == ("exited", 9)
    platform.start_server("ada")
    platform.kill_hub()
    platform.start_hub()
    record = platform.records.read("ada", "")
    assert record is not None
    platform.stop_server("ada")
    assert not record.alive


def test_one_that_ended_while_the_hub_was_away_tells_why(platform: Platform) -> None:
    platform.kill_hub()
    platform.run_directly("ada", "import threading, os; threading.Timer(0.2, lambda: os._exit(5)).start()")
    record = platform.records.read("ada", "")
    assert record is not None
    until(lambda: not record.alive)
    platform.start_hub()
    until(lambda: platform.server("ada").get("stopped"))
    end = platform.server("ada")["state"]["last_end"]
    assert (end["reason"], end["exit_code"]) == ("exited", 5)


def test_one_that_started_while_the_hub_was_killed_is_found(platform: Platform) -> None:
    platform.stop_server("ada")
    platform.api("POST", "/users/ada/server", body={})
    # At once: the hub has not kept the server's state in its database then, only the record tells of it.
    platform.kill_hub()
    record = platform.records.read("ada", "")
    platform.start_hub()
    if record is None:
        until(lambda: not platform.server("ada").get("pending"))
        return
    until(lambda: platform.server("ada").get("ready") or not record.alive, what="it is adopted, or ended")


def test_a_proxy_that_was_killed_gets_its_routes_from_the_hub(platform: Platform) -> None:
    assert platform.proxy is not None
    mark = platform.run("ada", "import secrets; mark = secrets.token_hex(); print(mark)")
    platform.proxy.kill()
    platform.proxy.wait(10)
    platform.start_proxy()
    # What the supervisor does, too.
    until(lambda: _restored(platform), what="the hub restores the routes")
    assert platform.run("ada", "print(mark)") == mark


def _restored(platform: Platform) -> bool:
    return platform.api("POST", "/proxy").status == 200


def test_all_servers_can_be_ended_from_their_records(start_platform: Callable[..., Platform]) -> None:
    platform = start_platform()
    platform.sign_in("ada")
    platform.start_server("ada")
    platform.start_server("ada", "second")
    platform.kill_hub(signal.SIGTERM)
    records = list(platform.records)
    assert [record.alive for record in records] == [True, True]
    environment = {**os.environ, "ASTROCLOUD_DATA": str(platform.data.root)}
    subprocess.run([sys.executable, "-m", "astrocloud_hub.spawners.end"], env=environment, check=True, timeout=60)
    assert not any(record.alive for record in records)
    assert list(Records(platform.data.run / "servers")) == []
    platform.start_hub()
    until(lambda: platform.server("ada").get("stopped"))
    assert platform.server("ada")["state"]["last_end"]["reason"] == "platform-stop"


def test_ended_servers_leave_no_process_and_no_control_group(platform: Platform) -> None:
    record = platform.records.read("ada", "")
    assert record is not None
    platform.stop_server("ada")
    assert platform.records.read("ada", "") is None
    assert not [folder for folder in record.control_groups if os.path.exists(folder)]
    assert platform.hub is not None
    states = [process.status() for process in psutil.Process(platform.hub.pid).children()]
    assert psutil.STATUS_ZOMBIE not in states


def test_several_servers_of_one_person_up_to_the_limit(platform: Platform) -> None:
    platform.sign_in("ben")
    for name in ("", "two", "three"):
        platform.start_server("ben", name)
    assert platform.run("ben", "print(1)", "three") == "1"
    answer = platform.api("POST", "/users/ben/servers/four", body={})
    assert (answer.status, answer.json()["code"]) == (409, "server-limit")
    for name in ("", "two", "three"):
        platform.stop_server("ben", name)


def test_eight_people_start_at_once(platform: Platform) -> None:
    names = [f"pupil-{number}" for number in range(8)]
    for number, name in enumerate(names):
        platform.services.add(name, 21000 + number)
        platform.sign_in(name)
    before = time.monotonic()
    for name in names:
        assert platform.api("POST", f"/users/{name}/server", body={}).status in {201, 202}
    for name in names:
        until(lambda name=name: platform.server(name).get("ready"), seconds=60)
    assert time.monotonic() - before < 60
    assert {platform.run(name, "import os; print(os.getuid())") for name in names} == {str(21000 + n) for n in range(8)}
    for name in names:
        platform.stop_server(name)
