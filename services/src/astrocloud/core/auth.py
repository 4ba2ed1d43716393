"""Who is asking: JupyterHub is the token authority, and services ask it.

A program sends ``Authorization: Bearer TOKEN``; a browser signs in by the hub's OAuth (authorization code with
PKCE) and keeps the token that came of it in an encrypted cookie below the service's own path. The cookie is never
set for ``/``, or a browser would send it to people's own servers below ``/user/`` as well.
"""

import asyncio
import base64
import hashlib
import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode, urlsplit

import structlog
from aiohttp import web
from cryptography.fernet import Fernet, InvalidToken
from pydantic import SecretStr

from astrocloud.core.errors import RequestError
from astrocloud.core.web import BY_COOKIE, LOGINS, PRINCIPAL, read_fields, safe_next, service_of, wants_page

if TYPE_CHECKING:
    from jupyterhub.services.auth import HubOAuth

    from astrocloud.core.runtime import Runtime

CACHE_S: Final = 15
"""How long the hub's answer about a token is believed, in seconds: a revoked token stops within that."""

HUB_TOKEN: Final = web.RequestKey("hub_token", SecretStr)
"""Where `current` and `require` keep the caller's own token (a `SecretStr`) on the request: a service that acts at the
hub for somebody does so with that, so that the hub decides what they may."""

_WARM_UP_AFTER_S: Final = 2.0
"""The other parts have the processor first, in seconds after the start."""

_SESSION: Final = frozenset({"token", "csrf"})
_START: Final = frozenset({"state", "verifier", "next"})
_SAFE: Final = {"GET", "HEAD", "OPTIONS"}
_BEARER: Final = re.compile(r"(?:bearer|token)\s+([A-Za-z0-9._~+/=-]{1,512})\Z", re.IGNORECASE)
_log = structlog.get_logger()


@dataclass(frozen=True)
class Principal:
    """Somebody the hub vouches for."""

    name: str
    """The username, or a service's name."""
    kind: str
    """``user`` or ``service``."""
    admin: bool
    groups: frozenset[str]
    scopes: frozenset[str]
    by_cookie: bool
    """Whether a browser's cookie says so, in which case a change must also carry the token of our own page."""
    csrf: str = ""
    """That token."""

    def has(self, scope: str) -> bool:
        """Whether this principal's token carries `scope`, for everything or for its own user."""
        return not self.scopes.isdisjoint({scope, f"{scope}!{self.kind}={self.name}"})


class HubLogin:
    """Signs people in at one service.

    Parameters
    ----------
    service
        The service's name.
    runtime
        Where the hub is.
    api_token
        The service's own token at the hub.
    """

    def __init__(self, *, service: str, runtime: "Runtime", api_token: SecretStr) -> None:
        self.service = service
        self._runtime = runtime
        self._api_token = api_token
        self._prefix = f"/services/{service}"
        self._secure = runtime.public_url.startswith("https://")
        self._cookie = f"astrocloud-{service}"
        key = hashlib.sha256(b"cookie:" + api_token.get_secret_value().encode()).digest()
        self._box = Fernet(base64.urlsafe_b64encode(key))
        self._client: HubOAuth | None = None

    @property
    def hub(self) -> "HubOAuth":
        """The hub's own client of its OAuth, made at first use (its import is slow)."""
        if self._client is None:
            from jupyterhub.services.auth import HubOAuth

            context = self._runtime.trust.context()

            class TrustingHubOAuth(HubOAuth):  # type: ignore[misc]  # it ships no types
                """JupyterHub's, which takes no authority without a certificate of the client's own."""

                async def _api_request(self, method: str, url: str, /, **kwargs: Any) -> Any:
                    return await super()._api_request(method, url, ssl=context, **kwargs)

            self._client = TrustingHubOAuth(
                api_url=self._runtime.hub_api_url,
                api_token=self._api_token.get_secret_value(),
                oauth_client_id=f"service-{self.service}",
                oauth_redirect_uri=f"{self._prefix}/oauth_callback",
                base_url=f"{self._prefix}/",
                hub_prefix="/hub/",
                cache_max_age=CACHE_S,
                access_scopes={f"access:services!service={self.service}"},
            )
        return self._client

    async def warm_up(self) -> None:
        """Import what signing in takes, a moment after the start, so that the first person does not wait for it."""
        await asyncio.sleep(_WARM_UP_AFTER_S)
        await asyncio.to_thread(lambda: self.hub)
        await asyncio.Event().wait()  # background work goes on for ever

    def routes(self) -> Sequence[web.AbstractRouteDef]:
        """Return the routes that signing in needs."""
        return [
            web.get(f"{self._prefix}/sign-in/hub", self._start),
            web.get(f"{self._prefix}/oauth_callback", self._callback),
        ]

    async def principal(self, request: web.Request) -> Principal | None:
        """Return who sends `request`, or `None`; a bearer token wins over a cookie."""
        header = request.headers.get("Authorization")
        if header is not None:
            match = _BEARER.match(header)
            if match is None:
                return None
            request[HUB_TOKEN] = SecretStr(match[1])
            return await self._ask_hub(match[1], session_id="", csrf=None)
        session = self._open(request.cookies.get(self._cookie, ""), fields=_SESSION, max_age_s=14 * 86400)
        if session is None:
            return None
        request[HUB_TOKEN] = SecretStr(session["token"])
        session_id = request.cookies.get("jupyterhub-session-id", "")
        return await self._ask_hub(session["token"], session_id=session_id, csrf=session["csrf"])

    async def _ask_hub(self, token: str, *, session_id: str, csrf: str | None) -> Principal | None:
        from tornado.web import HTTPError

        try:
            model = await self.hub.user_for_token(token, session_id=session_id, sync=False)
        except HTTPError as err:
            raise RequestError("unavailable", part="JupyterHub") from err
        if model is None:
            return None
        return Principal(
            name=model["name"],
            kind=model.get("kind", "user"),
            admin=bool(model.get("admin")),
            groups=frozenset(model.get("groups", ())),
            scopes=frozenset(model.get("scopes", ())),
            by_cookie=csrf is not None,
            csrf=csrf or "",
        )

    async def _start(self, request: web.Request) -> web.StreamResponse:
        """Send the browser to the hub, with a state that only this browser can bring back."""
        state, verifier = secrets.token_urlsafe(24), secrets.token_urlsafe(48)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        query = urlencode(
            {
                "client_id": f"service-{self.service}",
                "redirect_uri": f"{self._prefix}/oauth_callback",
                "response_type": "code",
                "state": state,
                "code_challenge": challenge,
                "code_challenge_method": "S256",
            }
        )
        response = web.Response(status=302, headers={"Location": f"/hub/api/oauth2/authorize?{query}"})
        kept = {"state": state, "verifier": verifier, "next": safe_next(request.query.get("next", "/"))}
        self._set_cookie(response, f"{self._cookie}-state", self._seal(kept), max_age_s=600)
        return response

    async def _callback(self, request: web.Request) -> web.StreamResponse:
        """Take somebody in whom the hub sent back, signed in."""
        from tornado.web import HTTPError

        kept = self._open(request.cookies.get(f"{self._cookie}-state", ""), fields=_START, max_age_s=600)
        given = request.query.get("state", "")
        if kept is None or not secrets.compare_digest(kept["state"].encode(), given.encode(errors="replace")):
            raise RequestError("sign-in-state")
        code = request.query.get("code", "")
        if not code:
            raise RequestError("sign-in-refused")
        try:
            token = await self.hub.token_for_code(code, code_verifier=kept["verifier"], sync=False)
        except HTTPError as err:
            raise RequestError("sign-in-refused") from err
        response = web.Response(status=302, headers={"Location": kept["next"]})
        session = {"token": token, "csrf": secrets.token_urlsafe(24)}
        self._set_cookie(response, self._cookie, self._seal(session), max_age_s=14 * 86400)
        response.del_cookie(f"{self._cookie}-state", path=f"{self._prefix}/")
        return response

    def forget(self, response: web.StreamResponse) -> None:
        """Drop this service's cookie from the browser that gets `response`."""
        response.del_cookie(self._cookie, path=f"{self._prefix}/")

    def _set_cookie(self, response: web.StreamResponse, name: str, value: str, *, max_age_s: int) -> None:
        response.set_cookie(
            name,
            value,
            path=f"{self._prefix}/",
            max_age=max_age_s,
            httponly=True,
            secure=self._secure,
            samesite="Lax",
        )

    def _seal(self, document: dict[str, str]) -> str:
        return self._box.encrypt(json.dumps(document).encode()).decode()

    def _open(self, sealed: str, *, fields: frozenset[str], max_age_s: int) -> dict[str, str] | None:
        """Return what `_seal` sealed with just these `fields`: one cookie's content is nothing in the other's place."""
        try:
            document: dict[str, str] = json.loads(self._box.decrypt(sealed.encode(), ttl=max_age_s))
        except (InvalidToken, ValueError):
            return None
        return document if document.keys() == fields else None


async def current(request: web.Request) -> Principal | None:
    """Return who sends `request`, if anybody is signed in, and keep it for the page.

    Where only bytes are served (`build_direct_app`) a cookie signs nobody in.
    """
    login = request.app[LOGINS][service_of(request)]
    by_token = "Authorization" in request.headers
    principal = await login.principal(request) if by_token or request.app.get(BY_COOKIE, True) else None
    request[PRINCIPAL] = principal
    return principal


async def require(request: web.Request, *, scope: str | None = None, admin: bool = False) -> Principal:
    """Return who sends `request`, or refuse it.

    A person's browser that is not signed in is sent to sign in and back; a program gets ``not-signed-in`` (401). A
    change that comes by cookie must carry the page's token (``csrf``), in ``X-CSRF-Token`` or the form field
    ``_csrf``. With `scope`, a bearer token must carry it.

    Raises
    ------
    RequestError
        ``not-signed-in``, ``csrf``, or ``forbidden`` when `scope` or `admin` is not given to this principal.
    aiohttp.web.HTTPFound
        To sign a browser in.
    """
    principal = await current(request)
    if principal is None:
        if wants_page(request) and request.method in _SAFE:
            query = urlencode({"next": request.path_qs})
            raise web.HTTPFound(f"/services/{service_of(request)}/sign-in/hub?{query}")
        raise RequestError("not-signed-in")
    if principal.by_cookie and request.method not in _SAFE:
        await _check_csrf(request, principal)
    if admin and not principal.admin:
        raise RequestError("forbidden", user=principal.name, needs="an administrator")
    if scope is not None and not principal.by_cookie and not principal.has(scope):
        raise RequestError("forbidden", user=principal.name, needs=f"the scope {scope}")
    return principal


async def _check_csrf(request: web.Request, principal: Principal) -> None:
    given = request.headers.get("X-CSRF-Token", "")
    if not given and request.content_type in {"application/x-www-form-urlencoded", "multipart/form-data"}:
        given = dict(await read_fields(request)).get("_csrf", "")
    site = request.headers.get("Sec-Fetch-Site", "same-origin")
    # Scripts in people's own servers share this origin; what they send names the page below /user/ it came from.
    from_user_server = urlsplit(request.headers.get("Referer", "")).path.startswith("/user/")
    if (
        site not in {"same-origin", "none"}
        or from_user_server
        or not secrets.compare_digest(given.encode(errors="replace"), principal.csrf.encode())
    ):
        _log.warning("csrf-refused", user=principal.name, path=request.path[:300])
        raise RequestError("csrf")
