"""The life of a platform on one machine, from the first check to the last process."""

import asyncio
import contextlib
import errno
import fcntl
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import aiohttp
import structlog

from astrocloud.config import Config
from astrocloud.core.errors import StartError
from astrocloud.core.isolation import find_out_for_all_parts
from astrocloud.core.layout import DataFolder
from astrocloud.core.runtime import Runtime, write_json
from astrocloud.core.secrets import SecretFiles
from astrocloud.supervisor import programs
from astrocloud.supervisor.processes import Part, become_subreaper, descendants, end_all, reap_orphans, stat_of

_READY_WITHIN_S: Final = 60.0
_PATIENCE_S: Final = 5.0
_LOGS_EVERY_S: Final = 30.0
_log = structlog.get_logger()


def check_port(bind: str, port: int) -> None:
    """Check that nobody listens on `port`.

    Raises
    ------
    StartError
        ``port-in-use``, or ``bind-address`` when `bind` is no address of this machine.
    """
    try:
        family = socket.getaddrinfo(bind, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((bind, port))
            probe.listen(1)
    except PermissionError as err:
        raise StartError("port-forbidden", port=port) from err
    except (OSError, UnicodeError) as err:  # UnicodeError: no host can have such a name
        if isinstance(err, OSError) and err.errno == errno.EADDRINUSE:
            raise StartError("port-in-use", port=port, bind=bind) from err
        raise StartError("bind-address", bind=bind[:80]) from err


def listen_for_bytes(bind: str, wanted: int, *, candidates: Sequence[int]) -> socket.socket:
    """Return a socket that listens on the port `wanted` of `bind`, or for 0 on the first free one of `candidates`.

    Raises
    ------
    StartError
        ``bytes-port-in-use``, or as `check_port` does.
    """
    family = socket.getaddrinfo(bind, wanted, type=socket.SOCK_STREAM)[0][0]
    for port in [wanted] if wanted else [*candidates, 0]:
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((bind, port))
            listening.listen(128)
        except OSError as err:
            listening.close()
            if isinstance(err, PermissionError) and wanted:
                raise StartError("port-forbidden", port=port) from err
            if port in {wanted, 0}:
                raise StartError("bytes-port-in-use", port=port, bind=bind) from err
        else:
            return listening
    raise AssertionError


@contextmanager
def only_one(data: DataFolder, *, patience_s: float = 1.0) -> Iterator[None]:
    """Hold the data folder for this process. Raises `StartError` ``already-running`` if another one does.

    It is tried for `patience_s` seconds, because whoever asks `is_running` holds the folder for a moment too.
    """
    deadline = time.monotonic() + patience_s
    with (data.run / "lock").open("a+") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as err:
                if time.monotonic() > deadline:
                    raise StartError("already-running", folder=str(data.root)) from err
                time.sleep(0.002)
        yield


def is_running(data: DataFolder) -> bool:
    """Whether a platform runs on `data`."""
    try:
        with only_one(data, patience_s=0):
            return False
    except StartError:
        return True
    except FileNotFoundError:
        return False


class Supervisor:
    """One running platform.

    Parameters
    ----------
    config, data, runtime, secrets
        The platform's configuration, folder, addresses and secrets.
    bytes_socket
        Listens for bytes; held here as long as the platform runs, so that nobody gets its port between two processes.
    """

    def __init__(
        self,
        *,
        config: Config,
        data: DataFolder,
        runtime: Runtime,
        secrets: SecretFiles,
        bytes_socket: socket.socket,
    ) -> None:
        self._config = config
        self._bytes_socket = bytes_socket
        self._data = data
        self._runtime = runtime
        self._secrets = secrets
        self._parts: dict[str, Part] = {}
        self._ending = asyncio.Event()
        self._failure: StartError | None = None

    async def run(self, *, when_ready: Callable[[], Awaitable[None]], when_ending: Callable[[], None]) -> None:
        """Start everything, call `when_ready` once it answers, and return after SIGINT or SIGTERM with all ended.

        `when_ending` is called when the signal has come, before the first part is ended.

        Raises
        ------
        StartError
            ``part-failed`` when a part does not come up.
        """
        become_subreaper()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._ending.set)
        loop.add_signal_handler(signal.SIGCHLD, self._reap)
        await self._end_leftovers()
        await asyncio.to_thread(find_out_for_all_parts)
        self._parts = programs.parts(
            config=self._config,
            runtime=self._runtime,
            data=self._data,
            secrets=self._secrets,
            bytes_socket=self._bytes_socket.fileno(),
        )
        watchers = [asyncio.create_task(self._keep(part)) for part in self._parts.values()]
        watchers.append(asyncio.create_task(self._shorten_logs()))
        try:
            if await self._until_ready():
                self._write_status()
                await when_ready()
                await self._ending.wait()
        finally:
            if self._failure is None:
                when_ending()
            self._ending.set()
            await self._end(watchers)
        if self._failure is not None:
            raise self._failure

    def _reap(self) -> None:
        if any(part.starting for part in self._parts.values()):
            return  # its process id is not known yet, so it would be taken for an orphan; `_keep` calls again
        reap_orphans({part.pid for part in self._parts.values() if part.pid is not None})

    async def _keep(self, part: Part) -> None:
        """Start `part`, and again whenever it ends, until the platform does."""
        pause_s = 0.1
        while not self._ending.is_set():
            started = time.monotonic()
            try:
                await part.start()
                self._reap()
                self._write_status()
                code = await part.wait()
                if self._ending.is_set():
                    return
                _log.error("part-ended", ended=part.name, exit_code=code)
            except OSError as err:  # a full disk, no more processes: it may pass
                if part.pid is not None:
                    await part.wait()
                _log.error("part-not-started", not_started=part.name, reason=str(err))
            lived_s = time.monotonic() - started
            pause_s = 0.1 if lived_s > 30 else min(pause_s * 2, 10)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), pause_s)
            if part.name == "proxy" and not self._ending.is_set():
                # A new proxy knows no routes; the hub does, but looks only every few minutes.
                self._routes = asyncio.create_task(self._restore_routes())

    async def _shorten_logs(self) -> None:
        """Look at the parts' logs now and then: every request, of anybody, makes them longer."""
        while not self._ending.is_set():
            for part in self._parts.values():
                await asyncio.to_thread(part.shorten_log)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), _LOGS_EVERY_S)

    async def _restore_routes(self) -> None:
        token = self._secrets.get("service-operator").get_secret_value()
        headers = {"Authorization": f"token {token}"}
        async with aiohttp.ClientSession(headers=headers) as session:
            while not self._ending.is_set():
                try:
                    async with session.post(f"{self._runtime.hub_api_url}/proxy") as answer:
                        if answer.status < 400:
                            _log.info("routes-restored")
                            return
                except (aiohttp.ClientError, TimeoutError):
                    pass  # the proxy's API or the hub is not up yet
                await asyncio.sleep(0.1)

    async def _until_ready(self) -> bool:
        """Wait until every part answers through the proxy; `False` when the end comes first."""
        base = self._runtime.proxy_url
        waiting = [f"{base}/hub/health", f"{base}/services/portal/health", f"{base}/services/passport/health"]
        deadline = time.monotonic() + _READY_WITHIN_S
        # Its own certificate, whatever names that is good for: this asks whether the parts answer, and says no secret.
        connector = aiohttp.TCPConnector(ssl=False)
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5), connector=connector) as session:
            while waiting and not self._ending.is_set():
                try:
                    async with session.get(waiting[0]) as answer:
                        if answer.status == 200:
                            waiting.pop(0)
                            continue
                except (aiohttp.ClientError, TimeoutError):
                    pass  # not up yet
                if time.monotonic() > deadline:
                    self._failure = self._not_ready(waiting[0])
                    return False
                await asyncio.sleep(0.05)
        return not waiting

    def _not_ready(self, address: str) -> StartError:
        name = "hub" if "/hub/" in address else "services"
        part = self._parts[name]
        sys.stderr.write(part.last_lines() + "\n")
        return StartError("part-failed", part=name, log=str(self._data.logs / f"{name}.log"))

    def _write_status(self) -> None:
        document = {
            "pid": os.getpid(),
            "url": self._runtime.public_url,
            "parts": {name: part.pid for name, part in self._parts.items()},
        }
        write_json(self._data.run / "status.json", document)

    async def _end(self, watchers: list[asyncio.Task[None]]) -> None:
        """End the hub first so that it starts nothing more, then people's servers, then what they talk to."""
        for name in ("hub", "services", "proxy"):
            self._parts[name].send(signal.SIGTERM)
        await asyncio.wait(watchers, timeout=_PATIENCE_S)
        # What is left are people's servers and whatever ignored SIGTERM; all are our descendants.
        while left := descendants(os.getpid()):
            await end_all(left, patience_s=_PATIENCE_S)
            self._reap()
        await asyncio.gather(*watchers, return_exceptions=True)
        (self._data.run / "status.json").unlink(missing_ok=True)

    async def _end_leftovers(self) -> None:
        """End servers of an earlier platform that was killed: nobody would find them again."""
        leftovers: dict[Path, list[str]] = {}
        ending: list[int] = []
        for record in (self._data.run / "servers").glob("*.json"):
            try:
                kept = json.loads(record.read_text(encoding="utf-8"))
                pid, ticks, groups = int(kept["pid"]), int(kept["started_ticks"]), list(kept.get("control_groups", ()))
            except (OSError, ValueError, KeyError, TypeError):
                continue
            stat = stat_of(pid)
            if stat is not None and stat.started_ticks == ticks:
                leftovers[record] = groups
                # What is below it, too: it may be only what made the sandbox, if the hub was killed early.
                ending += [pid, *descendants(pid)]
        if not leftovers:
            return
        _log.warning("leftover-servers-ended", count=len(leftovers))
        await end_all(ending, patience_s=_PATIENCE_S)
        for record, groups in leftovers.items():
            # Forgotten, so that the hub tells people that the platform ended and not that their server did.
            for folder in groups:
                with contextlib.suppress(OSError):
                    os.rmdir(folder)
            record.unlink(missing_ok=True)
