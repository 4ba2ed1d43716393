"""What JupyterLab's pages are told of the platform."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import ModuleType

import pytest

from tests.extensions.servers import Server


@pytest.fixture
def pages(repository: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module, which is not installed beside the platform."""
    monkeypatch.syspath_prepend(str(repository / "extensions"))
    from astrocloud_lab import pages

    return pages


@pytest.mark.parametrize(
    ("home", "user", "root"),
    [
        ("/home/ada", "ada", ""),
        ("/data/tree/home/ada", "ada", "/data/tree"),
        ("/root", "ada", ""),
        ("/home/ada", "", ""),
    ],
)
def test_where_the_tree_of_vospace_begins(pages: ModuleType, home: str, user: str, root: str) -> None:
    assert pages.tree_root(home, user) == root


def test_without_a_vospace_there_is_no_authority(pages: ModuleType) -> None:
    assert pages.page_options({})["authority"] == ""
    assert pages.page_options({"ASTROCLOUD_VOSPACE": "x.org~vospace"}, base_url="/b/")["files"].startswith(
        "/b/services/"
    )


async def test_the_page_of_a_real_server_says_it(server: Server) -> None:
    async with server.client() as client, client.get("lab") as answer:
        page = await answer.text()
    found = re.search(r'id="jupyter-config-data" type="application/json">(.*?)</script>', page, re.DOTALL)
    assert found
    config = json.loads(found[1])
    assert config["astrocloud"]["words"]["files.share"] == {"en": "Share…", "zh": "共享…"}
    entry = next(one for one in config["federated_extensions"] if one["name"] == "astrocloud-lab")
    assert entry["load"] == "static/remoteEntry.js"
    async with server.client() as client, client.get(f"lab/extensions/astrocloud-lab/{entry['load']}") as answer:
        assert answer.status == 200
        # Asked again every time: its name does not change with what is in it.
        assert answer.headers["Cache-Control"] == "no-cache"
