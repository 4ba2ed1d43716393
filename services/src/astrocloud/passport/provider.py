"""The embedded OpenID Connect provider: authorization code with PKCE and refresh, nothing else.

Standards: OpenID Connect Core 1.0, RFC 6749, RFC 7636 (S256 only), RFC 7009, RFC 9207, RFC 9700. Authlib leads through
the grants; what is decided here is who gets what, and each change is one transaction, so that of two who bring the
same code or refresh token one succeeds and the other takes everything back that came of it.
"""

import logging
import secrets
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import structlog
from authlib.oauth2.rfc6749 import AuthorizationServer, InvalidGrantError, OAuth2Error, OAuth2Request, grants
from authlib.oauth2.rfc6749.errors import InvalidRequestError
from authlib.oauth2.rfc6749.requests import BasicOAuth2Payload
from authlib.oauth2.rfc6750 import BearerTokenValidator
from authlib.oauth2.rfc6750.errors import InvalidTokenError
from authlib.oauth2.rfc7009 import RevocationEndpoint
from authlib.oauth2.rfc7636 import CodeChallenge
from authlib.oidc.core import OpenIDCode
from joserfc import jwt
from joserfc.errors import JoseError

from astrocloud.passport.accounts import secret_hash
from astrocloud.passport.keys import ALGORITHM
from astrocloud.passport.models import Code, Person, Session, Token, utc_now

if TYPE_CHECKING:
    from joserfc.jwk import KeySet
    from pydantic import SecretStr

    from astrocloud.passport.keys import SigningKeys
    from astrocloud.passport.storage import Storage, Transaction

CODE_LIFETIME: Final = timedelta(seconds=60)
ACCESS_LIFETIME: Final = timedelta(minutes=10)
ID_TOKEN_LIFETIME: Final = timedelta(hours=1)
REFRESH_LIFETIME: Final = timedelta(days=30)
SCOPES: Final = ("openid", "profile", "email", "offline_access")
LOOPBACK: Final = ("127.0.0.1", "localhost", "[::1]")
CALLBACK: Final = "/hub/oauth_callback"
AFTER_LOGOUT: Final = ("/", "/hub/", "/hub/login", "/hub/logout")

_log = structlog.get_logger()
# Authlib writes whole tokens at debug level.
logging.getLogger("authlib").setLevel(logging.INFO)


@dataclass(frozen=True, kw_only=True)
class Reply:
    """An answer of the provider, before it is HTTP."""

    status: int
    body: Any
    headers: Sequence[tuple[str, str]]

    @property
    def location(self) -> str:
        """Where it redirects to; empty if it does not."""
        return dict(self.headers).get("Location", "")


def own_origins(public_url: str) -> list[str]:
    """Return the origins at which this platform is reached: its public one, and on loopback the other names of it."""
    parts = urlsplit(public_url)
    host, port = parts.hostname or "", f":{parts.port}" if parts.port else ""
    if host not in {"127.0.0.1", "localhost", "::1"}:
        return [public_url]
    return list(dict.fromkeys([public_url, *(f"{parts.scheme}://{name}{port}" for name in LOOPBACK)]))


class Client:
    """A client of the provider, as Authlib asks for it.

    Parameters
    ----------
    client_id
        Its name.
    secret
        Its secret.
    public_url
        The platform's address, below which all its addresses are.
    """

    def __init__(self, *, client_id: str, secret: "SecretStr", public_url: str) -> None:
        self.client_id = client_id
        self._secret = secret
        origins = own_origins(public_url)
        self.redirect_uris = [origin + CALLBACK for origin in origins]
        self.post_logout_redirect_uris = [origin + path for origin in origins for path in AFTER_LOGOUT]

    def get_client_id(self) -> str:
        """Return its name."""
        return self.client_id

    def get_default_redirect_uri(self) -> None:
        """Return `None`: a request names its redirect URI."""

    def get_allowed_scope(self, scope: str | None) -> str | None:
        """Return the known ones of the scopes asked for, or `None` without ``openid``."""
        asked = (scope or "").split()
        return " ".join(name for name in SCOPES if name in asked) if "openid" in asked else None

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        """Whether `redirect_uri` is, to the letter, one of its own."""
        return redirect_uri in self.redirect_uris

    def check_client_secret(self, client_secret: str) -> bool:
        """Whether `client_secret` is its secret."""
        return secrets.compare_digest(self._secret.get_secret_value().encode(), client_secret.encode())

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:  # noqa: ARG002, RUF100
        """Whether it authenticates by `method`."""
        return method in {"client_secret_basic", "client_secret_post"}

    def check_response_type(self, response_type: str) -> bool:
        """Whether it may ask for `response_type`."""
        return response_type == "code"

    def check_grant_type(self, grant_type: str) -> bool:
        """Whether it may use `grant_type`."""
        return grant_type in {"authorization_code", "refresh_token"}


class Request(OAuth2Request):  # type: ignore[misc, unused-ignore]
    """A request without a web framework.

    Parameters
    ----------
    parameters
        The query's or the form's, each once.
    headers
        The headers Authlib looks at.
    """

    def __init__(self, *, method: str, parameters: Mapping[str, str], headers: Mapping[str, str] | None = None) -> None:
        # Whether the way in is TLS is the business of what stands in front; Authlib would look at an address that is
        # always http on loopback.
        super().__init__(method, "https://passport.invalid/", headers=dict(headers or {}))
        self.payload = BasicOAuth2Payload(dict(parameters))
        self.payload._datalist = defaultdict(list, {name: [value] for name, value in parameters.items()})
        self.parameters = dict(parameters)
        self.session: Session | None = None
        self.grant: Code | Token | None = None

    @property
    def args(self) -> dict[str, str]:
        """The parameters of a query."""
        return self.parameters if self.method == "GET" else {}

    @property
    def form(self) -> dict[str, str]:
        """The parameters of a form."""
        return self.parameters if self.method == "POST" else {}


class _CodeRecord:
    """A code, as Authlib asks for it."""

    def __init__(self, code: Code) -> None:
        self.code = code
        self.code_challenge = code.challenge
        self.code_challenge_method = "S256"

    def get_redirect_uri(self) -> str:
        return self.code.redirect_uri

    def get_scope(self) -> str:
        return self.code.scope


class _TokenRecord:
    """A token, as Authlib asks for it."""

    def __init__(self, token: Token, *, token_hash: str, now: datetime) -> None:
        self.token = token
        self.hash = token_hash
        self._now = now

    def check_client(self, client: Client) -> bool:
        return self.token.client_id == client.client_id

    def get_scope(self) -> str:
        return self.token.scope

    def is_expired(self) -> bool:
        return self.token.expires_at <= self._now

    def is_revoked(self) -> bool:
        return self.token.revoked


class _Challenge(CodeChallenge):  # type: ignore[misc, unused-ignore]
    """PKCE with S256 and nothing else, and never without (RFC 9700, section 2.1.1)."""

    SUPPORTED_CODE_CHALLENGE_METHOD = ("S256",)

    def validate_code_challenge(self, grant: Any, redirect_uri: str) -> None:
        data = grant.request.payload.data
        if not data.get("code_challenge") or data.get("code_challenge_method") != "S256":
            raise InvalidRequestError("code_challenge with code_challenge_method S256 is required")
        super().validate_code_challenge(grant, redirect_uri)


class _CodeGrant(grants.AuthorizationCodeGrant):  # type: ignore[misc, unused-ignore]
    """The authorization code grant."""

    server: "Provider"

    def save_authorization_code(self, code: str, request: Request) -> None:
        session = request.session
        assert session is not None  # `Provider.authorize` gives it
        self.server.keep_code(
            code,
            Code(
                client_id=request.client.client_id,
                username=session.username,
                session_id=session.public_id,
                redirect_uri=request.payload.redirect_uri,
                scope=request.scope,
                nonce=request.payload.data.get("nonce", ""),
                challenge=request.payload.data["code_challenge"],
                auth_time=session.auth_time,
                expires_at=self.server.clock() + CODE_LIFETIME,
                grant_id=secrets.token_hex(16),
            ),
        )

    def query_authorization_code(self, code: str, client: Client) -> _CodeRecord | None:
        found = self.server.take_code(code, client)
        self.request.grant = found
        return _CodeRecord(found) if found is not None else None

    def delete_authorization_code(self, authorization_code: _CodeRecord) -> None:
        """Do nothing: it was used up when it was looked at, and stays known so that a replay is noticed."""

    def authenticate_user(self, authorization_code: _CodeRecord) -> Person | None:
        return self.server.person_of(authorization_code.code)


class _RefreshGrant(grants.RefreshTokenGrant):  # type: ignore[misc, unused-ignore]
    """The refresh token grant, with rotation."""

    server: "Provider"
    TOKEN_ENDPOINT_AUTH_METHODS = ("client_secret_basic", "client_secret_post")
    INCLUDE_NEW_REFRESH_TOKEN = True

    def authenticate_refresh_token(self, refresh_token: str) -> _TokenRecord | None:
        found = self.server.refresh_token(refresh_token)
        self.request.grant = found.token if found is not None else None
        return found

    def authenticate_user(self, refresh_token: _TokenRecord) -> Person:
        person = self.server.person_of(refresh_token.token)
        if person is None:
            raise InvalidGrantError
        return person

    def revoke_old_credential(self, refresh_token: _TokenRecord) -> None:
        """Do nothing: it was used up in the transaction that kept its successor."""


class _OpenId(OpenIDCode):  # type: ignore[misc, unused-ignore]
    """Adds the id token."""

    def __init__(self, server: "Provider") -> None:
        super().__init__(require_nonce=False)
        self._server = server

    def exists_nonce(self, nonce: str, request: Request) -> bool:  # noqa: ARG002, RUF100
        """Return `False`: a nonce is the client's to check, and codes work once."""
        return False

    def encode_id_token(self, token: dict[str, Any], request: Request) -> str:
        assert request.grant is not None
        return self._server.id_token(request.user, request.grant, access_token=token["access_token"])


class _Revocation(RevocationEndpoint):  # type: ignore[misc, unused-ignore]
    """RFC 7009. Revoking a refresh token revokes all that came of the same sign-in (section 2.1)."""

    server: "Provider"
    CLIENT_AUTH_METHODS = ("client_secret_basic", "client_secret_post")

    def check_params(self, request: Request, client: Client) -> None:  # noqa: ARG002, RUF100
        # An unknown hint is ignored, as section 2.1 wants; Authlib would answer 401.
        if "token" not in request.form:
            raise InvalidRequestError("Missing token in request")

    def query_token(self, token_string: str, token_type_hint: str | None) -> _TokenRecord | None:  # noqa: ARG002, RUF100
        return self.server.token_record(token_string)

    def revoke_token(self, token: _TokenRecord, request: Request) -> None:  # noqa: ARG002, RUF100
        self.server.revoke(token)


class _Validator(BearerTokenValidator):  # type: ignore[misc, unused-ignore]
    """Says whether an access token is good."""

    def __init__(self, server: "Provider") -> None:
        super().__init__(realm="passport")
        self._server = server

    def authenticate_token(self, token_string: str) -> _TokenRecord | None:
        found = self._server.token_record(token_string)
        return found if found is not None and found.token.kind == "access" else None


class Provider(AuthorizationServer):  # type: ignore[misc, unused-ignore]
    """The provider. Everything here blocks: call it in a thread.

    Parameters
    ----------
    issuer
        The issuer's address.
    storage
        Where codes and tokens are kept.
    keys
        The signing keys.
    clients
        The registered clients.
    clock
        Returns the time now.
    """

    def __init__(
        self,
        *,
        issuer: str,
        storage: "Storage",
        keys: "SigningKeys",
        clients: Sequence[Client],
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        super().__init__()
        self.issuer = issuer
        self.keys = keys
        self.clock = clock
        self._storage = storage
        self._clients = {client.client_id: client for client in clients}
        self._validator = _Validator(self)
        self.register_grant(_CodeGrant, [_OpenId(self), _Challenge(required=True)])
        self.register_grant(_RefreshGrant, [_OpenId(self)])
        self.register_endpoint(_Revocation)
        self.register_token_generator("default", _new_tokens)

    # what Authlib asks for

    def query_client(self, client_id: str) -> Client | None:
        """Return the client `client_id`, or `None`."""
        return self._clients.get(client_id)

    def create_oauth2_request(self, request: Request) -> Request:
        """Return `request`: it is made where HTTP is known."""
        return request

    def handle_response(self, status: int, body: Any, headers: Sequence[tuple[str, str]]) -> Reply:
        """Return an answer of Authlib's."""
        return Reply(status=status, body=body, headers=headers)

    def send_signal(self, name: str, *args: Any, **kwargs: Any) -> None:
        """Do nothing: nobody listens."""

    def save_token(self, token: Mapping[str, Any], request: Request) -> None:
        """Keep new tokens, if what they come of is still good at this very moment.

        Raises
        ------
        InvalidGrantError
            When it is not: used a second time, or its session or person is out.
        """
        grant, now = request.grant, self.clock()
        assert grant is not None
        old: _TokenRecord | None = request.refresh_token
        reused = False
        with self._storage.begin() as tx:
            good = self._stands(tx, grant) is not None
            if good and old is not None and not tx.revoke_token(old.hash):
                tx.revoke_grant(grant.grant_id)
                reused, good = True, False
            if good and old is None and not tx.code_is_kept(grant.grant_id):
                good = False
            if good:
                self._keep_tokens(tx, token, grant, now)
        if reused:
            _log.warning("refresh-token-reused", user=grant.username, client=grant.client_id)
        if not good:
            raise InvalidGrantError

    def _keep_tokens(self, tx: "Transaction", token: Mapping[str, Any], grant: Code | Token, now: datetime) -> None:
        kinds: tuple[tuple[Any, str, timedelta], ...] = (
            ("access", "access_token", ACCESS_LIFETIME),
            ("refresh", "refresh_token", REFRESH_LIFETIME),
        )
        for kind, name, lifetime in kinds:
            kept = Token(
                kind=kind,
                client_id=grant.client_id,
                username=grant.username,
                session_id=grant.session_id,
                grant_id=grant.grant_id,
                # A refreshed access token may be asked for with less; the refresh token keeps what was granted.
                scope=token["scope"] if kind == "access" else grant.scope,
                nonce=grant.nonce,
                auth_time=grant.auth_time,
                issued_at=now,
                expires_at=now + lifetime,
            )
            tx.add_token(kept, token_hash=secret_hash(token[name]))

    # codes and tokens

    def keep_code(self, secret: str, code: Code) -> None:
        """Keep a new code."""
        with self._storage.begin() as tx:
            tx.add_code(code, code_hash=secret_hash(secret))

    def take_code(self, secret: str, client: Client) -> Code | None:
        """Use a code up and return it, or `None`; a second use takes back what came of the first."""
        code_hash, replayed = secret_hash(secret), False
        with self._storage.begin() as tx:
            found = tx.code_by_hash(code_hash)
            if found is None or found[0].client_id != client.client_id:
                return None
            code, _used = found
            if not tx.use_code(code_hash):
                tx.revoke_grant(code.grant_id)
                tx.drop_code(code_hash)
                replayed = True
        if replayed:
            _log.warning("code-replayed", user=code.username, client=code.client_id)
            return None
        return code if code.expires_at > self.clock() else None

    def token_record(self, secret: str) -> _TokenRecord | None:
        """Return a token of ours, or `None`."""
        token_hash = secret_hash(secret)
        with self._storage.begin() as tx:
            token = tx.token_by_hash(token_hash)
        return _TokenRecord(token, token_hash=token_hash, now=self.clock()) if token is not None else None

    def refresh_token(self, secret: str) -> _TokenRecord | None:
        """Return a refresh token that is still good, or `None`; a used one takes back what came of it."""
        found = self.token_record(secret)
        if found is None or found.token.kind != "refresh":
            return None
        if found.is_revoked():
            with self._storage.begin() as tx:
                tx.revoke_grant(found.token.grant_id)
            _log.warning("refresh-token-reused", user=found.token.username, client=found.token.client_id)
            return None
        return None if found.is_expired() else found

    def revoke(self, found: _TokenRecord) -> None:
        """Revoke a token; with a refresh token all that came of the same sign-in."""
        with self._storage.begin() as tx:
            if found.token.kind == "refresh":
                tx.revoke_grant(found.token.grant_id)
            else:
                tx.revoke_token(found.hash)

    def person_of(self, grant: Code | Token) -> Person | None:
        """Return whose `grant` is, if they are active and still signed in."""
        with self._storage.begin() as tx:
            return self._stands(tx, grant)

    def _stands(self, tx: "Transaction", grant: Code | Token) -> Person | None:
        person = tx.person(grant.username)
        if person is None or person.status != "active":
            return None
        return person if tx.session_is_open(grant.session_id, now=self.clock()) else None

    # what people and clients get

    def authorize(self, request: Request, session: Session) -> Reply:
        """Answer an authorization request of somebody who is signed in with `session`."""
        request.session = session
        try:
            grant = self.get_authorization_grant(request)
            reply: Reply = self.create_authorization_response(request, grant_user=session, grant=grant)
        except OAuth2Error as error:
            error.state = request.payload.state
            reply = self.handle_error_response(request, error)
        return reply

    def check_authorization(self, request: Request) -> OAuth2Error | None:
        """Return what is wrong with an authorization request whose client and redirect URI are good, if anything."""
        try:
            self.get_authorization_grant(request).validate_authorization_request()
        except OAuth2Error as error:
            return error
        return None

    def id_token(self, person: Person, grant: Code | Token, *, access_token: str) -> str:
        """Return the id token of a sign-in (Core 1.0, sections 2 and 12.2)."""
        now = self.clock()
        claims: dict[str, Any] = {
            "iss": self.issuer,
            "sub": person.username,
            "aud": grant.client_id,
            "iat": int(now.timestamp()),
            "exp": int((now + ID_TOKEN_LIFETIME).timestamp()),
            "auth_time": int(grant.auth_time.timestamp()),
            "sid": grant.session_id,
            "at_hash": _half_hash(access_token),
            **self.user_claims(person, grant.scope),
        }
        if grant.nonce:
            claims["nonce"] = grant.nonce
        key = self.keys.current()
        return jwt.encode({"alg": ALGORITHM, "kid": key.kid, "typ": "JWT"}, claims, key, algorithms=[ALGORITHM])

    def user_claims(self, person: Person, scope: str) -> dict[str, Any]:
        """Return what `scope` tells about a person (Core 1.0, section 5.4)."""
        claims: dict[str, Any] = {"sub": person.username}
        if "profile" in scope.split():
            claims["preferred_username"] = person.username
            claims["name"] = person.display_name or person.username
            if person.language:
                claims["locale"] = "zh-CN" if person.language == "zh" else "en"
        if "email" in scope.split() and person.email:
            claims |= {"email": person.email, "email_verified": False}
        return claims

    def userinfo(self, bearer: str) -> dict[str, Any]:
        """Return the claims for an access token. Raises `OAuth2Error` (``invalid_token``) when it is not good."""
        found = self._validator.authenticate_token(bearer)
        self._validator.validate_token(found, ["openid"], None)
        assert found is not None
        person = self.person_of(found.token)
        if person is None:
            raise InvalidTokenError(realm="passport")
        return self.user_claims(person, found.token.scope)

    def read_hint(self, id_token: str) -> dict[str, Any] | None:
        """Return the claims of an id token of ours, expired or not, or `None`. Its signature must be one of ours."""
        keys: KeySet = self.keys.published()
        try:
            claims = jwt.decode(id_token, keys, algorithms=[ALGORITHM]).claims
        except (JoseError, ValueError, TypeError, KeyError):
            return None
        return claims if claims.get("iss") == self.issuer and self.query_client(str(claims.get("aud"))) else None

    def discovery(self) -> dict[str, Any]:
        """Return the discovery document (Discovery 1.0, section 3)."""
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "userinfo_endpoint": f"{self.issuer}/userinfo",
            "jwks_uri": f"{self.issuer}/jwks",
            "end_session_endpoint": f"{self.issuer}/logout",
            "revocation_endpoint": f"{self.issuer}/revoke",
            "scopes_supported": list(SCOPES),
            "response_types_supported": ["code"],
            "response_modes_supported": ["query"],
            "grant_types_supported": ["authorization_code", "refresh_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": [ALGORITHM],
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
            "revocation_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
            "code_challenge_methods_supported": ["S256"],
            "claims_supported": [
                *("iss", "sub", "aud", "exp", "iat", "auth_time", "nonce", "at_hash", "sid"),
                *("preferred_username", "name", "locale", "email", "email_verified"),
            ],
            "prompt_values_supported": ["none", "login"],
            "ui_locales_supported": ["en", "zh-CN"],
            "claims_parameter_supported": False,
            "request_parameter_supported": False,
            "request_uri_parameter_supported": False,
            "authorization_response_iss_parameter_supported": True,
        }


def _new_tokens(
    *, grant_type: str, client: Client, user: Any, scope: str, expires_in: int | None, include_refresh_token: bool
) -> dict[str, Any]:
    """Return a new access token and refresh token."""
    del grant_type, client, user, expires_in, include_refresh_token
    return {
        "token_type": "Bearer",
        "access_token": secrets.token_urlsafe(32),
        "refresh_token": secrets.token_urlsafe(32),
        "expires_in": int(ACCESS_LIFETIME.total_seconds()),
        "scope": scope,
    }


def _half_hash(access_token: str) -> str:
    """Return ``at_hash`` (Core 1.0, section 3.1.3.6) for a signature with SHA-256."""
    import base64
    import hashlib

    digest = hashlib.sha256(access_token.encode("ascii")).digest()
    return base64.urlsafe_b64encode(digest[:16]).rstrip(b"=").decode()
