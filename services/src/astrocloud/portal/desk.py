"""What somebody can do at the portal: see servers, start and stop them, open a tutorial. Between HTTP and the hub."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Protocol
from urllib.parse import quote, urlencode

import structlog
from pydantic import SecretStr

from astrocloud.core.errors import PlatformError
from astrocloud.portal.domain import (
    environment_for,
    lab_path,
    pick_environment,
    pick_size,
    pick_tutorial,
    plan_start,
    server_for,
)
from astrocloud.portal.errors import PortalError
from astrocloud.portal.models import Announcement, AnnouncementStore, Environment, Menu, Server, Size

PATIENCE_S: Final = 1.5
"""How long a browser waits for a server that may be ready at once, before it is shown the stages of the start."""

_ANNOUNCED_S: Final = 2.0
_log = structlog.get_logger()


class HubPort(Protocol):
    """What the desk needs of the hub; see `astrocloud.portal.hub.Hub`."""

    async def servers_of(self, owner: str) -> Sequence[Server]:
        """Return the servers of `owner`."""
        ...

    async def all_servers(self) -> Sequence[Server]:
        """Return everybody's running servers."""
        ...

    async def start(
        self, *, owner: str, name: str, title: str, options: dict[str, str], token: SecretStr, language: str
    ) -> bool:
        """Start a server; whether it is ready."""
        ...

    async def stop(self, *, owner: str, name: str, token: SecretStr, language: str) -> bool:
        """Stop a server; whether it has stopped."""
        ...

    async def forget(self, *, owner: str, name: str, token: SecretStr, language: str) -> None:
        """Remove a server's entry."""
        ...


@dataclass(frozen=True, kw_only=True)
class Caller:
    """On whose behalf the hub is asked."""

    name: str
    token: SecretStr
    """The caller's own token: the hub decides what it may."""
    language: str


class Desk:
    """Serves one request after the other; keeps nothing but starts under way.

    Parameters
    ----------
    hub
        JupyterHub.
    menu
        What can be started.
    announcements
        What administrators tell everybody; its methods block.
    server_limit
        How many servers one person may run at once.
    """

    def __init__(self, *, hub: HubPort, menu: Menu, announcements: AnnouncementStore, server_limit: int) -> None:
        self.hub = hub
        self.menu = menu
        self.announcements = announcements
        self.server_limit = server_limit
        self._starting: set[asyncio.Task[bool]] = set()
        self._announced: tuple[float, Sequence[Announcement]] = (0.0, ())

    async def start(self, caller: Caller, *, environment: str, size: str, title: str) -> tuple[Server, bool]:
        """Start a server and return it, and whether it accepts already.

        Raises
        ------
        PlatformError
            ``environment-unknown``, ``environment-resources``, ``server-limit``, ``server-running``, ``server-title``,
            ``server-refused``, ``unavailable``.
        """
        chosen = pick_environment(self.menu, environment)
        task, server = await self._begin(caller, chosen, pick_size(chosen, size), title=title)
        return server, await task

    async def start_and_go(
        self, caller: Caller, *, environment: str, size: str, title: str, then: str = "", patience_s: float = PATIENCE_S
    ) -> str:
        """Start a server and return the path to send the browser to: the server, or the stages of its start.

        Parameters
        ----------
        caller, environment, size, title
            As for `start`.
        then
            Where to go in the server, below its own address.
        patience_s
            How long to wait for it to be ready before showing the stages.

        Raises
        ------
        PlatformError
            As `start` does, as far as it is known by then.
        """
        chosen = pick_environment(self.menu, environment)
        return await self._begin_and_go(
            caller, chosen, pick_size(chosen, size), title=title, then=then, patience_s=patience_s
        )

    async def go_to_tutorial(self, caller: Caller, *, tutorial: str, language: str) -> str:
        """Return the path that opens a copy of `tutorial`, in a server started for it if none runs.

        Raises
        ------
        PlatformError
            ``tutorial-unknown``, and what `start` raises.
        """
        pick_tutorial(self.menu, tutorial)
        then = "astrocloud/tutorials/open?" + urlencode({"tutorial": tutorial, "lang": language})
        return await self._go(caller, tutorial, then)

    async def go_to_files(self, caller: Caller, *, path: str = "") -> str:
        """Return the path that shows the caller's files, in a server started for it if none runs.

        Parameters
        ----------
        path
            A folder or file to open, as ``/home/ada/night``; by default the caller's home.
        """
        return await self._go(caller, None, f"lab/tree{lab_path(path) or '/home/' + quote(caller.name)}")

    async def _go(self, caller: Caller, tutorial: str | None, then: str) -> str:
        servers = await self.hub.servers_of(caller.name)
        running = server_for(tutorial, menu=self.menu, servers=servers)
        if running is not None:
            return running.url + then
        environment = environment_for(tutorial, menu=self.menu)
        for server in servers:
            # One that is on its way already will do: a second click must not start a second server.
            if server.state == "starting" and server.environment == environment.id:
                return _pending(server, then)
        size = environment.resources[0]
        return await self._begin_and_go(caller, environment, size, title="", then=then, patience_s=PATIENCE_S)

    async def _begin_and_go(
        self, caller: Caller, environment: Environment, size: Size, *, title: str, then: str, patience_s: float
    ) -> str:
        task, server = await self._begin(caller, environment, size, title=title)
        done, _ = await asyncio.wait([task], timeout=patience_s)
        if done and task.result():
            return server.url + then
        return _pending(server, then)

    async def _begin(
        self, caller: Caller, environment: Environment, size: Size, *, title: str
    ) -> tuple[asyncio.Task[bool], Server]:
        servers = await self.hub.servers_of(caller.name)
        plan = plan_start(environment=environment, size=size, title=title, servers=servers, limit=self.server_limit)
        if plan.replaces is not None:
            await self.hub.forget(owner=caller.name, name=plan.replaces, token=caller.token, language=caller.language)
        started = self.hub.start(
            owner=caller.name,
            name=plan.name,
            title=plan.title,
            options=dict(plan.options),
            token=caller.token,
            language=caller.language,
        )
        # The hub holds its answer back while a server starts: the task goes on when the browser has been sent away.
        task = asyncio.create_task(started)
        self._starting.add(task)
        task.add_done_callback(self._begun)
        server = Server(
            owner=caller.name,
            name=plan.name,
            title=plan.title,
            state="starting",
            url=f"/user/{quote(caller.name)}/" + (f"{quote(plan.name)}/" if plan.name else ""),
            environment=environment.id,
            size=size.id,
        )
        return task, server

    def _begun(self, task: asyncio.Task[bool]) -> None:
        self._starting.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # Whoever waits for the task tells the person; later, the page of the stages does.
            _log.info("start-refused", code=error.code if isinstance(error, PlatformError) else type(error).__name__)

    async def stop(self, caller: Caller, *, name: str, owner: str | None = None) -> bool:
        """Stop a server of the caller, or of `owner` if the hub lets the caller; whether it has stopped already."""
        return await self.hub.stop(owner=owner or caller.name, name=name, token=caller.token, language=caller.language)

    async def forget(self, caller: Caller, *, name: str) -> None:
        """Remove a stopped server of the caller's from the list. Raises ``server-unknown``, ``server-running``."""
        server = next((s for s in await self.hub.servers_of(caller.name) if s.name == name), None)
        if server is None:
            raise PortalError("server-unknown")
        if server.active:
            raise PortalError("server-running", title=server.title or server.name)
        await self.hub.forget(owner=caller.name, name=name, token=caller.token, language=caller.language)

    async def shown_announcements(self) -> list[Announcement]:
        """Return what everybody is told now, the most urgent first."""
        until, kept = self._announced
        if time.monotonic() >= until:
            # Everybody's front page asks; another process that writes them is seen a moment later.
            kept = await asyncio.to_thread(self.announcements.all)
            self._announced = (time.monotonic() + _ANNOUNCED_S, kept)
        now = datetime.now(UTC)
        found = [each for each in kept if each.shown_at(now)]
        return sorted(found, key=lambda each: ("critical", "warning", "info").index(each.severity))

    async def publish(self, announcement: Announcement) -> Announcement:
        """Keep a new announcement or a changed one; return it. Raises ``announcement-unknown`` when it is gone."""
        try:
            kept = await asyncio.to_thread(self.announcements.save, announcement)
        except KeyError as err:
            raise PortalError("announcement-unknown", number=announcement.id) from err
        finally:
            self._announced = (0.0, ())
        return kept

    async def withdraw(self, number: int) -> None:
        """Remove an announcement. Raises ``announcement-unknown`` when there is none."""
        there = await asyncio.to_thread(self.announcements.remove, number)
        self._announced = (0.0, ())
        if not there:
            raise PortalError("announcement-unknown", number=number)


def _pending(server: Server, then: str) -> str:
    path = f"/hub/spawn-pending/{quote(server.owner)}" + (f"/{quote(server.name)}" if server.name else "")
    return f"{path}?{urlencode({'next': server.url + then})}" if then else path
