"""The platform's own secrets: made once, kept in files that only the platform reads."""

import os
import secrets
from pathlib import Path

from pydantic import SecretStr


class SecretFiles:
    """Secrets by name, each a file of mode 0600 in one folder of mode 0700.

    Parameters
    ----------
    folder
        The folder; on Kubernetes, where a Secret is mounted.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __repr__(self) -> str:
        return f"SecretFiles({str(self._folder)!r})"

    def path(self, name: str) -> Path:
        """Return the file of the secret `name`, made with 256 random bits if it is not there."""
        path = self._folder / name
        if not path.exists():
            fresh = self._folder / f".{name}.{secrets.token_hex(4)}"
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                os.write(descriptor, secrets.token_hex(32).encode())
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            try:
                # link() refuses to replace, so of two processes that make it at once both read the same one.
                os.link(fresh, path)
            except FileExistsError:
                pass
            finally:
                fresh.unlink()
        return path

    def get(self, name: str) -> SecretStr:
        """Return the secret `name`, made if it is not there."""
        return SecretStr(self.path(name).read_text(encoding="ascii").strip())
