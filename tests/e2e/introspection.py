"""All routes that the parts of a platform answer, by their own word: ``python -m tests.e2e.introspection``.

Prints JSON: part -> list of ``METHOD pattern``. A process of its own, because the parts are built just to be asked.
"""

import json
import os
from dataclasses import replace
from typing import Any

from astrocloud.config import load_config
from astrocloud.core.database import open_database, sqlite_url
from astrocloud.core.layout import DataFolder
from astrocloud.core.runtime import Runtime
from astrocloud.core.secrets import SecretFiles
from astrocloud.core.web import build_app
from astrocloud.platform import BUILDERS, Context


def services_routes(data: DataFolder) -> list[str]:
    """Return the routes of all services."""
    config = load_config(data.config_if_any)
    whole = Context(
        name="",
        config=config,
        data=data,
        runtime=Runtime.read(data),
        secrets=SecretFiles(data.secrets),
        engine=open_database(sqlite_url(data.databases)),
    )
    app = build_app([build(replace(whole, name=name)) for name, build in BUILDERS.items()], config=config)
    found = [(route.method, route.resource.canonical) for route in app.router.routes() if route.resource is not None]
    # aiohttp answers HEAD wherever it answers GET.
    return [f"{method} {pattern}" for method, pattern in found if method != "HEAD"]


def hub_routes() -> list[str]:
    """Return the routes of the hub, JupyterHub's own and ours."""
    from tornado.web import RequestHandler

    from astrocloud_hub.app import AstrocloudHub
    from astrocloud_hub.configuration import platform_config

    app: Any = AstrocloudHub(config=platform_config())
    app.authenticator = app.authenticator_class(parent=app)
    app.init_handlers()
    found = []
    for pattern, handler, *_ in app.handlers:
        for method in ("get", "post", "put", "patch", "delete"):
            # What a handler does not define is this one, which answers 405.
            if getattr(handler, method) is not RequestHandler._unimplemented_method:
                found.append(f"{method.upper()} {pattern}")
    return found


if __name__ == "__main__":
    folder = DataFolder.from_environment()
    assert os.environ["ASTROCLOUD_DATA"]
    print(json.dumps({"services": services_routes(folder), "hub": hub_routes()}))
