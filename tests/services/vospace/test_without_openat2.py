"""Without ``openat2`` (an old kernel, a sandbox) paths are walked name by name: the rules hold as well."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from astrocloud.vospace import posix
from tests.services.vospace.platform import Space, running
from tests.services.vospace.test_nodes import *  # noqa: F403 - the same tests, on the other way


@pytest.fixture
async def space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Space]:
    """A service that found no ``openat2``, spoken to as ada."""
    walked: list[tuple[bytes, ...]] = []
    real = posix.walk_beneath

    def walk(folder: int, parts: tuple[bytes, ...], flags: int, mode: int = 0) -> int:
        walked.append(parts)
        return real(folder, parts, flags, mode)

    monkeypatch.setattr(posix, "_has_openat2", False)
    monkeypatch.setattr(posix, "walk_beneath", walk)
    async with running(tmp_path / "data") as found:
        yield found
    assert walked
    assert posix._has_openat2 is False


async def test_a_link_in_the_way_leads_nowhere(space: Space, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(b"secret")
    await space.node("/home/ada")
    for target in (tmp_path / "outside", Path("../../../outside"), Path("/home/bob")):
        link = space.posix("/home/ada/link")
        link.symlink_to(target)
        for method, path in (("GET", "/files"), ("GET", "/nodes"), ("PUT", "/files"), ("DELETE", "/nodes")):
            answer = await space(method, f"{path}/home/ada/link/secret", data=b"x" if method == "PUT" else None)
            assert answer.status in {400, 403, 404}, (method, path, answer.text)
            assert answer.body != b"secret"
        link.unlink()
    assert (tmp_path / "outside" / "secret").read_bytes() == b"secret"
