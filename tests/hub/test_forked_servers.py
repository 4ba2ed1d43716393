"""Forked servers: no difference to one that was started as usual, and what happens when forking fails."""

import json
import os
import re
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from astrocloud_hub.spawners.parents import NotForkedError, outcome
from tests.hub.harness import Platform, until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root enters the sandboxes of others")

LOOK = """
import ctypes, json, os, resource, signal
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
names = [name for name in os.listdir("/proc/self/ns") if not name.endswith("_for_children")]
prctl = ctypes.CDLL(None).prctl
print(json.dumps({
    "status": {name: status[name].split() for name in (
        "Umask", "Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp",
        "SigBlk", "SigIgn", "SigCgt")},
    "levels": len(status["NSpid"].split()),
    "as process 1": {name: os.readlink(f"/proc/self/ns/{name}") == os.readlink(f"/proc/1/ns/{name}") for name in names},
    "namespaces": {name: os.readlink(f"/proc/self/ns/{name}") for name in names},
    "files": {fd: os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
              if os.path.exists(f"/proc/self/fd/{fd}") or os.path.islink(f"/proc/self/fd/{fd}")},
    "environ": dict(os.environ),
    "limits": {name: resource.getrlimit(getattr(resource, name)) for name in dir(resource) if name[:7] == "RLIMIT_"},
    "cwd": os.getcwd(),
    "root": sorted(os.listdir("/")),
    "groups of control": open("/proc/self/cgroup").read(),
    "mounts": sorted(line.split(" - ")[1] for line in open("/proc/self/mountinfo")),
    "oom": [open("/proc/self/oom_score_adj").read(), open("/proc/self/oom_score_adj").read()],
    "nice": os.nice(0),
    "processors": sorted(os.sched_getaffinity(0)),
    "dumpable": prctl(3, 0, 0, 0, 0),
    "securebits": prctl(27, 0, 0, 0, 0),
    "end with parent": (lambda number: (prctl(2, ctypes.byref(number), 0, 0, 0), number.value)[1])(ctypes.c_int(-1)),
    "terminal": open("/proc/self/stat").read().rpartition(")")[2].split()[4],
    "owner": os.stat("/proc/self").st_uid,
    "own stat": os.readlink("/proc/self") == str(os.getpid()),
}))
"""
SOON = {"TEST_SETTING_AstrocloudHub__care_interval_s": "1"}
HOST = {name: os.readlink(f"/proc/self/ns/{name}") for name in ("mnt", "pid", "ipc", "uts", "net", "user")}


def look(platform: Platform) -> dict[str, Any]:
    """Return what ada's server sees of itself, without what has to differ from one start to the next."""
    seen: dict[str, Any] = json.loads(platform.run("ada", LOOK))
    seen["namespaces"] = {name: seen["namespaces"][name] == HOST[name] for name in HOST}
    # Sockets have numbers, and the log and the folders of bound files are the platform's own.
    seen["files"] = {
        fd: re.sub(r"\[\d+\]|.*/logs/", "", target) for fd, target in seen["files"].items() if "/proc/" not in target
    }
    for name in list(seen["environ"]):
        # Addresses, tokens and keys, and the folder of the environment.
        if re.match(r"JUPYTERHUB_|.*_URL$|.*__TLS__|PATH$|JPY_API_TOKEN$", name):
            seen["environ"][name] = ""
    return seen


def last_start(platform: Platform) -> dict[str, Any]:
    return platform.events("server-started")[-1]


@pytest.fixture(scope="module", autouse=True)
def hang_ups() -> Iterator[None]:
    """Who runs the tests may have ignored them (``nohup``), and that is inherited by what is not forked."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture(scope="module")
def forked(platform: Platform) -> Platform:
    """A platform with ada's server, forked."""
    platform.sign_in("ada")
    platform.start_server("ada")
    assert last_start(platform)["forked"] is True
    return platform


def test_a_forked_server_is_like_one_that_was_started(
    forked: Platform, start_platform: Callable[..., Platform]
) -> None:
    ordinary = start_platform(settings={"TEST_FORK": "0"})
    ordinary.sign_in("ada")
    ordinary.start_server("ada")
    assert last_start(ordinary)["forked"] is False
    seen, expected = look(forked), look(ordinary)
    assert seen["environ"] == expected["environ"]
    assert seen == expected
    assert seen["namespaces"] == {"mnt": False, "pid": False, "ipc": False, "uts": False, "net": True, "user": True}
    assert all(seen["as process 1"].values())
    assert seen["terminal"] == "0"


def test_only_the_server_itself_has_its_token(forked: Platform) -> None:
    token = forked.run("ada", "import os; print(os.environ['JUPYTERHUB_API_TOKEN'])").encode()
    record = forked.records.read("ada", "")
    assert record is not None
    assert record.outer is not None
    inside = psutil.Process(record.outer.pid).children(recursive=True)
    assert len(inside) >= 4
    for pid in (record.outer.pid, *(process.pid for process in inside), *forked.parents()):
        for name in ("environ", "cmdline"):
            assert token not in Path(f"/proc/{pid}/{name}").read_bytes(), (pid, name)
    (parent,) = forked.parents()
    assert not _in_memory(parent, token)
    server = next(process for process in inside if _in_memory(process.pid, token))
    assert server.uids().real == 20001


def _in_memory(pid: int, wanted: bytes) -> bool:
    """Tell whether a process has `wanted` anywhere in its writable memory."""
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            place, rights = line.split()[:2]
            start, end = (int(number, 16) for number in place.split("-"))
            if rights.startswith("rw"):
                memory.seek(start)
                try:
                    if wanted in memory.read(end - start):
                        return True
                except OSError:  # pages that were never used
                    continue
    return False


def test_the_parent_sees_nothing_of_the_platform_and_can_do_little_else(forked: Platform) -> None:
    (parent,) = forked.parents()
    root = Path(f"/proc/{parent}/root")
    assert not (root / str(forked.data.secrets).lstrip("/")).exists()
    assert not (root / str(forked.data.tree).lstrip("/")).exists()
    assert not (root / "home").exists()
    assert not (root / "root").exists()
    fields = dict(line.split(":\t", 1) for line in Path(f"/proc/{parent}/status").read_text().splitlines())
    # setpcap, setgid, setuid, sys_chroot, sys_ptrace, sys_admin
    assert {int(fields[f"Cap{kind}"], 16) for kind in ("Prm", "Eff", "Bnd")} == {0x2C01C0}
    assert fields["Threads"] == "1"
    assert fields["NoNewPrivs"] == "1"
    kinds = {os.readlink(path).partition(":")[0] for path in Path(f"/proc/{parent}/fd").iterdir()}
    assert kinds <= {"/dev/null", str(forked.data.logs / "parent-stub.log"), "socket"}
    assert len(list(Path(f"/proc/{parent}/fd").iterdir())) == 4


def test_who_waits_for_a_server_holds_nothing_else(forked: Platform) -> None:
    code = (
        "import os; me = os.getppid(); print(open(f'/proc/{me}/comm').read().strip(),"
        " sorted(os.readlink(f'/proc/{me}/fd/{fd}').partition(':')[0] for fd in os.listdir(f'/proc/{me}/fd')),"
        " os.readlink(f'/proc/{me}/cwd'))"
    )
    assert forked.run("ada", code) == "astrocloud-wait ['/dev/null', '/dev/null', '/dev/null', 'pipe'] /"


def test_when_the_one_that_waits_is_killed_the_server_ends(forked: Platform) -> None:
    record = forked.records.read("ada", "")
    assert record is not None
    forked.run("ada", "import os, signal, threading; kill = lambda: os.kill(os.getppid(), 9);"
               " threading.Timer(0.1, kill).start()")  # fmt: skip
    until(lambda: forked.server("ada").get("stopped"), what="its end is noticed")
    end = forked.server("ada")["state"]["last_end"]
    assert (end["reason"], end["exit_code"]) == ("killed", 137)
    assert not [folder for folder in record.control_groups if os.path.exists(folder)]
    forked.start_server("ada")


def test_servers_go_on_without_the_parent_and_the_next_start_needs_none(forked: Platform) -> None:
    mark = forked.run("ada", "import secrets; mark = secrets.token_hex(); print(mark)")
    (parent,) = forked.parents()
    os.kill(parent, signal.SIGKILL)
    until(lambda: not forked.parents(), what="it is gone")
    forked.sign_in("ben")
    forked.start_server("ben")
    assert last_start(forked)["forked"] is False
    assert forked.run("ada", "print(mark)") == mark
    until(forked.parents_ready, what="there is another one")
    forked.stop_server("ben")
    forked.start_server("ben")
    assert last_start(forked)["forked"] is True
    forked.stop_server("ben")


def test_after_something_was_installed_nothing_is_forked_from_before(forked: Platform) -> None:
    (before,) = forked.parents()
    (packages,) = (forked.data.environments / "stub").glob("lib/python*/site-packages")
    (packages / "fresh.py").write_text("")
    forked.start_server("ada", "after")
    assert last_start(forked)["forked"] is False
    until(forked.parents_ready, what="there is another one")
    assert before not in forked.parents()
    forked.stop_server("ada", "after")


def test_the_next_hub_has_a_parent_of_its_own(forked: Platform) -> None:
    (before,) = forked.parents()
    mark = forked.run("ada", "import secrets; mark = secrets.token_hex(); print(mark)")
    forked.kill_hub()
    until(lambda: not psutil.pid_exists(before), what="the parent ended with its hub")
    forked.start_hub()
    assert forked.run("ada", "print(mark)") == mark
    (after,) = forked.parents()
    assert after != before


def test_a_person_whose_home_cannot_be_entered_costs_others_no_parent(start_platform: Callable[..., Platform]) -> None:
    platform = start_platform()
    (parent,) = platform.parents()
    platform.sign_in("ada")
    platform.start_server("ada")
    assert last_start(platform)["forked"] is True
    platform.stop_server("ada")
    home = platform.data.tree / "home" / "ada"
    home.chmod(0)
    answer = platform.api("POST", "/users/ada/server", body={"user_options": {}})
    assert answer.status in {201, 202, 400, 403, 500}, answer.text
    until(lambda: platform.events("server-not-forked"), what="the child gave up")
    until(lambda: not platform.server("ada").get("pending"), seconds=60, what="the start has come to its end")
    assert "PermissionError" in platform.events("server-not-forked")[-1]["reason"]
    assert platform.events("server-parent-ended") == []
    assert platform.parents() == [parent]
    platform.sign_in("ben")
    platform.start_server("ben")
    assert last_start(platform)["forked"] is True


async def told(said: bytes, *, ends: bool = True) -> NotForkedError | None:
    """Return how what a child says is taken."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        theirs.sendall(said)
        if ends:
            theirs.close()
        try:
            await outcome(ours, within_s=20 if ends else 0.01)
        except NotForkedError as err:
            return err
    return None


async def test_only_what_happens_before_a_child_is_the_persons_is_held_against_the_parent() -> None:
    person = b'{"stage": "person"}\n'
    assert await told(person + b'{"pid": 7}\n', ends=False) is None
    assert await told(b'{"pid": 7}\n', ends=False) is None
    for said, ends in (
        (b'{"error": "x"}\n', True),
        (b"x" * 10_000, False),
        (b"[" * 2000 + b"\n", True),
        (b"7\n", True),
        (b"", False),
    ):
        for before, by_parent in ((b"", True), (person, False)):
            fault = await told(before + said, ends=ends)
            assert fault is not None, said
            assert fault.by_parent is by_parent, (before, said)
    for said in (b"", person):
        fault = await told(said)
        assert fault is not None
        assert fault.by_parent is False  # its parent may live, and is looked at


def test_a_parent_that_does_not_answer_is_given_up(start_platform: Callable[..., Platform]) -> None:
    platform = start_platform(settings={"TEST_SETTING_LocalSpawner__fork_timeout_s": "1"})
    (parent,) = platform.parents()
    os.kill(parent, signal.SIGSTOP)
    platform.sign_in("ada")
    platform.start_server("ada")
    assert last_start(platform)["forked"] is False
    assert platform.events("server-not-forked")[-1]["reason"] == "no answer within 1.0 s"
    until(lambda: not psutil.pid_exists(parent), what="the parent is gone")
    assert platform.run("ada", "print(6 * 7)") == "42"


def test_a_server_that_cannot_run_when_forked_is_started(start_platform: Callable[..., Platform]) -> None:
    platform = start_platform(settings={**SOON, "TEST_SETTING_LocalSpawner__fork_timeout_s": "2"})
    (packages,) = (platform.data.environments / "stub").glob("lib/python*/site-packages")
    lab = packages / "astrocloud_lab" / "serve.py"
    lab.write_text("def main(arguments):\n    raise ImportError('broken by a test')\n")
    os.kill(platform.parents()[0], signal.SIGKILL)
    until(platform.parents_ready, what="a parent with the broken server")
    platform.sign_in("ada")
    platform.start_server("ada")
    assert last_start(platform)["forked"] is False
    assert "broken by a test" in platform.events("server-not-forked")[-1]["reason"]
    lab.write_text("import time\n\ndef main(arguments):\n    time.sleep(60)\n")
    os.utime(packages)
    until(platform.parents_ready, what="a parent with the hanging server")
    platform.stop_server("ada")
    platform.start_server("ada")
    assert last_start(platform)["forked"] is False
    assert "2 s" in platform.events("server-not-forked")[-1]["reason"]
