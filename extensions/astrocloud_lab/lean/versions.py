"""Which versions the lean start was tested with.

The lean start relies on how these packages import one another, which no
version number promises.  A version that was not tested gets the stock start.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping

TESTED: Mapping[str, tuple[str, ...]] = {
    "jupyterhub": ("6.1",),
    "jupyter_server": ("2.21",),
    "jupyterlab": ("4.6",),
}
"""Package -> its tested ``major.minor`` versions."""


class UntestedVersionError(RuntimeError):
    """A package has a version that the lean start was not tested with."""


def installed() -> dict[str, str]:
    """Return package -> version of what the lean start rests on.

    Runs their small ``_version.py`` alone: importing a package's own name brings
    most of it, and ``importlib.metadata`` searches every folder of the path.

    Raises
    ------
    UntestedVersionError
        If one is not installed, or is not laid out so.
    """
    return {package: _version_of(package) for package in TESTED}


def _version_of(package: str) -> str:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise UntestedVersionError(f"{package} is not installed")
    path = os.path.join(os.path.dirname(spec.origin), "_version.py")
    found = importlib.util.spec_from_file_location(f"_astrocloud_{package}_version", path)
    if found is None or found.loader is None or not os.path.exists(path):
        raise UntestedVersionError(f"{package} has no _version.py")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return str(module.__version__)


def parse_extra(text: str) -> dict[str, tuple[str, ...]]:
    """Read ``ASTROCLOUD_LEAN_VERSIONS``: more versions to trust.

    Parameters
    ----------
    text
        ``package=major.minor`` separated by commas, for example
        ``jupyter_server=2.22,jupyterlab=4.7``.  Empty means none.

    Returns
    -------
    dict
        Package -> versions.

    Raises
    ------
    ValueError
        For a part without ``=`` or with an unknown package.
    """
    extra: dict[str, tuple[str, ...]] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        package, equals, version = part.partition("=")
        if not equals or package not in TESTED:
            allowed = ", ".join(TESTED)
            raise ValueError(f"ASTROCLOUD_LEAN_VERSIONS has {part!r}; write package=major.minor with one of {allowed}")
        extra[package] = (*extra.get(package, ()), version)
    return extra


def check(versions: Mapping[str, str], extra: Mapping[str, tuple[str, ...]]) -> None:
    """Refuse a version that is neither tested nor named in ``extra``.

    Raises
    ------
    UntestedVersionError
        Naming the package, its version and what is accepted.
    """
    for package, version in versions.items():
        accepted = TESTED[package] + extra.get(package, ())
        if ".".join(version.split(".")[:2]) not in accepted:
            raise UntestedVersionError(
                f"{package} {version} was not tested with the lean start "
                f"(tested: {', '.join(accepted)}); "
                f"set ASTROCLOUD_LEAN_VERSIONS={package}=MAJOR.MINOR to try it"
            )
