"""Starting the process of one server, and describing what it sees."""

import os
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from astrocloud.core.layout import DataFolder
from astrocloud.environments.models import BuiltEnvironment
from astrocloud_hub.spawners import view
from astrocloud_hub.spawners.limits import ControlGroup
from astrocloud_hub.spawners.models import Limits, Person
from astrocloud_hub.spawners.sandbox import Bind, Programs, Sandbox, argv, argv_without_walls

_LOG_TAIL_BYTES: Final = 1500


@dataclass(frozen=True, kw_only=True)
class Held:
    """A sandbox that stands empty until a server enters it."""

    process: "subprocess.Popen[bytes]"
    """bwrap."""
    ready: int
    """Where its process 1 says that it stands."""
    told: int
    """Where process 1 is told the server's process id and exit code; it ends when nobody has this open any more."""


@dataclass(frozen=True, kw_only=True)
class Launch:
    """One server about to start."""

    person: Person
    environment: BuiltEnvironment
    command: tuple[str, ...]
    """The program that is the server, without `arguments`."""
    arguments: tuple[str, ...]
    variables: dict[str, str]
    """The server's whole environment, with secrets: it is passed on, never shown."""
    limits: Limits
    control_group: ControlGroup | None
    data: DataFolder
    folder: Path
    """The folder of this server's small files, the platform's alone."""
    log: Path
    tutorials: Path | None
    as_root: bool
    programs: Programs | None
    """What makes the sandbox; `None` for a server without walls."""

    @property
    def status_file(self) -> Path:
        """Where bwrap writes process 1 and the exit code."""
        return self.folder / "status"

    @property
    def home(self) -> str:
        """The home as the server knows it."""
        if self.programs is None:
            return str(self.data.tree / "home" / self.person.username)
        return f"/home/{self.person.username}"

    def describe(self, *, status_fd: int) -> Sandbox:
        """Return all that the server will see."""
        held = self.control_group is not None
        binds: list[Bind] = [
            *view.system_binds(),
            *view.environment_binds(self.environment.path, self.environment.base_prefix),
            *view.own_names(self.folder, self.person),
            *view.tree_binds(self.data.tree, self.person, tutorials=self.tutorials),
        ]
        return Sandbox(
            person=self.person,
            as_root=self.as_root,
            symlinks=view.system_symlinks(),
            binds=tuple(binds),
            folders=view.FOLDERS,
            command=(*self.command, *self.arguments),
            chdir=self.home,
            tmp_bytes=max(self.limits.memory_bytes // 2, 2**26),
            processes=None if held else self.limits.processes,
            data_bytes=None if held else self.limits.memory_bytes,
            control_groups=self.control_group.procs if self.control_group is not None else (),
            status_fd=status_fd,
        )

    def hold(self) -> Held:
        """Start a sandbox with nothing in it but what holds it, detached from the hub. Raises `OSError`."""
        assert self.programs is not None
        status = os.open(self.status_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        told_read, told = os.pipe()
        ready, ready_write = os.pipe()
        try:
            log = self.open_log()
            try:
                process = subprocess.Popen(
                    argv(self.describe(status_fd=status), self.programs, held=True),
                    # The server's own environment goes to the server alone.
                    env={"PATH": self.variables["PATH"], "LANG": "C.UTF-8"},
                    stdin=told_read,
                    stdout=ready_write,
                    stderr=log,
                    pass_fds=(status,),
                    start_new_session=True,
                    cwd="/",
                )
            finally:
                os.close(log)
        except BaseException:
            os.close(told)
            os.close(ready)
            raise
        finally:
            for descriptor in (status, told_read, ready_write):
                os.close(descriptor)
        return Held(process=process, ready=ready, told=told)

    def open_log(self) -> int:
        """Return a descriptor of the server's log, to be closed by the caller."""
        return os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def start(self) -> "subprocess.Popen[bytes]":
        """Start the server, detached from the hub: it goes on when the hub ends. Raises `OSError`."""
        status = os.open(self.status_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            sandbox = self.describe(status_fd=status)
            if self.programs is not None:
                command = argv(sandbox, self.programs)
            else:
                command = argv_without_walls(sandbox, view.helper_programs())
            log = self.open_log()
            try:
                return subprocess.Popen(
                    command,
                    env=self.variables,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=(status,) if self.programs is not None else (),
                    start_new_session=True,
                    cwd="/" if self.programs is not None else self.home,
                )
            finally:
                os.close(log)
        finally:
            os.close(status)


def turn_log(log: Path) -> None:
    """Keep the log of the start before as ``.1``; a server's log begins with its start."""
    with suppress(FileNotFoundError):
        log.replace(log.with_name(f"{log.name}.1"))


def log_tail(log: Path, *, lines: int = 12) -> str:
    """Return the last lines of a server's log, to show to the person."""
    try:
        with log.open("rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - _LOG_TAIL_BYTES, 0))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    shown = "".join(char if char.isprintable() or char == "\n" else " " for char in text)
    return "\n".join(shown.strip().splitlines()[-lines:])
