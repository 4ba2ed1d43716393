"""Limits hold, and the end of a server has a reason that stays."""

import os
import signal
import time
from collections.abc import Callable

import pytest

from astrocloud_hub.spawners import limits
from tests.hub.harness import Platform, until

HELD = limits.probe().kind != "rlimit"
needs_groups = pytest.mark.skipif(not HELD, reason="no control groups can be written on this machine")


@pytest.fixture(autouse=True)
def _ada(platform: Platform) -> None:
    if not platform.records.read("ada", ""):
        platform.sign_in("ada")


def start(platform: Platform, **options: str) -> None:
    model = platform.server("ada")
    if model.get("ready"):
        platform.stop_server("ada")
    platform.start_server("ada", **options)


def ended(platform: Platform) -> dict[str, object]:
    until(lambda: platform.server("ada").get("stopped"), what="the server is known to have ended")
    return dict(platform.server("ada")["state"]["last_end"])


@needs_groups
def test_one_that_takes_too_much_memory_is_killed_and_says_so(platform: Platform) -> None:
    start(platform)
    with pytest.raises((OSError, AssertionError)):  # the connection breaks, or the proxy says that nobody is there
        platform.run("ada", "x = [bytearray(2**24) for _ in range(64)]")
    end = ended(platform)
    assert (end["reason"], end["exit_code"]) == ("out-of-memory", 137)


@needs_groups
def test_a_child_that_takes_too_much_is_counted_and_the_server_lives(platform: Platform) -> None:
    start(platform)
    hog = (
        "import subprocess, sys; p = subprocess.run([sys.executable, '-c', "
        "\"open('/proc/self/oom_score_adj', 'w').write('900'); x = [bytearray(2**24) for _ in range(64)]\"]); "
        "print(p.returncode)"
    )
    assert platform.run("ada", hog) == "-9"
    model = platform.server("ada")
    assert model["ready"]
    assert model["state"]["oom_kills"] == 1


@needs_groups
def test_a_kill_long_after_one_for_memory_is_none_for_memory(start_platform: Callable[..., Platform]) -> None:
    platform = start_platform(settings={"TEST_SETTING_Spawner__poll_interval": "1"})
    platform.sign_in("ada")
    platform.start_server("ada")
    hog = "open('/proc/self/oom_score_adj', 'w').write('900'); x = [bytearray(2**24) for _ in range(64)]"
    platform.run("ada", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hog!r}])")
    until(
        lambda: platform.server("ada")["state"]["oom_kills_survived"] == 1, what="it is noticed that the server lives"
    )
    record = platform.records.read("ada", "")
    assert record is not None
    assert record.init is not None
    os.kill(record.init.pid, signal.SIGKILL)
    assert ended(platform)["reason"] == "killed"


def test_a_larger_size_has_more_memory(platform: Platform) -> None:
    start(platform, resources="large")
    assert platform.run("ada", "import os; print(os.environ['MEM_LIMIT'])") == str(512 * 2**20)
    if HELD:
        assert platform.run("ada", "x = [bytearray(2**24) for _ in range(20)]; print(len(x)); del x") == "20"


def test_a_fork_bomb_stops_at_the_limit(platform: Platform) -> None:
    start(platform)
    bomb = """
import os, time
pids = []
try:
    while len(pids) < 500:
        pid = os.fork()
        if pid == 0:
            time.sleep(60)
            os._exit(0)
        pids.append(pid)
except OSError as err:
    print(err.errno == 11, len(pids) < 64)
for pid in pids:
    os.kill(pid, 9)
    os.waitpid(pid, 0)
"""
    assert platform.run("ada", bomb) == "True True"


def test_one_that_ends_by_itself_tells_its_exit_code_at_once(platform: Platform) -> None:
    start(platform)
    before = time.monotonic()
    platform.run("ada", "import threading, os; threading.Timer(0.2, lambda: os._exit(7)).start()")
    end = ended(platform)
    assert (end["reason"], end["exit_code"]) == ("exited", 7)
    # Polling alone would take up to ten seconds.
    assert time.monotonic() - before < 8


def test_one_that_is_killed_from_outside_says_so(platform: Platform) -> None:
    start(platform)
    record = platform.records.read("ada", "")
    assert record is not None
    assert record.init is not None
    os.kill(record.init.pid, signal.SIGKILL)
    assert ended(platform)["reason"] == "killed"


def test_one_that_is_stopped_names_who_did_it(platform: Platform) -> None:
    start(platform)
    made = platform.api("POST", "/users/ada/tokens", body={"note": "test"}).json()
    platform.stop_server("ada", token=made["token"])
    end = ended(platform)
    assert (end["reason"], end["by"], end["exit_code"]) == ("stopped", "ada", 0)


def test_one_that_ignores_the_request_to_end_is_ended_by_force(platform: Platform) -> None:
    start(platform)
    code = "import signal, os; os.kill(os.getppid(), signal.SIGSTOP)"
    platform.run("ada", code)
    platform.stop_server("ada")
    assert ended(platform)["reason"] == "stopped"
    assert platform.records.read("ada", "") is None


def test_one_that_ends_while_starting_tells_its_last_words_at_once(platform: Platform) -> None:
    if platform.server("ada").get("ready"):
        platform.stop_server("ada")
    told = platform.data.tree / "home" / "ada" / "stub.json"
    told.write_text('{"exit": 3, "words": "ImportError: no module named survey"}')
    try:
        answer = platform.api("POST", "/users/ada/server", body={"user_options": {}}, language="zh")
        assert answer.status == 500
        problem = answer.json()
        assert problem["code"] == "server-exited"
        assert "退出码 3" in problem["detail"]
        assert "no module named survey" in problem["detail"]
        end = platform.server("ada")["state"]["last_end"]
        assert (end["reason"], end["code"], end["exit_code"]) == ("failed", "server-exited", 3)
    finally:
        told.unlink()


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"environment": "moon"}, "environment-unknown"),
        ({"resources": "huge"}, "environment-resources"),
        ({"image": "x"}, "server-option-unknown"),
        ({"environment": ["stub"]}, "server-option-value"),
        ({"next": "https://evil.example/"}, "server-option-value"),
        ({"next": "//evil.example/"}, "server-option-value"),
    ],
)
def test_an_option_that_is_not_allowed_is_refused_with_its_reason(
    platform: Platform, options: dict[str, object], code: str
) -> None:
    if platform.server("ada").get("ready"):
        platform.stop_server("ada")
    answer = platform.api("POST", "/users/ada/server", body={"user_options": options})
    assert (answer.status // 100, answer.json()["code"]) == (4, code)


def test_an_idle_one_is_stopped_but_a_busy_one_is_not(start_platform: Callable[..., Platform]) -> None:
    settings = {"TEST_SETTING_AstrocloudHub__care_interval_s": "1"}
    platform = start_platform(config="servers: {idle_timeout_s: 2}\n", settings=settings)
    platform.sign_in("ada")
    platform.start_server("ada")
    platform.run("ada", "STATE['kernels'].append({'execution_state': 'busy'}); asked = []")
    platform.start_server("ada", "second")
    until(lambda: platform.server("ada", "second").get("stopped"), what="the idle one is stopped")
    assert platform.server("ada", "second")["state"]["last_end"]["reason"] == "idle"
    assert platform.server("ada")["ready"]
    platform.run("ada", "STATE['kernels'].clear()")
    until(lambda: platform.server("ada").get("stopped"), what="the other one, idle now")


def test_an_answer_of_one_persons_server_keeps_nobody_from_looking_after_the_others(
    start_platform: Callable[..., Platform],
) -> None:
    settings = {"TEST_SETTING_AstrocloudHub__care_interval_s": "1"}
    platform = start_platform(config="servers: {idle_timeout_s: 2}\n", settings=settings)
    home = platform.data.tree / "home" / "ada"
    home.mkdir()
    (home / "stub.json").write_text('{"kernels": 5}')  # no list of kernels
    for name in ("ada", "ben"):
        platform.sign_in(name)
        platform.start_server(name)
    until(lambda: platform.server("ben").get("stopped"), what="the idle one is stopped")
    assert platform.server("ada")["ready"]


def test_a_log_that_a_person_fills_stays_short(start_platform: Callable[..., Platform]) -> None:
    platform = start_platform(settings={"TEST_SETTING_AstrocloudHub__care_interval_s": "1"})
    platform.sign_in("ada")
    platform.start_server("ada")
    log = platform.data.logs / "servers" / "ada..log"
    platform.run(
        "ada", "import os; [os.write(2, b'y' * 999_999 + bytes([10])) for _ in range(11)]; os.write(2, b'end')"
    )
    until(lambda: log.stat().st_size < 1_000_000, what="it is begun anew")
    kept = log.with_name(f"{log.name}.1").read_bytes()
    assert kept.endswith(b"end")
    assert len(kept) <= 1_000_000
