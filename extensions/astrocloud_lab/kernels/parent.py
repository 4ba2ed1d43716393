"""The server's handle on the process that forks kernels.

The process is started by :func:`start` before the server's own imports, and again
by the provisioner when it is stale or gone.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from astrocloud_lab.kernels import fingerprint

CONTROL_FD_ENV = "ASTROCLOUD_KERNEL_CONTROL_FD"
"""Tells the process which descriptor to listen on; removed before anything else runs."""


class KernelParent:
    """One process that has imported what kernels need, and forks them.

    Attributes
    ----------
    pid
        Its process id.
    executable
        The interpreter it runs, as in a kernel specification.
    environ
        The variables it started with that matter (see :mod:`.fingerprint`).

    Parameters
    ----------
    environ
        Its environment, by default this process's.
    fork
        Whether it is forked from this process, and not started.
    """

    def __init__(self, environ: Mapping[str, str] | None = None, *, fork: bool = False) -> None:
        started = dict(os.environ if environ is None else environ)
        self.executable = sys.executable
        self.environ = fingerprint.sensitive(started)
        self.fingerprint = fingerprint.take()
        self.started_at = time.monotonic()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self.pid = self._fork(started, ours, theirs) if fork else self._spawn(started, theirs)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self._control = ours
        self._ended = False

    def _spawn(self, environ: Mapping[str, str], control: socket.socket) -> int:
        """Start the process and return its id."""
        os.set_inheritable(control.fileno(), True)
        # posix_spawn and not subprocess: nothing of subprocess is imported yet.
        # Its standard streams are the server's: kernels log where they always did.
        return os.posix_spawn(
            self.executable,
            [self.executable, "-m", "astrocloud_lab.kernels.forkserver"],
            forkserver_environ(environ) | {CONTROL_FD_ENV: str(control.fileno())},
            # Signals that the server ignores or handles start afresh, and a Ctrl-C at
            # a terminal does not reach it.
            setpgroup=0,
            setsigdef=(signal.SIGINT, signal.SIGTERM, signal.SIGPIPE),
        )

    def _fork(self, environ: Mapping[str, str], ours: socket.socket, control: socket.socket) -> int:
        """Fork the process, which then has imported all that this one has; return its id.

        Only while this process has one thread and no event loop.
        """
        from astrocloud_lab.kernels import forkserver

        pid = os.fork()
        if pid:
            return pid
        try:
            os.setpgid(0, 0)
            ours.close()
            kept = forkserver_environ(environ)
            os.environ.clear()
            os.environ.update(kept)
            forkserver.run(control)
        finally:
            os._exit(0)

    def alive(self) -> bool:
        """Return whether the process still takes requests; reaps it if not."""
        if not self._ended:
            try:
                # A process that is ending closes its sockets before it can be reaped: in
                # that moment a request would fail and the process still count as alive.
                options = 0 if self._hung_up() else os.WNOHANG
                self._ended = os.waitpid(self.pid, options)[0] != 0
            except ChildProcessError:
                self._ended = True
        return not self._ended

    def _hung_up(self) -> bool:
        """Return whether the other end of the control socket is closed."""
        if self._control.fileno() < 0:
            return False
        poll = select.poll()
        poll.register(self._control, 0)
        return any(events & (select.POLLHUP | select.POLLERR) for _descriptor, events in poll.poll(0))

    def stale(self) -> bool:
        """Return whether packages or their settings changed since it started."""
        return fingerprint.take() != self.fingerprint

    def ask(self, argv: Sequence[str], environ: Mapping[str, str], cwd: str, streams: Sequence[int]) -> socket.socket:
        """Ask for a kernel.

        Parameters
        ----------
        argv
            What follows ``python -m ipykernel_launcher``.
        environ
            The kernel's whole environment.
        cwd
            Its working folder.
        streams
            Descriptors of its standard input, output and error.

        Returns
        -------
        socket.socket
            Non-blocking; answers one JSON line: ``{"pid": …}`` when the kernel has
            bound its sockets, ``{"error": …}`` when it could not.  Closed without a
            line if the child died.

        Raises
        ------
        OSError
            If the parent is gone, or does not take the request.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            ours.setblocking(False)
            self._control.setblocking(False)
            request = {"argv": list(argv), "environ": dict(environ), "cwd": cwd}
            payload = json.dumps(request).encode("utf-8", "surrogateescape")
            with os.fdopen(os.memfd_create("kernel-request"), "w+b") as memory:
                # In memory and not in the message: an environment may be larger than
                # a socket's buffer.
                memory.write(payload)
                memory.flush()
                descriptors = [theirs.fileno(), memory.fileno(), *streams]
                socket.send_fds(self._control, [b"kernel"], descriptors)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return ours

    def stop(self) -> None:
        """End the process; its kernels live on."""
        self._control.close()
        if self.alive():
            try:
                # The whole group: it may be writing the list of fonts in a child.
                os.killpg(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
            except (ProcessLookupError, ChildProcessError):
                pass
            self._ended = True


def forkserver_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without the platform's secrets and the server's own.

    The parent needs none of it, and each kernel gets its environment anew.
    """
    return {name: value for name, value in environ.items() if not name.startswith("JUPYTERHUB_")}


_parent: KernelParent | None = None


def start(*, fork: bool = False) -> KernelParent:
    """Start the parent unless there is one that can be used; return it.

    Parameters
    ----------
    fork
        Whether this process has imported what kernels need, and nothing runs in it yet.
    """
    global _parent  # noqa: PLW0603  # one a process
    if _parent is not None and (not _parent.alive() or _parent.stale()):
        stop()
    if _parent is None:
        _parent = KernelParent(fork=fork)
    return _parent


def current() -> KernelParent | None:
    """Return the running parent, if any."""
    return _parent if _parent is not None and _parent.alive() else None


def stop() -> None:
    """End the parent, if any."""
    global _parent  # noqa: PLW0603  # one a process
    if _parent is not None:
        _parent.stop()
    _parent = None


def status() -> dict[str, Any]:
    """Return what the parent is and costs.

    Returns
    -------
    dict
        ``pid`` (``None`` without a parent) and ``pss_bytes``: its proportional
        share of memory, in which pages shared with kernels count once for all.
    """
    parent = current()
    if parent is None:
        return {"pid": None, "pss_bytes": 0}
    pss = 0
    try:
        with open(f"/proc/{parent.pid}/smaps_rollup", encoding="ascii") as rollup:
            for line in rollup:
                if line.startswith("Pss:"):
                    pss = int(line.split()[1]) * 1024
    except OSError:
        pss = 0
    return {"pid": parent.pid, "pss_bytes": pss}
