"""A person opens copies of tutorials, and nobody else does."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.extensions.servers import OTHER_TOKEN, OWNER_TOKEN, Server

OPEN = "astrocloud/tutorials/open"
BROWSER = {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture(autouse=True)
def folder(server: Server) -> Iterator[Path]:
    """The folder of copies, empty before each test."""
    folder = server.home / "tutorials"
    subprocess.run(["rm", "-rf", str(folder)], check=True)
    yield folder
    subprocess.run(["rm", "-rf", str(folder)], check=True)


async def opened(server: Server, query: str, token: str | None = OWNER_TOKEN, **headers: str) -> tuple[int, str, str]:
    """Return status, location and body."""
    async with server.client(token) as client:  # noqa: SIM117
        async with client.get(f"{OPEN}?{query}", headers=headers, allow_redirects=False) as answer:
            return answer.status, answer.headers.get("Location", ""), await answer.text()


def address(server: Server, name: str) -> str:
    return f"/user/ada/lab/tree{server.home}/tutorials/{name}"


async def test_first_opening_makes_a_copy_and_leads_to_it(server: Server, folder: Path, tutorials: Path) -> None:
    status, location, _ = await opened(server, "tutorial=first-look&lang=zh")
    assert (status, location) == (302, address(server, "first-look.zh.ipynb"))
    copy = folder / "first-look.zh.ipynb"
    assert copy.read_bytes() == (tutorials / "first-look.zh.ipynb").read_bytes()
    assert [one.name for one in folder.iterdir()] == ["first-look.zh.ipynb"]
    async with server.client() as client, client.get(f"api/contents{copy}") as answer:
        assert answer.status == 200


async def test_changed_copy_is_opened_again_and_kept(server: Server, folder: Path) -> None:
    await opened(server, "tutorial=first-look&lang=en")
    copy = folder / "first-look.en.ipynb"
    copy.write_text('{"mine": 1}')
    assert (await opened(server, "tutorial=first-look&lang=en"))[1] == address(server, copy.name)
    assert copy.read_text() == '{"mine": 1}'


async def test_fresh_copies_are_numbered(server: Server, folder: Path) -> None:
    names = [(await opened(server, "tutorial=first-look&lang=en&fresh=1"))[1].rpartition("/")[2] for _ in range(3)]
    assert names == ["first-look.en.ipynb", "first-look-2.en.ipynb", "first-look-3.en.ipynb"]
    assert sorted(one.name for one in folder.iterdir()) == sorted(names)


async def test_dangling_link_is_not_followed_or_replaced(server: Server, folder: Path) -> None:
    folder.mkdir()
    (folder / "first-look.en.ipynb").symlink_to(server.home / "elsewhere.ipynb")
    await opened(server, "tutorial=first-look&lang=en&fresh=1")
    assert (folder / "first-look-2.en.ipynb").is_file()
    assert not (server.home / "elsewhere.ipynb").exists()


@pytest.mark.parametrize(
    "name",
    ["", "..", "../first-look", "first-look.en", "First", "a--b", "-a", "a-", "a/b", "a%00b", "x" * 65, "é", "a%0a"],
)
@pytest.mark.parametrize("language", ["en", "zh"])
async def test_bad_names_are_refused_in_both_languages(server: Server, folder: Path, name: str, language: str) -> None:
    status, _, body = await opened(server, f"tutorial={name}&lang={language}")
    assert status == 400
    assert ("不是教程名称" if language == "zh" else "is not the name of a tutorial") in body
    assert "tutorial.error.id" in body
    assert not folder.exists()


async def test_markup_in_a_name_is_text(server: Server) -> None:
    status, _, body = await opened(server, "tutorial=%3Cscript%3E&lang=en")
    assert status == 400
    assert "<script>" not in body
    assert "&lt;script&gt;" in body


async def test_missing_tutorial_names_what_is_there(server: Server) -> None:
    status, _, body = await opened(server, "tutorial=none&lang=en", Accept="application/json")
    problem = json.loads(body)
    assert (status, problem["status"], problem["code"]) == (404, 404, "tutorial.error.missing")
    assert "files, first-look" in problem["detail"]
    status, _, body = await opened(server, "tutorial=files&lang=zh")
    assert status == 404
    assert "first-look" in body


async def test_unknown_language_is_refused(server: Server) -> None:
    status, _, body = await opened(server, "tutorial=first-look&lang=fr")
    assert status == 400
    assert "tutorial.error.language" in body


async def test_without_a_language_the_browsers_is_taken(server: Server) -> None:
    headers = {"Accept-Language": "zh-CN,zh;q=0.9"}
    assert (await opened(server, "tutorial=first-look", **headers))[1].endswith("first-look.zh.ipynb")


async def test_file_in_the_way_is_told(server: Server, folder: Path) -> None:
    folder.write_text("a file\n")
    status, _, body = await opened(server, "tutorial=first-look&lang=en")
    assert status == 409
    assert "tutorial.error.folder" in body
    assert folder.read_text() == "a file\n"


@pytest.mark.parametrize("token", [None, OTHER_TOKEN, "forged"])
async def test_others_make_no_copy(server: Server, folder: Path, token: str | None) -> None:
    status, location, _ = await opened(server, "tutorial=first-look&lang=en", token, **BROWSER)
    assert status in {302, 403}
    assert "lab/tree" not in location
    assert not folder.exists()
