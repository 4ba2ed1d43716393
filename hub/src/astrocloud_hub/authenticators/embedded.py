"""Signing in with the platform's own passport."""

from collections.abc import Mapping
from typing import Any

from traitlets import Any as AnyTrait
from traitlets import Unicode

from astrocloud.core.trust import NONE
from astrocloud_hub.authenticators.fetching import JsonClient
from astrocloud_hub.authenticators.oidc import OidcAuthenticator


class EmbeddedAuthenticator(OidcAuthenticator):
    """The embedded provider is one like any other, but its addresses are known and its back channel is loopback.

    People's browsers go to its public address; the hub asks it directly, so that signing in needs no way out of the
    machine and back in through whatever stands in front of it.
    """

    services_url = Unicode(help="Where the services are, called directly, without a final slash.").tag(config=True)
    trust = AnyTrait(NONE, help="Whose certificate is taken there: a `Trust`.").tag(config=True)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.json = JsonClient(trust=self.trust)

    async def metadata(self) -> Mapping[str, Any]:
        """Return the embedded provider's metadata."""
        public, direct = f"{self.public_url}/services/passport", f"{self.services_url}/services/passport"
        return {
            "issuer": public,
            "authorization_endpoint": f"{public}/authorize",
            "token_endpoint": f"{direct}/token",
            "jwks_uri": f"{direct}/jwks",
            "userinfo_endpoint": f"{direct}/userinfo",
            "end_session_endpoint": f"{public}/logout",
        }
