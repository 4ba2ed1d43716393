"""Names that clients give for other services: resolved once, and refused for one number that may not be reached."""

import socket
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from astrocloud.vospace.errors import Fault
from astrocloud.vospace.remote import Remote, networks
from tests.services.vospace.test_remote import elsewhere


class Names(AbstractResolver):
    """A name server that answers the same question differently, as that of somebody who means harm does."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self._answers: Iterator[Sequence[str]] = iter(answers)
        self.asked = 0

    async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_INET) -> list[ResolveResult]:
        self.asked += 1
        flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        return [
            ResolveResult(
                hostname=host,
                host=number,
                port=port,
                family=socket.AF_INET6 if ":" in number else socket.AF_INET,
                proto=0,
                flags=flags,
            )
            for number in next(self._answers)
        ]

    async def close(self) -> None:
        pass


async def fetched(names: Names, address: str) -> bytes:
    remote = Remote(allowed=networks(["127.0.0.1/32"]), resolver=lambda: names)
    async with remote.request("GET", address, headers={}) as response:
        return await response.read()


async def test_a_name_of_an_allowed_number_is_reached() -> None:
    async with elsewhere() as there:
        names = Names(["127.0.0.1"])
        assert await fetched(names, f"http://data.example.org:{there.port}/data") == b"what is inside"
        assert there.asked == [f"data.example.org:{there.port}"]


@pytest.mark.parametrize(
    "numbers",
    [
        ["127.0.0.2"],
        ["127.0.0.1", "127.0.0.2"],
        ["127.0.0.2", "127.0.0.1"],
        ["127.0.0.1", "::1"],
        ["::ffff:127.0.0.2"],
        ["64:ff9b::7f00:2"],
        ["2002:7f00:2::"],
        ["fe80::1%lo"],
        ["169.254.169.254"],
        ["10.1.2.3"],
        ["0.0.0.0"],
        ["::"],
        ["224.0.0.1"],
    ],
)
async def test_one_number_that_may_not_be_reached_is_enough_to_refuse_a_name(numbers: list[str]) -> None:
    async with elsewhere() as there:
        with pytest.raises(Fault, match="network"):
            await fetched(Names(numbers), f"http://data.example.org:{there.port}/data")
        assert there.asked == []


async def test_what_is_connected_to_is_the_answer_that_was_checked() -> None:
    async with elsewhere() as there:
        names = Names(["127.0.0.1"], ["127.0.0.2"])
        address = f"http://data.example.org:{there.port}/data"
        assert await fetched(names, address) == b"what is inside"
        assert names.asked == 1
        with pytest.raises(Fault, match="network"):
            await fetched(names, address)
        assert len(there.asked) == 1


async def test_a_name_that_a_redirect_leads_to_is_checked_as_well() -> None:
    async with elsewhere() as there:
        names = Names(["127.0.0.1"], ["127.0.0.2"])
        host = f"http://data.example.org:{there.port}"
        with pytest.raises(Fault, match="network"):
            await fetched(names, f"{host}/lead/302?to=http://other.example.org:{there.port}/data")
        assert there.asked == []
        assert names.asked == 2


async def test_a_name_that_is_nobodys_is_told() -> None:
    class Nobody(Names):
        async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_INET) -> list[ResolveResult]:
            raise OSError(None, "no such name")

    with pytest.raises(Fault) as told:
        await fetched(Nobody(), "http://nobody.example.org/")
    assert told.value.name == "TransferFailed"
    assert "nobody.example.org" in told.value.text("en")
