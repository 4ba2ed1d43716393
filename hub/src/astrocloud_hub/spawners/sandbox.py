"""The walls around a server: which ``bwrap`` command makes them.

Nothing here looks at the machine: `Sandbox` says all of it and `argv` is a pure function, so that tests compare whole
commands. `astrocloud_hub.spawners.view` is what looks.

Of the platform's root nothing remains inside. bwrap makes the mounts, then ``setpriv`` becomes the person for good
(ids, groups, no capability in any set, no_new_privs) and *that* process is process 1 of the sandbox: bwrap's own
would have stayed root's. Started by a plain user, bwrap's user namespace maps that user to the person's ids.
"""

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from astrocloud_hub.spawners.models import Person

INIT: Final = (
    "umask 007; trap 'kill -TERM \"$server\" 2>/dev/null' TERM; "
    'env --default-signal=INT,QUIT -- "$@" & server=$!; '
    'wait "$server"; code=$?; '
    'while kill -0 "$server" 2>/dev/null; do wait "$server"; code=$?; done; exit "$code"'
)
"""Process 1 of a sandbox: passes SIGTERM on, collects orphans, ends with the server and its exit code.

A shell starts what runs in its background with SIGINT ignored, and kernels could not be interrupted: hence ``env``.
The umask lets members of a group change each other's files in ``/project``; homes are 0700 in any case.
"""

HOLD: Final = (
    "umask 007; echo ready; exec 3<&0 </dev/null >&2; "
    "read -r server <&3 || exit 71; trap 'kill -TERM \"$server\" 2>/dev/null' TERM; "
    '{ read -r code || code=137; exit "$code"; } <&3 & waiter=$!; exec 3<&-; '
    'wait "$waiter"; code=$?; '
    'while kill -0 "$waiter" 2>/dev/null; do wait "$waiter"; code=$?; done; exit "$code"'
)
"""Process 1 of a sandbox that a forked server enters: as `INIT`, but the server is not its child.

It says ``ready`` on its output when the sandbox stands. Its input tells it the server's process id, then its exit code;
an end without one (something killed who waits for the server) counts as killed.
"""

ENTER: Final = 'n="$1"; shift; while [ "$n" -gt 0 ]; do echo 0 >"$1" || exit 70; shift; n=$((n - 1)); done; exec "$@"'
"""Joins control groups before the sandbox is made: no moment in which a process of it is outside them."""


PARENT_CAPABILITIES: Final = (
    "CAP_SYS_ADMIN",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SETUID",
    "CAP_SETGID",
    "CAP_SETPCAP",
)
"""``setns`` into namespaces takes the first, that of mounts the second, those of another user's process the third."""


@dataclass(frozen=True, kw_only=True)
class Bind:
    """A file or folder of the machine that is seen inside."""

    source: str
    """Where it is on the machine, without symbolic links on the way."""
    target: str
    """Where it is seen."""
    writable: bool = False


@dataclass(frozen=True, kw_only=True)
class Programs:
    """Programs of the machine, by absolute path."""

    bwrap: str = "/usr/bin/bwrap"
    setpriv: str = "/usr/bin/setpriv"
    prlimit: str = "/usr/bin/prlimit"


@dataclass(frozen=True, kw_only=True)
class Sandbox:
    """All that one server sees, and as whom it runs."""

    person: Person
    as_root: bool
    """Whether the platform runs as root, so that people have real user ids of their own."""
    symlinks: tuple[tuple[str, str], ...]
    """(content, place) of symbolic links, such as ``("usr/bin", "/bin")``."""
    binds: tuple[Bind, ...]
    """What is seen inside, parents before children."""
    folders: tuple[str, ...]
    """Folders that are there even with nothing in them."""
    command: tuple[str, ...]
    """The server. Its environment is that of bwrap's process, never in a command line that others could read."""
    chdir: str
    tmp_bytes: int
    """The size of ``/tmp`` and of ``/dev/shm``, each; both count as memory of the server."""
    processes: int | None = None
    """How many processes and threads, by rlimit, where no control group holds them."""
    data_bytes: int | None = None
    """How much memory each process, by rlimit, where no control group holds them together."""
    control_groups: tuple[str, ...] = ()
    """``cgroup.procs`` files of the groups that all of it is in."""
    status_fd: int = 3
    """Where bwrap tells the process id of process 1, and at the end the exit code."""


def argv(sandbox: Sandbox, programs: Programs, *, held: bool = False) -> list[str]:
    """Return the command that starts `sandbox`; with `held` one that holds it for a server that enters (`HOLD`)."""
    person = sandbox.person
    command = [*_enter(sandbox.control_groups), programs.bwrap]
    if not sandbox.as_root:
        command += ["--unshare-user", "--uid", str(person.uid), "--gid", str(person.gid)]
    # The network is shared: servers listen on loopback for the proxy.
    command += ["--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    command += ["--hostname", "astrocloud", "--as-pid-1", "--json-status-fd", str(sandbox.status_fd)]
    made: set[str] = set()
    for content, place in sandbox.symlinks:
        command += ["--symlink", content, place]
    size = str(sandbox.tmp_bytes)
    command += ["--proc", "/proc", "--dev", "/dev"]
    for scratch in ("/tmp", "/dev/shm", "/var/tmp"):  # noqa: S108 - inside the sandbox, and only its own
        command += [*_parents(scratch, made), "--perms", "1777", "--size", size, "--tmpfs", scratch]
        made.add(scratch)
    for folder in sandbox.folders:
        command += [*_parents(folder, made), *_folder(folder, made)]
    for bind in sandbox.binds:
        command += [*_parents(bind.target, made), "--bind" if bind.writable else "--ro-bind", bind.source, bind.target]
        made.add(bind.target)
    # The sandbox's own root and /dev are tmpfs without a size: nobody writes there.
    command += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", sandbox.chdir, "--"]
    if sandbox.as_root:
        command += _become(person, programs)
    command += _limited(sandbox, programs)
    if held:
        return [*command, "/bin/sh", "-c", HOLD, "astrocloud-server"]
    return [*command, "/bin/sh", "-c", INIT, "astrocloud-server", *sandbox.command]


def argv_of_parent(
    command: tuple[str, ...], binds: tuple[Bind, ...], symlinks: tuple[tuple[str, str], ...], programs: Programs
) -> list[str]:
    """Return the command of a process that servers are forked from: root's, but it sees `binds` alone.

    Its capabilities are those of going into the sandboxes (``setns``) and becoming a person there.
    """
    options = [programs.bwrap, "--unshare-ipc", "--unshare-uts", "--hostname", "astrocloud", "--die-with-parent"]
    options += ["--cap-drop", "ALL"]
    for capability in PARENT_CAPABILITIES:
        options += ["--cap-add", capability]
    made: set[str] = set()
    for content, place in symlinks:
        options += ["--symlink", content, place]
    options += ["--proc", "/proc", "--dev", "/dev", "--perms", "0700", "--tmpfs", "/tmp"]  # noqa: S108 - its own
    for bind in binds:
        options += [*_parents(bind.target, made), "--ro-bind", bind.source, bind.target]
        made.add(bind.target)
    return [*options, "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/", "--", *command]


def argv_without_walls(sandbox: Sandbox, programs: Programs) -> list[str]:
    """Return the command that starts the server of `sandbox` on a machine without bubblewrap.

    People are still different users where the platform runs as root, but see each other's processes and the machine.
    """
    command = _enter(sandbox.control_groups)
    if sandbox.as_root:
        command += _become(sandbox.person, programs)
    return [*command, *_limited(sandbox, programs), "/bin/sh", "-c", INIT, "astrocloud-server", *sandbox.command]


def _enter(control_groups: tuple[str, ...]) -> list[str]:
    if not control_groups:
        return []
    return ["/bin/sh", "-c", ENTER, "astrocloud-enter", str(len(control_groups)), *control_groups]


def _become(person: Person, programs: Programs) -> list[str]:
    groups = ",".join(str(gid) for gid in (person.gid, *(group.gid for group in person.groups)))
    return [
        programs.setpriv,
        f"--reuid={person.uid}",
        f"--regid={person.gid}",
        f"--groups={groups}",
        "--inh-caps=-all",
        "--ambient-caps=-all",
        "--bounding-set=-all",
        "--no-new-privs",
        "--",
    ]


def _limited(sandbox: Sandbox, programs: Programs) -> list[str]:
    command = [programs.prlimit, "--core=0:0"]
    if sandbox.processes is not None:
        command.append(f"--nproc={sandbox.processes}:{sandbox.processes}")
    if sandbox.data_bytes is not None:
        # RLIMIT_AS would refuse threads (each reserves far more than it uses), RLIMIT_DATA counts what is writable.
        command.append(f"--data={sandbox.data_bytes}:{sandbox.data_bytes}")
    return [*command, "--"]


def _parents(target: str, made: set[str]) -> list[str]:
    """Return options that make the parents of `target` 0755: bwrap itself would make them 0700."""
    options: list[str] = []
    for parent in reversed(PurePosixPath(target).parents):
        options += _folder(str(parent), made)
    return options


def _folder(folder: str, made: set[str]) -> list[str]:
    if folder == "/" or folder in made:
        return []
    made.add(folder)
    # What lies inside something bound is there already, and read-only.
    if any(str(parent) in made and str(parent).startswith("/usr") for parent in PurePosixPath(folder).parents):
        return []
    return ["--perms", "0755", "--dir", folder]
