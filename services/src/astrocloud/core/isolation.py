"""Whether people's servers are kept apart on this machine."""

import shutil


def people_are_kept_apart() -> bool:
    """Return whether this machine has bubblewrap, which puts each server into a sandbox of its own.

    Without it every page says so: see ``servers.isolation`` of the configuration for refusing to start servers instead.
    """
    return shutil.which("bwrap") is not None
