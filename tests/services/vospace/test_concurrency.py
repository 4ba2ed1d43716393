"""Many at once: whoever reads sees one whole state, whoever writes is told what became of it."""

import asyncio
import hashlib
import os
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from astrocloud.vospace.domain import Nodes
from astrocloud.vospace.models import IS_LOCKED
from astrocloud.vospace.uploads import Upload
from tests.services.vospace.platform import CORE, PEOPLE, Space, node_xml, running, uri
from tests.services.vospace.test_files import leftovers
from tests.services.vospace.test_transfers import job, transfer_xml


def pattern(number: int) -> bytes:
    return bytes([number]) * (200_000 + number)


async def test_readers_during_many_puts_see_one_of_them_whole(space: Space) -> None:
    await space.upload("/home/ada/f", pattern(0))
    good = {hashlib.md5(pattern(number)).digest() for number in range(9)}

    async def write(number: int) -> None:
        assert (await space.upload("/home/ada/f", pattern(number))).status == 200

    async def read() -> None:
        for _ in range(10):
            answer = await space.get("/files/home/ada/f")
            assert answer.status == 200
            assert hashlib.md5(answer.body).digest() in good

    await asyncio.gather(*(write(number) for number in range(1, 9)), *(read() for _ in range(4)))
    assert hashlib.md5(space.posix("/home/ada/f").read_bytes()).digest() in good
    assert leftovers(space) == []


async def test_only_one_of_many_creates(space: Space) -> None:
    await space.node("/home/ada")
    answers = await asyncio.gather(
        *(space.upload("/home/ada/f", pattern(n), headers={"If-None-Match": "*"}) for n in range(8))
    )
    assert sorted(answer.status for answer in answers) == [201] + [412] * 7
    answers = await asyncio.gather(*(space.mkdir("/home/ada/d") for _ in range(8)))
    assert sorted(answer.status for answer in answers) == [201] + [409] * 7


async def test_put_against_delete_and_rename_of_its_folder(space: Space) -> None:
    for round_number in range(10):
        await space.mkdir("/home/ada/d")

        async def put() -> int:
            return (await space.upload("/home/ada/d/f", pattern(1))).status

        async def disturb(number: int = round_number) -> None:
            if number % 2:
                await space("DELETE", "/nodes/home/ada/d")
            else:
                await job(space, transfer_xml("/home/ada/d", uri("/home/ada/e"), keep=False))

        status, _none = await asyncio.gather(put(), disturb())
        assert status in {201, 404, 403}
        found = [path for path in space.posix("/home/ada").rglob("f") if path.is_file()]
        assert all(path.read_bytes() == pattern(1) for path in found)
        if status == 201 and not round_number % 2:
            assert len(found) == 1
        for name in ("d", "e"):
            await space("DELETE", f"/nodes/home/ada/{name}")
    assert leftovers(space) == []


async def test_list_while_names_change_keeps_those_that_stay(space: Space) -> None:
    folder = space.make("/archive/many", who="bob")
    stay = {f"stay{number:05d}" for number in range(3000)}
    for name in stay:
        (folder / name).touch()
    stop = threading.Event()

    def churn() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            (folder / f"come{number % 50}").touch()
            (folder / f"come{(number + 25) % 50}").unlink(missing_ok=True)

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for _ in range(5):
            names = (await space.node("/archive/many", "?detail=min")).names
            assert stay <= set(names)
            assert len(names) == len(set(names))
    finally:
        stop.set()
        thread.join()


async def test_notebook_that_writes_while_it_is_read(space: Space) -> None:
    await space.upload("/home/ada/f", b"x" * 2_000_000)
    file = space.posix("/home/ada/f")
    done = threading.Event()

    def append() -> None:
        with file.open("ab") as opened:
            for _ in range(2000):
                opened.write(b"y" * 100)
                opened.flush()
                if done.wait(0.0001):
                    break

    thread = threading.Thread(target=append)
    thread.start()
    try:
        for _ in range(20):
            answer = await space.get("/files/home/ada/f")
            assert len(answer.body) == int(answer.headers["Content-Length"])
            assert set(answer.body) <= {ord("x"), ord("y")}
            assert "Digest" not in answer.headers or len(answer.body) == 2_000_000
    finally:
        done.set()
        thread.join()
    # Replacing it leaves the notebook's own open file alone.
    with file.open("ab") as opened:
        await space.upload("/home/ada/f", b"new")
        opened.write(b"lost")
    assert file.read_bytes() == b"new"


async def test_large_folder_is_told_whole_and_in_pages(space: Space) -> None:
    folder = space.make("/archive/many", who="bob")
    names = sorted(f"f{number:05d}" for number in range(12_000))
    for name in names:
        os.close(os.open(folder / name, os.O_CREAT, 0o644))
    assert sorted((await space.node("/archive/many", "?detail=min")).names) == names
    paged: list[str] = []
    start = ""
    while True:
        page = await space.node("/archive/many", f"?detail=min&limit=5000{start}")
        paged += page.names[1 if start else 0 :]
        if len(page.names) < 5000:
            break
        start = f"&uri={page.children[-1]}"
    assert paged == names
    # The rest of an unpaged listing, in the same order, from a child on.
    every = (await space.node("/archive/many", "?detail=min")).children
    rest = (await space.node("/archive/many", f"?detail=min&uri={every[7000]}")).children
    assert rest == every[7000:]
    assert (await space.node("/archive/many", "?sort=date")).status == 400
    assert PEOPLE["bob"].identity.uid == folder.stat().st_uid


async def test_properties_that_many_set_at_once_are_all_there(space: Space) -> None:
    await space.upload("/home/ada/f", b"hello")
    names = [f"ivo://example.org/p#{number}" for number in range(24)]
    answers = await asyncio.gather(*(space.set("/home/ada/f", {name: "x"}) for name in names))
    assert {answer.status for answer in answers} == {200}
    properties = (await space.node("/home/ada/f")).properties
    assert set(names) <= set(properties)
    answers = await asyncio.gather(*(space.set("/home/ada/f", {name: None}) for name in names))
    assert {answer.status for answer in answers} == {200}
    assert not set(names) & set((await space.node("/home/ada/f")).properties)


async def test_each_change_that_expects_what_it_saw_is_made_once(space: Space) -> None:
    """Eight count one file up by reading it and writing it with If-Match, until each has."""
    await space.upload("/home/ada/n", b"0")

    async def count_up() -> int:
        for attempt in range(200):
            now = await space.get("/files/home/ada/n")
            wanted = str(int(now.body) + 1).encode()
            answer = await space.upload("/home/ada/n", wanted, headers={"If-Match": now.headers["ETag"]})
            if answer.status == 200:
                return attempt
            assert (answer.status, answer.fault) == (412, "PreconditionFailed")
        raise AssertionError("it was never first")

    attempts = await asyncio.gather(*(count_up() for _ in range(8)))
    assert space.posix("/home/ada/n").read_bytes() == b"8"
    assert sum(attempts) > 0  # they did meet
    assert leftovers(space) == []


async def test_puts_deletes_and_renames_of_one_file(space: Space) -> None:
    """Whatever comes when: each is told what became of it, and only whole files are ever there."""
    await space.node("/home/ada")
    sizes = [10, 300_000, 2_000_000]

    async def put(number: int) -> tuple[str, int]:
        data = bytes([number + 1]) * sizes[number % 3]
        return "put", (await space.upload("/home/ada/f", data)).status

    async def put_if_there(number: int) -> tuple[str, int]:
        found = await space("HEAD", "/files/home/ada/f")
        tag = found.headers.get("ETag", '"none"')
        data = bytes([number + 101]) * sizes[number % 3]
        return "if", (await space.upload("/home/ada/f", data, headers={"If-Match": tag})).status

    async def delete() -> tuple[str, int]:
        return "delete", (await space("DELETE", "/files/home/ada/f")).status

    async def rename(number: int) -> tuple[str, int]:
        _url, ended = await job(space, transfer_xml("/home/ada/f", uri(f"/home/ada/moved{number}"), keep=False))
        return "rename", {"COMPLETED": 200, "ERROR": 404}[ended.xml.findtext("{*}phase") or ""]

    async def read() -> tuple[str, int]:
        answer = await space.get("/files/home/ada/f")
        if answer.status == 200:
            assert len(answer.body) in sizes
            assert len(set(answer.body)) == 1
        return "read", answer.status

    allowed = {"put": {200, 201}, "if": {200, 412}, "delete": {200, 404}, "rename": {200, 404}, "read": {200, 404}}
    for turn in range(3):
        work = [put(turn * 4 + n) for n in range(4)] + [put_if_there(turn * 3 + n) for n in range(3)]
        work += [delete(), delete(), rename(turn), read(), read(), read()]
        for what, status in await asyncio.gather(*work):
            assert status in allowed[what], (what, status)
    for file in space.posix("/home/ada").iterdir():
        data = file.read_bytes()
        assert len(data) in sizes
        assert len(set(data)) == 1
    assert leftovers(space) == []


async def test_a_quota_holds_for_many_at_once(tmp_path: Path) -> None:
    limit = 1_000_000
    async with running(tmp_path / "data", {"vospace": {"home_quota_bytes": limit}}) as space:
        await space.node("/home/ada")
        answers = await asyncio.gather(*(space.upload(f"/home/ada/f{n}", bytes(150_000)) for n in range(12)))
        assert sorted(answer.status for answer in answers) == [201] * 6 + [507] * 6
        files = list(space.posix("/home/ada").iterdir())
        assert sum(file.stat().st_size for file in files) == 900_000
        free = int((await space.node("/home/ada")).properties[f"{CORE}availableSpace"])
        assert free == 100_000
        # Replaced, removed and made at once: the count ends where the files do.
        await asyncio.gather(
            *(space.upload(f"/home/ada/{file.name}", bytes(1000 * n)) for n, file in enumerate(files)),
            *(space("DELETE", f"/files/home/ada/{file.name}") for file in files[:3]),
            space.mkdir("/home/ada/d"),
        )
        used = sum(file.stat().st_size for file in space.posix("/home/ada").iterdir() if file.is_file())
        free = int((await space.node("/home/ada")).properties[f"{CORE}availableSpace"])
        assert free == limit - used
        assert leftovers(space) == []


async def test_node_that_cannot_be_made_takes_no_bytes_away_with_it(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its properties are refused when its file is there already, and somebody's bytes came in its place."""
    await space.node("/home/ada")
    loop, begun = asyncio.get_running_loop(), Nodes._begin_with
    uploads = []

    def when_others_write(*given: Any) -> None:
        uploads.append(asyncio.run_coroutine_threadsafe(space.upload("/home/ada/f", b"bytes"), loop))
        with suppress(TimeoutError):
            uploads[0].result(1)
        begun(*given)

    monkeypatch.setattr(Nodes, "_begin_with", when_others_write)
    answer = await space("PUT", "/nodes/home/ada/f", data=node_xml("/home/ada/f", "DataNode", {"title": "x" * 5000}))
    assert (answer.status, answer.fault) == (400, "InvalidArgument")
    assert (await asyncio.wrap_future(uploads[0])).status in {200, 201}
    assert (await space.get("/files/home/ada/f")).body == b"bytes"


async def test_change_of_a_node_outlives_bytes_that_come_at_the_same_time(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    """New bytes have the properties and shares of the old ones: also those that were changed just then."""
    await space.upload("/home/ada/f", b"old")
    await space.set("/home/ada/f", {"ispublic": "true"})
    loop, keep = asyncio.get_running_loop(), Upload._keep_what_the_old_one_had
    changes = []

    def when_it_is_changed(*given: Any) -> None:
        keep(*given)
        change = space.set("/home/ada/f", {"ispublic": "false", "title": "t"})
        changes.append(asyncio.run_coroutine_threadsafe(change, loop))
        with suppress(TimeoutError):
            changes[0].result(1)

    monkeypatch.setattr(Upload, "_keep_what_the_old_one_had", when_it_is_changed)
    assert (await space.upload("/home/ada/f", b"new")).status == 200
    assert (await asyncio.wrap_future(changes[0])).status == 200
    told = (await space.node("/home/ada/f")).properties
    assert (told[f"{CORE}ispublic"], told.get(f"{CORE}title")) == ("false", "t")


@pytest.mark.parametrize("locked", ["/home/ada/d/f", "/home/ada/d"])
async def test_lock_holds_for_bytes_that_were_under_way(space: Space, locked: str) -> None:
    await space.mkdir("/home/ada/d")
    await space.upload("/home/ada/d/f", b"old")

    async def pieces() -> AsyncIterator[bytes]:
        yield b"n" * (2 << 20)
        async with asyncio.timeout(20):
            while not leftovers(space):
                await asyncio.sleep(0.01)
        assert (await space.set(locked, {IS_LOCKED: "true"})).status == 200
        yield b"ew"

    answer = await space.put("/files/home/ada/d/f", pieces())
    assert (answer.status, answer.fault) == (423, "NodeLocked")
    assert space.posix("/home/ada/d/f").read_bytes() == b"old"
    assert leftovers(space) == []
