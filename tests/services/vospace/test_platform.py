"""The service as a part of a real platform: real tokens, real people, through the proxy."""

import asyncio
import os
from collections.abc import Iterator

import aiohttp
import pytest

from tests.support.person import Person
from tests.support.platform import Platform, running_platform

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="acting as people needs root"),
]
PASSWORD = "correct horse battery"


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with running_platform(tmp_path_factory.mktemp("vospace")) as running:
        running.add("ada", PASSWORD, "--group", "team")
        running.add("bob", PASSWORD)
        yield running


def token(platform: Platform, name: str, *scopes: str) -> dict[str, str]:
    options = [option for scope in scopes for option in ("--scope", scope)]
    return {"Authorization": f"Bearer {platform.run_json('token', name, *options)['token']}"}


async def test_token_reads_and_writes_its_persons_files(platform: Platform) -> None:
    files = f"{platform.url}/services/vospace/files"
    ada, bob = token(platform, "ada"), token(platform, "bob")
    reader = token(platform, "ada", "custom:vospace:read")
    data = os.urandom(300_000)
    async with aiohttp.ClientSession() as session:
        async with session.put(f"{files}/home/ada/f", data=data, headers=ada) as answer:
            assert answer.status == 201, await answer.text()
        async with session.get(f"{files}/home/ada/f", headers=reader) as answer:
            assert await answer.read() == data
        async with session.put(f"{files}/home/ada/f", data=b"x", headers=reader) as answer:
            assert answer.status == 403
        for headers in (bob, {}):
            async with session.get(f"{files}/home/ada/f", headers=headers) as answer:
                assert answer.status == 403
        async with session.put(f"{files}/project/team/f", data=data, headers=ada) as answer:
            assert answer.status == 201
        async with session.get(f"{platform.url}/reg/resource-caps") as answer:
            assert "ivo://astrocloud.local/vospace = " in await answer.text()
    status = (platform.data / "tree" / "home" / "ada" / "f").stat()
    home = (platform.data / "tree" / "home" / "ada").stat()
    assert status.st_uid == home.st_uid >= 1000


async def test_browser_comes_in_by_the_hub(platform: Platform) -> None:
    async with Person(platform.url, "ada", PASSWORD) as ada:
        await ada.sign_in()
        address = f"{platform.url}/services/vospace/nodes/home/ada"
        async with ada.session.get(address, headers={"Accept": "text/html"}) as answer:
            assert answer.status == 200
            assert "vos:ContainerNode" in await answer.text()
        # A change needs the token of our own page besides the cookie.
        async with ada.session.delete(f"{address}/f", headers={"Accept": "*/*"}) as answer:
            assert answer.status == 403


async def test_disabled_person_is_out_within_half_a_minute(platform: Platform) -> None:
    platform.add("eve", PASSWORD)
    eve = token(platform, "eve")
    address = f"{platform.url}/services/vospace/nodes/home/eve"
    async with aiohttp.ClientSession() as session:
        async with session.get(address, headers=eve) as answer:
            assert answer.status == 200
        platform.run_json("user", "disable", "eve")
        async with asyncio.timeout(30):
            while True:
                async with session.get(address, headers=eve) as answer:
                    if answer.status in {401, 403}:
                        break
                await asyncio.sleep(0.2)
