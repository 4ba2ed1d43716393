"""``/api/internal/folders``: a person's folders, made for the hub before a server sees them.

Where servers are pods nobody but this service can make them: the hub does not see the tree, and Kubernetes makes a
folder that is missing root's.
"""

import secrets
from collections.abc import Sequence
from typing import Final

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from astrocloud.core.errors import RequestError
from astrocloud.core.web import read_json
from astrocloud.vospace.api import PREFIX, Door
from astrocloud.vospace.identity import Identity
from astrocloud.vospace.models import Person

PATH: Final = f"{PREFIX}/api/internal/folders"


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Group(_Body):
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")
    gid: int = Field(ge=1000)


class _Person(_Body):
    username: str = Field(pattern=r"^[a-z][a-z0-9-]{0,63}$")
    uid: int = Field(ge=1000)
    gid: int = Field(ge=1000)
    groups: tuple[_Group, ...] = ()


class FoldersApi:
    """Folders for the hub.

    Parameters
    ----------
    door
        Where work on files is done.
    secret
        The secret of the platform's internal calls.
    """

    def __init__(self, *, door: Door, secret: SecretStr) -> None:
        self._door = door
        self._secret = secret

    def routes(self) -> Sequence[web.AbstractRouteDef]:
        """Return the routes."""
        return [web.post(PATH, self._make)]

    async def _make(self, request: web.Request) -> web.Response:
        """Make the home of the person in the body, and the folders of the person's groups."""
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        wanted = self._secret.get_secret_value().encode()
        if scheme.lower() != "bearer" or not secrets.compare_digest(given.encode("utf-8", "surrogateescape"), wanted):
            raise RequestError("not-signed-in")
        try:
            body = _Person.model_validate(await read_json(request))
        except ValidationError as err:
            fault = err.errors(include_url=False)[0]
            where = ".".join(map(str, fault["loc"]))
            raise RequestError("bad-request", reason=f"{where}: {fault['msg']}") from err
        groups = {group.name: group.gid for group in body.groups}
        await self._door.make_folders(
            Person(body.username, Identity(body.uid, body.gid, tuple(groups.values())), groups)
        )
        return web.Response(status=204)
