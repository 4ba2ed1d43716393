"""A small client of the hub's REST API, for the operator's commands."""

import json
import re
import urllib.error
import urllib.request
from typing import Any, Final

from astrocloud.core.errors import PlatformError, RequestError, StartError
from astrocloud.core.layout import DataFolder
from astrocloud.core.runtime import CUSTOM_SCOPES, Runtime
from astrocloud.core.secrets import SecretFiles
from astrocloud.core.trust import Trust

_UNITS_S: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def read_duration(text: str) -> int:
    """Return the seconds in ``3600``, ``90s``, ``15m``, ``12h`` or ``30d``. Raises `PlatformError` ``bad-duration``."""
    match = re.fullmatch(r"([0-9]{1,9})([smhd]?)", text)
    seconds = int(match[1]) * _UNITS_S[match[2]] if match else 0
    if not 0 < seconds <= 366 * 86400:
        raise PlatformError("bad-duration", value=text[:40])
    return seconds


def direct_opener(trust: Trust) -> urllib.request.OpenerDirector:
    """Return what asks the platform's own parts: through no proxy of the environment, with their authority."""
    return urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trust.context())
    )


class HubClient:
    """The hub of a running platform, as the operator.

    Parameters
    ----------
    data
        The platform's folder.

    Raises
    ------
    StartError
        ``not-running`` when no platform ever ran there.
    """

    def __init__(self, data: DataFolder) -> None:
        try:
            self.runtime = Runtime.read(data)
        except FileNotFoundError as err:
            raise StartError("not-running", folder=str(data.root)) from err
        self._direct = direct_opener(self.runtime.trust)
        self._token = SecretFiles(data.secrets).get("service-operator")
        self._data = data

    def call(self, method: str, path: str, body: object = None) -> Any:
        """Return the hub's JSON answer to `method` on `path` (below ``/hub/api``); `None` when it has no body.

        Raises
        ------
        StartError
            ``not-running`` when the hub does not answer.
        RequestError
            ``hub-refused`` with the hub's own words otherwise.
        """
        request = urllib.request.Request(  # noqa: S310 - always our own hub
            f"{self.runtime.hub_api_url}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"token {self._token.get_secret_value()}"},
        )
        try:
            with self._direct.open(request, timeout=20) as answer:
                text = answer.read()
        except urllib.error.HTTPError as err:
            try:
                reason = json.loads(err.read())["message"]
            except (ValueError, KeyError, TypeError):
                reason = err.reason
            raise RequestError("hub-refused", status=err.code, reason=reason) from err
        except OSError as err:
            raise StartError("not-running", folder=str(self._data.root)) from err
        return json.loads(text) if text else None

    def make_token(self, name: str, *, scopes: tuple[str, ...], expires: str) -> dict[str, Any]:
        """Return a new token of the person `name`: ``token``, ``scopes``, ``expires_at``.

        Raises
        ------
        PlatformError
            ``bad-duration``, ``unknown-scope``, or as `call` does.
        """
        seconds = read_duration(expires)
        for scope in scopes:
            if scope.startswith("custom:") and scope.split("!")[0] not in CUSTOM_SCOPES:
                raise PlatformError("unknown-scope", scope=scope, allowed=", ".join(sorted(CUSTOM_SCOPES)))
        body: dict[str, Any] = {"expires_in": seconds, "note": "made by `astrocloud token`"}
        if scopes:
            body["scopes"] = list(scopes)
        try:
            self.call("GET", f"/users/{name}")
        except RequestError as err:
            if err.parameters["status"] != 404:
                raise
            self.call("POST", f"/users/{name}")  # a person who has never signed in
        made = self.call("POST", f"/users/{name}/tokens", body)
        return {"token": made["token"], "scopes": made["scopes"], "expires_at": made["expires_at"]}
