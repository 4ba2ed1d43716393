"""Be a server like any other: what a fresh process would have, and a forked one has not, is put right here.

Four forks lie between the parent and the server, all but one of them short:

``A``  joins control groups and namespaces; its children are inside
``B``  gives up all rights, forks once more and ends, so that process 1 of the sandbox adopts what comes
``W``  waits for the server and tells its exit code to process 1, which ends with it
``C``  is the server
"""

from __future__ import annotations

import gc
import json
import os
import signal
import site
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NoReturn

import astrocloud_lab.forked
from astrocloud_lab.forked import enter, homes
from astrocloud_lab.kernels import child as kernel_child

DEFAULT_SIGNALS = (signal.SIGTERM, signal.SIGCHLD, signal.SIGHUP, signal.SIGQUIT)


def go(descriptors: Sequence[int]) -> NoReturn:
    """Turn this child of the parent into a server, or tell why that is not possible."""
    answer, request_fd, pidfd, log, told = descriptors[:5]
    try:
        request = read_request(request_fd)
        enter.join_groups(descriptors[5:])
        enter.join_namespaces(pidfd)
        os.chdir("/")
        inside = os.fork()
        if inside == 0:
            try:
                keep_only(answer, log, told)
                enter.limit(request["limits"])
                enter.become(request["uid"], request["gid"], request["groups"])
                # What goes wrong from here on may be the person's doing, and is not held against the parent.
                tell(answer, {"stage": "person"})
                if os.fork() == 0:
                    wait_for_server(request, answer, log, told)
            except BaseException as error:  # noqa: BLE001  # told to the spawner, which starts the server as usual
                tell(answer, {"error": f"{type(error).__name__}: {error}"})
            os._exit(0)
        os.waitpid(inside, 0)
    except BaseException as error:  # noqa: BLE001
        tell(answer, {"error": f"{type(error).__name__}: {error}"})
    os._exit(0)


def read_request(descriptor: int) -> dict[str, Any]:
    """Return the request.

    It holds ``argv``, ``environ``, ``cwd``, ``umask``, ``uid``, ``gid``, ``groups`` and ``limits``.
    """
    with os.fdopen(descriptor, "rb") as memory:
        memory.seek(0)
        request: dict[str, Any] = json.loads(memory.read().decode("utf-8", "surrogateescape"))
    return request


def keep_only(*kept: int) -> None:
    """Close all descriptors but those named; the standard streams become those of the server."""
    first = 3
    for descriptor in sorted(kept):
        os.closerange(first, descriptor)
        first = descriptor + 1
    os.closerange(first, os.sysconf("SC_OPEN_MAX"))


def tell(answer: int, document: dict[str, Any]) -> None:
    """Answer the spawner; one that no longer listens is no error."""
    with suppress(OSError):
        os.write(answer, json.dumps(document).encode() + b"\n")


def wait_for_server(request: dict[str, Any], answer: int, log: int, told: int) -> NoReturn:
    """Fork the server, wait for its end and tell process 1 of its exit code, as a shell would."""
    server = os.fork()
    if server == 0:
        status = 1
        try:
            os.close(told)
            status = run(request, answer, log)
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
        finally:
            os._exit(status)
    enter.name_process("astrocloud-wait")
    request.clear()
    keep_only(told)
    null = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(null, stream)
    os.close(null)
    os.write(told, b"%d\n" % server)
    # Process 1 passes them on to the server itself.
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    _pid, status = os.waitpid(server, 0)
    code = os.waitstatus_to_exitcode(status)
    with suppress(OSError):
        os.write(told, b"%d\n" % (code if code >= 0 else 128 - code))
    os._exit(0)


def run(request: dict[str, Any], answer: int, log: int) -> int:
    """Be the server; return its exit status."""
    os.setsid()
    null = os.open(os.devnull, os.O_RDONLY)
    for target, source in enumerate((null, log, log)):
        os.dup2(source, target)
    for source in (null, log):
        if source > 2:
            os.close(source)
    try:
        take_on(request)
        from astrocloud_lab import serve
    except BaseException as error:
        tell(answer, {"error": f"{type(error).__name__}: {error}", "stage": "person"})
        raise

    tell(answer, {"pid": os.getpid()})
    os.close(answer)
    arguments = list(request["argv"])
    request.clear()
    gc.enable()
    try:
        serve.main(arguments)
    except SystemExit as end:
        return kernel_child.finish(end.code if isinstance(end.code, int) else int(end.code is not None))
    except BaseException:  # noqa: BLE001  # as the interpreter would
        sys.excepthook(*sys.exc_info())
        return kernel_child.finish(1)
    return kernel_child.finish(0)


def take_on(request: dict[str, Any]) -> None:
    """Take on environment, folder and signals, and forget what belongs to the parent."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in DEFAULT_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    os.umask(request["umask"])
    os.environ.clear()
    # PWD: as bubblewrap does for a server that it starts.
    os.environ.update({**request["environ"], "PWD": request["cwd"]})
    time.tzset()
    os.chdir(request["cwd"])
    enter.name_process("astrocloud-lab")
    kernel_child.reopen_streams()
    homes.move()
    kernel_child.refresh_packages()
    from astrocloud_lab import serve

    sys.argv = [serve.__file__ or "", *request["argv"]]
    # As `python -m` does.
    sys.path.insert(0, os.getcwd())
    site.USER_BASE = site.USER_SITE = None
    tempfile.tempdir = None
    astrocloud_lab.forked.KERNELS_ARE_PREPARED = True
