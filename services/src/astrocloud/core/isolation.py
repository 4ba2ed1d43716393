"""Whether people's servers are kept apart on this machine."""

import os
import shutil
import subprocess
from functools import cache
from typing import Final

VARIABLE: Final = "ASTROCLOUD_KEPT_APART"
"""``1`` or ``0``: what the supervisor found out for all parts before any server ran."""

_TRIED: Final = (
    *("--unshare-pid", "--unshare-ipc", "--unshare-uts", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev"),
    *("--", "/bin/sh", "-c", "exit 0"),
)


def people_are_kept_apart() -> bool:
    """Return whether this machine can put each server into a sandbox of its own: it has bubblewrap, and that works.

    Kernels, containers and security modules may forbid it to plain users. Without it every page says so: see
    ``servers.isolation`` of the configuration for refusing to start servers instead.
    """
    told = os.environ.get(VARIABLE)
    if told in {"0", "1"}:
        return told == "1"
    return _works(shutil.which("bwrap"))


def find_out_for_all_parts() -> None:
    """Try it, and leave the answer in the environment of the parts that are started after this.

    Once, and while nobody's server runs: somebody who uses up what a sandbox needs (user namespaces, processes) must
    not bring it about that the servers of others are started without one.
    """
    os.environ.pop(VARIABLE, None)
    os.environ[VARIABLE] = "1" if people_are_kept_apart() else "0"


@cache
def _works(bwrap: str | None) -> bool:
    if bwrap is None:
        return False
    user = [] if os.geteuid() == 0 else ["--unshare-user", "--uid", "12345", "--gid", "12345"]
    try:
        tried = subprocess.run([bwrap, *user, *_TRIED], stdin=subprocess.DEVNULL, capture_output=True, timeout=30)  # noqa: PLW1510
    except (OSError, subprocess.SubprocessError):
        return False
    return tried.returncode == 0
