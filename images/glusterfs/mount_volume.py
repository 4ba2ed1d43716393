#!/usr/bin/python3
"""Keep a GlusterFS volume mounted on a node, and tell whether it is.

Starts the client in the foreground, mounts anew where somebody unmounted, and looks at the volume every few seconds.
When a client that served the volume ends, so does this program: the container's next start makes the next mount, and
by its time everybody knows which servers still hold the old one.

``GET /health`` answers 200 while the volume can be used, else 503 with the reason; ``GET /metrics`` is for Prometheus.
The standard library is all it takes.
"""

import argparse
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

LOOK_EVERY_S = 2.0
STALLED_AFTER_S = 10.0
LONGEST_PAUSE_S = 15.0


def say(event: str, **about: object) -> None:
    """Write one line of JSON to the log."""
    sys.stdout.write(json.dumps({"event": event, "at": round(time.time(), 3), **about}) + "\n")
    sys.stdout.flush()


class State:
    """What is known of the mount; written by the main thread, read by requests."""

    def __init__(self) -> None:
        self.reason = "not mounted yet"
        self.mounts = 0
        self.size = 0
        self.free = 0

    def tell(self, reason: str) -> None:
        """Note why the volume cannot be used; empty when it can."""
        if reason != self.reason:
            say("volume-usable" if not reason else "volume-unusable", reason=reason)
        self.reason = reason

    def metrics(self) -> str:
        """Return the figures in Prometheus' text format."""
        rows = (
            (
                "astrocloud_mount_usable",
                "gauge",
                "Whether the file tree can be used on this node.",
                int(not self.reason),
            ),
            ("astrocloud_mounts_total", "counter", "How often the volume was mounted.", self.mounts),
            ("astrocloud_mount_size_bytes", "gauge", "Size of the volume.", self.size),
            ("astrocloud_mount_free_bytes", "gauge", "What is free of it.", self.free),
        )
        return "".join(
            f"# HELP {name} {text}\n# TYPE {name} {kind}\n{name} {value}\n" for name, kind, text, value in rows
        )


class Look:
    """One look at the mounted volume at a time, in a thread of its own: it may hang for as long as the servers do."""

    def __init__(self, target: Path, folder: str, state: State) -> None:
        self._target = target
        self._folder = folder
        self._state = state
        self._began = 0.0
        self._thread: threading.Thread | None = None
        self._error: OSError | None = None

    def forget(self) -> None:
        """Look anew: what was looked at is not mounted any more."""
        self._thread = None

    def now(self) -> OSError | str:
        """Return what is wrong: an error, or a text (empty when nothing is)."""
        if self._thread is None:
            self._began = time.monotonic()
            self._thread = threading.Thread(target=self._look, daemon=True)
            self._thread.start()
        self._thread.join(LOOK_EVERY_S / 2)
        if self._thread.is_alive():
            waited = time.monotonic() - self._began
            # One text for as long as it lasts: the log has a line for each other one.
            stalled = f"the volume has not answered for {STALLED_AFTER_S:.0f} s or more"
            return stalled if waited > STALLED_AFTER_S else self._state.reason
        self._thread = None
        return self._error or ""

    def _look(self) -> None:
        try:
            volume = os.open(self._target, os.O_RDONLY | os.O_DIRECTORY)
            try:
                # Never on the node's own disk.
                if os.fstat(volume).st_dev == self._target.parent.stat().st_dev:
                    raise OSError(errno.ENODEV, "not mounted")
                with suppress(FileExistsError):
                    os.mkdir(self._folder, 0o755, dir_fd=volume)
                found = os.statvfs(volume)
            finally:
                os.close(volume)
            self._state.size = found.f_blocks * found.f_frsize
            self._state.free = found.f_bavail * found.f_frsize
            self._error = None
        except OSError as err:
            self._error = err


class Keeper:
    """Keeps the volume mounted."""

    def __init__(self, command: list[str], target: Path, folder: str, state: State) -> None:
        self._command = [*command, str(target)]
        self._target = target
        self._state = state
        self._look = Look(target, folder, state)
        self._client: subprocess.Popen[bytes] | None = None
        # A client whose mount somebody took away still serves whoever uses it.
        self._others: list[subprocess.Popen[bytes]] = []
        self._served = False
        self._pause_s = 1.0
        self._not_before = 0.0

    def step(self) -> bool:
        """Look once, and mend what is broken; return whether to go on."""
        if self._client is not None and self._client.poll() is not None:
            self._state.tell(f"the client ended with {self._client.returncode}")
            self._client = None
            if self._served:
                return False
        # Of one whose mount was taken away, nobody need be told.
        self._others = [other for other in self._others if other.poll() is None]
        if self._client is None:
            self._mount()
        else:
            self._check(self._client)
        return True

    def _check(self, client: subprocess.Popen[bytes]) -> None:
        if not self.is_mounted():
            if time.monotonic() > self._not_before + STALLED_AFTER_S:
                self._state.tell("unmounted by somebody; mounting anew")
                self._others.append(client)
                self._client = None
            return
        wrong = self._look.now()
        # Whatever is wrong with its servers: a client that lives finds them again, and nobody's files have to be opened
        # anew.
        if not wrong:
            self._served = True
            self._pause_s = 1.0
        self._state.tell(str(wrong))

    def _mount(self) -> None:
        if time.monotonic() < self._not_before:
            return
        self.unmount()
        self._look.forget()
        self._target.mkdir(mode=0o755, exist_ok=True)
        self._client = subprocess.Popen(self._command, stdin=subprocess.DEVNULL)
        self._state.mounts += 1
        say("volume-mounting", client=self._client.pid)
        self._not_before = time.monotonic() + self._pause_s
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)

    def is_mounted(self) -> bool:
        """Whether something is mounted at the target."""
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        return any(line.split()[4] == str(self._target) for line in mounts)

    def unmount(self) -> None:
        """Take away what is mounted at the target, a mount without its client, too."""
        while self.is_mounted():
            if subprocess.run(["umount", "--lazy", str(self._target)], check=False).returncode:
                break

    def end(self) -> None:
        """Unmount; whoever still uses the volume loses it with the clients."""
        self.unmount()
        for client in filter(None, [self._client, *self._others]):
            client.terminate()


def serve(state: State, port: int) -> None:
    """Answer requests from now on, in a thread."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/metrics":
                self._answer(200, state.metrics())
            elif self.path == "/health":
                self._answer(503 if state.reason else 200, (state.reason or "ok") + "\n")
            else:
                self._answer(404, "there are /health and /metrics\n")

        def _answer(self, status: int, text: str) -> None:
            data = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/plain; charset=utf-8")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_arguments: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        address_family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET

    threading.Thread(target=Server(("", port), Handler).serve_forever, daemon=True).start()


def client_command(options: argparse.Namespace) -> list[str]:
    """Return the command line of the client, without the target."""
    # Brackets around an address are for addresses with a port: the client takes them for part of a name.
    servers = [f"--volfile-server={server.strip('[]')}" for server in options.server]
    family = ["--xlator-option=transport.address-family=inet6"] if options.ipv6 else []
    return [
        "glusterfs",
        "--no-daemon",
        "--log-file=-",
        "--log-level=WARNING",
        "--process-name=fuse",
        # Shares are access control lists.
        "--acl",
        # Who left a group is out of it soon.
        "--gid-timeout=10",
        *servers,
        *family,
        *options.option,
        f"--volfile-id={options.volume}",
    ]


def main() -> int:
    """Mount until told to end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", action="append", required=True, help="where the volume is served; several: in turn")
    parser.add_argument("--volume", required=True)
    parser.add_argument("--target", type=Path, required=True, help="where it is mounted")
    parser.add_argument("--folder", required=True, help="the folder in the volume that is made")
    parser.add_argument("--ipv6", action="store_true", help="the servers are reached by IPv6")
    parser.add_argument("--option", action="append", default=[], help="one more argument of the client")
    parser.add_argument("--port", type=int, default=9127)
    options = parser.parse_args()
    ending = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ending.set())
    state = State()
    serve(state, options.port)
    keeper = Keeper(client_command(options), options.target, options.folder, state)
    while not ending.is_set():
        if not keeper.step():
            keeper.end()
            return 1
        # A new mount is looked at soon.
        ending.wait(0.2 if state.reason else LOOK_EVERY_S)
    keeper.end()
    return 0


if __name__ == "__main__":
    sys.exit(main())
