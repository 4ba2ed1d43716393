"""The account of a folder with a quota: what is charged before a change, and given back when it fails."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from astrocloud.vospace.models import NodePath
from astrocloud.vospace.reading import Usage


class Quotas(Protocol):
    """Who has used how much, and may use how much."""

    def charge(self, top: NodePath, *, size: int, files: int, done: bool = False) -> None:
        """Count `size` more bytes and `files` more files below `top`; negative ones give back.

        Parameters
        ----------
        done
            Whether it has happened already, so that a first count of what is there sees it.

        Raises
        ------
        Fault
            ``QuotaExceeded``, and nothing is counted.
        """

    def usage(self, top: NodePath) -> Usage | None:
        """Return what is used below `top`, or `None` where there is no quota."""

    def enter(self, top: NodePath) -> None:
        """Keep what is below `top` from being counted anew, while it changes, until `leave`."""

    def leave(self, top: NodePath) -> None:
        """End what `enter` began."""


class Account:
    """Keeps the account of each folder that has a quota.

    Parameters
    ----------
    quotas
        Who has used how much.
    """

    def __init__(self, quotas: Quotas) -> None:
        self._quotas = quotas

    def usage(self, top: NodePath) -> Usage | None:
        """Return how much of the quota of `top` is used, or `None` where there is none."""
        return self._quotas.usage(top)

    @contextmanager
    def charged(self, path: NodePath, *, size: int, files: int) -> Iterator[None]:
        """Count bytes and files for the quota of `path`, and give them back when the block fails."""
        top = path.top
        if top is None or top == path:
            yield
            return
        with self.busy(path):
            self._quotas.charge(top, size=size, files=files)
            try:
                yield
            except BaseException:
                self._quotas.charge(top, size=-size, files=-files)
                raise

    @contextmanager
    def busy(self, path: NodePath) -> Iterator[None]:
        """Keep the folder with the quota of `path` from being counted anew while the block changes it."""
        top = path.top
        if top is not None:
            self._quotas.enter(top)
        try:
            yield
        finally:
            if top is not None:
                self._quotas.leave(top)

    def refund(self, path: NodePath, *, size: int, files: int) -> None:
        """Give back for the quota of `path` what was removed."""
        if path.top is not None:
            self._quotas.charge(path.top, size=-size, files=-files, done=True)

    def charge(self, path: NodePath, *, size: int, files: int) -> None:
        """Count bytes and files for the quota of `path`. Raises `Fault` (``QuotaExceeded``)."""
        if path.top is not None and (size or files):
            self._quotas.charge(path.top, size=size, files=files)
