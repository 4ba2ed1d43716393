"""Having a person's folders made in the file tree, before the first server that sees them.

The hub cannot write the tree, and Kubernetes makes a missing folder root's: so the part that owns the tree's files for
their users makes them, VOSpace.
"""

import time
from typing import Any, Final, Protocol

import aiohttp
import structlog
from pydantic import SecretStr

from astrocloud.core.trust import NONE, Trust
from astrocloud_hub.errors import HubError
from astrocloud_hub.spawners.models import Person

_TIMEOUT_S: Final = 10
_KEPT_S: Final = 60
"""How long folders that were made are taken to be there: somebody may remove one, or put another tree in its place."""
PATH: Final = "/services/vospace/api/internal/folders"

_log = structlog.get_logger()


class FolderMaker(Protocol):
    """What makes people's folders."""

    async def ensure(self, person: Person) -> None:
        """Make the home of `person` and the folders of the person's groups, where missing. Raises `HubError`."""
        ...

    def forget(self, username: str) -> None:
        """Make them anew at the next start: a server found one that does not work."""
        ...


class VospaceFolders:
    """Folders made by the VOSpace service.

    Parameters
    ----------
    url
        Where that service is.
    secret
        The secret of the platform's internal calls.
    trust
        Whose certificate is taken there.
    """

    def __init__(self, *, url: str, secret: SecretStr, trust: Trust = NONE) -> None:
        self._trust = trust
        self._url = url.rstrip("/") + PATH
        self._secret = secret
        self._made: dict[str, tuple[float, Person]] = {}

    def forget(self, username: str) -> None:
        """Ask again at the next start."""
        self._made.pop(username, None)

    async def ensure(self, person: Person) -> None:
        """Make the folders; not asked again for a while, as the pod itself checks that they work.

        Raises
        ------
        HubError
            ``home-unusable`` as the service says, ``server-folders`` when it does not answer.
        """
        until, known = self._made.get(person.username, (0.0, None))
        if known == person and time.monotonic() < until:
            return
        document = {
            "username": person.username,
            "uid": person.uid,
            "gid": person.gid,
            "groups": [{"name": group.name, "gid": group.gid} for group in person.groups],
        }
        headers = {"Authorization": f"Bearer {self._secret.get_secret_value()}"}
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S)) as session,
                session.post(self._url, json=document, headers=headers, ssl=self._trust.context()) as answer,
            ):
                told: Any = await answer.json() if answer.status != 204 else None
        except (aiohttp.ClientError, TimeoutError, ValueError) as err:
            raise HubError("server-folders", reason=f"VOSpace does not answer: {type(err).__name__}") from err
        if answer.status >= 400:
            raise HubError("server-folders", reason=str((told or {}).get("detail", f"HTTP {answer.status}"))[:300])
        self._made[person.username] = (time.monotonic() + _KEPT_S, person)
