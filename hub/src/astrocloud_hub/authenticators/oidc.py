"""Signing in at any OpenID Connect provider (OpenID Connect Core and Discovery 1.0)."""

import time
from base64 import b64encode
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

from traitlets import Any as AnyTrait
from traitlets import List, Unicode

from astrocloud_hub.authenticators.base import Identity, PassportAuthenticator
from astrocloud_hub.authenticators.fetching import FetchError
from astrocloud_hub.authenticators.tokens import UnknownKey, verify_id_token
from astrocloud_hub.errors import HubError

_DISCOVERED_S: Final = 3600.0
_KEYS_ASKED_S: Final = 30.0
"""How often the keys are asked for again, at most, when a token names one that we do not know."""
_CLAIMS: Final = ("name", "given_name", "family_name", "email", "email_verified", "preferred_username", "locale")


class OidcAuthenticator(PassportAuthenticator):
    """Authorization code with PKCE (S256), state and nonce; the id token's signature and claims are checked."""

    issuer = Unicode(help="The provider's issuer; its discovery document is below it.").tag(config=True)
    secret = AnyTrait(help="Our client secret there, a `SecretStr`.").tag(config=True)
    scopes = List(Unicode(), ["openid", "profile", "email"], help="The scopes asked for.").tag(config=True)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._metadata: dict[str, Any] = {}
        self._metadata_at = 0.0
        self._keys: dict[str, Any] = {}
        self._keys_at = 0.0

    async def metadata(self) -> Mapping[str, Any]:
        """Return the provider's metadata, discovered and kept for an hour. Raises `HubError` ``passport-away``."""
        now = time.monotonic()
        if self._metadata and now - self._metadata_at < _DISCOVERED_S:
            return self._metadata
        configured = self.issuer.rstrip("/")
        try:
            document = await self.json.fetch(f"{configured}/.well-known/openid-configuration")
        except FetchError as err:
            if self._metadata:
                return self._metadata
            raise HubError("passport-away", passport=self.passport_name, status=err.status or "none") from err
        told = document.get("issuer")
        if not isinstance(told, str) or told.rstrip("/") != configured:
            raise HubError("passport-answer", passport=self.passport_name, reason=f"it calls itself {str(told)[:100]}")
        for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
            # A provider on plain http is one of this machine, or a mistake that would show the client secret around.
            url = urlsplit(str(document.get(name, "")))
            if url.scheme != "https" and not (url.scheme == "http" and urlsplit(configured).scheme == "http"):
                raise HubError("passport-answer", passport=self.passport_name, reason=f"it has no usable {name}")
        self._metadata, self._metadata_at = document, now
        return document

    async def authorization(self, *, state: str, nonce: str, challenge: str) -> tuple[str, dict[str, str]]:
        """Return the provider's authorization endpoint and the query to send the browser there with."""
        metadata = await self.metadata()
        return str(metadata["authorization_endpoint"]), {
            "response_type": "code",
            "client_id": self.client_id,
            "redirect_uri": self.callback,
            "scope": " ".join(self.scopes),
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }

    async def identify(self, *, code: str, verifier: str, nonce: str, answer: Mapping[str, str]) -> Identity:
        """Return who the id token says it is."""
        metadata = await self.metadata()
        issuer = str(metadata["issuer"])
        # RFC 9207: an answer that another provider was tricked into giving names that one.
        named = answer.get("iss")
        if named != issuer and (named or metadata.get("authorization_response_iss_parameter_supported")):
            raise HubError("sign-in-state")
        tokens = await self._exchange(metadata, code=code, verifier=verifier)
        token = tokens.get("id_token")
        if not isinstance(token, str):
            raise HubError("id-token", passport=self.passport_name, reason="there is none")
        claims = await self._verified(metadata, token, nonce=nonce)
        if not claims.get("name") or not claims.get("email"):
            claims = {**await self._userinfo(metadata, tokens, subject=claims["sub"]), **claims}
        shown: dict[str, Any] = {name: claims[name] for name in _CLAIMS if name in claims}
        return Identity(issuer=issuer, subject=claims["sub"], claims=shown, id_token=token)

    async def sign_out_url(self, auth_state: Mapping[str, Any]) -> str:
        """Return the provider's sign-out (RP-Initiated Logout 1.0), which comes back to the front page."""
        try:
            endpoint = (await self.metadata()).get("end_session_endpoint")
        except HubError:
            return ""
        if not isinstance(endpoint, str):
            return ""
        parameters = {"client_id": self.client_id, "post_logout_redirect_uri": f"{self.public_url}/"}
        if auth_state.get("id_token"):
            parameters["id_token_hint"] = str(auth_state["id_token"])
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(parameters)}"

    async def _exchange(self, metadata: Mapping[str, Any], *, code: str, verifier: str) -> dict[str, Any]:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.callback,
            "code_verifier": verifier,
        }
        headers: dict[str, str] = {}
        secret = self.secret.get_secret_value()
        methods = metadata.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        if "client_secret_basic" in methods:
            pair = f"{quote(self.client_id, safe='')}:{quote(secret, safe='')}"
            headers["Authorization"] = f"Basic {b64encode(pair.encode()).decode()}"
        else:
            form |= {"client_id": self.client_id, "client_secret": secret}
        try:
            return await self.json.fetch(str(metadata["token_endpoint"]), form=form, headers=headers)
        except FetchError as err:
            if err.document.get("error") == "invalid_grant":
                raise HubError("sign-in-code", passport=self.passport_name) from err
            if 400 <= err.status < 500:
                shown = str(err.document.get("error", err.status))[:64]
                raise HubError("sign-in-error", passport=self.passport_name, error=shown) from err
            raise HubError("passport-away", passport=self.passport_name, status=err.status or "none") from err

    async def _verified(self, metadata: Mapping[str, Any], token: str, *, nonce: str) -> dict[str, Any]:
        for fresh in (False, True):
            keys = await self._key_set(metadata, fresh=fresh)
            try:
                return verify_id_token(
                    token,
                    keys=keys,
                    issuer=str(metadata["issuer"]),
                    client_id=self.client_id,
                    nonce=nonce,
                    passport=self.passport_name,
                )
            except UnknownKey:
                continue
        raise HubError(
            "id-token", passport=self.passport_name, reason="it is signed with a key that the provider has not"
        )

    async def _key_set(self, metadata: Mapping[str, Any], *, fresh: bool) -> dict[str, Any]:
        now = time.monotonic()
        due = not self._keys or now - self._keys_at > _DISCOVERED_S
        if due or (fresh and now - self._keys_at > _KEYS_ASKED_S):
            try:
                self._keys = await self.json.fetch(str(metadata["jwks_uri"]))
            except FetchError as err:
                raise HubError("passport-away", passport=self.passport_name, status=err.status or "none") from err
            self._keys_at = now
        return self._keys

    async def _userinfo(
        self, metadata: Mapping[str, Any], tokens: Mapping[str, Any], *, subject: str
    ) -> dict[str, Any]:
        """Return what the userinfo endpoint adds: display values, so nothing when it does not answer."""
        endpoint, access = metadata.get("userinfo_endpoint"), tokens.get("access_token")
        if not isinstance(endpoint, str) or not isinstance(access, str):
            return {}
        try:
            found = await self.json.fetch(endpoint, headers={"Authorization": f"Bearer {access}"})
        except FetchError:
            return {}
        # Section 5.3.2: it must be the same person.
        return found if found.get("sub") == subject else {}
