"""Turn a forked child into a kernel like any other.

What a fresh process would have and a forked one has not is put right here:
environment, folder, streams, signals, time zone, random numbers, caches that
packages filled from the parent's environment.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import json
import os
import signal
import sys
import time
from typing import Any

from astrocloud_lab import user_packages
from astrocloud_lab.kernels import blas, memory


def become_process(request: dict[str, Any], streams: tuple[int, int, int]) -> None:
    """Take on environment, folder, streams and signals of the new process."""
    os.setsid()
    memory.offer_first()
    for target, source in enumerate(streams):
        os.dup2(source, target)
    for source in streams:
        if source > 2:
            os.close(source)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
        default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, default)
    os.environ.clear()
    os.environ.update(request["environ"])
    # The interpreter started before there was a person to whom packages belong.
    user_packages.activate()
    time.tzset()
    os.chdir(request["cwd"])
    launcher = importlib.util.find_spec("ipykernel_launcher")
    sys.argv = [launcher.origin if launcher and launcher.origin else "", *request["argv"]]


def refresh_packages() -> None:
    """Make imported packages forget what belongs to the parent.

    Only packages that are imported are touched; none is imported here.
    """
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        # The one global state: forks would all draw the same numbers.  The standard
        # library's ``random`` reseeds itself after a fork.
        numpy_random.seed()
    configuration = sys.modules.get("astropy.config.configuration")
    if configuration is not None:
        # Read again when first asked for: the person may have edited the file.
        configuration._cfgobjs.clear()
    matplotlib = sys.modules.get("matplotlib")
    if matplotlib is not None:
        for name in ("get_configdir", "get_cachedir", "get_data_path"):
            clear = getattr(getattr(matplotlib, name, None), "cache_clear", None)
            if clear is not None:
                clear()


def reopen_streams() -> None:
    """Give Python's standard streams fresh buffers and the descriptors of this process."""
    for name, number, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        old = getattr(sys, f"__{name}__")
        stream = open(  # noqa: SIM115  # lives as long as the process
            number,
            mode,
            encoding=old.encoding,
            errors=old.errors,
            closefd=False,
            buffering=1 if name == "stderr" else -1,
        )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def run(answer: int, request_fd: int, *streams: int) -> int:
    """Be the kernel; return its exit status when it has ended.

    Parameters
    ----------
    answer
        Descriptor to tell on that the kernel has bound its sockets.
    request_fd
        Descriptor of the request: JSON with ``argv``, ``environ`` and ``cwd``.
    streams
        Descriptors of standard input, output and error.
    """
    try:
        with os.fdopen(request_fd, "rb") as file:
            file.seek(0)
            request = json.loads(file.read().decode("utf-8", "surrogateescape"))
        become_process(request, (streams[0], streams[1], streams[2]))
        reopen_streams()
        refresh_packages()
        blas.use_threads(os.environ)
        expected = request["environ"].get("JPY_PARENT_PID")
        if expected and os.getppid() != int(expected):
            raise RuntimeError(f"the parent is {os.getppid()}, not {expected}")
        gc.enable()
        from ipykernel.kernelapp import IPKernelApp

        # Its default is the environment's at the time of the import.
        app = IPKernelApp.instance(parent_handle=int(expected or 0))
        app.initialize(sys.argv[1:])
        reply = {"pid": os.getpid()}
    except BaseException as error:  # noqa: BLE001  # told to the server, which starts another
        tell(answer, {"error": f"{type(error).__name__}: {error}"})
        return 1
    tell(answer, reply)
    return serve(app)


def tell(answer: int, reply: dict[str, Any]) -> None:
    """Send the one line and close; a server that no longer listens is no error."""
    with contextlib.suppress(OSError):
        os.write(answer, json.dumps(reply).encode() + b"\n")
    os.close(answer)


def serve(app: Any) -> int:
    """Run the kernel's loop and return its exit status."""
    status = 0
    try:
        app.start()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        status = finish(status)
    return status


def finish(status: int) -> int:
    """End as an interpreter ends (threads, exit functions, flushed streams); return the exit status."""
    import atexit
    import threading

    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            status = status or 1
    return status
