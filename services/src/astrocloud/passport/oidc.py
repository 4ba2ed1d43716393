"""The embedded provider's endpoints over HTTP."""

import asyncio
import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import unquote_plus, urlencode

from aiohttp import web
from authlib.common.urls import add_params_to_uri
from authlib.oauth2.rfc6749 import OAuth2Error

from astrocloud.core.errors import RequestError
from astrocloud.core.web import read_form
from astrocloud.passport.models import Session
from astrocloud.passport.provider import Client, Provider, Reply, Request
from astrocloud.passport.web import PREFIX, Doors, query, see, sign_in_address

_LONGEST: Final = {
    "state": 2048,
    "nonce": 512,
    "code_challenge": 128,
    "scope": 500,
    "client_id": 64,
    "redirect_uri": 500,
}
"""The longest value of a parameter, in characters."""

_CACHED: Final = {"Cache-Control": "public, max-age=3600", "Access-Control-Allow-Origin": "*"}
_SINCE: Final = "proved_since"
"""Our own parameter on the way back from the sign-in page: the password must have been proved after it. A client could
leave ``prompt=login`` out as well as a person could forge this; it is the client who checks ``auth_time``."""


class OidcEndpoints:
    """The endpoints.

    Parameters
    ----------
    doors
        Cookies and forms.
    provider
        The provider.
    """

    def __init__(self, *, doors: Doors, provider: Provider) -> None:
        self._doors = doors
        self._provider = provider

    def routes(self) -> Sequence[web.AbstractRouteDef]:
        """Return the routes."""
        return [
            web.get(f"{PREFIX}/.well-known/openid-configuration", self._discovery),
            web.get(f"{PREFIX}/jwks", self._jwks),
            web.get(f"{PREFIX}/authorize", self._authorize),
            web.post(f"{PREFIX}/authorize", self._authorize),
            web.post(f"{PREFIX}/token", self._token),
            web.get(f"{PREFIX}/userinfo", self._userinfo),
            web.post(f"{PREFIX}/userinfo", self._userinfo),
            web.post(f"{PREFIX}/revoke", self._revoke),
            web.get(f"{PREFIX}/logout", self._logout),
            web.post(f"{PREFIX}/logout", self._logout),
        ]

    async def _discovery(self, _request: web.Request) -> web.Response:
        """Return what the provider can do and where (OpenID Connect Discovery)."""
        return web.json_response(self._provider.discovery(), headers=_CACHED)

    async def _jwks(self, _request: web.Request) -> web.Response:
        """Return the public keys of its signatures."""
        return web.json_response(await asyncio.to_thread(self._provider.keys.document), headers=_CACHED)

    # authorization

    async def _authorize(self, request: web.Request) -> web.Response:
        """Answer an authorization request (Core 1.0, section 3.1.2): a code, an error, or the sign-in page first."""
        given = await read_form(request) if request.method == "POST" else query(request)
        self._check_client(given)
        since = given.pop(_SINCE, "")
        asked = Request(method="GET", parameters=given)
        wrong = _unsupported(given) or self._provider.check_authorization(asked)
        if wrong is not None:
            return self._back_with_error(given, wrong)
        found = await self._doors.session(request)
        prompts = given.get("prompt", "").split()
        try:
            fresh = found is not None and _is_fresh(found[0], given, prompts, since, now_s=self._now_s())
        except ValueError:
            return self._back_with_error(given, _error("invalid_request", "max_age is not a number of seconds"))
        if found is None or not fresh:
            if "none" in prompts:
                return self._back_with_error(given, _error("login_required", "somebody must sign in first"))
            return see(_sign_in_first(given, prompts, again=found is not None, now_s=self._now_s()))
        reply = await asyncio.to_thread(self._provider.authorize, asked, found[0])
        return self._redirect(given, reply.location)

    def _now_s(self) -> float:
        return float(self._provider.clock().timestamp())

    def _check_client(self, given: Mapping[str, str]) -> None:
        """Check the client that asks. Nobody is redirected anywhere before it and its redirect URI are known good."""
        for name, limit in _LONGEST.items():
            if len(given.get(name, "")) > limit:
                raise RequestError("authorize-request", reason=f"{name} is longer than {limit} characters")
        client: Client | None = self._provider.query_client(given.get("client_id", ""))
        if client is None or not client.check_redirect_uri(given.get("redirect_uri", "")):
            raise RequestError("authorize-client")

    def _back_with_error(self, given: Mapping[str, str], error: OAuth2Error) -> web.Response:
        found = {"error": error.error, "error_description": error.get_error_description()}
        if given.get("state"):
            found["state"] = given["state"]
        return self._redirect(given, add_params_to_uri(given["redirect_uri"], [(k, v) for k, v in found.items() if v]))

    def _redirect(self, given: Mapping[str, str], location: str) -> web.Response:
        """Send the browser back to the client, saying which provider answers (RFC 9207)."""
        if not location.startswith(given["redirect_uri"]):
            raise RequestError("authorize-client")
        return see(add_params_to_uri(location, [("iss", self._provider.issuer)]))

    # tokens

    async def _token(self, request: web.Request) -> web.Response:
        """Exchange a code or a refresh token for tokens."""
        asked = Request(method="POST", parameters=await read_form(request), headers=_authorization(request))
        return _json(await asyncio.to_thread(self._provider.create_token_response, asked))

    async def _revoke(self, request: web.Request) -> web.Response:
        """Revoke a token (RFC 7009)."""
        asked = Request(method="POST", parameters=await read_form(request), headers=_authorization(request))
        return _json(await asyncio.to_thread(self._provider.create_endpoint_response, "revocation", asked))

    async def _userinfo(self, request: web.Request) -> web.Response:
        """Return who an access token is about."""
        scheme, _, bearer = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not bearer or len(bearer) > 512:
            return web.Response(status=401, headers={"WWW-Authenticate": 'Bearer realm="passport"'})
        try:
            claims = await asyncio.to_thread(self._provider.userinfo, bearer.strip())
        except OAuth2Error as err:
            return _json(Reply(status=err.status_code, body=dict(err.get_body()), headers=err.get_headers()))
        return web.json_response(claims)

    # signing out

    async def _logout(self, request: web.Request) -> web.Response:
        """End the session (RP-Initiated Logout 1.0): at once with an id token of the person, else when asked."""
        posted = request.method == "POST"
        given = await read_form(request) if posted else query(request)
        hint = given.get("id_token_hint", "")[:8000]
        claims = await asyncio.to_thread(self._provider.read_hint, hint) if hint else None
        back = self._after_logout(given, claims)
        found = await self._doors.session(request)
        # Only who has an id token of this very person can name it: no other page can.
        meant = found is None or (claims is not None and claims.get("sub") == found[1].username)
        if found is not None and not meant and not (posted and "_csrf" in given):
            kept = {name: given.get(name, "") for name in ("client_id", "post_logout_redirect_uri", "state")}
            return await self._doors.form_page(request, "passport/sign-out.html", person=found[1], kept=kept)
        if found is not None:
            if not meant:
                self._doors.check_form(request, given)
            await asyncio.to_thread(self._doors.accounts.end_session, found[1].username, found[0].public_id)
        if back:
            response = see(back)
        else:
            response = await self._doors.form_page(request, "passport/signed-out.html")
        self._doors.close(response)
        return response

    def _after_logout(self, given: Mapping[str, str], claims: Mapping[str, object] | None) -> str:
        """Return where to go afterwards: an address of the client's, to the letter, or nowhere."""
        client: Client | None = self._provider.query_client(
            str((claims or {}).get("aud") or given.get("client_id", ""))
        )
        wanted = given.get("post_logout_redirect_uri", "")
        if client is None or wanted not in client.post_logout_redirect_uris:
            return ""
        state = given.get("state", "")[:2048]
        location: str = add_params_to_uri(wanted, [("state", state)]) if state else wanted
        return location


def _error(code: str, description: str) -> OAuth2Error:
    return OAuth2Error(error=code, description=description)


def _unsupported(given: Mapping[str, str]) -> OAuth2Error | None:
    """Return the error for what is not offered here, if anything of it is asked for."""
    if "request" in given:
        return _error("request_not_supported", "request objects are not supported")
    if "request_uri" in given:
        return _error("request_uri_not_supported", "request objects are not supported")
    if given.get("response_type") != "code":
        return _error("unsupported_response_type", "only response_type code is supported")
    if given.get("response_mode", "query") != "query":
        return _error("invalid_request", "only response_mode query is supported")
    prompts = given.get("prompt", "").split()
    if "none" in prompts and len(prompts) > 1:
        return _error("invalid_request", "prompt none goes with no other")
    return None


def _is_fresh(session: Session, given: Mapping[str, str], prompts: Sequence[str], since: str, *, now_s: float) -> bool:
    """Whether the password was proved recently enough for this request. Raises `ValueError` for a bad number."""
    proved = session.auth_time.timestamp()
    if given.get("max_age"):
        max_age_s = int(given["max_age"][:10])
        if max_age_s < 0:
            raise ValueError
        # A sign-in that was made for this request is recent enough, however small max_age is.
        needed = now_s - max_age_s
        if proved < (min(needed, int(since[:12])) if since else needed):
            return False
    if {"login", "select_account"} & set(prompts):
        return False
    return not since or proved >= int(since[:12])


def _sign_in_first(given: Mapping[str, str], prompts: Sequence[str], *, again: bool, now_s: float) -> str:
    """Return the address of the sign-in page, from which the same request comes back, without ``prompt=login``."""
    kept = {name: value for name, value in given.items() if name != "prompt"}
    if rest := [prompt for prompt in prompts if prompt not in {"login", "select_account"}]:
        kept["prompt"] = " ".join(rest)
    kept[_SINCE] = str(int(now_s))
    back = f"{PREFIX}/authorize?{urlencode(kept)}"
    return sign_in_address(back, **({"again": "1"} if again else {}))


def _authorization(request: web.Request) -> dict[str, str]:
    """Return the Authorization header as Authlib may read it: form-decoded (RFC 6749, section 2.3.1), or not at all."""
    header = request.headers.get("Authorization", "")
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic" or len(header) > 2000:
        return {}
    try:
        name, _, secret = base64.b64decode(encoded.strip(), validate=True).decode("utf-8").partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return {}
    pair = f"{unquote_plus(name)}:{unquote_plus(secret)}"
    return {"Authorization": "Basic " + base64.b64encode(pair.encode("utf-8", "replace")).decode()}


def _json(reply: Reply) -> web.Response:
    headers = {name: value for name, value in reply.headers if name.lower() != "content-type"}
    body = dict(reply.body) if isinstance(reply.body, Mapping | list) else {}
    return web.json_response(body, status=reply.status, headers={**headers, "Cache-Control": "no-store"})
