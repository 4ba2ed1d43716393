"""Platforms run by a plain user, without bubblewrap, and with a real single-user server."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.hub.harness import HERE, Platform, until

PLAIN = 54321
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can run a platform as somebody else")


def can_read_the_project() -> bool:
    command = ["setpriv", f"--reuid={PLAIN}", f"--regid={PLAIN}", "--clear-groups", "--"]
    tried = subprocess.run(
        [*command, sys.executable, "-c", f"open({str(HERE / 'harness.py')!r})"], capture_output=True, check=False
    )
    return tried.returncode == 0


def forbidden(folder: Path) -> str:
    """Return a search path with a bubblewrap that cannot make a sandbox."""
    (folder / "bwrap").write_text("#!/bin/sh\necho 'bwrap: Creating new namespace failed' >&2\nexit 1\n")
    (folder / "bwrap").chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


@pytest.fixture(scope="module")
def platform(start_platform: Callable[..., Platform]) -> Platform:
    """A platform that a plain user runs, with the servers of two people."""
    if not can_read_the_project():
        pytest.skip("another user cannot read this source tree")
    platform = start_platform(uid=PLAIN, config="servers: {isolation: required}\n")
    for name in ("ada", "ben"):
        platform.sign_in(name)
        platform.start_server(name)
    return platform


@needs_root
class TestRunByAPlainUser:
    def test_people_have_their_own_ids_inside(self, platform: Platform) -> None:
        code = "import os; print(os.getuid(), os.getgid(), os.getcwd(), sorted(os.listdir('/home')))"
        assert platform.run("ada", code) == "20001 20001 /home/ada ['ada']"
        assert platform.run("ben", "import os; print(os.getuid(), os.listdir('/home'))") == "20002 ['ben']"
        assert (platform.data.tree / "home" / "ada").stat().st_uid == PLAIN

    def test_the_platforms_secrets_and_other_people_are_out_of_reach(self, platform: Platform) -> None:
        for path in (platform.data.secrets / "internal", platform.data.tree / "home" / "ben"):
            assert platform.run("ada", f"import os; print(os.path.exists({str(path)!r}))") == "False"
        record = platform.records.read("ben", "")
        assert record is not None
        assert record.init is not None
        assert platform.run("ada", f"import os; os.kill({record.init.pid}, 0)").startswith("!ProcessLookupError")
        count = int(platform.run("ada", "import os; print(sum(p.isdigit() for p in os.listdir('/proc')))"))
        assert count <= 3

    def test_the_sandbox_cannot_be_written_outside_of_its_folders(self, platform: Platform) -> None:
        for path in ("/x", "/usr/x", "/etc/x", "/dev/x"):
            assert platform.run("ada", f"open({path!r}, 'w')").startswith(("!PermissionError", "!OSError")), path
        for path in ("/home/ada/x", "/project/survey/x", "/tmp/x", "/dev/shm/x"):
            assert platform.run("ada", f"print(open({path!r}, 'w').write('1'))") == "1"

    def test_limits_hold_without_control_groups(self, platform: Platform) -> None:
        assert platform.run("ada", "x = bytearray(2**29)").startswith("!MemoryError")
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
    print(err.errno == 11, len(pids) <= 64)
for pid in pids:
    os.kill(pid, 9)
    os.waitpid(pid, 0)
"""
        assert platform.run("ada", bomb) == "True True"

    def test_stopping_leaves_nothing(self, platform: Platform) -> None:
        record = platform.records.read("ben", "")
        assert record is not None
        model = platform.stop_server("ben")
        assert model["state"]["last_end"]["reason"] == "stopped"
        assert not record.alive


class TestWithoutBubblewrap:
    def test_it_starts_and_says_so_where_that_is_allowed(self, start_platform: Callable[..., Platform]) -> None:
        platform = start_platform(settings={"PATH": "/nonexistent"})
        platform.sign_in("ada")
        model = platform.start_server("ada")
        assert model["state"]["walls"] is False
        home = platform.data.tree / "home" / "ada"
        code = "import os; print(os.getuid(), os.getcwd(), os.environ['ASTROCLOUD_WITHOUT_WALLS'])"
        assert platform.run("ada", code) == f"{20001 if os.geteuid() == 0 else os.geteuid()} {home} 1"
        record = platform.records.read("ada", "")
        assert record is not None
        platform.stop_server("ada")
        assert not record.alive

    def test_it_refuses_where_it_is_not(self, start_platform: Callable[..., Platform]) -> None:
        platform = start_platform(settings={"PATH": "/nonexistent"}, config="servers: {isolation: required}\n")
        platform.sign_in("ada")
        answer = platform.api("POST", "/users/ada/server", body={})
        assert (answer.status, answer.json()["code"]) == (503, "isolation-missing")

    def test_one_that_is_forbidden_is_as_none(self, start_platform: Callable[..., Platform], tmp_path: Path) -> None:
        platform = start_platform(settings={"PATH": forbidden(tmp_path)})
        browser = platform.sign_in("ada")
        assert platform.start_server("ada")["state"]["walls"] is False
        assert "People are not kept apart" in browser.open("/hub/home").text

    @pytest.mark.parametrize(("there", "code"), [(True, "server-exited"), (False, "isolation-missing")])
    def test_nobody_can_make_others_servers_start_without(
        self, start_platform: Callable[..., Platform], tmp_path: Path, there: bool, code: str
    ) -> None:
        # It worked when the platform started; then somebody used up what it needs.
        path = forbidden(tmp_path) if there else "/nonexistent"
        platform = start_platform(settings={"PATH": path, "ASTROCLOUD_KEPT_APART": "1"})
        platform.sign_in("ada")
        answer = platform.api("POST", "/users/ada/server", body={})
        assert answer.json()["code"] == code
        until(lambda: not platform.server("ada").get("pending"))
        assert not platform.server("ada").get("ready")


@pytest.mark.slow
@pytest.mark.parametrize("module", ["jupyterhub.singleuser", "astrocloud_lab.serve"])
def test_a_real_server_lets_its_person_in_and_nobody_else(
    start_platform: Callable[..., Platform], astro_python: object, module: str
) -> None:
    environment = os.path.dirname(os.path.dirname(str(astro_python)))
    platform = start_platform(
        settings={
            "TEST_REAL_ENVIRONMENT": environment,
            "TEST_REAL_MODULE": module,
            "TEST_SETTING_LocalSpawner__ready_timeout_s": "120",
        }
    )
    ada, ben = platform.sign_in("ada"), platform.sign_in("ben")
    platform.start_server("ada", resources="large")
    page = ada.open("/user/ada/lab")
    assert page.status == 200, (page.url, page.text[:500], ada.trail)
    mine = ada.open("/user/ada/api/status", headers={"Accept": "application/json"})
    assert (mine.status, "kernels" in mine.json()) == (200, True)
    assert ben.open("/user/ada/lab").status == 403
    assert ben.open("/user/ada/api/status").status == 403
    model = platform.stop_server("ada")
    assert model["state"]["last_end"]["reason"] == "stopped"
