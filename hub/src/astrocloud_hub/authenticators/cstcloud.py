"""Signing in with the passport of the China Science and Technology Cloud.

OAuth 2 with its own reply: no discovery, no id token, no userinfo endpoint. The token reply carries ``userInfo``, a
*string* that holds JSON. The account is keyed on ``umtId``; ``cstnetId`` looks like an address and can change.
"""

import json
from collections.abc import Mapping
from typing import Any

from traitlets import Any as AnyTrait
from traitlets import Unicode

from astrocloud_hub.authenticators.base import Identity, PassportAuthenticator
from astrocloud_hub.authenticators.fetching import FetchError
from astrocloud_hub.errors import HubError


class CstcloudAuthenticator(PassportAuthenticator):
    """Signs in at the CSTCloud passport. State and PKCE are sent along; the nonce has no place there."""

    base_url = Unicode("https://passport.escience.cn", help="The passport's address, without a final slash.").tag(
        config=True
    )
    secret = AnyTrait(help="Our client secret there, a `SecretStr`.").tag(config=True)

    async def authorization(self, *, state: str, nonce: str, challenge: str) -> tuple[str, dict[str, str]]:
        """Return the passport's authorization endpoint and the query to send the browser there with."""
        return f"{self.base_url}/oauth2/authorize", {
            "response_type": "code",
            "client_id": self.client_id,
            "redirect_uri": self.callback,
            "theme": "simple",
            "state": state,
            # A server that does not know PKCE ignores it (RFC 6749, section 3.1).
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }

    async def identify(self, *, code: str, verifier: str, nonce: str, answer: Mapping[str, str]) -> Identity:
        """Return who the token reply's ``userInfo`` says it is."""
        form = {
            "grant_type": "authorization_code",
            "client_id": self.client_id,
            "client_secret": self.secret.get_secret_value(),
            "redirect_uri": self.callback,
            "code": code,
            "code_verifier": verifier,
        }
        try:
            reply = await self.json.fetch(f"{self.base_url}/oauth2/token", form=form)
        except FetchError as err:
            if 400 <= err.status < 500:
                raise HubError("sign-in-code", passport=self.passport_name) from err
            raise HubError("passport-away", passport=self.passport_name, status=err.status or "none") from err
        return read_user_info(reply, issuer=self.base_url, passport=self.passport_name)


def read_user_info(reply: Mapping[str, Any], *, issuer: str, passport: str) -> Identity:
    """Return who a token reply is about.

    Raises
    ------
    HubError
        ``sign-in-code`` when the reply is an error, ``passport-answer`` when it is not as agreed,
        ``cstcloud-not-active`` when the account may not be used yet (``cstnetIdStatus`` is not ``active``).
    """

    def wrong(reason: str) -> HubError:
        return HubError("passport-answer", passport=passport, reason=reason)

    if "error" in reply and "userInfo" not in reply:
        raise HubError("sign-in-code", passport=passport)
    text = reply.get("userInfo")
    if not isinstance(text, str):
        raise wrong("there is no userInfo text")
    try:
        info = json.loads(text)
    except ValueError as err:
        raise wrong("userInfo is not JSON") from err
    if not isinstance(info, dict):
        raise wrong("userInfo is not a JSON object")
    umt = info.get("umtId")
    # A number in one version of the passport, a text in another; True is a number to Python only.
    subject = str(umt).strip() if isinstance(umt, int | str) and not isinstance(umt, bool) else ""
    if not subject or len(subject) > 255:
        raise wrong("there is no umtId")
    status = str(info.get("cstnetIdStatus", ""))
    if status != "active":
        raise HubError("cstcloud-not-active", status=status[:40] or "-")
    address = info.get("cstnetId")
    claims = {"name": info.get("truename"), "email": address, "email_verified": True, "type": info.get("type")}
    if isinstance(address, str) and "@" in address:
        claims["preferred_username"] = address.partition("@")[0]
    shown = {name: value for name, value in claims.items() if isinstance(value, str | bool) and value != ""}
    return Identity(issuer=issuer, subject=subject, claims=shown)
