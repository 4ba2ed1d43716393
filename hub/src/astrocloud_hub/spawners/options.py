"""What a person may ask for when starting a server."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from astrocloud.environments.catalogue import Catalogue
from astrocloud.environments.models import Environment, ResourceChoice
from astrocloud_hub.errors import HubError

KEYS: Final = ("environment", "resources", "next")
_NEXT: Final = re.compile(r"/(lab|tree|doc|astrocloud)(/[^\\\x00-\x20]*|\?[^\\\x00-\x20]*)?\Z")
_LONGEST: Final = 2000


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """One person's choice."""

    environment: Environment
    resources: ResourceChoice
    next: str = ""
    """The page of the server to open first, such as ``/lab/tree/home/ada/x.ipynb``; empty for the usual one."""


def unpack_form(form: Mapping[str, Any]) -> dict[str, Any]:
    """Return a form's or a query's lists of one string each as plain strings; what is no such list stays as it is."""
    return {
        key: value[0] if isinstance(value, list) and len(value) == 1 else value
        for key, value in form.items()
        if key not in {"_xsrf"} and value not in ([], [""])
    }


def read_options(options: Mapping[str, Any], catalogue: Catalogue) -> ServerOptions:
    """Return what `options` ask for.

    Raises
    ------
    HubError
        ``server-option-unknown`` or ``server-option-value``.
    UnknownEnvironment
        ``environment-unknown`` or ``environment-resources``, with the ones there are.
    """
    for key, value in options.items():
        if key not in KEYS:
            raise HubError("server-option-unknown", key=str(key)[:64], allowed=", ".join(KEYS))
        if not isinstance(value, str) or len(value) > _LONGEST:
            raise HubError("server-option-value", key=key, value=repr(value)[:64], allowed="a short text")
    environment = catalogue.get(options["environment"]) if options.get("environment") else catalogue.default
    resources = catalogue.resources(environment.id, options.get("resources") or None)
    first = options.get("next", "")
    if first and (not _NEXT.match(first) or "//" in first.partition("?")[0] or "/.." in first):
        raise HubError(
            "server-option-value", key="next", value=first[:64], allowed="a path of the server that begins with /lab"
        )
    return ServerOptions(environment=environment, resources=resources, next=first)
