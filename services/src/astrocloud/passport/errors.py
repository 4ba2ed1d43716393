"""What can go wrong with people and their accounts.

::

    RequestError
    └── PassportError
        ├── NameRefused         username-refused, group-refused: a name that is not allowed or taken
        ├── PersonUnknown       person-unknown, group-unknown
        ├── SignInRefused       sign-in-wrong, account-disabled, account-pending, sign-up-closed
        ├── LinkRefused         link-used: an invite, reset or set-up link that does not work (any more)
        ├── PasswordRefused     password-short, password-long, password-weak
        └── TooManyTries        too-many-requests: wait first (``wait_s``)
"""

from astrocloud.core.errors import RequestError


class PassportError(RequestError):
    """A request about people or accounts is refused."""


class NameRefused(PassportError):  # noqa: N818  (a refusal, named after what is refused)
    """A username or a group's name is not allowed, or was given away before."""


class PersonUnknown(PassportError):  # noqa: N818  (a refusal, named after what is refused)
    """There is no such person or group."""


class SignInRefused(PassportError):  # noqa: N818  (a refusal, named after what is refused)
    """Somebody may not enter."""


class LinkRefused(PassportError):  # noqa: N818  (a refusal, named after what is refused)
    """An invite, reset or set-up link does not work (any more)."""


class PasswordRefused(PassportError):  # noqa: N818  (a refusal, named after what is refused)
    """A new password is not taken."""


class TooManyTries(PassportError):  # noqa: N818  (a refusal, named after what is refused)
    """Too many failed tries; ``wait_s`` says how long to wait."""
