"""Making people's folders in the file tree, with the right owner from the first moment on.

Everything goes through file descriptors of folders that only the platform can write to, and never follows a symbolic
link: a person who can rename things in a folder of theirs cannot make the platform change something elsewhere.
"""

import errno
import os
import stat
from pathlib import Path

from astrocloud_hub.errors import HubError
from astrocloud_hub.spawners.models import Person

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def make_folders(tree: Path, person: Person, *, as_root: bool) -> None:
    """Make the home of `person` and the folders of the person's groups, where they are missing.

    Raises
    ------
    HubError
        ``home-not-a-folder`` when something else is in its place, ``home-owner`` when it is not the person's,
        ``home-full``, ``home-name``, ``home-unusable``.
    """
    _make(tree / "home", person.username, mode=0o700, owner=(person.uid, person.gid) if as_root else None, strict=True)
    for group in person.groups:
        # Setgid: what is made inside belongs to the group. The folder itself stays the platform's.
        _make(tree / "project", group.name, mode=0o2770, owner=(0, group.gid) if as_root else None, strict=False)


def _unusable(folder: str, error: OSError) -> HubError:
    """Return what is wrong with `folder`: a code for each cause, since the system's own words are in one language."""
    if error.errno in {errno.ENOTDIR, errno.ELOOP}:
        return HubError("home-not-a-folder", folder=folder)
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return HubError("home-full", folder=folder)
    return HubError("home-unusable", folder=folder, reason=errno.errorcode.get(error.errno or 0, "?"))


def _make(parent: Path, name: str, *, mode: int, owner: tuple[int, int] | None, strict: bool) -> None:
    shown = f"{parent / name}"
    if name in {"", ".", ".."} or "/" in name:
        raise HubError("home-name", folder=shown)
    try:
        outer = os.open(parent, _FOLDER)
    except OSError as err:
        raise _unusable(str(parent), err) from err
    try:
        try:
            # Nobody but the platform until the owner is right.
            os.mkdir(name, 0o700, dir_fd=outer)
            fresh = True
        except FileExistsError:
            fresh = False
        inner = os.open(name, _FOLDER, dir_fd=outer)
    except OSError as err:
        raise _unusable(shown, err) from err
    finally:
        os.close(outer)
    try:
        found = os.fstat(inner)
        if fresh or (owner is not None and (found.st_uid, found.st_gid) == (0, 0)):
            if owner is not None:
                os.fchown(inner, *owner)
            os.fchmod(inner, mode)
        elif strict and owner is not None and found.st_uid != owner[0]:
            raise HubError("home-owner", folder=shown, uid=found.st_uid)
        elif strict and stat.S_IMODE(found.st_mode) & 0o077 and owner is None:
            os.fchmod(inner, mode)
    except OSError as err:
        raise _unusable(shown, err) from err
    finally:
        os.close(inner)
