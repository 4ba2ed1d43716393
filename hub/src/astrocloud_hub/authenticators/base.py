"""What signing in is the same for at every passport.

The passport only answers "who is this?" with an issuer and a subject. Name, ids, groups and whether somebody is an
administrator come from the platform's own directory, then and every `auth_refresh_age` seconds while somebody is here.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog
from oauthenticator.oauth2 import OAuthenticator
from traitlets import Any as AnyTrait
from traitlets import Unicode

from astrocloud.core.errors import PlatformError
from astrocloud_hub.authenticators.directory import Directory
from astrocloud_hub.authenticators.fetching import JsonClient
from astrocloud_hub.authenticators.handlers import (
    PassportCallbackHandler,
    PassportLoginHandler,
    PassportLogoutHandler,
)

_log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Who somebody is, by a passport's word."""

    issuer: str
    """The passport."""
    subject: str
    """Its own, never changing name for the person."""
    claims: Mapping[str, Any] = field(default_factory=dict)
    """What it tells besides: display values."""
    id_token: str = field(default="", repr=False)
    """The token that said so, as a hint for signing out there; empty when there is none."""


class PassportAuthenticator(OAuthenticator):
    """Signs people in by a passport that speaks OAuth 2, and asks the directory who they are here."""

    login_handler = PassportLoginHandler
    callback_handler = PassportCallbackHandler
    logout_handler = PassportLogoutHandler

    directory: Directory = AnyTrait(help="The platform's directory of people.").tag(config=True)
    public_url = Unicode(help="The platform's address as people type it, without a final slash.").tag(config=True)
    passport_name = Unicode("passport", help="What errors call the passport.").tag(config=True)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.json = JsonClient()

    @property
    def callback(self) -> str:
        """The address to which the passport sends people back; it is registered there."""
        return f"{self.public_url}/hub/oauth_callback"

    # What each passport does in its own way

    async def authorization(self, *, state: str, nonce: str, challenge: str) -> tuple[str, dict[str, str]]:
        """Return the passport's authorization endpoint and the query to send the browser there with."""
        raise NotImplementedError

    async def identify(self, *, code: str, verifier: str, nonce: str, answer: Mapping[str, str]) -> Identity:
        """Return who the passport says the holder of `code` is. Raises `PlatformError`.

        Parameters
        ----------
        code, verifier
            What to exchange at the token endpoint.
        nonce
            What the id token must repeat.
        answer
            The other parameters that the browser came back with.
        """
        raise NotImplementedError

    async def sign_out_url(self, auth_state: Mapping[str, Any]) -> str:
        """Return where a browser signs out at the passport, empty when it has no such place."""
        return ""

    # What is the same

    async def authenticate(self, handler: Any, data: Any = None, **_kwargs: Any) -> dict[str, Any]:
        """Return JupyterHub's model of whoever comes back from the passport. Raises `PlatformError`."""
        answer = {name: handler.get_argument(name) for name in handler.request.query_arguments}
        identity = await self.identify(
            code=answer.pop("code"), verifier=handler.kept["verifier"], nonce=handler.kept["nonce"], answer=answer
        )
        person = await self.directory.sign_in(issuer=identity.issuer, subject=identity.subject, claims=identity.claims)
        _log.info("signed-in", user=person["username"], issuer=identity.issuer)
        user = handler.find_user(person["username"])
        if user is not None:
            _end_old_sessions(user, person, await user.get_auth_state() or {})
        return _model(person, id_token=identity.id_token)

    async def refresh_user(self, user: Any, handler: Any = None, **_kwargs: Any) -> Any:
        """Return whether somebody may still be here, with what has changed about them.

        Called before a request is answered if the last time was `auth_refresh_age` seconds ago, and before a spawn.
        `False` for those who are disabled or removed, and (fail closed) when the directory has been away for too long.
        """
        try:
            person = await self.directory.person(user.name)
        except PlatformError as err:
            _log.error("refresh-impossible", user=user.name, code=err.code)
            return False
        if person is None:
            _log.warning("person-not-active", user=user.name)
            return False
        before = await user.get_auth_state() or {}
        model = _model(person, id_token=str(before.get("id_token") or ""))
        if _end_old_sessions(user, person, before):
            await user.save_auth_state(model["auth_state"])
            by_cookie = handler is not None and handler._jupyterhub_user is user and not handler._token_authenticated
            if by_cookie:
                return False
        same = (
            before == model["auth_state"]
            and bool(user.admin) == model["admin"]
            and sorted(group.name for group in user.groups) == model["groups"]
        )
        return True if same else model

    async def check_allowed(self, username: str, auth_model: Any) -> bool:
        """Return `True`: whom the directory names may enter."""
        return True


def _end_old_sessions(user: Any, person: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    """Make the hub's cookies of all browsers worthless if the directory has ended their sessions; tell whether it has.

    A new password ends the sessions that were there before. Tokens are ended by the passport itself, through the API.
    """
    ended = int(person.get("sessions_valid_after") or 0)
    if not before or ended <= int(before.get("sessions_valid_after") or 0):
        return False
    user.orm_user.cookie_id = secrets.token_hex(16)
    user.db.commit()
    _log.info("sessions-ended", user=user.name)
    return True


def _model(person: Mapping[str, Any], *, id_token: str) -> dict[str, Any]:
    kept = {name: person[name] for name in ("username", "uid", "gid", "groups")}
    return {
        "name": person["username"],
        "admin": bool(person.get("admin")),
        "groups": sorted(str(group["name"]) for group in person.get("groups") or ()),
        # No access token: nothing here calls the passport for a person later.
        "auth_state": {
            "person": kept,
            "language": person.get("language") or "en",
            "id_token": id_token,
            "sessions_valid_after": int(person.get("sessions_valid_after") or 0),
        },
    }
