"""Whether the platform runs, and how its parts are."""

import json
import urllib.error
import urllib.request
from typing import Any

from astrocloud.core.layout import DataFolder
from astrocloud.core.runtime import SERVICES, Runtime
from astrocloud.core.secrets import SecretFiles
from astrocloud.operations.hub import direct_opener
from astrocloud.supervisor.supervisor import is_running


def status(data: DataFolder) -> dict[str, Any]:
    """Return ``running``, ``url`` and ``parts``: each part's state, ``ok`` or what is the matter."""
    if not data.on_cluster and not is_running(data):
        return {"running": False, "url": None, "parts": {}}
    runtime = Runtime.read(data)
    direct = direct_opener(runtime.trust)
    token = SecretFiles(data.secrets).get("proxy-token").get_secret_value()
    parts = {
        "hub": _ask(direct, f"{runtime.hub_url}/hub/health"),
        "proxy": _ask(direct, f"{runtime.proxy_api_url}/api/routes", token=token),
    }
    for name in SERVICES:
        parts[name] = _ask(direct, f"{runtime.service_url(name)}/services/{name}/ready")
    return {"running": True, "url": runtime.public_url, "parts": parts}


def _ask(direct: urllib.request.OpenerDirector, address: str, *, token: str | None = None) -> str:
    headers = {"Authorization": f"token {token}"} if token else {}
    try:
        with direct.open(urllib.request.Request(address, headers=headers), timeout=5):  # noqa: S310 - our own parts
            return "ok"
    except urllib.error.HTTPError as err:
        try:
            states = json.loads(err.read())["parts"]
        except (ValueError, KeyError, TypeError):
            return f"HTTP {err.code}"
        return ", ".join(f"{name}: {state}" for name, state in states.items() if state != "ok")
    except OSError:
        return "does not answer"
