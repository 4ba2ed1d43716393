"""Import what kernels need, and fork one for each request.

Run as ``python -m astrocloud_lab.kernels.forkserver`` by
:class:`astrocloud_lab.kernels.parent.KernelParent`.  One thread, no event loop, no
zmq context: what a forked child could not use.

A kernel is forked twice, so that it becomes a child of the server, which has
declared itself the reaper of its descendants for that moment.  Then everything is
as with a kernel that the server started itself: its exit code, the parent it
watches, and its life when this process ends.
"""

from __future__ import annotations

import gc
import glob
import importlib
import importlib.util
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from astrocloud_lab.kernels import fonts, network
from astrocloud_lab.kernels.parent import CONTROL_FD_ENV

FIRST = (
    "ipykernel.kernelapp",
    "ipykernel.ipkernel",
    "ipykernel.zmqshell",
    # What a kernel imports while it initialises and runs its first cell.
    "ipykernel.debugger",
    "astrocloud_lab.kernels.undebugged",
    "IPython.core.completerlib",
    "IPython.core.debugger",
    "IPython.core.logger",
    "IPython.core.oinspect",
    "IPython.extensions.storemagic",
    "IPython.utils.wildcard",
    "tornado.platform.asyncio",
    "sqlite3",
    "pdb",
)
"""What every kernel needs; no request is answered before."""

DEFAULT_MODULES = (
    "numpy,numpy.random,astropy,astropy.units,"
    "matplotlib,matplotlib.colors,matplotlib.transforms,matplotlib.text,matplotlib.axes,matplotlib.figure,"
    "matplotlib.pyplot,"
    "astropy.table,astropy.io.fits,astropy.coordinates,astropy.wcs"
)
"""What most first cells import comes first, and in pieces: a kernel that is asked for waits for the piece at hand."""

MODULES_ENV = "ASTROCLOUD_KERNEL_PREIMPORT"
"""Modules to import beside, comma-separated, in order; empty for none."""

AFTER_FORK_S = 5.0
"""How long the processor is left to a new kernel before imports go on: what its first cell needs, it imports itself."""

REQUEST_FDS = 5
"""A request brings: answer socket, request, standard input, output, error."""


def inline_backend() -> None:
    """Choose the plot backend for the import of matplotlib, as a kernel does.

    A kernel sets the variable before user code can import matplotlib.
    """
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")


def wanted_modules() -> Iterator[str]:
    """Yield the modules to import while nobody asks."""
    for name in os.environ.get(MODULES_ENV, DEFAULT_MODULES).split(","):
        if name.strip():
            yield name.strip()


def import_quietly(name: str) -> None:
    """Import a module if it is installed; whatever it raises is left to the kernel.

    A child then meets the same error in its own cell, where a person can see it.
    """
    try:
        if importlib.util.find_spec(name.partition(".")[0]) is not None:
            importlib.import_module(name)
    except Exception as error:  # noqa: BLE001  # a package may raise anything
        print(  # noqa: T201  # its standard error is the server's log
            f"astrocloud_lab: {name} was not imported ahead: {type(error).__name__}: {error}",
            file=sys.stderr,
        )


class FontList:
    """Let a child write matplotlib's list of fonts, which takes a second the first time.

    Importing ``matplotlib.pyplot`` reads the list, or makes it when a person has none
    yet; a kernel that is asked for meanwhile would wait for it.
    """

    NEEDED_BY = tuple(f"matplotlib.{name}" for name in ("font_manager", "text", "axes", "figure", "pyplot"))

    def __init__(self) -> None:
        self._writer: int | None = None
        self._finished = False

    def fileno(self) -> int:
        """Return a descriptor that becomes readable when the child has ended."""
        assert self._writer is not None
        return self._writer

    def has_to_wait_for(self, name: str) -> bool:
        """Return whether ``name`` should be imported later; starts the child if so."""
        if name not in self.NEEDED_BY or "matplotlib" not in sys.modules:
            return False
        if self._writer is not None:
            return not self._finished
        cache = sys.modules["matplotlib"].get_cachedir()
        if glob.glob(os.path.join(glob.escape(cache), "fontlist-*.json")):
            return False
        pid = os.fork()
        if pid == 0:
            try:
                os.nice(10)
                importlib.import_module("matplotlib.font_manager")
            finally:
                os._exit(0)
        self._writer = os.pidfd_open(pid)
        return True

    def finish(self) -> None:
        """Reap the child."""
        assert self._writer is not None
        os.waitid(os.P_PIDFD, self._writer, os.WEXITED)
        os.close(self._writer)
        self._finished = True

    def put_off(self, names: list[str]) -> list[str]:
        """Return ``names`` with those last that need the list."""
        return sorted(names, key=lambda name: name in self.NEEDED_BY)


def take_request(control: socket.socket) -> list[int] | None:
    """Return the descriptors of the next request; ``None`` when the server is gone."""
    message, descriptors, _flags, _address = socket.recv_fds(control, 64, REQUEST_FDS)
    if not message:
        return None
    if len(descriptors) != REQUEST_FDS:
        for descriptor in descriptors:
            os.close(descriptor)
        return []
    return list(descriptors)


def fork_kernel(control: socket.socket, descriptors: list[int]) -> None:
    """Fork the kernel of one request; returns in this process only."""
    between = os.fork()
    if between == 0:
        # No cleanup of the parent may run in a child that goes wrong: _exit always.
        status = 1
        try:
            orphaned_by = os.getpid()
            if os.fork() != 0:
                os._exit(0)
            control.close()
            # The kernel watches its parent: it has to be the server by then.
            while os.getppid() == orphaned_by:
                time.sleep(0.0005)
            from astrocloud_lab.kernels import child

            status = child.run(*descriptors)
        finally:
            os._exit(status)
    os.waitpid(between, 0)
    for descriptor in descriptors:
        os.close(descriptor)


def freeze() -> None:
    """Put all objects out of the collector's reach, so that forks keep sharing their pages."""
    gc.collect()
    gc.freeze()


def import_without_debugger() -> None:
    """Import the kernel's part of the debugger without the debugger, where kernels have none.

    The part takes that as a debugger that is not installed; the person's own import of
    ``debugpy`` works as ever.
    """
    hidden = "debugpy" not in sys.modules
    if hidden:
        sys.modules["debugpy"] = None  # type: ignore[assignment]
    try:
        importlib.import_module("ipykernel.debugger")
    finally:
        if hidden:
            del sys.modules["debugpy"]


def serve(control: socket.socket) -> None:
    """Answer requests; import the next module whenever there is none."""
    # Now, and not before matplotlib: a kernel may be quicker there.
    fonts.offer(os.environ, Path.home())
    if network.is_shared(os.environ):
        import_without_debugger()
    for name in FIRST[:3]:
        importlib.import_module(name)
    for name in FIRST[3:]:
        import_quietly(name)
    importlib.import_module("astrocloud_lab.kernels.child")
    gc.freeze()
    waiting = [name for name in wanted_modules() if name not in sys.modules]
    listed = FontList()
    held = False
    go_on_at = 0.0
    while True:
        blocked = held or not waiting
        watched: list[Any] = [control, listed] if held else [control]
        pause_s = max(0.0, go_on_at - time.monotonic())
        ready = select.select(watched, [], [], None if blocked else pause_s)[0]
        if control in ready:
            descriptors = take_request(control)
            if descriptors is None:
                return
            if descriptors:
                fork_kernel(control, descriptors)
                go_on_at = time.monotonic() + AFTER_FORK_S
        elif listed in ready:
            listed.finish()
            held = False
        elif listed.has_to_wait_for(waiting[0]):
            waiting = listed.put_off(waiting)
            held = listed.has_to_wait_for(waiting[0])
        else:
            import_quietly(waiting.pop(0))
            if not waiting:
                freeze()


def main() -> None:
    """Serve until the server closes its end."""
    run(socket.socket(fileno=int(os.environ.pop(CONTROL_FD_ENV))))


def run(control: socket.socket) -> None:
    """Serve until the other end of `control` is closed."""
    control.set_inheritable(False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # As ipykernel_launcher does: the working folder is not searched while importing.
    if sys.path and sys.path[0] in ("", os.getcwd()):
        del sys.path[0]
    inline = "MPLBACKEND" not in os.environ
    inline_backend()
    gc.disable()
    try:
        serve(control)
    finally:
        if inline:
            os.environ.pop("MPLBACKEND", None)


if __name__ == "__main__":
    main()
