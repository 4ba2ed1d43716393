"""Several processes on one database and one tree: jobs are everybody's, and what one leaves unfinished is taken up."""

import asyncio
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from sqlalchemy.exc import OperationalError

from astrocloud.core.database import open_database, sqlite_url, upgrade_database
from astrocloud.core.uws.jobs import MOST_ATTEMPTS, Jobs, Taken, Turn
from astrocloud.core.uws.models import Job, Result
from astrocloud.core.uws.store import JobStore
from tests.services.vospace.platform import PEOPLE, Space
from tests.services.vospace.test_resumable import begin, go_on, offset_of
from tests.services.vospace.test_transfers import UWS, counts, transfer_xml
from tests.support.halves import Source, serving


async def until(what: str, condition: Callable[[], Awaitable[Any]], *, within_s: float = 30) -> Any:
    with suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            while not (found := await condition()):
                await asyncio.sleep(0.02)
            return found
    raise AssertionError(f"{what}: not within {within_s} s")


@pytest.fixture
def database(tmp_path: Path) -> str:
    """The address of an empty database that several processes use."""
    folder = tmp_path / "shared"
    folder.mkdir()
    return sqlite_url(folder)


@dataclass
class Replica:
    """One process."""

    process: asyncio.subprocess.Process
    space: Space

    async def kill(self) -> None:
        self.process.kill()
        await self.process.wait()


@asynccontextmanager
async def replicas(folder: Path, database: str, *, drain_s: int = 0) -> AsyncIterator[tuple[Replica, Replica]]:
    """Two of them, both ready."""
    timeout = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as session:
        found: list[Replica] = []
        try:
            for _ in range(2):
                program = [sys.executable, "-m", "tests.services.vospace.replica"]
                arguments = [str(folder / "data"), database, str(drain_s)]
                process = await asyncio.create_subprocess_exec(*program, *arguments, stdout=subprocess.PIPE)
                space = Space("", folder / "data" / "tree", session, people=PEOPLE)
                found.append(Replica(process, space))
                assert process.stdout is not None
                async with asyncio.timeout(60):
                    while not (line := (await process.stdout.readline()).decode()).startswith("http"):
                        assert line, "it ended"
                found[-1].space = replace(space, url=line.strip())
            yield found[0], found[1]
        finally:
            for replica in found:
                if replica.process.returncode is None:
                    replica.process.terminate()
                with suppress(ValueError):
                    await replica.process.communicate()


@pytest.fixture
async def two(tmp_path: Path, database: str) -> AsyncIterator[tuple[Replica, Replica]]:
    """Two replicas."""
    async with replicas(tmp_path, database) as found:
        yield found


async def start(space: Space, document: str, path: str = "/transfers") -> str:
    """Run a job; return its path."""
    answer = await space("POST", f"{path}?PHASE=RUN", data=document, headers={"Content-Type": "text/xml"})
    assert answer.status == 303, answer.text
    return path + "/" + answer.headers["Location"].rsplit("/", 1)[1]


async def end_of(space: Space, job: str) -> Any:
    async with asyncio.timeout(40):
        while True:
            answer = await space.get(f"{job}?WAIT=20")
            if answer.xml.findtext(f"{UWS}phase") not in {"PENDING", "QUEUED", "EXECUTING"}:
                return answer


@pytest.fixture
async def source() -> AsyncIterator[Source]:
    async with serving(size=3_000_000) as found:
        yield found


def hidden(space: Space) -> list[str]:
    return sorted(p.name for p in space.root.rglob("*") if ".astrocloud-" in p.name)


async def test_a_pull_whose_process_is_killed_is_begun_again_by_the_other(two: Any, source: Source) -> None:
    one, other = two
    await one.space.upload("/home/ada/f", b"old")
    document = transfer_xml("/home/ada/f", "pullToVoSpace", "httpget", endpoint=source.url)
    job = await start(one.space, document)
    await source.half_sent.wait()
    assert (await other.space.get(f"{job}/phase")).text == "EXECUTING"

    await one.kill()
    source.go_on.set()
    ended = await end_of(other.space, job)

    assert ended.xml.findtext(f"{UWS}phase") == "COMPLETED", ended.text
    assert (await other.space.get("/files/home/ada/f")).body == source.data
    assert source.asked == 2


async def test_a_copy_whose_process_is_killed_is_made_whole_by_the_other(two: Any) -> None:
    one, other = two
    await one.space.mkdir("/home/ada/d")
    for number in range(1500):
        one.space.write(f"/home/ada/d/{number}", str(number).encode() * 50)
    job = await start(one.space, transfer_xml("/home/ada/d", "vos://astrocloud.local~vospace/home/ada/copy", keep=True))

    async def some_copied() -> bool:
        return any(p.is_dir() and len(os.listdir(p)) > 5 for p in one.space.posix("/home/ada").glob(".copy.astro*"))

    await until("some of the copy", some_copied)
    await one.kill()
    assert not one.space.posix("/home/ada/copy").exists()
    ended = await end_of(other.space, job)

    assert ended.xml.findtext(f"{UWS}phase") == "COMPLETED", ended.text
    copied = one.space.posix("/home/ada/copy")
    assert {p.name: p.read_bytes() for p in copied.iterdir()} == {
        str(number): str(number).encode() * 50 for number in range(1500)
    }
    assert copied.stat().st_uid == 20001


async def test_an_upload_whose_process_is_killed_goes_on_at_the_other(two: Any) -> None:
    one, other = two
    data = os.urandom(6_000_000)
    path = (await begin(one.space, "/home/ada/big", len(data))).headers["Location"].removeprefix(one.space.base)
    sending = asyncio.Event()

    async def half() -> AsyncIterator[bytes]:
        yield data[:4_000_000]
        await sending.wait()

    class Half(aiohttp.payload.AsyncIterablePayload):
        pass

    patch = asyncio.create_task(go_on(one.space, path, 0, Half(half())))  # type: ignore[arg-type]

    async def arrived() -> bool:
        return any(p.stat().st_size >= 2_000_000 for p in one.space.posix("/home/ada").glob(".big*"))

    await until("some of the bytes", arrived)
    await one.kill()
    with pytest.raises(aiohttp.ClientError):
        await patch
    offset = await offset_of(other.space, path)
    assert 2_000_000 <= offset <= 4_000_000
    assert (await go_on(other.space, path, offset, data[offset:])).status == 204

    answer = await other.space.get("/files/home/ada/big")
    assert hashlib.sha256(answer.body).digest() == hashlib.sha256(data).digest()
    assert hidden(other.space) == []


async def test_a_job_is_ended_by_whichever_process_is_asked(two: Any, source: Source) -> None:
    one, other = two
    document = transfer_xml("/home/ada/f", "pullToVoSpace", "httpget", endpoint=source.url)
    job = await start(one.space, document)
    await source.half_sent.wait()

    answer = await other.space("POST", f"{job}/phase", data={"PHASE": "ABORT"})
    assert answer.status == 303
    # Nothing more is done for it, though its source goes on.
    source.go_on.set()

    assert (await one.space.get(f"{job}/phase")).text == "ABORTED"

    async def gone() -> bool:
        return hidden(one.space) == []

    await until("nothing of it left", gone)
    assert not one.space.posix("/home/ada/f").exists()
    await other.space("DELETE", job)
    assert (await one.space.get(job)).status == 404


async def test_who_waits_elsewhere_is_told_when_the_phase_changes(two: Any, source: Source) -> None:
    one, other = two
    document = transfer_xml("/home/ada/f", "pullToVoSpace", "httpget", endpoint=source.url)
    job = await start(one.space, document)
    await source.half_sent.wait()
    waiting = asyncio.create_task(other.space.get(f"{job}?WAIT=40&PHASE=EXECUTING"))
    source.go_on.set()

    async with asyncio.timeout(20):
        answer = await waiting

    assert answer.xml.findtext(f"{UWS}phase") == "COMPLETED"


async def test_a_process_that_ends_in_order_leaves_its_jobs_to_others_at_once(two: Any, source: Source) -> None:
    one, other = two
    document = transfer_xml("/home/ada/f", "pullToVoSpace", "httpget", endpoint=source.url)
    job = await start(one.space, document)
    await source.half_sent.wait()
    one.process.terminate()
    await one.process.wait()
    source.go_on.set()

    ended = await end_of(other.space, job)

    assert ended.xml.findtext(f"{UWS}phase") == "COMPLETED", ended.text
    assert (await other.space.get("/files/home/ada/f")).body == source.data


async def test_told_to_end_it_goes_on_with_what_is_under_way(tmp_path: Path, database: str, source: Source) -> None:
    data = os.urandom(40_000_000)
    async with replicas(tmp_path, database, drain_s=60) as (one, other):
        assert (await one.space.mkdir("/home/ada/d")).status == 201
        one.space.write("/home/ada/large", data)
        job = await start(one.space, transfer_xml("/home/ada/f", "pullToVoSpace", "httpget", endpoint=source.url))
        await source.half_sent.wait()
        sending = asyncio.Event()

        async def pieces() -> AsyncIterator[bytes]:
            yield data[:1_000_000]
            await sending.wait()
            yield data[1_000_000:2_000_000]

        upload = asyncio.create_task(one.space.put("/files/home/ada/sent", pieces()))

        async def arriving() -> bool:
            return any(one.space.posix("/home/ada").glob(".sent*"))

        await until("the upload has begun", arriving)
        headers = {"Authorization": "Bearer ada"}
        async with one.space.session.get(f"{one.space.base}/files/home/ada/large", headers=headers) as download:
            read = await download.content.readexactly(100_000)
            one.process.terminate()

            async def refuses() -> bool:
                with suppress(aiohttp.ClientConnectorError):
                    async with aiohttp.ClientSession() as session, session.get(one.space.url):
                        return False
                return True

            await until("nobody new is let in", refuses)
            assert one.process.returncode is None
            source.go_on.set()
            sending.set()
            read += await download.read()
        assert read == data
        assert (await upload).status == 201
        ended = await end_of(other.space, job)
        async with asyncio.timeout(30):
            await one.process.wait()

        assert ended.xml.findtext(f"{UWS}phase") == "COMPLETED", ended.text
        assert source.asked == 1  # it was not begun again elsewhere
        assert (await other.space.get("/files/home/ada/f")).body == source.data
        assert (await other.space.get("/files/home/ada/sent")).body == data[:2_000_000]


async def test_deleting_goes_on_with_what_is_left(two: Any) -> None:
    one, other = two
    await one.space.mkdir("/home/ada/d")
    for number in range(3000):
        one.space.write(f"/home/ada/d/{number}", b"")
    answer = await one.space(
        "POST", "/async-delete?PHASE=RUN", data={"target": "vos://astrocloud.local~vospace/home/ada/d"}
    )
    job = "/async-delete/" + answer.headers["Location"].rsplit("/", 1)[1]

    async def begun() -> bool:
        return len(os.listdir(one.space.posix("/home/ada/d"))) < 2990

    await until("some removed", begun)
    await one.kill()
    ended = await end_of(other.space, job)

    assert ended.xml.findtext(f"{UWS}phase") == "COMPLETED", ended.text
    assert "errorcount" not in counts(ended)
    assert not one.space.posix("/home/ada/d").exists()


async def begun(space: Space, *paths: str) -> str:
    """Begin to copy `paths` in My files, and return where it is told of."""
    wish = {"do": "copy", "paths": paths, "target": "/home/ada", "conflict": "keep"}
    headers = {"Content-Type": "application/json"}
    answer = await space("POST", "/api/work", data=json.dumps(wish).encode(), headers=headers)
    assert answer.status == 201, answer.text
    return f"/api/work/{json.loads(answer.body)['id']}"


async def test_how_quick_work_of_my_files_ended_is_told_by_both(two: Any) -> None:
    one, other = two
    await one.space.mkdir("/home/ada/d")
    one.space.write("/home/ada/d/f", b"x")
    work = await begun(one.space, "/home/ada/d", "/home/ada/none")

    async def done(space: Space) -> Any:
        found = json.loads((await space.get(work)).body)
        return found if found["phase"] == "done" else None

    told = await until("the end", lambda: done(one.space))
    assert await done(other.space) == told
    assert (told["total_files"], told["done"], told["failed"]) == (2, 1, 1)  # a folder and a file
    assert [problem["path"] for problem in told["problems"]] == ["/home/ada/none"]


async def test_work_of_my_files_is_told_by_both_and_ends_with_the_reason_when_its_process_does(two: Any) -> None:
    one, other = two
    await one.space.mkdir("/home/ada/d")
    for number in range(20_000):  # so many that they are not copied before it is told
        one.space.write(f"/home/ada/d/{number}", b"x")
    work = await begun(one.space, "/home/ada/d")

    async def told() -> Any:
        found = json.loads((await other.space.get(work)).body)
        return found.get("total_files")

    assert await until("how far it is, at the other", told) > 1000
    language = "en"
    await one.kill()

    async def failed() -> Any:
        found = json.loads((await other.space.get(work, headers={"Accept-Language": language})).body)
        return found if found["phase"] == "failed" else None

    assert "The service ended" in (await until("the end", failed))["error"]
    language = "zh"
    assert "服务在此期间中断" in (await failed())["error"]


async def test_what_a_page_picked_at_one_is_the_same_at_the_other(two: Any) -> None:
    one, other = two
    await one.space.mkdir("/home/ada/d")
    for number in range(20):
        one.space.write(f"/home/ada/d/{number}", b"x" * (100 - number))
    headers = {"Content-Type": "application/json"}

    async def trashed(view: str, picks: list[int]) -> Any:
        wish = json.dumps({"do": "trash", "view": view, "picks": picks}).encode()
        return await other.space("POST", "/api/work", data=wish, headers=headers)

    query = "/api/list?path=/home/ada/d&sort=size&first=0&count=50"
    listed = json.loads((await one.space.get(query)).body)
    assert [entry["name"] for entry in listed["entries"]][:2] == ["19", "18"]
    window = json.loads((await other.space.get(f"{query}&view={listed['view']}")).body)
    assert (window["view"], window["stale"]) == (listed["view"], False)

    assert (await trashed(listed["view"], [0, 2])).status == 201
    left = {str(number) for number in range(20)} - {"19", "17"}
    assert {path.name for path in one.space.posix("/home/ada/d").iterdir()} == left

    # With other names in it positions mean nothing where the view is not kept.
    listed = json.loads((await one.space.get(query)).body)
    one.space.write("/home/ada/d/new", b"")
    assert (await trashed(listed["view"], [0])).status == 409
    # Nor do views that somebody made up.
    for view in (".", "x.eJw", f"x.{'A' * 3000}", listed["view"][:-4] + "AAAA"):
        assert (await trashed(view, [0])).status == 409
    assert {path.name for path in one.space.posix("/home/ada/d").iterdir()} == left | {"new"}


# The list itself, without a service.


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JobStore]:
    engine = open_database(sqlite_url(tmp_path))
    upgrade_database(engine)
    yield JobStore(engine)
    engine.dispose()


@asynccontextmanager
async def kept(*lists: Jobs) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(jobs.keep()) for jobs in lists]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_jobs_of_one_that_lives_are_left_alone(store: JobStore) -> None:
    go_on = asyncio.Event()
    begun = 0

    async def work(_job: Job, _turn: Turn) -> list[Result]:
        nonlocal begun
        begun += 1
        await go_on.wait()
        return []

    lists = [Jobs(store=store, name="test", work=work, again=True, beat_s=0.05, lost_s=0.5) for _ in range(2)]
    looks = 0
    seen = store.besides

    def counted(*given: Any) -> Any:
        nonlocal looks
        looks += 1
        return seen(*given)

    store.besides = counted  # type: ignore[method-assign]
    async with kept(*lists):
        job = await lists[0].run(await lists[0].create(owner="ada", parameters={}))

        async def looked() -> bool:
            return looks > 40  # twice as long as a lost one is given

        await until("many looks", looked)
        assert begun == 1
        go_on.set()
        job = await lists[1].wait(await lists[1].get(job.id, "ada"), seconds=20)
    assert job.phase == "COMPLETED"


@pytest.mark.parametrize("when", ["while it ran", "at its end"])
async def test_a_job_that_met_no_database_is_begun_again(store: JobStore, when: str) -> None:
    begun = 0
    advance = store.advance

    def away(job: Job, **given: Any) -> bool:
        if begun == 1 and job.phase == "COMPLETED":
            raise OperationalError("", {}, Exception("the database is away"))
        return advance(job, **given)

    async def work(_job: Job, _turn: Turn) -> list[Result]:
        nonlocal begun
        begun += 1
        if begun == 1 and when == "while it ran":
            raise OperationalError("", {}, Exception("the database is away"))
        return [Result("attempt", str(begun))]

    store.advance = away  # type: ignore[method-assign]
    jobs = Jobs(store=store, name="test", work=work, again=True, beat_s=0.05, lost_s=0.3)
    async with kept(jobs):
        job = await jobs.run(await jobs.create(owner="ada", parameters={}))

        async def completed() -> bool:
            return (await jobs.get(job.id, "ada")).phase == "COMPLETED"

        await until("its end", completed)
    assert [result.href for result in (await jobs.get(job.id, "ada")).results] == ["2"]


async def test_a_job_that_ends_every_process_is_given_up(store: JobStore) -> None:
    turns: list[bool] = []

    async def work(_job: Job, turn: Turn) -> list[Result]:
        turns.append(turn.first)
        await asyncio.Event().wait()
        return []

    def process() -> Jobs:
        return Jobs(store=store, name="test", work=work, again=True, beat_s=0.05, lost_s=1)

    first = process()
    job = await first.run(await first.create(owner="ada", parameters={}))
    for number in range(MOST_ATTEMPTS):

        async def begun(number: int = number) -> bool:
            return len(turns) > number

        async with kept(first):
            await until("an attempt", begun)
        first = process()
    async with kept(first):
        job = await first.wait(await first.get(job.id, "ada"), seconds=20, phase="EXECUTING")
        job = await first.wait(job, seconds=20)
    assert job.phase == "ERROR"
    assert job.error is not None
    assert job.error.transient
    assert turns == [True] + [False] * (MOST_ATTEMPTS - 1)


async def test_one_whose_job_was_taken_can_make_nothing_appear_any_more(store: JobStore) -> None:
    refused = asyncio.Event()
    stalled = asyncio.Event()

    async def stalls(_job: Job, turn: Turn) -> list[Result]:
        await stalled.wait()
        try:
            await asyncio.to_thread(turn.keep, "it appears")
        except Taken:
            refused.set()
            raise
        return []

    async def works(_job: Job, turn: Turn) -> list[Result]:
        assert turn.mark is None
        await asyncio.to_thread(turn.keep, "mine")
        return [Result("by", "the other")]

    # The first never beats: it hangs.
    first = Jobs(store=store, name="test", work=stalls, again=True)
    other = Jobs(store=store, name="test", work=works, again=True, beat_s=0.05, lost_s=0.3)
    job = await first.run(await first.create(owner="ada", parameters={}))
    job = await first.wait(job, seconds=10)
    async with kept(other):
        job = await other.wait(job, seconds=20, phase="EXECUTING")
        if job.phase != "COMPLETED":
            job = await other.wait(job, seconds=20)
            job = await other.wait(job, seconds=20)
    stalled.set()
    async with asyncio.timeout(10):
        await refused.wait()
    assert [result.href for result in (await other.get(job.id, "ada")).results] == ["the other"]
