"""What the hub knows about the machines that people's servers run on, for the portal's page of events."""

from typing import Any

from jupyterhub.apihandlers.base import APIHandler
from jupyterhub.scopes import needs_scope


class NodesHandler(APIHandler):
    """``GET /hub/api/astrocloud/nodes``."""

    @needs_scope("read:hub")
    async def get(self) -> None:
        """Tell which nodes are silent or have lost the file tree, since when, and whether that is known for sure."""
        ask = getattr(self.spawner_class, "troubles", None)
        told: dict[str, Any] = {"known": True, "nodes": []}
        if ask is not None:
            told = await ask(self.config)
        self.write(told)


HANDLERS = [(r"/api/astrocloud/nodes", NodesHandler)]
