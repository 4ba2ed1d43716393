"""Which versions the lean start was tested with.

The lean start relies on how these packages import one another, which no
version number promises.  A version that was not tested gets the stock start.
"""

from __future__ import annotations

from collections.abc import Mapping

TESTED: Mapping[str, tuple[str, ...]] = {
    "jupyterhub": ("6.1",),
    "jupyter_server": ("2.21",),
    "jupyterlab": ("4.6",),
}
"""Package -> its tested ``major.minor`` versions."""


class UntestedVersion(RuntimeError):
    """A package has a version that the lean start was not tested with."""


def installed() -> dict[str, str]:
    """Return package -> version of what the lean start rests on.

    Reads the small ``_version`` modules, which the server imports anyway;
    ``importlib.metadata`` would search every folder of the path.
    """
    import jupyter_server._version
    import jupyterhub._version
    import jupyterlab._version

    return {
        "jupyterhub": jupyterhub._version.__version__,
        "jupyter_server": jupyter_server._version.__version__,
        "jupyterlab": jupyterlab._version.__version__,
    }


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
    UntestedVersion
        Naming the package, its version and what is accepted.
    """
    for package, version in versions.items():
        accepted = TESTED[package] + extra.get(package, ())
        if ".".join(version.split(".")[:2]) not in accepted:
            raise UntestedVersion(
                f"{package} {version} was not tested with the lean start "
                f"(tested: {', '.join(accepted)}); "
                f"set ASTROCLOUD_LEAN_VERSIONS={package}=MAJOR.MINOR to try it"
            )
