"""What the portal refuses.

::

    RequestError
    └── PortalError     announcement-*, server-*, environment-unknown, environment-resources, tutorial-unknown
"""

from astrocloud.core.errors import RequestError


class PortalError(RequestError):
    """The portal refuses a request; see its code."""
