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

REQUEST = b"server"
READY = b"ready"
FIXED_FDS = 5
MOST_FDS = 16


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
    from astrocloud_lab.forked import enter

    enter.give_up_what_is_not_permitted()
    from astrocloud_lab.forked import imports

    imports.import_everything()
    check_threads()
    gc.collect()
    gc.freeze()
    sys.stderr.write(f"astrocloud_lab: ready to fork, with {len(sys.modules)} modules\n")
    sys.stderr.flush()
    control.send(READY)
    serve(control)


if __name__ == "__main__":
    main()
