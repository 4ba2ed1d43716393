"""The hub's REST API as the portal uses it: what servers there are, start, stop, forget."""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import aiohttp
from pydantic import SecretStr

from astrocloud.core import words
from astrocloud.core.errors import RequestError
from astrocloud.core.logs import passed_on
from astrocloud.core.trust import NONE, Trust
from astrocloud.portal.errors import HubRefusalError, PortalError
from astrocloud.portal.events import NODE_STATES, Trouble
from astrocloud.portal.models import RAN_OUT, REASONS, End, Server, State

_PAGE: Final = 200
_CODE: Final = re.compile(r"[a-z0-9-]{1,64}\Z")


class Hub:
    """JupyterHub.

    Parameters
    ----------
    api_url
        Its REST API, without a final slash.
    token
        The portal's own token: reads servers with their state, changes nothing.
    trust
        Whose certificate is taken there.
    timeout_s
        How long an answer may take. A start may take longer: the hub holds on to it for a while.
    """

    def __init__(self, *, api_url: str, token: SecretStr, trust: Trust = NONE, timeout_s: float = 20.0) -> None:
        self._api_url = api_url
        self._token = token
        self._trust = trust
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def servers_of(self, owner: str) -> Sequence[Server]:
        """Return the servers of `owner`, stopped ones too: running ones first, then those that ended last."""
        _, user = await self._ask("GET", f"/users/{owner}", params={"include_stopped_servers": "1"})
        return _servers(user)

    async def all_servers(self) -> Sequence[Server]:
        """Return everybody's servers that run, sorted by owner and name."""
        found: list[Server] = []
        offset = 0
        while True:
            params = {"state": "active", "limit": str(_PAGE), "offset": str(offset)}
            _, users = await self._ask("GET", "/users", params=params)
            for user in users:
                found += [server for server in _servers(user) if server.active]
            if len(users) < _PAGE:
                return sorted(found, key=lambda server: (server.owner, server.name))
            offset += _PAGE

    async def start(
        self,
        *,
        owner: str,
        name: str,
        title: str,
        options: Mapping[str, str],
        token: SecretStr,
        language: str,
    ) -> bool:
        """Start a server as whoever has `token`; whether it accepts already (else it is still starting).

        Raises
        ------
        PortalError
            The hub's own problem where it tells one, else ``server-refused`` with its reason.
        RequestError
            ``unavailable`` without the hub.
        """
        body: dict[str, Any] = {"user_options": dict(options)}
        if name:  # the default server has no other name
            body["display_name"] = title or name
        status, _ = await self._ask("POST", _path(owner, name), token=token, body=body, language=language)
        return status == 201

    async def stop(self, *, owner: str, name: str, token: SecretStr, language: str) -> bool:
        """Stop a server as whoever has `token`; whether it has stopped already. Raises as `start` does."""
        status, _ = await self._ask("DELETE", _path(owner, name), token=token, language=language)
        return status == 204

    async def forget(self, *, owner: str, name: str, token: SecretStr, language: str) -> None:
        """Remove a server's entry, ending it if it runs. Its owner's files stay. Raises as `start` does."""
        await self._ask("DELETE", _path(owner, name), token=token, body={"remove": True}, language=language)

    async def troubled_nodes(self) -> Sequence[Trouble] | None:
        """Return the trouble with the cluster's nodes, or `None` where nobody can tell. Raises as `start` does."""
        _, told = await self._ask("GET", "/astrocloud/nodes")
        if not isinstance(told, dict) or told.get("known") is not True:
            return None
        return [
            Trouble(
                kind="node",
                subject=str(each["node"]),
                state=each["state"],
                since=_time(each.get("since")),
                until=_time(each.get("until")),
            )
            for each in told.get("nodes", [])
            if each.get("state") in NODE_STATES and each.get("node")
        ]

    async def healthy(self) -> bool:
        """Whether the hub answers."""
        try:
            async with self._client().get(f"{self._api_url}/", timeout=aiohttp.ClientTimeout(total=2)) as answer:
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=self._timeout, connector=aiohttp.TCPConnector(ssl=self._trust.context())
            )
        return self._session

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        token: SecretStr | None = None,
        params: Mapping[str, str] | None = None,
        body: Any = None,
        language: str = "en",
    ) -> tuple[int, Any]:
        headers = {
            "Authorization": f"token {(token or self._token).get_secret_value()}",
            "Accept": "application/json",
            "Accept-Language": language,
            **passed_on(),
        }
        try:
            async with self._client().request(
                method, f"{self._api_url}{path}", params=params, json=body, headers=headers
            ) as answer:
                document = (
                    await answer.json(content_type=None) if answer.status != 204 and answer.content_length else None
                )
                status = answer.status
        except (aiohttp.ClientError, TimeoutError, ValueError) as err:
            raise RequestError("unavailable", part="JupyterHub") from err
        if status >= 400:
            raise _refusal(status, document, own=token is None)
        return status, document


def _path(owner: str, name: str) -> str:
    return f"/users/{owner}/servers/{name}" if name else f"/users/{owner}/server"


def _refusal(status: int, document: Any, *, own: bool) -> RequestError:
    told = document if isinstance(document, dict) else {}
    reason, code = str(told.get("message", "")), str(told.get("code", ""))
    if own or status == 502:
        return RequestError("unavailable", part="JupyterHub")
    if status == 404:
        return PortalError("server-unknown")
    if code in words.error_codes() and told.get("detail"):
        return HubRefusalError(code, detail=str(told["detail"])[:1000])
    return PortalError("server-refused", reason=reason[:500] or f"HTTP {status}")


def _servers(user: Mapping[str, Any]) -> list[Server]:
    found = [_server(str(user["name"]), server) for server in (user.get("servers") or {}).values()]
    found = [server for server in found if server.name or server.active or server.end]
    live = sorted((server for server in found if server.active), key=lambda server: server.name)
    ended = sorted((server for server in found if not server.active), key=_ended_at, reverse=True)
    return [*live, *ended]


def _ended_at(server: Server) -> datetime:
    moment = server.end.at if server.end else server.last_activity
    return moment or datetime.min.replace(tzinfo=UTC)


def _server(owner: str, document: Mapping[str, Any]) -> Server:
    options = document.get("user_options") or {}
    state = _state(document)
    name = str(document["name"])
    title = str(document.get("display_name") or "")
    kept = document.get("state") or {}
    return Server(
        owner=owner,
        name=name,
        title="" if title == name else title,
        state=state,
        url=str(document.get("url") or f"/user/{owner}/{name}/").rstrip("/") + "/",
        environment=str(options.get("environment", "")),
        size=str(options.get("resources", "")),
        started=_time(document.get("started")),
        last_activity=_time(document.get("last_activity")),
        end=_end(kept.get("last_end")) if state == "stopped" else None,
    )


def _state(document: Mapping[str, Any]) -> State:
    if document.get("pending") == "spawn":
        return "starting"
    if document.get("pending") == "stop":
        return "stopping"
    return "running" if document.get("ready") else "stopped"


def _end(document: Any) -> End | None:
    if not isinstance(document, dict):
        return None
    reason = str(document.get("reason", ""))
    code = str(document.get("code") or "")
    exit_code = document.get("exit_code")
    return End(
        reason=reason if reason in REASONS else "unknown",
        by=str(document.get("by") or ""),
        at=_time(document.get("at")),
        exit_code=exit_code if isinstance(exit_code, int) else None,
        code=code if _CODE.match(code) else "",
        what=what if (what := str(document.get("what") or "")) in RAN_OUT else "",
        node=str(document.get("node") or "")[:253],
    )


def _time(value: Any) -> datetime | None:
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
