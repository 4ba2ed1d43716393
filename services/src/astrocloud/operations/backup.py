"""Saving a platform while it runs, and bringing it back on an empty data folder."""

import json
import os
import re
import shutil
import sqlite3
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from astrocloud import __version__
from astrocloud.core.errors import PlatformError, StartError
from astrocloud.core.layout import DataFolder

MANIFEST: Final = "manifest.json"
FORMAT: Final = 1
"""The version of the layout of a backup."""

_SAVED: Final = re.compile(r"(db/[A-Za-z0-9_-]+\.sqlite|secrets/[A-Za-z0-9_-][A-Za-z0-9._-]*|astrocloud\.yaml)")
"""What a manifest may name; whoever else wrote one cannot make a restore read or write other files."""


def backup(data: DataFolder, folder: Path, *, homes: bool = False) -> dict[str, Any]:
    """Save databases, keys and configuration of `data` to the new folder `folder`; return the manifest.

    The databases are copied by SQLite's online backup, so each is as it was at one moment even while the platform
    writes. People's files are named by their path in the manifest; with `homes` they are copied as well, with owners,
    modes, ACLs and extended attributes.

    Raises
    ------
    PlatformError
        ``backup-folder`` when `folder` is there already or cannot be written, ``backup-nothing`` when there is no
        platform in `data`, ``backup-homes`` when a file could not be copied.
    """
    if not data.databases.is_dir():
        raise PlatformError("backup-nothing", folder=str(data.root))
    try:
        folder.mkdir(mode=0o700, parents=True)
    except OSError as err:
        raise PlatformError("backup-folder", folder=str(folder), reason=err.strerror or str(err)) from err
    files = []
    saving = data.databases
    try:
        for database in sorted(data.databases.glob("*.sqlite")):
            target = folder / "db" / database.name
            target.parent.mkdir(mode=0o700, exist_ok=True)
            saving = database
            _copy_database(database, target)
            files.append(f"db/{database.name}")
        for secret in sorted(data.secrets.iterdir()):
            if not secret.name.startswith("."):
                _copy_private(secret, folder / "secrets" / secret.name)
                files.append(f"secrets/{secret.name}")
        if data.config_file.exists():
            _copy_private(data.config_file, folder / data.config_file.name)
            files.append(data.config_file.name)
    except (OSError, sqlite3.Error) as err:
        shutil.rmtree(folder, ignore_errors=True)  # ours, and no backup: it must not be taken for one
        reason = f"{saving.name}: {err}" if isinstance(err, sqlite3.Error) else err.strerror or str(err)
        raise PlatformError("backup-folder", folder=str(folder), reason=reason) from err
    if homes:
        _copy_tree(data.tree, folder / "tree")
    manifest = {
        "format": FORMAT,
        "version": __version__,
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "files": files,
        "tree": str(data.tree),
        "tree_included": homes,
    }
    # Written last: a folder without it is no backup.
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return manifest


def restore(data: DataFolder, folder: Path) -> dict[str, Any]:
    """Bring the backup in `folder` back into the empty data folder `data`; return its manifest.

    Raises
    ------
    PlatformError
        ``restore-no-backup`` when `folder` is no whole backup, ``restore-newer`` when a later layout wrote it.
    StartError
        ``restore-not-empty`` when `data` holds anything; nothing is changed then. ``data-folder`` when it cannot be
        written.
    """
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        named = [folder / name for name in manifest["files"]]
        written_by = int(manifest["format"])
    except (OSError, ValueError, KeyError, TypeError) as err:
        raise PlatformError("restore-no-backup", folder=str(folder)) from err
    if written_by > FORMAT:
        raise PlatformError("restore-newer", folder=str(folder), version=str(manifest.get("version", "?")))
    tree_included = manifest.get("tree_included") is True
    if (
        not all(_SAVED.fullmatch(name) for name in manifest["files"])
        or not all(path.is_file() and not path.is_symlink() for path in named)
        or (tree_included and not (folder / "tree").is_dir())
    ):
        raise PlatformError("restore-no-backup", folder=str(folder))
    if data.root.exists() and (not data.root.is_dir() or {path.name for path in data.root.iterdir()} - {"lost+found"}):
        raise StartError("restore-not-empty", folder=str(data.root))
    data.make()
    try:
        for path in named:
            _copy_private(path, data.root / path.relative_to(folder))
    except OSError as err:
        raise StartError("data-folder", folder=str(data.root), reason=err.strerror or str(err)) from err
    if tree_included:
        shutil.rmtree(data.tree)
        _copy_tree(folder / "tree", data.tree)
    return manifest


def _copy_database(source: Path, target: Path) -> None:
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    os.close(descriptor)
    # as_uri() because a `?` or `#` in the folder's name would open another, empty database.
    reader, writer = sqlite3.connect(f"{source.as_uri()}?mode=ro", uri=True, timeout=30), sqlite3.connect(target)
    try:
        reader.backup(writer)
        [found] = writer.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise sqlite3.DatabaseError(found)
        # One file that needs no journal beside it.
        writer.execute("PRAGMA journal_mode=DELETE")
    finally:
        reader.close()
        writer.close()


def _copy_private(source: Path, target: Path) -> None:
    target.parent.mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as copy, source.open("rb") as original:
        shutil.copyfileobj(original, copy)
        copy.flush()
        os.fsync(copy.fileno())


def _copy_tree(source: Path, target: Path) -> None:
    """Copy people's files with all that belongs to them, sharing blocks where the filesystem can."""
    done = subprocess.run(
        ["cp", "-a", "--reflink=auto", "--", str(source), str(target)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        raise PlatformError("backup-homes", count=len(lines), reason=lines[-1] if lines else "")
