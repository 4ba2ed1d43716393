"""What every spawner of the platform does alike: what is asked for, stages of a start, and why a server ended."""

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import structlog
from traitlets import Any as AnyTrait
from traitlets import Float, Integer
from traitlets.config import Configurable

from astrocloud.core.errors import PlatformError
from astrocloud_hub.errors import HubError, SpawnRefusal
from astrocloud_hub.spawners.ends import End, Reason, end_of
from astrocloud_hub.spawners.environments import EnvironmentSource
from astrocloud_hub.spawners.models import Person
from astrocloud_hub.spawners.options import ServerOptions, read_options, unpack_form
from astrocloud_hub.spawners.stages import Stages

_log = structlog.get_logger()


class PlatformSpawner(Configurable):
    """Mixed into a spawner, in front of JupyterHub's class. What starts a server is its `_start`."""

    environment_source = AnyTrait(help="Where environments come from: an `EnvironmentSource`.").tag(config=True)
    ready_timeout_s = Integer(120, help="How long a server may take until it accepts connections, in seconds.").tag(
        config=True
    )
    server_limit = Integer(3, help="How many servers one person may run at once.").tag(config=True)
    stop_grace_s = Float(8.0, help="How long a server may take to end by itself, in seconds.").tag(config=True)

    # What comes from JupyterHub's class.
    user: Any
    name: str
    user_options: dict[str, Any]

    def __init__(self, **kwargs: Any) -> None:
        self._exit_code = 0
        self._starting = False
        self._asked: tuple[Reason, str] | None = None
        self._last_end: End | None = None
        self._picked: dict[str, Any] = {}
        self._stages = Stages()
        super().__init__(**kwargs)

    # What a person asks for

    def options_from_form(self, form_data: dict[str, Any]) -> dict[str, Any]:
        """Return a form's fields as user options."""
        return unpack_form(form_data)

    def options_from_query(self, query_data: dict[str, Any]) -> dict[str, Any]:
        """Return the query of ``/hub/spawn?opt-environment=…`` as user options."""
        return unpack_form(query_data)

    def ask_to_end(self, reason: Reason, by: str = "") -> None:
        """Say why the server is about to be stopped, and by whom; the first one to say so is right."""
        if self._asked is None:
            self._asked = (reason, by)

    # State

    def load_common_state(self, state: dict[str, Any]) -> None:
        """Take what an earlier hub kept of this server, wherever it ran."""
        self._picked = state.get("picked") or {}
        end = state.get("last_end")
        self._last_end = End.from_document(end) if end else None

    def common_state(self) -> dict[str, Any]:
        """Return what is kept over a restart of the hub, wherever the server runs."""
        state: dict[str, Any] = {}
        if self._picked:
            state["picked"] = self._picked
        if self._last_end is not None:
            state["last_end"] = self._last_end.document()
        return state

    # Starting

    async def start(self) -> tuple[str, int] | str:
        """Start the server; return where it listens, once it accepts connections.

        Raises
        ------
        SpawnRefusal
            With the code and the sentence of what keeps it from starting.
        """
        self._stages = Stages()
        self._starting, self._asked, self._exit_code = True, None, 0
        began = time.monotonic()
        try:
            address = await self._start()
        except PlatformError as err:
            self._last_end = replace(
                end_of(asked=("failed", ""), exit_code=self._exit_code or None, oom_kills=0, same_boot=True),
                code=err.code,
            )
            self._asked = ("failed", "")
            _log.warning("server-not-started", user=self.user.name, server=self.name, code=err.code, reason=str(err))
            raise SpawnRefusal(err) from err
        finally:
            self._starting = False
            self._stages.close()
        took_ms = round(1e3 * (time.monotonic() - began))
        _log.info("server-started", user=self.user.name, server=self.name, ms=took_ms, **self._started_with())
        return address

    async def _start(self) -> tuple[str, int] | str:
        """Start the server and return its address. Raises `PlatformError`."""
        raise NotImplementedError

    def _started_with(self) -> dict[str, Any]:
        """Return what the log says of a server that has started."""
        return self._picked

    async def read_request(self) -> tuple[ServerOptions, Person, dict[str, Any]]:
        """Return what is asked for, by whom, and what is known of the sign-in.

        Raises
        ------
        PlatformError
            When it cannot be had: no such environment or size, too many servers, a person without ids.
        """
        source: EnvironmentSource = self.environment_source
        self._stages.tell("checking", 2)
        options = read_options(self.user_options, source.catalogue)
        running = sorted(name for name, other in self.user.spawners.items() if other.active and other is not self)
        if len(running) >= self.server_limit:
            names = ", ".join(name or "default" for name in running)
            raise HubError("server-limit", limit=self.server_limit, running=names)
        state = await self.user.get_auth_state() or {}
        person = Person.from_document(state.get("person") or {})
        self._picked = {
            "environment": options.environment.id,
            "resources": options.resources.id,
            "memory_bytes": int(options.resources.memory),
            "cpus": options.resources.cpus,
            "processes": options.resources.processes,
        }
        return options, person, state

    async def progress(self) -> AsyncIterator[dict[str, Any]]:
        """Yield the stages of the start."""
        async for event in self._stages.events():
            yield event


def person_variables(person: Person, *, home: str, environment: str, language: str) -> dict[str, str]:
    """Return the variables of a server that say whose it is."""
    return {
        "HOME": home,
        "USER": person.username,
        "LOGNAME": person.username,
        "SHELL": "/bin/bash",
        "LANG": "C.UTF-8",
        "ASTROCLOUD_LANG": language,
        "ASTROCLOUD_ENVIRONMENT": environment,
    }


def limit_variables(*, memory_bytes: int, cpus: float, most_threads: int) -> dict[str, str]:
    """Return the variables of a server that say how much it may use."""
    # Libraries count the machine's processors, not those that the server may use.
    threads = str(max(1, min(most_threads, round(cpus))))
    return {
        "OMP_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "MEM_LIMIT": str(memory_bytes),
        "CPU_LIMIT": str(cpus),
    }
