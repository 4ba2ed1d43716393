"""fsspec's own tests of a filesystem."""

from __future__ import annotations

import fsspec
import fsspec.tests.abstract as abstract
import pytest
from given import folder, fs  # noqa: F401 - fixtures


class Fixtures(abstract.AbstractFixtures):
    @pytest.fixture
    def fs(self) -> fsspec.AbstractFileSystem:
        return fsspec.filesystem("vos")

    @pytest.fixture
    def fs_path(self, folder: str) -> str:  # noqa: F811
        return folder

    @pytest.fixture
    def fs_join(self) -> object:
        return lambda *parts: "/".join(parts)


class TestCopy(Fixtures, abstract.AbstractCopyTests):
    pass


class TestGet(Fixtures, abstract.AbstractGetTests):
    pass


class TestPut(Fixtures, abstract.AbstractPutTests):
    pass


class TestPipe(Fixtures, abstract.AbstractPipeTests):
    pass


class TestOpen(Fixtures, abstract.AbstractOpenTests):
    pass
