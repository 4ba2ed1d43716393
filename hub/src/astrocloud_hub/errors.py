"""What can go wrong at the hub.

::

    PlatformError
    └── HubError         a code of the catalogue; raised below the edge
    HTTPError (tornado)
    ├── Refusal          the same, for a page or an API call of the hub
    └── SpawnRefusal     the same, for a server that does not start (a SpawnException: no traceback, no abort)

Refusals render their sentence in the language of the request that shows them.
"""

from typing import Any

from jupyterhub.spawner import SpawnException
from tornado.web import HTTPError

from astrocloud.core.errors import PlatformError
from astrocloud_hub.language import current_language


class HubError(PlatformError):
    """Something at the hub is refused or fails; see its code."""


class Refusal(HTTPError):  # noqa: N818 - an answer, not a fault of ours
    """A `PlatformError` as an answer of the hub."""

    def __init__(self, problem: PlatformError) -> None:
        super().__init__(problem.status, log_message=problem.code)
        self.problem = problem

    @property
    def jupyterhub_message(self) -> str:
        """The sentence, where JupyterHub's own pages look for it."""
        return self.problem.sentence(current_language())


class SpawnRefusal(SpawnException):
    """A `PlatformError` that keeps a server from starting."""

    def __init__(self, problem: PlatformError) -> None:
        super().__init__(problem.sentence("en"), reason=problem.code, status_code=problem.status)
        self.problem = problem

    @property
    def jupyterhub_message(self) -> str:
        """The sentence, where JupyterHub's own pages look for it."""
        return self.problem.sentence(current_language())


def problem_of(error: Any) -> PlatformError | None:
    """Return the `PlatformError` that `error` carries, if it is one of ours."""
    problem = error if isinstance(error, PlatformError) else getattr(error, "problem", None)
    return problem if isinstance(problem, PlatformError) else None
