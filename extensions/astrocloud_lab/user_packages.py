"""Packages of a person's own, beside those of the environment, which is read-only.

``%pip install`` puts them into ``~/.local/astrocloud/ENVIRONMENT``: one folder for each environment, so that what was
installed in one does not break another. The environment's own packages come first: a package can be added, not
replaced, and no person's package can keep a server from starting.

The file ``astrocloud_user_packages.pth`` beside this package calls `activate` at every start of the environment's
Python. It does something only below a server, in kernels and terminals; the server itself never sees the folder.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, MutableMapping

VARIABLE = "ASTROCLOUD_USER_PACKAGES"
"""The folder, set for what a server starts."""


def prefix(environ: MutableMapping[str, str]) -> str:
    """Return where this person's packages for this environment are."""
    name = environ.get("ASTROCLOUD_ENVIRONMENT") or os.path.basename(sys.prefix)
    return os.path.join(os.path.expanduser("~"), ".local", "astrocloud", os.path.basename(name) or "environment")


def folder(base: str) -> str:
    """Return where in `base` modules are; pip decides so for ``--prefix``."""
    return os.path.join(base, "lib", f"python{sys.version_info[0]}.{sys.version_info[1]}", "site-packages")


def prepare(environ: MutableMapping[str, str]) -> None:
    """Make the folder, and name it to what this server starts."""
    base = prefix(environ)
    try:
        # Made now: an interpreter looks once whether a folder of its path is there.
        os.makedirs(folder(base), exist_ok=True)
    except OSError:
        return  # a full or unwritable home is told by what the person does there, not by the start
    environ[VARIABLE] = base
    programs = os.path.join(base, "bin")
    path = environ.get("PATH", os.defpath)
    if programs not in path.split(os.pathsep):
        environ["PATH"] = f"{path}{os.pathsep}{programs}"


def activate() -> None:
    """Let this interpreter find the person's packages and, if it is pip's, install there."""
    base = os.environ.get(VARIABLE)
    if not base:
        return
    import site

    where = folder(base)
    if where not in sys.path:
        # With the .pth files in it, as for any folder of packages.
        site.addsitedir(where)
    if is_pip(sys.orig_argv):
        steer_pip(base)


def steer_pip(base: str) -> None:
    """Let this process, which is pip's, change the person's packages and keep to the environment's versions."""
    constraints = os.path.join(base, "environment.txt")
    try:
        with open(constraints, "w", encoding="utf-8") as file:
            file.writelines(sorted(f"{line}\n" for line in versions(sys.path, without=folder(base))))
        os.environ.setdefault("PIP_CONSTRAINT", constraints)
    except OSError:
        pass  # pip itself says that the home is full
    os.environ.setdefault("PIP_PREFIX", base)
    os.environ.setdefault("PIP_NO_WARN_SCRIPT_LOCATION", "1")
    os.environ.setdefault("PIP_DISABLE_PIP_VERSION_CHECK", "1")
    # What is below this pip may upgrade and remove; the rest it only counts as installed.
    sys.prefix = sys.exec_prefix = base


def versions(path: list[str], *, without: str) -> Iterator[str]:
    """Yield ``name==version`` of every package in `path`, but for the folder `without`."""
    from importlib.metadata import distributions

    for one in distributions(path=[entry for entry in path if entry and entry != without]):
        if one.metadata["Name"]:
            yield f"{one.metadata['Name']}=={one.version}"


def is_pip(command: list[str]) -> bool:
    """Return whether the command of an interpreter runs pip: ``python -m pip`` or the program ``pip``."""
    for index, word in enumerate(command[1:], start=1):
        if word == "-m":
            return command[index + 1 : index + 2] == ["pip"]
        if not word.startswith("-"):
            return os.path.basename(word).startswith("pip")
    return False
