"""Import everything that a server and its kernels need, and fork one child for each server.

Run as ``python -m astrocloud_lab.forked.parent`` by the hub's spawner, as root in a
sandbox that shows the environment and nothing of the platform or of people. Its
standard input is the socket on which it is asked; nobody else has the other end. One
thread, no event loop, no zmq context: what a forked child could not use.

A request is one message that brings descriptors: answer socket, request (JSON in
memory, see :mod:`astrocloud_lab.forked.child`), process 1 of the sandbox (a pidfd),
the server's log, the pipe on which its process id and its exit code are told, and the
``cgroup.procs`` files to join. The parent itself reads none of them.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path

REQUEST = b"server"
READY = b"ready"
FIXED_FDS = 5
MOST_FDS = 16

SERVER_MODULES = (
    "astrocloud_lab.contents",
    "astrocloud_lab.handlers",
    "astrocloud_lab.kernels.provisioner",
    "astrocloud_lab.lean.deferred",
    "astrocloud_lab.lean.versions",
    "astrocloud_lab.server_extension",
    "jupyter_core.migrate",
    "jinja2.ext",
    "tornado.platform.asyncio",
    "jupyter_server.services.api.handlers",
    "jupyter_server.services.config.handlers",
    "jupyter_server.services.contents.handlers",
    "jupyter_server.services.events.handlers",
    "jupyter_server.services.kernels.handlers",
    "jupyter_server.services.kernelspecs.handlers",
    "jupyter_server.services.nbconvert.handlers",
    "jupyter_server.services.security.handlers",
    "jupyter_server.services.sessions.handlers",
    "jupyter_server.services.shutdown",
    "jupyter_server.kernelspecs.handlers",
    "jupyter_server.nbconvert.handlers",
    "jupyter_server.view.handlers",
    "anyio._backends._asyncio",
    "ipykernel.kernelspec",
    "notebook_shim.nbserver",
    "jupyter_server_proxy",
    "jupyterlab_language_pack_zh_CN",
)
"""What a server imports from its start to the Lab's first page, besides what :mod:`.lean.app` imports first."""

KERNEL_MODULES = ("faulthandler", "runpy", "IPython.core.pylabtools", "matplotlib.backends.backend_agg")
"""What a kernel imports with its first plot, besides what :mod:`.kernels.forkserver` imports."""


def import_everything() -> None:
    """Import what servers need, then what kernels need; what is missing is left to them."""
    from astrocloud_lab.kernels import fonts, forkserver, network
    from astrocloud_lab.lean import app

    # First: the server's modules are imported with a few names hidden, which kernels need.
    app.import_server()
    for name in SERVER_MODULES:
        forkserver.import_quietly(name)
    fonts.offer(os.environ, Path.home())
    if network.is_shared(os.environ):
        forkserver.import_without_debugger()
    forkserver.inline_backend()
    for name in (*forkserver.FIRST, *forkserver.wanted_modules(), *KERNEL_MODULES):
        forkserver.import_quietly(name)
    del os.environ["MPLBACKEND"]
    for name in ("astrocloud_lab.forked.child", "astrocloud_lab.kernels.child", "astrocloud_lab.serve"):
        __import__(name)


def check_threads() -> None:
    """Refuse to fork a process that has more than one thread: the locks of the others would stay locked."""
    threads = os.listdir("/proc/self/task")
    if len(threads) != 1:
        raise RuntimeError(f"an import has started threads ({len(threads)} run)")


def reap() -> bool:
    """Collect children that have ended; tell whether any is left. They end at once, servers are not among them."""
    with suppress(ChildProcessError):
        while True:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                return True
    return False


def serve(control: socket.socket) -> None:
    """Fork a child for each request until the other end is closed."""
    from astrocloud_lab.forked import child

    left = False
    while True:
        ready = select.select([control], [], [], 0.02 if left else None)[0]
        if ready:
            message, descriptors, _flags, _address = socket.recv_fds(control, 64, MOST_FDS)
            if not message:
                return
            if message == REQUEST and len(descriptors) >= FIXED_FDS and os.fork() == 0:
                # No cleanup of the parent may run in a child that goes wrong: _exit always.
                try:
                    control.close()
                    child.go(descriptors)
                finally:
                    os._exit(1)
            for descriptor in descriptors:
                os.close(descriptor)
        left = reap()


def main() -> None:
    """Import, tell that it is ready, and serve."""
    control = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.path and sys.path[0] in ("", os.getcwd()):
        del sys.path[0]
    os.makedirs(os.path.expanduser("~"), exist_ok=True)
    gc.disable()
    import_everything()
    check_threads()
    gc.collect()
    gc.freeze()
    control.send(READY)
    serve(control)


if __name__ == "__main__":
    main()
