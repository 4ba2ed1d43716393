"""Checking id tokens (OpenID Connect Core 1.0, section 3.1.3.7)."""

from collections.abc import Mapping
from typing import Any, Final

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from astrocloud_hub.errors import HubError

ALGORITHMS: Final = (
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "EdDSA",
    "Ed25519",
)
"""Signatures that only the provider can make. Not ``none``, nor HMAC: anybody with the public key could then sign."""

_LEEWAY_S: Final = 60


class UnknownKey(Exception):  # noqa: N818 - not a failure: the provider may have taken a new key
    """The token names a key that is not among those given."""


def verify_id_token(
    token: str, *, keys: Mapping[str, Any], issuer: str, client_id: str, nonce: str, passport: str
) -> dict[str, Any]:
    """Return the claims of an id token that the provider made for us, for this one sign-in, and that has not expired.

    Parameters
    ----------
    token
        The token, as the provider sent it.
    keys
        The provider's JWKS document.
    issuer
        The provider's issuer, exactly.
    client_id
        Our client id there.
    nonce
        What we sent along when this sign-in began.
    passport
        What errors call the provider.

    Raises
    ------
    UnknownKey
        When it is signed with a key that is not among `keys`.
    HubError
        ``id-token``, with what is wrong with it.
    """

    def wrong(reason: str) -> HubError:
        return HubError("id-token", passport=passport, reason=reason)

    try:
        key_set = KeySet.import_key_set(
            {"keys": [key for key in keys.get("keys", ()) if key.get("use", "sig") == "sig"]}
        )
    except (JoseError, ValueError, TypeError, KeyError, AttributeError) as err:
        raise wrong("the provider's keys cannot be read") from err
    try:
        decoded = jwt.decode(token, key_set, algorithms=list(ALGORITHMS))
    except JoseError as err:
        if type(err).__name__ in {"InvalidKeyIdError", "MissingKeyError"}:
            raise UnknownKey from err
        raise wrong(f"its signature is not accepted ({err.error})") from err
    except (ValueError, TypeError) as err:
        raise wrong("it cannot be read") from err
    registry = jwt.JWTClaimsRegistry(
        leeway=_LEEWAY_S,
        iss={"essential": True, "value": issuer},
        aud={"essential": True, "value": client_id},
        sub={"essential": True},
        exp={"essential": True},
        iat={"essential": True},
        nonce={"essential": True, "value": nonce},
    )
    claims: dict[str, Any] = dict(decoded.claims)
    try:
        registry.validate(claims)
    except JoseError as err:
        raise wrong(f"{getattr(err, 'claim', '') or 'a claim'}: {err.error}") from err
    audience = claims["aud"]
    if isinstance(audience, list) and len(audience) > 1 and claims.get("azp") != client_id:
        raise wrong("azp: it was made for somebody else")
    if not isinstance(claims["sub"], str) or not 0 < len(claims["sub"]) <= 255:
        raise wrong("sub: not a text of 1 to 255 characters")
    return claims
