"""The platform's directory of people, kept by the passport service: who may enter, under which name and ids."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from pydantic import SecretStr

from astrocloud.core import words
from astrocloud.core.errors import PlatformError
from astrocloud.core.logs import passed_on
from astrocloud.core.trust import NONE, Trust
from astrocloud_hub.authenticators.fetching import FetchError, JsonClient
from astrocloud_hub.errors import HubError
from astrocloud_hub.language import current_language

_PREFIX: Final = "/services/passport/api/internal"


class Refused(PlatformError):  # noqa: N818 - what the directory did
    """The directory refuses somebody; code and sentence are its own."""

    def __init__(self, code: str, *, detail: str) -> None:
        self._detail = detail
        super().__init__(code)

    def sentence(self, language: str) -> str:
        """Return the directory's sentence."""
        return self._detail


@dataclass(frozen=True)
class Answer:
    """What the directory last said of somebody."""

    document: dict[str, Any] | None
    """The person, or `None`: not one who may be here now."""
    at: float
    """When, on the monotonic clock."""


class Directory:
    """The directory, asked over HTTP.

    Parameters
    ----------
    services_url
        Where the services are, without a final slash.
    secret
        The internal secret of the platform's parts.
    trust
        Whose certificate is taken there.
    grace_s
        How long its last answer about somebody is believed while it does not answer, in seconds. A services process
        that restarts should throw nobody out. After that nobody is let in or kept: it fails closed.
    """

    def __init__(self, *, services_url: str, secret: SecretStr, trust: Trust = NONE, grace_s: float = 300.0) -> None:
        self._base = services_url + _PREFIX
        self._secret = secret
        self._grace_s = grace_s
        self._client = JsonClient(trust=trust)
        self._answers: dict[str, Answer] = {}

    async def sign_in(self, *, issuer: str, subject: str, claims: Mapping[str, Any]) -> dict[str, Any]:
        """Return the person whom `issuer` knows as `subject`, made known to the platform if need be.

        Raises
        ------
        Refused
            When this person may not enter: ``account-disabled``, ``account-pending``, ``sign-up-closed``.
        HubError
            ``directory-away``.
        """
        body = {"issuer": issuer, "subject": subject, "claims": dict(claims)}
        try:
            document = await self._client.fetch(f"{self._base}/sign-in", body=body, headers=self._headers())
        except FetchError as err:
            code = err.document.get("code")
            if 400 <= err.status < 500 and isinstance(code, str) and code in words.error_codes():
                raise Refused(code, detail=str(err.document.get("detail") or code)) from err
            raise HubError("directory-away") from err
        self._answers[str(document["username"])] = Answer(document, time.monotonic())
        return document

    async def person(self, name: str) -> dict[str, Any] | None:
        """Return the person `name` as long as they are active, else `None`. Raises `HubError` ``directory-away``."""
        try:
            document: dict[str, Any] | None = await self._client.fetch(
                f"{self._base}/people/{quote(name, safe='')}", headers=self._headers()
            )
        except FetchError as err:
            if err.status != 404:
                return self._believed(name, err)
            document = None
        if document is not None and document.get("status") != "active":
            document = None
        self._answers[name] = Answer(document, time.monotonic())
        return document

    def _believed(self, name: str, cause: Exception) -> dict[str, Any] | None:
        last = self._answers.get(name)
        if last is None or time.monotonic() - last.at > self._grace_s:
            raise HubError("directory-away") from cause
        return last.document

    def _headers(self) -> dict[str, str]:
        return {
            "Authorization": f"Bearer {self._secret.get_secret_value()}",
            "Accept-Language": words.HTML_LANGUAGE[current_language()],
            **passed_on(),
        }
