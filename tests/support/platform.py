"""A real platform, started by its own command in its own data folder, and ended with nothing left."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml

from astrocloud.core.layout import DataFolder
from astrocloud.core.runtime import SERVICES, Runtime

T = TypeVar("T")
REPOSITORY = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "astrocloud.cli"]


def wait_until(condition: Callable[[], T | None], *, within_s: float, what: str) -> T:
    """Return the first true value of `condition`; fail when there is none within `within_s` seconds."""
    deadline = time.monotonic() + within_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            msg = f"waited {within_s} s in vain for: {what}"
            raise AssertionError(msg)
        time.sleep(0.05)


def free_port() -> int:
    """Return a port of the loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True, kw_only=True)
class Addresses:
    """Where a platform's parts listen, as code in a person's server reaches them past the proxy."""

    hub_api: str
    proxy_api: str
    services: dict[str, str]
    """The name of a service -> where it is."""


class Commands(ABC):
    """The commands of an operator, wherever the platform runs."""

    @abstractmethod
    def run(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run an ``astrocloud`` command."""

    def run_json(self, *arguments: str, stdin: str = "") -> Any:
        """Run a command that must succeed, with ``--json``, and return what it prints."""
        done = self.run(*arguments, "--json", stdin=stdin)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def add(self, name: str, password: str, *options: str) -> None:
        """Add a person with a password."""
        self.run_json("user", "add", name, "--password-stdin", *options, stdin=password + "\n")


@dataclass
class Platform(Commands):
    """One platform on this machine."""

    data: Path
    port: int
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    scheme: str = "http"

    @property
    def url(self) -> str:
        """Its address."""
        return f"{self.scheme}://127.0.0.1:{self.port}"

    @property
    def variables(self) -> dict[str, str]:
        """The environment its commands run in."""
        return {
            **os.environ,
            "LANG": "C.UTF-8",
            "ASTROCLOUD_DATA": str(self.data),
            "ASTROCLOUD_PORT": str(self.port),
            **self.environment,
        }

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return (self.data.parent / f"{self.data.name}.out").read_text(encoding="utf-8")

    def start(self, *, within_s: float = 60) -> None:
        """Start it and wait for its ready line."""
        self.data.parent.mkdir(parents=True, exist_ok=True)
        with (self.data.parent / f"{self.data.name}.out").open("wb") as out:
            self.process = subprocess.Popen([*COMMAND, "up"], env=self.variables, stdout=out, stderr=out)

        def ready() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.output}\n{self.logs()}"
            return f"Astrocloud is ready: {self.url}" in self.output

        wait_until(ready, within_s=within_s, what="the ready line")

    def stop(self, number: signal.Signals = signal.SIGTERM, *, within_s: float = 40) -> int:
        """End it and return its exit status."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(within_s)
        self.process = None
        return code

    def run(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run an ``astrocloud`` command on it."""
        return subprocess.run(
            [*COMMAND, *arguments],
            env=self.variables,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def part(self, name: str) -> int:
        """Return the process id of a part."""

        def pid() -> int | None:
            try:
                status = json.loads((self.data / "run" / "status.json").read_text(encoding="utf-8"))
            except FileNotFoundError:
                return None
            found: int | None = status["parts"][name]
            return found

        return wait_until(pid, within_s=20, what=f"{name} to run")

    def processes(self, part: str) -> list[int]:
        """Return the process ids of a part; on one machine there is one of each."""
        return [self.part(part)]

    @property
    def addresses(self) -> Addresses:
        """Where its parts listen."""
        runtime = Runtime.read(DataFolder(self.data))
        return Addresses(
            hub_api=runtime.hub_api_url,
            proxy_api=runtime.proxy_api_url,
            services=dict.fromkeys(SERVICES, runtime.services_url),
        )

    def _record(self, user: str) -> Any:
        return json.loads((self.data / "run" / "servers" / f"{user}..json").read_text(encoding="utf-8"))

    def server_url(self, user: str) -> str:
        """Return where the server of `user` listens, past the proxy."""
        return f"http://127.0.0.1:{self._record(user)['port']}"

    def server_process(self, user: str) -> int:
        """Return the first process of the server of `user`."""
        return int(self._record(user)["init"]["pid"])

    def secrets(self) -> dict[str, str]:
        """Return the platform's own secrets by their names."""
        return {path.name: path.read_text(encoding="utf-8").strip() for path in (self.data / "secrets").iterdir()}

    def log(self, name: str) -> str:
        """Return the log of a part; ``servers/NAME.`` is that of a person's server."""
        return (self.data / "logs" / f"{name}.log").read_text(encoding="utf-8")

    def all_logs(self) -> dict[str, str]:
        """Return all that it has written into logs and printed."""
        files = [path for path in (self.data / "logs").rglob("*") if path.is_file()]
        found = {path.name: path.read_text(encoding="utf-8", errors="replace") for path in files}
        return found | {"what it printed": self.output}

    def logs(self) -> str:
        """Return the ends of its logs, for the message of a failed test."""
        found = []
        for log in sorted((self.data / "logs").rglob("*.log")):
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-25:]
            found.append(f"--- {log.name}\n" + "\n".join(lines))
        return "\n".join(found)


@contextmanager
def running_platform(folder: Path, *, config: dict[str, Any] | None = None, **environment: str) -> Iterator[Platform]:
    """A platform below `folder`, ended at the end.

    Environments are shared between platforms, because making one takes a minute.
    """
    data = folder / "data"
    data.mkdir(parents=True)
    data.chmod(0o711)
    shared = Path(os.environ.get("ASTROCLOUD_TEST_CACHE") or REPOSITORY / ".cache" / "environments")
    document: dict[str, Any] = {"environments": {"store": str(shared)}, **(config or {})}
    (data / "astrocloud.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    scheme = "https" if "tls" in document else "http"
    platform = Platform(data=data, port=free_port(), environment=environment, scheme=scheme)
    try:
        platform.start()
        yield platform
    finally:
        if platform.process is not None:
            platform.stop()
