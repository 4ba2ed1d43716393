"""What the portal refuses.

::

    RequestError
    └── PortalError     announcement-*, server-*, environment-unknown, environment-resources, tutorial-unknown
        └── HubRefusalError  what the hub refused, in its own words
"""

from astrocloud.core.errors import RequestError


class PortalError(RequestError):
    """The portal refuses a request; see its code."""


class HubRefusalError(PortalError):
    """The hub refused, with a code of the catalogue and a sentence in the language that it was asked in.

    Parameters
    ----------
    code
        The hub's code.
    detail
        The hub's sentence.
    """

    def __init__(self, code: str, *, detail: str) -> None:
        self._detail = detail
        super().__init__(code)

    def sentence(self, language: str) -> str:
        """Return the hub's sentence, whatever the language asked for now."""
        return self._detail
