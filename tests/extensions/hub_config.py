"""Configuration of the real hub of the tests: dummy sign-in, local processes, no proxy.

The client of the tests routes by path itself, as the proxy would.
"""

import json
import os

from jupyterhub.proxy import Proxy


class ClientSideProxy(Proxy):
    """Keeps the routes for the client to read; carries nothing."""

    should_start = False
    _routes: dict = {}  # noqa: RUF012

    async def add_route(self, routespec, target, data):
        self._routes[routespec] = {"routespec": routespec, "target": target, "data": data}

    async def delete_route(self, routespec):
        self._routes.pop(routespec, None)

    async def get_all_routes(self):
        return dict(self._routes)


c = get_config()  # noqa: F821
settings = json.loads(os.environ["HUB_TEST_SETTINGS"])
c.JupyterHub.proxy_class = ClientSideProxy
c.JupyterHub.bind_url = f"http://127.0.0.1:{settings['public_port']}"
c.JupyterHub.hub_bind_url = f"http://127.0.0.1:{settings['hub_port']}"
c.JupyterHub.db_url = "sqlite://"
c.JupyterHub.cookie_secret = os.urandom(32)
c.JupyterHub.authenticator_class = "dummy"
c.DummyAuthenticator.password = "a good password"
c.Authenticator.allow_all = True
c.JupyterHub.spawner_class = "simple"
c.SimpleLocalProcessSpawner.home_dir_template = settings["homes"] + "/{username}"
c.Spawner.cmd = [settings["python"], "-m", "astrocloud_lab.serve", "--allow-root"]
c.Spawner.environment = {"ASTROCLOUD_TUTORIALS": settings["tutorials"]}
c.Spawner.start_timeout = 120
c.Spawner.http_timeout = 120
c.JupyterHub.services = [{"name": "tests", "api_token": settings["token"]}]
c.JupyterHub.load_roles = [
    {
        "name": "tests",
        "services": ["tests"],
        "scopes": ["admin:users", "admin:servers", "tokens", "proxy", "access:servers"],
    }
]
