"""The commands that make sandboxes, compared whole."""

from dataclasses import replace
from pathlib import Path

import pytest

from astrocloud_hub.errors import HubError
from astrocloud_hub.spawners import view
from astrocloud_hub.spawners.models import Group, Person
from astrocloud_hub.spawners.sandbox import ENTER, INIT, Bind, Programs, Sandbox, argv, argv_without_walls

ADA = Person(username="ada", uid=20001, gid=20001, groups=(Group(name="survey", gid=30001),))
PROGRAMS = Programs(bwrap="/usr/bin/bwrap", setpriv="/usr/bin/setpriv", prlimit="/usr/bin/prlimit")
SANDBOX = Sandbox(
    person=ADA,
    as_root=True,
    symlinks=(("usr/bin", "/bin"), ("usr/lib", "/lib")),
    binds=(
        Bind(source="/usr", target="/usr"),
        Bind(source="/etc/ssl/certs", target="/etc/ssl/certs"),
        Bind(source="/data/environments/astro-1", target="/data/environments/astro-1"),
        Bind(source="/data/tree/home/ada", target="/home/ada", writable=True),
        Bind(source="/data/tree/project/survey", target="/project/survey", writable=True),
        Bind(source="/data/tree/archive", target="/archive"),
    ),
    folders=("/home", "/project", "/archive"),
    command=("/data/environments/astro-1/bin/python", "-m", "astrocloud_lab.serve"),
    chdir="/home/ada",
    tmp_bytes=1073741824,
    control_groups=("/sys/fs/cgroup/astrocloud/ada./cgroup.procs",),
    status_fd=7,
)

MOUNTS = [
    *("--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"),
    *("--hostname", "astrocloud", "--as-pid-1", "--json-status-fd", "7"),
    *("--symlink", "usr/bin", "/bin", "--symlink", "usr/lib", "/lib"),
    *("--proc", "/proc", "--dev", "/dev"),
    *("--perms", "1777", "--size", "1073741824", "--tmpfs", "/tmp"),
    *("--perms", "0755", "--dir", "/dev", "--perms", "1777", "--size", "1073741824", "--tmpfs", "/dev/shm"),
    *("--perms", "0755", "--dir", "/var", "--perms", "1777", "--size", "1073741824", "--tmpfs", "/var/tmp"),
    *(
        "--perms",
        "0755",
        "--dir",
        "/home",
        "--perms",
        "0755",
        "--dir",
        "/project",
        "--perms",
        "0755",
        "--dir",
        "/archive",
    ),
    *("--ro-bind", "/usr", "/usr"),
    *("--perms", "0755", "--dir", "/etc", "--perms", "0755", "--dir", "/etc/ssl"),
    *("--ro-bind", "/etc/ssl/certs", "/etc/ssl/certs"),
    *("--perms", "0755", "--dir", "/data", "--perms", "0755", "--dir", "/data/environments"),
    *("--ro-bind", "/data/environments/astro-1", "/data/environments/astro-1"),
    *("--bind", "/data/tree/home/ada", "/home/ada"),
    *("--bind", "/data/tree/project/survey", "/project/survey"),
    *("--ro-bind", "/data/tree/archive", "/archive"),
    *("--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/home/ada", "--"),
]
BECOME = [
    *("/usr/bin/setpriv", "--reuid=20001", "--regid=20001", "--groups=20001,30001"),
    *("--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all", "--no-new-privs", "--"),
]
SERVER = [
    *("/bin/sh", "-c", INIT, "astrocloud-server"),
    *("/data/environments/astro-1/bin/python", "-m", "astrocloud_lab.serve"),
]
ENTERING = ["/bin/sh", "-c", ENTER, "astrocloud-enter", "1", "/sys/fs/cgroup/astrocloud/ada./cgroup.procs"]


def test_run_by_root_it_becomes_the_person_after_the_mounts() -> None:
    assert argv(SANDBOX, PROGRAMS) == [
        *ENTERING, "/usr/bin/bwrap", *MOUNTS, *BECOME, "/usr/bin/prlimit", "--core=0:0", "--", *SERVER,
    ]  # fmt: skip


def test_run_by_a_plain_user_a_user_namespace_takes_the_place_of_that() -> None:
    plain = replace(SANDBOX, as_root=False, control_groups=(), processes=512, data_bytes=2147483648)
    assert argv(plain, PROGRAMS) == [
        *("/usr/bin/bwrap", "--unshare-user", "--uid", "20001", "--gid", "20001"),
        *MOUNTS,
        *("/usr/bin/prlimit", "--core=0:0", "--nproc=512:512", "--data=2147483648:2147483648", "--"),
        *SERVER,
    ]


def test_without_bubblewrap_it_is_still_another_user() -> None:
    bare = replace(SANDBOX, control_groups=())
    assert argv_without_walls(bare, PROGRAMS) == [*BECOME, "/usr/bin/prlimit", "--core=0:0", "--", *SERVER]


def test_the_variables_are_in_no_command_line() -> None:
    assert not any("--setenv" in part for part in argv(SANDBOX, PROGRAMS))


def test_links_into_usr_stay_links_and_folders_are_bound(tmp_path: Path) -> None:
    (tmp_path / "usr/bin").mkdir(parents=True)
    (tmp_path / "bin").symlink_to("usr/bin")
    (tmp_path / "lib64").mkdir()
    (tmp_path / "etc/ssl/certs").mkdir(parents=True)
    (tmp_path / "etc/ssl/private").mkdir()
    (tmp_path / "etc/shadow").touch()
    (tmp_path / "run").mkdir()
    (tmp_path / "run/resolv.conf").touch()
    (tmp_path / "etc/resolv.conf").symlink_to(tmp_path / "run/resolv.conf")
    assert view.system_symlinks(tmp_path) == (("usr/bin", "/bin"),)
    assert view.system_binds(tmp_path) == (
        Bind(source="/usr", target="/usr"),
        Bind(source="/lib64", target="/lib64"),
        Bind(source=str(tmp_path / "run/resolv.conf"), target="/etc/resolv.conf"),
        Bind(source=str(tmp_path / "etc/ssl/certs"), target="/etc/ssl/certs"),
    )


def test_an_interpreter_outside_of_usr_is_bound_with_the_links_on_the_way(tmp_path: Path) -> None:
    base, environment, way = tmp_path / "python3.12.1", tmp_path / "environment", tmp_path / "python3.12"
    (base / "bin").mkdir(parents=True)
    (base / "bin/python3").touch()
    way.symlink_to(base)
    (environment / "bin").mkdir(parents=True)
    (environment / "bin/python").symlink_to(way / "bin/python3")
    binds = view.environment_binds(environment, base)
    assert [(bind.source, bind.target) for bind in binds] == [
        (str(environment), str(environment)),
        (str(base), str(base)),
        (str(base), str(way)),
    ]
    assert not any(bind.writable for bind in binds)


def test_the_systems_python_needs_no_bind_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python").symlink_to("/usr/bin/python3")
    assert [bind.target for bind in view.environment_binds(tmp_path, Path("/usr"))] == [str(tmp_path)]


def test_only_the_groups_of_the_person_are_seen(tmp_path: Path) -> None:
    for name in ("home/ada", "project/survey", "project/secret", "archive", "course"):
        (tmp_path / name).mkdir(parents=True)
    binds = view.tree_binds(tmp_path, ADA, tutorials=None)
    assert [(bind.target, bind.writable) for bind in binds] == [
        ("/home/ada", True),
        ("/project/survey", True),
        ("/archive", False),
        ("/course", False),
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"uid": 0},
        {"gid": 0},
        {"uid": 999},
        {"uid": None},
        {"uid": "x"},
        {"groups": [{"name": "disk", "gid": 6}]},
        {"username": ""},
    ],
    ids=str,
)
def test_a_person_with_an_id_of_the_systems_runs_nothing(change: dict[str, object]) -> None:
    document = {"username": "ada", "uid": 20001, "gid": 20001, "groups": [], **change}
    with pytest.raises(HubError) as caught:
        Person.from_document(document)
    assert caught.value.code == "person-ids"
