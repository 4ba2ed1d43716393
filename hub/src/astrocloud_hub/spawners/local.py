"""Starting people's servers as processes of this machine, each in a sandbox of its own."""

import asyncio
import json
import os
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import structlog
from jupyterhub.spawner import Spawner
from traitlets import Bool, Enum, Float, Unicode, default

from astrocloud.core.isolation import people_are_kept_apart
from astrocloud.core.layout import DataFolder
from astrocloud.core.logs import shorten
from astrocloud.environments.models import BuiltEnvironment
from astrocloud_hub.errors import HubError
from astrocloud_hub.language import current_language
from astrocloud_hub.spawners import entering, homes, limits, ports, view
from astrocloud_hub.spawners.base import PlatformSpawner, limit_variables, person_variables
from astrocloud_hub.spawners.dask import dask_variables
from astrocloud_hub.spawners.ends import end_of
from astrocloud_hub.spawners.environments import EnvironmentSource
from astrocloud_hub.spawners.launch import Launch, log_tail, turn_log
from astrocloud_hub.spawners.models import Limits, Person
from astrocloud_hub.spawners.options import ServerOptions
from astrocloud_hub.spawners.parents import NotForkedError, Parents
from astrocloud_hub.spawners.records import Process, Records, ServerRecord, boot_id
from astrocloud_hub.spawners.sandbox import Programs

_log = structlog.get_logger()
_PORT_TRIES = 3
_START_CPUS = 2.0
"""Processors that a start may use, whatever was chosen: the server and what kernels are forked from start side by side,
and a quota of one would stop both for a part of each tenth of a second."""
_ENTER_S = 10.0
"""How long a forked child may take until it is in its sandbox, in seconds; it takes some hundredths."""
_START_CPUS_S = 10.0
"""How long after the start that goes on, in seconds: until the first cell has what it imports."""


class LocalSpawner(PlatformSpawner, Spawner):
    """Runs a person's server on this machine, in a bubblewrap sandbox with limits that hold.

    The server outlives the hub. What it takes to find it again is in ``run/servers`` of the data folder before it
    accepts its first connection.
    """

    data_folder = Unicode(help="The platform's data folder.").tag(config=True)
    isolation = Enum(
        ("required", "preferred"), "preferred", help="Whether a server may start where no sandbox can be made."
    ).tag(config=True)
    as_root = Bool(help="Whether people have user ids of their own on this machine.").tag(config=True)

    fork_servers = Bool(help="Whether servers are forked from a process that has imported everything.").tag(config=True)
    fork_timeout_s = Float(
        20.0, help="How long a forked server may take until it accepts connections, before it is started as usual."
    ).tag(config=True)

    _controller: ClassVar[limits.Controller | None] = None
    _parents: ClassVar[Parents | None] = None

    def __init__(self, **kwargs: Any) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._record: ServerRecord | None = None
        self._walls = True
        self._forked = False
        self._watched: int | None = None
        self._survived = (0, 0)
        super().__init__(**kwargs)

    @default("as_root")
    def _default_as_root(self) -> bool:
        return os.geteuid() == 0

    @property
    def _data(self) -> DataFolder:
        return DataFolder(Path(self.data_folder))

    @property
    def _records(self) -> Records:
        return Records(self._data.run / "servers")

    @property
    def _log_file(self) -> Path:
        return self._data.logs / "servers" / f"{self._records.key(self.user.name, self.name)}.log"

    @classmethod
    def controller(cls) -> limits.Controller:
        """Return what holds servers to their limits on this machine, probed once."""
        if LocalSpawner._controller is None:
            LocalSpawner._controller = limits.probe()
        return LocalSpawner._controller

    @classmethod
    def parents(cls, data: DataFolder) -> Parents:
        """Return the processes that servers are forked from; one object for all servers of this hub."""
        if LocalSpawner._parents is None:
            LocalSpawner._parents = Parents(data.logs)
        return LocalSpawner._parents

    # State

    def load_state(self, state: dict[str, Any]) -> None:
        """Find the server again that an earlier hub started."""
        super().load_state(state)
        self.load_common_state(state)
        if self._process is not None:
            return
        # The file, not the state: the hub may have been killed before it could keep the state.
        self._record = self._records.read(self.user.name, self.name)
        if self._record is not None and self._record.alive:
            self.port = self._record.port
            # Killed before it knew more, the hub noted only what made the sandbox; its end is not the server's.
            self._find_init()
            self._watch()
            # The hub that started it may have ended before it did so.
            self._settle(self._record)
            survived = int(state.get("oom_kills_survived", 0))
            self._survived = (survived, survived)
        elif self._record is None and state.get("port"):
            # Who ends all servers also forgets them, nobody else does.
            self._asked = ("platform-stop", "")

    def get_state(self) -> dict[str, Any]:
        """Return what is kept over a restart of the hub and told by the API (scope ``admin:server_state``)."""
        state: dict[str, Any] = super().get_state() | self.common_state()
        record = self._record
        if record is not None:
            state |= {"port": record.port, "pid": record.init.pid if record.init else 0, "walls": record.walls}
            group = _group_of(record)
            if group is not None:
                state |= {
                    "oom_kills": group.oom_kills(),
                    "oom_kills_survived": self._survived[0],
                    "memory_bytes": group.memory_bytes(),
                }
        return state

    def clear_state(self) -> None:
        """Forget the server that ended; how it ended stays."""
        super().clear_state()
        self._record = None
        self._process = None
        self._asked = None
        self.port = 0

    def shorten_log(self) -> None:
        """Keep the server's log from growing without end: what it writes there is its person's."""
        shorten(self._log_file)

    # Starting

    async def _start(self) -> tuple[str, int]:
        source: EnvironmentSource = self.environment_source
        options, person, _state = await self.read_request()
        programs = await self._programs()
        built = await source.ensure(options.environment, self._stages.tell_environment)
        self._stages.tell("folders", 72)
        await asyncio.to_thread(partial(homes.make_folders, self._data.tree, person, as_root=self.as_root))
        await asyncio.to_thread(turn_log, self._log_file)
        self._last_end = None

        async def prepare() -> Launch:
            return await asyncio.to_thread(self._prepare, options, person, built, programs)

        for attempt in range(_PORT_TRIES):
            self.port = ports.free_port()
            self._stages.tell("starting", 78)
            self._forked = attempt == 0 and await self._fork(built, programs, prepare)
            if self._forked:
                break
            await asyncio.to_thread(self._launch, await prepare())
            self._stages.tell("waiting", 85)
            if await self._wait_ready(person):
                break
            # Another process took the port first. People's traffic must not get there.
            _log.warning("port-taken", user=self.user.name, server=self.name, port=self.port)
            await self._end_now()
            if attempt + 1 == _PORT_TRIES:
                raise HubError("server-port", port=self.port)
        self._stages.tell("ready", 98)
        self._watch()
        asyncio.get_running_loop().call_later(_START_CPUS_S, self._settle, self._record)
        self._walls = programs is not None
        return ("127.0.0.1", self.port)

    def _started_with(self) -> dict[str, Any]:
        return {"walls": self._walls, "forked": self._forked, **self._picked}

    async def _programs(self) -> Programs | None:
        """Return what makes the sandbox, `None` if there may be none. Raises `HubError` ``isolation-missing``."""
        found = view.programs()
        kept_apart = await asyncio.to_thread(people_are_kept_apart)
        if found is not None and kept_apart:
            return found
        # Where it worked at the platform's start, and every page says so, nothing is started without.
        if kept_apart or self.isolation == "required":
            raise HubError("isolation-missing")
        _log.warning("server-without-walls", user=self.user.name, server=self.name)
        return None

    async def _fork(
        self, built: BuiltEnvironment, programs: Programs | None, prepare: Callable[[], Awaitable[Launch]]
    ) -> bool:
        """Start the server by forking; tell whether it accepts connections. If not, nothing of it is left.

        Raises
        ------
        HubError
            ``server-memory``: it would need as much when it is started as usual.
        """
        if not (self.fork_servers and self.as_root and programs is not None and built.with_lab):
            return False
        parents = self.parents(self._data)
        try:
            parent = parents.get(built, programs)
        except NotForkedError as err:
            _log.info("server-not-forked", user=self.user.name, server=self.name, reason=str(err))
            return False
        launch = await prepare()
        try:
            held = await asyncio.to_thread(launch.hold)
            self._note(launch, held.process)
            await entering.enter(launch, held, parent, within_s=min(self.fork_timeout_s, _ENTER_S))
            self._stages.tell("waiting", 85)
            if await self._wait_ready(launch.person, within_s=self.fork_timeout_s):
                return True
            reason = "another process took its port"
        except (NotForkedError, HubError, OSError) as err:
            if isinstance(err, HubError) and err.code == "server-memory":
                raise
            reason = str(err)
            if isinstance(err, NotForkedError) and err.by_parent:
                parents.drop(built.path, reason, rest=True)
        _log.warning("server-not-forked", user=self.user.name, server=self.name, reason=reason[:500])
        await self._end_now()
        self._process = self._record = None
        self.port = ports.free_port()
        return False

    def _prepare(
        self, options: ServerOptions, person: Person, built: BuiltEnvironment, programs: Programs | None
    ) -> Launch:
        resources = options.resources
        bounds = Limits(memory_bytes=int(resources.memory), processes=resources.processes, cpus=resources.cpus)
        key = self._records.key(self.user.name, self.name)
        try:
            group = self.controller().make(key, bounds)
        except OSError as err:
            raise HubError("server-limits", reason=err.strerror or str(err)) from err
        if group is not None:
            group.share_processors(max(resources.cpus, _START_CPUS))
        launch = Launch(
            person=person,
            environment=built,
            command=self.environment_source.command(built),
            arguments=tuple(self.get_args()),
            variables={},
            limits=bounds,
            control_group=group,
            data=self._data,
            folder=self._records.folder(self.user.name, self.name),
            log=self._log_file,
            tutorials=self.environment_source.tutorials,
            as_root=self.as_root,
            programs=programs,
        )
        # The language in which the person asks for the server, so that JupyterLab goes on in it.
        return replace(launch, variables=self._variables(launch, options, language=current_language()))

    def _variables(self, launch: Launch, options: ServerOptions, *, language: str) -> dict[str, str]:
        """Return the server's environment: the hub's part, and a few plain things; nothing of the hub's own."""
        if options.next:
            self.default_url = options.next
        person, bounds = launch.person, launch.limits
        return {
            **person_variables(person, home=launch.home, environment=options.environment.id, language=language),
            **limit_variables(memory_bytes=bounds.memory_bytes, cpus=bounds.cpus, most_threads=os.cpu_count() or 1),
            "PATH": f"{launch.environment.path}/bin:/usr/local/bin:/usr/bin:/bin",
            # The machine's loopback address is everybody's: nothing that asks for no password may listen there.
            "ASTROCLOUD_SHARED_NETWORK": "1",
            **dask_variables(),
            **({} if launch.programs is not None else {"ASTROCLOUD_WITHOUT_WALLS": "1"}),
            **{name: value for name, value in self.get_env().items() if value is not None},
        }

    def _launch(self, launch: Launch) -> None:
        try:
            process = launch.start()
        except OSError as err:
            if launch.control_group is not None:
                launch.control_group.remove(patience_s=0)
            raise HubError("server-exec", reason=err.strerror or str(err)) from err
        self._note(launch, process)

    def _note(self, launch: Launch, process: "subprocess.Popen[bytes]") -> None:
        """Keep what it takes to find the server again."""
        group = launch.control_group
        self._survived = (0, 0)
        self._process = process
        self._record = ServerRecord(
            user=self.user.name,
            server=self.name,
            port=self.port,
            boot=boot_id(),
            outer=Process.find(self._process.pid),
            walls=launch.programs is not None,
            control_groups=tuple(str(folder) for folder in group.folders) if group is not None else (),
        )
        self._records.write(self._record)

    async def _wait_ready(self, person: Person, *, within_s: float | None = None) -> bool:
        """Wait until the server accepts connections; tell whether it is the server that does.

        Parameters
        ----------
        person
            Whose server it is.
        within_s
            How long that may take, in seconds; by default `ready_timeout_s`.

        Raises
        ------
        HubError
            ``server-exited``, ``server-memory`` or ``server-slow``.
        """
        seconds = self.ready_timeout_s if within_s is None else min(within_s, self.ready_timeout_s)
        deadline = time.monotonic() + seconds
        pause_s = 0.01
        while True:
            self._find_init()
            if self._process is not None and self._process.poll() is not None:
                raise self._early_end(self._process.returncode)
            if await ports.accepts(self.port):
                return await asyncio.to_thread(self._is_own_listener, person)
            if time.monotonic() > deadline:
                raise HubError("server-slow", seconds=round(seconds), log=log_tail(self._log_file))
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 1.2, 0.02)

    def _find_init(self) -> None:
        """Note process 1 of the sandbox as soon as bwrap has told it."""
        if self._record is None or self._record.init is not None or not self._record.walls:
            return
        pid = self._status().get("child-pid")
        init = Process.find(pid) if isinstance(pid, int) else None
        if init is not None:
            self._record = replace(self._record, init=init)
            self._records.write(self._record)

    def _status(self) -> dict[str, Any]:
        """Return what bwrap has told so far: ``child-pid`` and ``exit-code``."""
        told: dict[str, Any] = {}
        with suppress(OSError, ValueError):
            text = (self._records.folder(self.user.name, self.name) / "status").read_text(encoding="utf-8")
            for line in text.splitlines():
                told |= json.loads(line)
        return told

    def _early_end(self, exit_code: int) -> HubError:
        self._exit_code = exit_code
        group = _group_of(self._record)
        if group is not None and group.oom_kills():
            memory = round(self._picked.get("memory_bytes", 0) / 2**20)
            return HubError("server-memory", memory_mib=memory, resources=self._picked.get("resources", ""))
        return HubError("server-exited", exit_code=exit_code, log=log_tail(self._log_file))

    def _is_own_listener(self, person: Person) -> bool:
        found = ports.listener(self.port)
        if found is None:
            return False
        uid, inode = found
        if self.as_root and uid != person.uid:
            return False
        assert self._process is not None
        return ports.holds(ports.descendants(self._process.pid), inode)

    # While it runs

    def _watch(self) -> None:
        """Notice the end at once: nobody else should have the port while the proxy still sends people there."""
        record = self._record
        if record is None or record.outer is None:
            return
        try:
            loop = asyncio.get_running_loop()
            descriptor = os.pidfd_open(record.outer.pid)
        except (OSError, RuntimeError):
            return  # polling notices it, a little later
        self._watched = descriptor

        def ended() -> None:
            self._unwatch()
            if self._callbacks and not self._stop_pending:
                task = asyncio.ensure_future(self.poll_and_notify())
                task.add_done_callback(lambda done: done.exception())

        loop.add_reader(descriptor, ended)

    def _settle(self, record: ServerRecord | None) -> None:
        """Hold a server that has started to the processors that were chosen."""
        group = _group_of(record)
        cpus = self._picked.get("cpus")
        if group is not None and cpus and record is self._record:
            group.share_processors(float(cpus))

    def _unwatch(self) -> None:
        if self._watched is not None:
            with suppress(RuntimeError):
                asyncio.get_running_loop().remove_reader(self._watched)
            os.close(self._watched)
            self._watched = None

    async def poll(self) -> int | None:
        """Return `None` while the server runs or starts, else its exit code (0 when nobody knows)."""
        if self._starting:
            return None
        record = self._record
        if record is None:
            if self._asked is not None and self._last_end is None:
                self._last_end = end_of(asked=self._asked, exit_code=None, oom_kills=0, same_boot=True)
            return self._exit_code
        if self._process is not None:
            code = self._process.poll()
            if code is None:
                self._note_survived(record)
                return None
        else:
            if record.alive:
                self._note_survived(record)
                return None
            code = self._status().get("exit-code")
        await self._note_end(record, code)
        return self._exit_code

    def _note_survived(self, record: ServerRecord) -> None:
        """Note how many of its processes were killed for want of memory while the server lives on.

        What is new counts only when it is still so the next time: the server may be about to end with it.
        """
        group = _group_of(record)
        if group is not None:
            kills = group.oom_kills()
            survived, before = self._survived
            self._survived = (kills if kills == before else survived, kills)

    async def _note_end(self, record: ServerRecord, exit_code: int | None) -> None:
        self._record = None
        self._process = None
        self._unwatch()
        group = _group_of(record)
        # Those that the server has survived say nothing about its end.
        kills = max(group.oom_kills() - self._survived[0], 0) if group is not None else 0
        asked = self._asked
        if asked is None and exit_code is None and record.boot == boot_id():
            # bwrap always tells the exit code, unless it was ended too: then all of the platform was.
            asked = ("platform-stop", "")
        end = end_of(asked=asked, exit_code=exit_code, oom_kills=kills, same_boot=record.boot == boot_id())
        if asked is None or asked[0] != "failed":
            self._last_end = end
        self._exit_code = exit_code or 0
        await asyncio.to_thread(record.kill_rest)
        if group is not None:
            await asyncio.to_thread(group.remove)
        self._records.remove(record.user, record.server)
        _log.info("server-ended", user=record.user, server=record.server, **end.document())

    # Stopping

    async def stop(self, now: bool = False) -> None:
        """Stop the server: gently, and after `stop_grace_s` (at once with `now`) by force."""
        self.ask_to_end("stopped")
        record = self._record
        if record is None:
            return
        if not now:
            record.signal(signal.SIGTERM)
            await self._wait_gone(self.stop_grace_s)
        await self._end_now()
        await self.poll()

    async def _end_now(self) -> None:
        record = self._record
        if record is None:
            return
        if self._runs(record):
            record.signal(signal.SIGKILL)
            record.kill_rest()
            if not await self._wait_gone(5) and record.outer is not None:
                record.outer.signal(signal.SIGKILL)
                await self._wait_gone(2)
        group = _group_of(record)
        if group is not None:
            record.kill_rest()
            await asyncio.to_thread(group.remove)

    async def _wait_gone(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self._record is not None and self._runs(self._record):
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.02)
        return True

    def _runs(self, record: ServerRecord) -> bool:
        return self._process.poll() is None if self._process is not None else record.alive

    async def get_url(self) -> str:
        """Return where the server is by its own record: the hub may have been killed before it wrote that down."""
        if self._record is not None and self.server is not None:
            return f"http://127.0.0.1:{self._record.port}{self.server.base_url}"
        return str(await super().get_url())


def _group_of(record: ServerRecord | None) -> limits.ControlGroup | None:
    if record is None or not record.control_groups:
        return None
    return limits.ControlGroup(folders=tuple(Path(folder) for folder in record.control_groups))
