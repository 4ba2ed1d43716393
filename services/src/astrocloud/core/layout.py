"""Where things are: the data folder, and the files that come with the project."""

import contextlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from astrocloud.core.errors import StartError

DATA_VARIABLE: Final = "ASTROCLOUD_DATA"
PORT_VARIABLE: Final = "ASTROCLOUD_PORT"
BIND_VARIABLE: Final = "ASTROCLOUD_BIND"
BYTES_PORT_VARIABLE: Final = "ASTROCLOUD_BYTES_PORT"
BYTES_SOCKET_VARIABLE: Final = "ASTROCLOUD_BYTES_SOCKET"
"""Tells the services which descriptor listens for bytes: the supervisor holds it, so that nobody takes the port."""

TREE_TOPS: Final = ("home", "project", "archive", "course")
"""The folders at the top of the file tree."""


@dataclass(frozen=True)
class DataFolder:
    """The one folder in which a platform on one machine keeps everything."""

    root: Path
    """The folder itself, absolute."""

    @classmethod
    def from_environment(cls) -> "DataFolder":
        """Return the folder that ``ASTROCLOUD_DATA`` names, else ``astrocloud`` in the XDG data home.

        Raises
        ------
        StartError
            ``data-folder`` if it is below the home of somebody who has none.
        """
        named = os.environ.get(DATA_VARIABLE)
        if not named:
            base = os.environ.get("XDG_DATA_HOME", "")
            named = f"{base if base.startswith('/') else '~/.local/share'}/astrocloud"
        try:
            return cls(Path(named).expanduser().absolute())
        except RuntimeError as err:
            raise StartError("data-folder", folder=named, reason="there is no such home") from err

    @property
    def config_file(self) -> Path:
        """Where the configuration is, if there is one."""
        return self.root / "astrocloud.yaml"

    @property
    def config_if_any(self) -> Path | None:
        """The configuration, or `None`; a link that leads nowhere is one, and its reader says so."""
        return self.config_file if os.path.lexists(self.config_file) else None

    @property
    def cluster_file(self) -> Path:
        """What the Helm chart says of the cluster; not there on one machine."""
        return self.root / "cluster.yaml"

    @property
    def on_cluster(self) -> bool:
        """Whether this is one part of a platform on Kubernetes, and not all of one on a machine."""
        return self.cluster_file.exists()

    @property
    def secrets(self) -> Path:
        """Keys and tokens, for the platform's eyes only (0700)."""
        return self.root / "secrets"

    @property
    def pull_secrets(self) -> Path:
        """Sign-ins to registries, a folder each, for the hub on a cluster."""
        return self.root / "pull-secrets"

    @property
    def databases(self) -> Path:
        """The SQLite databases (0700)."""
        return self.root / "db"

    @property
    def tree(self) -> Path:
        """The file tree: ``home``, ``project``, ``archive``, ``course``."""
        return self.root / "tree"

    @property
    def environments(self) -> Path:
        """The environments' virtual environments."""
        return self.root / "environments"

    @property
    def logs(self) -> Path:
        """Logs of the parts (0700); people's servers' logs in ``servers`` below."""
        return self.root / "logs"

    @property
    def run(self) -> Path:
        """What is true while the platform runs (0700): ports, process ids, status."""
        return self.root / "run"

    def make(self) -> None:
        """Make the folder and what is below it, with the modes that keep people out of it.

        Raises
        ------
        StartError
            ``data-folder`` if it cannot be made or written.
        """
        try:
            # People's servers run as other user ids and reach their homes through it: 0711, not 0700.
            _make_folder(self.root, 0o711)
            # On a cluster the secrets are mounted read-only, databases are elsewhere, and the tree is a volume.
            kept = () if self.on_cluster else (self.secrets, self.databases, self.logs, self.logs / "servers")
            for private in (*kept, self.run):
                private.mkdir(mode=0o700, exist_ok=True)
                private.chmod(0o700)
            if not self.on_cluster:
                _make_folder(self.environments, 0o755)
                self.make_tree()
            probe = self.root / ".write-probe"
            probe.touch()
            probe.unlink()
        except OSError as err:
            raise StartError("data-folder", folder=str(self.root), reason=err.strerror or str(err)) from err

    def make_tree(self) -> None:
        """Make the folders at the top of the file tree, in which nobody but the platform makes others.

        Raises
        ------
        OSError
            If one cannot be made.
        """
        _make_folder(self.tree, 0o755)
        if self.on_cluster:
            # Provisioners of shared folders let everybody write; what it lies on may already be as it should.
            with contextlib.suppress(PermissionError):
                self.tree.chmod(0o755)
        for top in TREE_TOPS:
            _make_folder(self.tree / top, 0o755)


def _make_folder(path: Path, mode: int) -> None:
    """Make `path` with `mode` whatever the umask is; one that is there keeps the mode its owner gave it."""
    if not path.is_dir():
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(mode)


def project_folder(name: str) -> Path | None:
    """Return the project's folder `name` (``images``, ``notebooks``, ``hub``).

    It is in the source tree when running from it; in an image of the platform, what is needed of it is in ``share``.
    """
    root = Path(__file__).resolve().parents[4]
    top = root if (root / "pyproject.toml").is_file() else Path(sys.prefix) / "share"
    folder = top / name
    return folder if folder.is_dir() else None
