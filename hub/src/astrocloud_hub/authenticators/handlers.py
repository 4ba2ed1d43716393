"""The pages of signing in and out at the hub."""

import base64
import hashlib
import hmac
import json
import re
import secrets
from typing import Any, Final
from urllib.parse import urlencode

import structlog
from jupyterhub.handlers.base import BaseHandler
from jupyterhub.handlers.login import LogoutHandler
from tornado.web import RequestHandler

from astrocloud.core.errors import PlatformError
from astrocloud_hub.errors import HubError, Refusal

_log = structlog.get_logger()
_STATE: Final = re.compile(r"[A-Za-z0-9_-]{43}\Z")
_LIFETIME_DAYS: Final = 1 / 48
"""Half an hour to sign in at the passport."""


def _cookie_name(state: str) -> str:
    # One cookie a sign-in, so that two tabs do not spoil each other's.
    return f"astrocloud-sign-in-{hashlib.sha256(state.encode()).hexdigest()[:12]}"


class PassportLoginHandler(BaseHandler):
    """``/hub/oauth_login``: sends the browser to the passport, with state, nonce and a PKCE challenge."""

    async def get(self) -> None:
        """Redirect to the passport's authorization endpoint."""
        state, verifier, nonce = secrets.token_urlsafe(32), secrets.token_urlsafe(48), secrets.token_urlsafe(24)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        kept = {
            "state": state,
            "verifier": verifier,
            "nonce": nonce,
            "next": self._validate_next_url(self.get_argument("next", default="")),
        }
        try:
            url, parameters = await self.authenticator.authorization(state=state, nonce=nonce, challenge=challenge)
        except PlatformError as err:
            raise Refusal(err) from err
        self._set_cookie(
            _cookie_name(state),
            json.dumps(kept),
            encrypted=True,
            expires_days=_LIFETIME_DAYS,
            path=self.hub.base_url,
        )
        # A page of the passport that is gone back to must start anew.
        self.set_header("Cache-Control", "no-store")
        self.redirect(f"{url}{'&' if '?' in url else '?'}{urlencode(parameters)}")


class PassportCallbackHandler(BaseHandler):
    """``/hub/oauth_callback``: where the passport sends the browser back."""

    kept: dict[str, Any]

    async def get(self) -> None:
        """Sign in, or say why not."""
        try:
            self.kept = self._take_state()
            self._check_answer()
            user = await self.login_user()
        except PlatformError as err:
            _log.warning("sign-in-refused", code=err.code, reason=str(err))
            raise Refusal(err) from err
        if user is None:
            raise Refusal(HubError("sign-in-failed"))
        self.redirect(self.kept.get("next") or self.get_next_url(user))

    def append_query_parameters(self, url: str, exclude: Any = None) -> str:
        """Return `url` as it is: code and state of the passport go nowhere else."""
        return url

    def _take_state(self) -> dict[str, Any]:
        """Return what this browser was given when the sign-in began; it can be taken once."""
        given = self.get_argument("state", default="")
        if not _STATE.match(given):
            raise HubError("sign-in-state")
        name = _cookie_name(given)
        sealed = self.get_secure_cookie(name, max_age_days=_LIFETIME_DAYS)
        self.clear_cookie(name, path=self.hub.base_url)
        if sealed is None:
            raise HubError("sign-in-state")
        kept: dict[str, Any] = json.loads(sealed)
        if not hmac.compare_digest(str(kept["state"]), given):
            raise HubError("sign-in-state")
        return kept

    def _check_answer(self) -> None:
        error = self.get_argument("error", default="")
        if error == "access_denied":
            raise HubError("sign-in-denied", passport=self.authenticator.passport_name)
        if error:
            shown = re.sub(r"[^A-Za-z0-9_.-]", "?", error)[:64]
            raise HubError("sign-in-error", passport=self.authenticator.passport_name, error=shown)
        if not self.get_argument("code", default=""):
            raise HubError("sign-in-state")


class PassportLogoutHandler(LogoutHandler):
    """``/hub/logout``: out of the hub and of every service, then out of the passport, then to the front page."""

    _away: str = ""

    async def default_handle_logout(self) -> None:
        """Remember how to sign out at the passport while we still know who it is; then sign out here."""
        if self.current_user:
            state = await self.current_user.get_auth_state() or {}
            self._away = await self.authenticator.sign_out_url(state)
        await super().default_handle_logout()

    async def render_logout_page(self) -> None:
        """Go on to the passport's own sign-out, or to the front page."""
        self.set_header("Cache-Control", "no-store")
        self.redirect(self._away or self.base_url, permanent=False)


HANDLERS: Final[list[tuple[str, type[RequestHandler]]]] = [
    (r"/oauth_login", PassportLoginHandler),
    (r"/oauth_callback", PassportCallbackHandler),
    (r"/logout", PassportLogoutHandler),
]
