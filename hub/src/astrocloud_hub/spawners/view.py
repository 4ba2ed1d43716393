"""What of this machine a server sees: the part of the sandbox that looks."""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from astrocloud_hub.spawners.models import Person
from astrocloud_hub.spawners.sandbox import Bind, Programs

FOLDERS: Final = ("/home", "/project", "/archive", "/course", "/tutorials", "/run", "/var/cache")
"""Folders that are there even when nothing is bound in them."""

_ETC: Final = (
    "alternatives", "bash.bashrc", "ca-certificates", "ca-certificates.conf", "crypto-policies",
    "default/locale", "fonts", "host.conf", "hosts", "inputrc", "ld.so.cache", "ld.so.conf", "ld.so.conf.d",
    "locale.alias", "locale.conf", "localtime", "magic", "mime.types", "nanorc", "nsswitch.conf",
    "pki/ca-trust", "pki/tls", "profile", "profile.d", "protocols", "resolv.conf", "services", "skel",
    "ssl/certs", "ssl/openssl.cnf", "terminfo", "timezone", "vim", "xdg",
)  # fmt: skip
"""What of ``/etc`` programs need and nobody minds being read. Not ``ssl/private``, nor any password file."""


def programs() -> Programs | None:
    """Return the programs that make sandboxes here, or `None` when bubblewrap is not installed."""
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        return None
    found = helper_programs()
    return Programs(bwrap=bwrap, setpriv=found.setpriv, prlimit=found.prlimit)


def helper_programs() -> Programs:
    """Return the programs of util-linux, which every Linux has."""
    plain = Programs()
    return Programs(
        bwrap=plain.bwrap,
        setpriv=shutil.which("setpriv") or plain.setpriv,
        prlimit=shutil.which("prlimit") or plain.prlimit,
    )


def system_symlinks(root: Path = Path("/")) -> tuple[tuple[str, str], ...]:
    """Return the links that take the place of ``/bin``, ``/lib``… where they are links into ``/usr``."""
    return tuple((os.readlink(root / name), f"/{name}") for name in _TOP if (root / name).is_symlink())


_TOP: Final = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")


def system_binds(root: Path = Path("/")) -> tuple[Bind, ...]:
    """Return the programs and libraries of the machine and the harmless part of ``/etc``, all read-only."""
    binds = [Bind(source="/usr", target="/usr")]
    for name in _TOP:
        if (root / name).is_dir() and not (root / name).is_symlink():
            binds.append(Bind(source=f"/{name}", target=f"/{name}"))
    etc = [*_ETC, *(path.name for path in sorted((root / "etc").glob("python3*")))]
    for name in etc:
        path = root / "etc" / name
        # The real path: resolv.conf, for one, is often a link to a place that does not exist inside.
        if path.exists():
            binds.append(Bind(source=os.path.realpath(path), target=f"/etc/{name}"))
    return tuple(binds)


def environment_binds(environment: Path, base_prefix: Path) -> tuple[Bind, ...]:
    """Return what makes the virtual environment `environment`, made from the Python in `base_prefix`, run inside."""
    seen = [environment, base_prefix]
    # `bin/python` may lead through folders that are neither of the two.
    python = environment / "bin" / "python"
    while python.is_symlink():
        link = Path(os.readlink(python))
        python = link if link.is_absolute() else python.parent / link
        seen.append(python.parent.parent)
    binds: dict[str, Bind] = {}
    for folder in seen:
        target = os.path.normpath(folder)
        if not _within(target, ["/usr", *binds]) and Path(target).is_dir():
            binds[target] = Bind(source=os.path.realpath(target), target=target)
    return tuple(binds.values())


def _within(path: str, folders: Iterable[str]) -> bool:
    return any(Path(path).is_relative_to(folder) for folder in folders)


def tree_binds(tree: Path, person: Person, *, tutorials: Path | None) -> tuple[Bind, ...]:
    """Return the part of the file tree that `person` may see."""
    binds = [
        Bind(source=os.path.realpath(tree / "home" / person.username), target=f"/home/{person.username}", writable=True)
    ]
    for group in person.groups:
        folder = tree / "project" / group.name
        if folder.is_dir():
            binds.append(Bind(source=os.path.realpath(folder), target=f"/project/{group.name}", writable=True))
    for name in ("archive", "course"):
        if (tree / name).is_dir():
            binds.append(Bind(source=os.path.realpath(tree / name), target=f"/{name}"))
    if tutorials is not None and tutorials.is_dir():
        binds.append(Bind(source=os.path.realpath(tutorials), target="/tutorials"))
    return tuple(binds)


def own_names(folder: Path, person: Person) -> tuple[Bind, ...]:
    """Write ``passwd`` and ``group`` files in which only `person`'s own names are, and return how they are seen."""
    passwd, groups = person.names()
    return (_written(folder / "passwd", passwd, "/etc/passwd"), _written(folder / "group", groups, "/etc/group"))


def _written(path: Path, text: str, target: str) -> Bind:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o644)
    return Bind(source=os.path.realpath(path), target=target)
