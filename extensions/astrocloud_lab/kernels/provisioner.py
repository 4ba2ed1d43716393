"""A kernel provisioner that asks the forking parent, and starts kernels itself otherwise."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning import LocalProvisioner
from traitlets import Bool, Float

from astrocloud_lab.kernels import fingerprint, memory, network, parent

PR_SET_CHILD_SUBREAPER = 36
"""See prctl(2): orphans below this process become its children."""

INTERPRETER_OPTIONS = ("-Xfrozen_modules=off",)
"""Options in a kernel's command that change nothing for a forked kernel."""


class NotPreparedError(Exception):
    """A kernel cannot come from the parent; the text says why."""


@contextlib.contextmanager
def adopting() -> Iterator[None]:
    """Be the reaper of orphaned descendants, for as long as a kernel is forked.

    Not for ever: a server that adopts would gather the zombies of every program
    that a person puts into the background of a terminal.
    """
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    if prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise NotPreparedError(f"prctl: {os.strerror(ctypes.get_errno())}")
    try:
        yield
    finally:
        prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


class ForkedProcess:
    """A child that was not started by :mod:`subprocess`, with the part of Popen that is used."""

    stdin = stdout = stderr = None

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal; ``None`` while it runs."""
        if self.returncode is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:
                # Reaped by someone else, or never ours: gone either way.
                self.returncode = 1
            else:
                if pid:
                    self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the exit code."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            code = self.poll()
            if code is not None:
                return code
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(["kernel"], timeout or 0.0)
            time.sleep(0.01)

    def send_signal(self, signum: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, signum)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)


def launcher_arguments(command: Sequence[str], executable: str) -> list[str]:
    """Return what follows ``python -m ipykernel_launcher`` in a kernel's command.

    Raises
    ------
    NotPreparedError
        If it is another program, another interpreter or has options of its own.
    """
    if not network.is_interpreter(command, executable):
        raise NotPreparedError(f"its interpreter is {command[0]}")
    rest = list(command[1:])
    while rest and rest[0] in INTERPRETER_OPTIONS:
        del rest[0]
    if rest[:2] != ["-m", "ipykernel_launcher"]:
        raise NotPreparedError("it is not started as 'python -m ipykernel_launcher'")
    return rest[2:]


def differing(environ: Mapping[str, str], at_start: Mapping[str, str]) -> list[str]:
    """Return the names of variables read at import that are not as the parent had them."""
    wanted = fingerprint.sensitive(environ)
    return sorted(name for name in {*wanted, *at_start} if wanted.get(name) != at_start.get(name))


class PreparedProvisioner(LocalProvisioner):
    """Starts Python kernels by forking a process that has imported what they need.

    Whatever stands against it (another interpreter or environment, packages
    installed meanwhile, a parent that is gone or slow) leads to an ordinary start.
    """

    prepared = Bool(True, config=True, help="Whether to fork kernels from a prepared process.")

    answer_timeout_s = Float(10.0, config=True, help="Seconds to wait for a forked kernel before an ordinary start.")

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        """Fork the kernel, or start it as usual; returns when a forked one has bound its sockets."""
        if network.is_shared(os.environ):
            cmd = network.kernel_command(cmd, sys.executable)
        if not self.prepared or os.environ.get("ASTROCLOUD_PREPARE_KERNEL") == "0":
            return await self._launch_as_usual(cmd, kwargs)
        try:
            with contextlib.ExitStack() as stack:
                self.process = await self._fork(cmd, kwargs, stack)
        except (NotPreparedError, OSError) as reason:
            self.log.info("Kernel is started without preparation: %s", reason)
            if parent.current() is None:
                parent.start()
            return await self._launch_as_usual(cmd, kwargs)
        self.pid = self.pgid = self.process.pid
        self.cwd = kwargs.get("cwd") or os.getcwd()
        return self.connection_info

    async def _launch_as_usual(self, cmd: list[str], kwargs: dict[str, Any]) -> KernelConnectionInfo:
        info = await super().launch_kernel(cmd, **kwargs)
        if self.pid is not None:
            memory.offer_first(self.pid)
        return info

    async def _fork(self, cmd: list[str], kwargs: dict[str, Any], stack: contextlib.ExitStack) -> ForkedProcess:
        running = parent.current()
        environ: dict[str, str] = dict(kwargs.get("env") or os.environ)
        cwd = str(kwargs.get("cwd") or os.getcwd())
        if running is None or running.stale():
            # Ready for the next kernel; this one would wait longer for it than for its own.
            parent.stop()
            raise NotPreparedError("nothing was prepared yet" if running is None else "packages have changed")
        arguments = launcher_arguments(cmd, running.executable)
        names = differing(environ, running.environ)
        if names:
            raise NotPreparedError(f"it has its own {', '.join(names)}")
        if fingerprint.has_settings(cwd):
            raise NotPreparedError("its folder has a matplotlibrc")
        # As jupyter_client.launcher does for a kernel that it starts.
        environ["JPY_PARENT_PID"] = str(os.getpid())
        null = os.open(os.devnull, os.O_RDONLY)
        stack.callback(os.close, null)
        streams = [null, *(self._stream(kwargs, name) for name in ("stdout", "stderr"))]
        with adopting():
            answer = stack.enter_context(running.ask(arguments, environ, cwd, streams))
            reply = await self._answer(answer)
        if "error" in reply:
            raise NotPreparedError(f"the prepared kernel failed: {reply['error']}")
        return ForkedProcess(int(reply["pid"]))

    @staticmethod
    def _stream(kwargs: Mapping[str, Any], name: str) -> int:
        """Return the descriptor for a standard stream: the caller's, or the server's own."""
        given = kwargs.get(name)
        if given is None:
            return 1 if name == "stdout" else 2
        if isinstance(given, int):
            if given < 0:
                raise NotPreparedError(f"its {name} is a pipe")
            return given
        return int(given.fileno())

    async def _answer(self, answer: socket.socket) -> dict[str, Any]:
        """Wait for the kernel's one line."""
        loop = asyncio.get_running_loop()
        received = b""
        try:
            async with asyncio.timeout(self.answer_timeout_s):
                while not received.endswith(b"\n"):
                    piece = await loop.sock_recv(answer, 4096)
                    if not piece:
                        raise NotPreparedError("the prepared kernel died while starting")
                    received += piece
        except TimeoutError:
            raise NotPreparedError(f"no kernel within {self.answer_timeout_s} s") from None
        reply: dict[str, Any] = json.loads(received)
        return reply
