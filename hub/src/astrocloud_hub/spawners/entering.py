"""Starting a server by forking: a sandbox that stands empty, and a child of a parent process that enters it."""

import asyncio
import json
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from astrocloud_hub.spawners.launch import Held, Launch
from astrocloud_hub.spawners.parents import NotForkedError, Parent, outcome

_UMASK: Final = 0o007
"""As process 1 sets it for a server that it starts (`sandbox.INIT`)."""


async def enter(launch: Launch, held: Held, parent: Parent, *, within_s: float) -> None:
    """Let a child of `parent` enter the sandbox `held`, and be the server of `launch` there.

    Returns when the child is inside with nothing left of the platform's, about to start the server.

    Parameters
    ----------
    launch
        What is to run.
    held
        The sandbox, which may not stand yet. Its descriptors are closed here in any case.
    parent
        The process to fork.
    within_s
        How long the sandbox may take to stand, and the child to be inside, in seconds each.

    Raises
    ------
    NotForkedError
        With the reason why it is not. The sandbox is the caller's to end.
    """
    opened: list[int] = [held.told]
    try:
        await _stands(held, within_s)
        pidfd = await asyncio.to_thread(_first_process, held, launch.status_file)
        opened.append(pidfd)
        log = launch.open_log()
        opened.append(log)
        groups = launch.control_group.procs if launch.control_group is not None else ()
        for procs in groups:
            opened.append(os.open(procs, os.O_WRONLY | os.O_CLOEXEC))
        answer = _ask(parent, launch, [pidfd, log, held.told, *opened[3:]])
    except (OSError, ValueError) as err:
        raise NotForkedError(str(err)) from err
    finally:
        # From now on the server alone keeps process 1 waiting.
        for descriptor in (*opened, held.ready):
            os.close(descriptor)
    with answer:
        try:
            await outcome(answer, within_s=within_s)
        except NotForkedError as err:
            err.by_parent = err.by_parent or not parent.alive
            raise


def _ask(parent: Parent, launch: Launch, descriptors: list[int]) -> socket.socket:
    try:
        return parent.ask(_request(launch), descriptors)
    except OSError as err:
        raise NotForkedError(f"the parent process does not take requests: {err}", by_parent=True) from err


def _request(launch: Launch) -> dict[str, Any]:
    person = launch.person
    limits = {"core": 0}
    if launch.control_group is None:
        limits |= {"nproc": launch.limits.processes, "data": launch.limits.memory_bytes}
    return {
        "argv": list(launch.arguments),
        "environ": launch.variables,
        "cwd": launch.home,
        "umask": _UMASK,
        "uid": person.uid,
        "gid": person.gid,
        "groups": [person.gid, *(group.gid for group in person.groups)],
        "limits": limits,
    }


async def _stands(held: Held, within_s: float) -> None:
    """Wait until process 1 says that the sandbox stands."""
    loop = asyncio.get_running_loop()
    seen = asyncio.Event()
    loop.add_reader(held.ready, seen.set)
    try:
        async with asyncio.timeout(within_s):
            await seen.wait()
    except TimeoutError:
        raise NotForkedError(f"no sandbox within {within_s} s") from None
    finally:
        loop.remove_reader(held.ready)
    if not os.read(held.ready, 64).startswith(b"ready"):
        raise NotForkedError(f"the sandbox ended ({held.process.poll()})")


def _first_process(held: Held, status_file: Path) -> int:
    """Return a pidfd of process 1 of the sandbox."""
    pid = next(
        (document["child-pid"] for document in _documents(status_file) if "child-pid" in document),
        0,
    )
    if not pid:
        raise NotForkedError("bwrap has not told what process 1 is")
    pidfd = os.pidfd_open(pid)
    # A process id can be another's a moment later. What has bwrap for its parent now was it before, too.
    with suppress(OSError, ValueError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        if int(fields[1]) == held.process.pid:
            return pidfd
    os.close(pidfd)
    raise NotForkedError("process 1 of the sandbox has ended")


def _documents(status_file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in status_file.read_text(encoding="utf-8").splitlines()]
