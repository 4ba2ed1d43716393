"""What a server can reach, tried from inside a real one: nothing of other people, of the platform, of the machine."""

import json
import os

import pytest

from tests.hub.harness import Platform, until

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="people have user ids of their own only where root runs the platform"
)


@pytest.fixture(scope="module")
def servers(platform: Platform) -> Platform:
    """Servers of ada and ben."""
    for name in ("ada", "ben"):
        platform.sign_in(name)
        platform.start_server(name)
    return platform


def test_it_runs_as_its_person_without_any_capability(servers: Platform) -> None:
    status = servers.run("ada", "print(open('/proc/self/status').read())")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["Uid"].split() == ["20001"] * 4
    assert fields["Gid"].split() == ["20001"] * 4
    assert fields["Groups"].split() == ["20001", "30001"]
    assert {fields[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
    assert fields["NoNewPrivs"] == "1"


def test_nothing_of_root_remains_inside(servers: Platform) -> None:
    code = "import os; print({os.stat(f'/proc/{p}').st_uid for p in os.listdir('/proc') if p.isdigit()})"
    assert servers.run("ada", code) == "{20001}"


def test_it_sees_only_its_own_part_of_the_file_tree(servers: Platform) -> None:
    code = "import os; print([sorted(os.listdir(d)) for d in ('/home', '/project', '/archive', '/course')])"
    assert servers.run("ada", code) == "[['ada'], ['survey'], [], []]"
    assert servers.run("ben", code) == "[['ben'], [], [], []]"


@pytest.mark.parametrize("what", ["databases", "secrets", "run", "logs", "tree"])
def test_the_platforms_folders_are_not_there(servers: Platform, what: str) -> None:
    folder = getattr(servers.data, what)
    assert servers.run("ada", f"import os; print(os.listdir({str(folder)!r}))").startswith("!FileNotFoundError")


@pytest.mark.parametrize("path", ["/root", "/etc/shadow", "/var/lib", "/boot", "/sys", "/mnt", "/etc/ssl/private"])
def test_the_machines_files_are_not_there(servers: Platform, path: str) -> None:
    assert servers.run("ada", f"import os; print(os.path.exists({path!r}))") == "False"


def test_only_its_own_names_are_known(servers: Platform) -> None:
    code = "import pwd, grp; print([p.pw_name for p in pwd.getpwall()], [g.gr_name for g in grp.getgrall()])"
    assert servers.run("ada", code) == ("['root', 'ada', 'nobody'] ['root', 'tty', 'ada', 'survey', 'nogroup']")


def test_others_processes_are_not_there_to_read_or_to_signal(servers: Platform) -> None:
    record = servers.records.read("ben", "")
    assert record is not None
    assert record.init is not None
    assert servers.hub is not None
    for pid in (record.init.pid, servers.hub.pid):
        assert servers.run("ada", f"print(open('/proc/{pid}/environ').read())").startswith("!FileNotFoundError")
        assert servers.run("ada", f"import os; os.kill({pid}, 0)").startswith("!ProcessLookupError")
    count = int(servers.run("ada", "import os; print(sum(p.isdigit() for p in os.listdir('/proc')))"))
    assert count <= 4


def test_its_secrets_are_in_nobodys_command_line(servers: Platform) -> None:
    token = servers.run("ada", "import os; print(os.environ['JUPYTERHUB_API_TOKEN'])")
    assert len(token) >= 32
    shown = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                shown.append(file.read().decode("utf-8", "replace"))
        except OSError:
            continue
    assert any("astrocloud-server" in line for line in shown)
    assert not any(token in line for line in shown)


def test_nothing_of_the_hubs_environment_is_in_its_own(servers: Platform) -> None:
    names = json.loads(servers.run("ada", "import os, json; print(json.dumps(sorted(os.environ)))"))
    assert "A_SECRET_OF_THE_PLATFORM" not in names
    allowed = ("JUPYTERHUB_", "ASTROCLOUD_", "OMP_", "OPENBLAS_", "MKL_", "DASK_DISTRIBUTED__COMM__")
    plain = {name for name in names if not name.startswith(allowed)}
    assert plain <= {
        "HOME", "USER", "LOGNAME", "SHELL", "LANG", "PATH", "PWD", "OLDPWD", "_", "SHLVL", "MEM_LIMIT", "CPU_LIMIT",
        "JPY_API_TOKEN", "LC_CTYPE",
    }  # fmt: skip
    assert servers.run("ada", "import os; print(os.environ.get('ASTROCLOUD_DATA'))") == "None"


@pytest.mark.parametrize("path", ["/x", "/usr/x", "/etc/x", "/archive/x", "/home/x", "/project/x", "/dev/x"])
def test_nothing_but_its_own_folders_can_be_written(servers: Platform, path: str) -> None:
    assert servers.run("ada", f"open({path!r}, 'w')").startswith(("!PermissionError", "!OSError"))


@pytest.mark.parametrize("path", ["/home/ada/x", "/project/survey/x", "/tmp/x", "/dev/shm/x", "/var/tmp/x"])
def test_its_own_folders_can_be_written(servers: Platform, path: str) -> None:
    assert servers.run("ada", f"print(open({path!r}, 'w').write('1'))") == "1"


def test_tmp_is_private_and_bounded(servers: Platform) -> None:
    servers.run("ada", "open('/tmp/private', 'w')")
    assert servers.run("ben", "import os; print(os.path.exists('/tmp/private'))") == "False"
    size = servers.run("ada", "import os; s = os.statvfs('/tmp'); print(s.f_blocks * s.f_frsize)")
    assert int(size) == 128 * 2**20
    assert servers.run("ada", "import os; print(oct(os.stat('/tmp').st_mode & 0o7777))") == "0o1777"


def test_a_home_is_its_persons_and_a_project_its_groups(servers: Platform) -> None:
    home = (servers.data.tree / "home" / "ada").stat()
    assert (home.st_uid, home.st_gid, home.st_mode & 0o7777) == (20001, 20001, 0o700)
    project = (servers.data.tree / "project" / "survey").stat()
    assert (project.st_uid, project.st_gid, project.st_mode & 0o7777) == (0, 30001, 0o2770)
    servers.run("ada", "open('/project/survey/shared', 'w')")
    shared = (servers.data.tree / "project" / "survey" / "shared").stat()
    assert (shared.st_uid, shared.st_gid, shared.st_mode & 0o777) == (20001, 30001, 0o660)


def test_a_link_in_a_home_leads_nowhere_else(servers: Platform) -> None:
    target = servers.data.secrets / "internal"
    servers.run("ada", f"import os; os.path.lexists('/home/ada/link') or os.symlink({str(target)!r}, '/home/ada/link')")
    assert servers.run("ada", "print(open('/home/ada/link').read())").startswith("!FileNotFoundError")


def test_mounting_and_becoming_root_are_refused(servers: Platform) -> None:
    mount = "import ctypes, os; l = ctypes.CDLL(None, use_errno=True); "
    assert servers.run("ada", mount + "print(l.mount(b'x', b'/tmp', b'tmpfs', 0, None))") == "-1"
    assert servers.run("ada", "import os; os.setuid(0)").startswith("!PermissionError")
    assert servers.run("ada", "import os; os.chroot('/tmp')").startswith("!PermissionError")


def test_a_setuid_program_gives_nothing(servers: Platform) -> None:
    code = (
        "import shutil, os, subprocess; shutil.copy('/usr/bin/id', '/home/ada/id'); os.chmod('/home/ada/id', 0o4755); "
        "print(subprocess.run(['/home/ada/id', '-u'], capture_output=True, text=True).stdout)"
    )
    assert servers.run("ada", code) == "20001"
    assert (
        servers.run(
            "ada", "import subprocess; print(subprocess.run(['su', '-c', 'id'], capture_output=True).returncode)"
        )
        != "0"
    )


def test_ipc_and_host_name_are_its_own(servers: Platform) -> None:
    namespaces = {
        kind: (
            servers.run("ada", f"import os; print(os.readlink('/proc/self/ns/{kind}'))"),
            os.readlink(f"/proc/self/ns/{kind}"),
        )
        for kind in ("mnt", "pid", "ipc", "uts", "cgroup")
    }
    assert all(inside != outside for inside, outside in namespaces.values()), namespaces
    assert servers.run("ada", "import socket; print(socket.gethostname())") == "astrocloud"


def test_an_orphan_is_collected(servers: Platform) -> None:
    servers.run("ada", "import os\nif os.fork() == 0:\n    os.fork()\n    os._exit(0)\nos.wait()")
    states = (
        "print([open(f'/proc/{p}/stat').read().split()[2] for p in __import__('os').listdir('/proc') if p.isdigit()])"
    )
    until(lambda: "Z" not in servers.run("ada", states), what="no zombie is left")


def test_interrupting_a_child_works(servers: Platform) -> None:
    code = """
import signal, subprocess, sys
child = [sys.executable, "-c", "import time; print(1, flush=True); time.sleep(60)"]
p = subprocess.Popen(child, stdout=subprocess.PIPE)
p.stdout.readline()
p.send_signal(signal.SIGINT)
print(p.wait(20))
"""
    assert servers.run("ada", code) == str(-2)
