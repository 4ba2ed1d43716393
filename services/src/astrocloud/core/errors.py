"""The errors a person or a program can act on.

::

    PlatformError            code, status, parameters; its sentence is in words/errors.yaml in both languages
    ├── ConfigError          the configuration is wrong (the command ends with exit 2)
    ├── StartError           the platform cannot start (exit 2)
    └── RequestError         an HTTP request is refused, by a 4xx status
        └── (one class a service where a caller can act on it)

Every code is an entry of ``core/words/errors.yaml``: status, and the same sentence in English and Chinese with what was
wrong, the value, what is allowed and the next step. The catalogue page of the documentation is made from that file.
"""

from typing import Any

from astrocloud.core import words


class PlatformError(Exception):
    """An error with a stable code and the same sentence on the page, in the API and in the terminal.

    Parameters
    ----------
    code
        The stable code, an entry of the catalogue of errors.
    **parameters
        The values that the sentence names. Never a secret.
    """

    def __init__(self, code: str, /, **parameters: Any) -> None:
        self.code = code
        self.parameters = parameters
        super().__init__(self.sentence("en"))

    @property
    def status(self) -> int:
        """The HTTP status of this error."""
        return words.error_status(self.code)

    def sentence(self, language: str) -> str:
        """Return what went wrong and the next step, in `language` (``en`` or ``zh``)."""
        return words.text(f"errors.{self.code}", language, **self.parameters)

    def problem(self, language: str) -> dict[str, Any]:
        """Return the RFC 9457 problem document of this error in `language`."""
        return {
            "type": f"urn:astrocloud:error:{self.code}",
            "title": words.text(f"errors.{self.code}.title", language),
            "status": self.status,
            "detail": self.sentence(language),
            "code": self.code,
        }


class ConfigError(PlatformError):
    """The configuration is wrong."""


class StartError(PlatformError):
    """The platform, or a part of it, cannot start on this machine as it is."""


class RequestError(PlatformError):
    """A request is refused."""
