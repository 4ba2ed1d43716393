"""What the service tells of itself: capabilities, availability; the protocols, views and properties it knows."""

from collections.abc import Awaitable, Callable, Mapping, Sequence

from aiohttp import web

from astrocloud.vospace import capabilities, writing
from astrocloud.vospace.api import PREFIX, xml
from astrocloud.vospace.settings import Settings


class VosiApi:
    """Documents that depend on nobody.

    Parameters
    ----------
    settings
        Addresses.
    health
        State of what the service depends on.
    """

    def __init__(self, *, settings: Settings, health: Callable[[], Awaitable[Mapping[str, str]]]) -> None:
        self._settings = settings
        self._health = health

    def routes(self) -> Sequence[web.AbstractRouteDef]:
        """Return the routes."""
        return [
            web.get(f"{PREFIX}/capabilities", self._capabilities),
            web.get(f"{PREFIX}/availability", self._availability),
            web.get(f"{PREFIX}/protocols", self._protocols),
            web.get(f"{PREFIX}/views", self._views),
            web.get(f"{PREFIX}/properties", self._properties),
            web.get("/reg/resource-caps", self._registry),
        ]

    async def _capabilities(self, _request: web.Request) -> web.Response:
        """Say where its interfaces are (VOSI)."""
        return xml(capabilities.capabilities(self._settings))

    async def _availability(self, _request: web.Request) -> web.Response:
        """Say whether the service is up (VOSI)."""
        states = await self._health()
        return xml(capabilities.availability(up="unreachable" not in states.values()))

    async def _protocols(self, _request: web.Request) -> web.Response:
        """Return the protocols it speaks (getProtocols)."""
        return xml(writing.protocols())

    async def _views(self, _request: web.Request) -> web.Response:
        """Return the views it takes and gives (getViews)."""
        return xml(writing.views())

    async def _properties(self, _request: web.Request) -> web.Response:
        """Return the properties it knows (getProperties)."""
        return xml(writing.properties())

    async def _registry(self, _request: web.Request) -> web.Response:
        """Return the list of services as the client ``vos`` reads it."""
        return web.Response(text=capabilities.resource_caps(self._settings))
