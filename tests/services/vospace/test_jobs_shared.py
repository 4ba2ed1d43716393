"""Jobs of many people on one service: each has a share, and nobody's keep the others or the requests waiting."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from astrocloud.core.database import open_database, sqlite_url, upgrade_database
from astrocloud.core.places import Places
from astrocloud.core.uws.jobs import Jobs, Turn
from astrocloud.core.uws.models import Job, Result
from astrocloud.core.uws.store import JobStore
from tests.services.vospace.platform import CORE, Space, node_xml, running, uri
from tests.services.vospace.test_transfers import UWS, endpoints, job, transfer_xml


@asynccontextmanager
async def silent() -> AsyncIterator[str]:
    """A server that takes a connection and says nothing; its address."""
    end = asyncio.Event()

    async def wait(_request: web.Request) -> web.Response:
        await end.wait()
        return web.Response()

    app = web.Application()
    app.router.add_get("/", wait)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}/"  # type: ignore[union-attr,attr-defined]
    finally:
        end.set()
        await runner.cleanup()


async def begin(space: Space, document: str) -> str:
    url = (await space("POST", "/transfers", data=document)).headers["Location"]
    await space("POST", f"{url}/phase", data={"PHASE": "RUN"})
    return url


async def test_one_persons_transfers_keep_nobody_else_waiting(tmp_path: Path) -> None:
    config = {"vospace": {"transfer_networks": ["127.0.0.1/32"]}}
    async with silent() as address, running(tmp_path / "data", config) as space:
        await space.node("/home/ada")
        await space.as_("bob").upload("/home/bob/f", b"hello")
        slow = transfer_xml("/home/ada/new", "pullToVoSpace", "httpget", endpoint=address)
        urls = [await begin(space, slow) for _ in range(6)]
        phases = [(await space.get(f"{url}/phase")).text for url in urls]
        assert set(phases) == {"EXECUTING", "QUEUED"}
        bob = space.as_("bob")
        _url, ended = await job(bob, transfer_xml("/home/bob/f", uri("/home/bob/g"), keep=True))
        assert ended.xml.findtext(f"{UWS}phase") == "COMPLETED"
        for url in reversed(urls):
            await space("POST", f"{url}/phase", data={"PHASE": "ABORT"})
        # All places are free again.
        _url, ended = await job(space, transfer_xml("/home/ada/none", uri("/home/ada/g"), keep=True))
        assert ended.xml.findtext(f"{UWS}phase") == "ERROR"


async def test_places_are_shared() -> None:
    places = Places(at_once=3, each=2)
    inside: list[str] = []
    go_on = asyncio.Event()

    async def stay(who: str) -> None:
        async with places.taken_by(who):
            inside.append(who)
            await go_on.wait()

    tasks = [asyncio.create_task(stay(who)) for who in ("ada", "ada", "ada", "bob", "bob")]
    for _ in range(20):
        await asyncio.sleep(0)
    assert inside == ["ada", "ada", "bob"]
    go_on.set()
    await asyncio.gather(*tasks)
    assert sorted(inside) == ["ada", "ada", "ada", "bob", "bob"]


async def test_only_the_newest_jobs_of_an_owner_are_kept(tmp_path: Path) -> None:
    go_on = asyncio.Event()

    async def work(_job: Job, _turn: Turn) -> list[Result]:
        await go_on.wait()
        return []

    engine = open_database(sqlite_url(tmp_path))
    upgrade_database(engine)
    jobs = Jobs(store=JobStore(engine), name="test/kept", work=work, kept=3)
    theirs = await jobs.create(owner="ada", parameters={})
    runs = await jobs.run(await jobs.create(owner=None, parameters={}))
    made = [await jobs.create(owner=None, parameters={}) for _ in range(6)]

    async def is_there(job_: Job) -> bool:
        return await asyncio.to_thread(JobStore(engine).get, jobs.name, job_.id) is not None

    assert [await is_there(each) for each in made] == [False] * 3 + [True] * 3
    assert await is_there(theirs)
    assert await is_there(runs)
    go_on.set()
    assert (await jobs.wait(await jobs.get(runs.id, None), seconds=10)).phase in {"EXECUTING", "COMPLETED"}
    await jobs.destroy(runs)
    engine.dispose()


async def test_a_long_duration_is_what_can_be_kept(space: Space) -> None:
    document = transfer_xml("/home/ada/f", "pullFromVoSpace", "httpget")
    url = (await space("POST", "/transfers", data=document)).headers["Location"]
    await space("POST", f"{url}/executionduration", data={"EXECUTIONDURATION": "999999999999"})
    told = int((await space.get(f"{url}/executionduration")).text)
    assert 86400 < told < 2**31
    await space("POST", f"{url}/executionduration", data={"EXECUTIONDURATION": "60"})
    assert (await space.get(f"{url}/executionduration")).text == "60"


async def test_a_large_transfer_document_is_not_kept(space: Space) -> None:
    document = transfer_xml("/home/ada/f", "pullFromVoSpace", *["httpget"] * 2000)
    for path in ("/transfers", "/synctrans"):
        answer = await space("POST", path, data=document, headers={"Content-Type": "text/xml"})
        assert (answer.status, answer.fault) == (413, "RequestEntityTooLarge")


async def test_nobody_in_particular_does_not_send_to_others(space: Space) -> None:
    await space.mkdir("/home/ada/open")
    await space.upload("/home/ada/open/f", b"hello")
    await space.set("/home/ada/open", {"ispublic": "true"})
    await space.set("/home/ada/open/f", {"ispublic": "true"})
    nobody = space.as_(None)
    document = transfer_xml("/home/ada/open/f", "pushFromVoSpace", "httpput", endpoint="http://example.org/")
    url, _ended = await job(nobody, document)
    assert (await nobody.get(f"{url}/error")).text == "PermissionDenied"
    _url, ended = await job(nobody, transfer_xml("/home/ada/open/f", "pullFromVoSpace", "httpget"))
    assert ended.xml.findtext(f"{UWS}phase") == "COMPLETED"


async def test_a_token_that_may_only_read_runs_what_only_reads(space: Space) -> None:
    await space.upload("/home/ada/f", b"hello")
    reader = Space(**{**vars(space), "tokens": {"ada": "ada.read"}})
    url, ended = await job(reader, transfer_xml("/home/ada/f", "pullFromVoSpace", "httpget"))
    assert ended.xml.findtext(f"{UWS}phase") == "COMPLETED"
    details = await reader.get(f"{url}/results/transferDetails")
    assert (await space.as_(None).get(endpoints(details)[0])).body == b"hello"
    assert (await reader("DELETE", url)).status == 303
    document = transfer_xml("/home/ada/f", uri("/home/ada/g"), keep=True)
    assert (await reader("POST", "/transfers", data=document)).status == 403
    url = (await space("POST", "/transfers", data=document)).headers["Location"]
    assert (await reader("POST", f"{url}/phase", data={"PHASE": "RUN"})).status == 403
    assert (await reader("DELETE", url)).status == 403
    assert (await space.get(f"{url}/phase")).text == "PENDING"


@pytest.mark.parametrize("encoding", ["utf-8", "iso-8859-1", "utf-16"])
async def test_properties_of_many_are_set_in_any_encoding(space: Space, encoding: str) -> None:
    await space.mkdir("/home/ada/d")
    text = node_xml("/home/ada/d", "ContainerNode", {"title": "Größe"})
    document = f'<?xml version="1.0" encoding="{encoding}"?>{text}'.encode(encoding)
    _url, ended = await job(space, document, "/async-setprops")  # type: ignore[arg-type]
    assert ended.xml.findtext(f"{UWS}phase") == "COMPLETED"
    assert (await space.node("/home/ada/d")).properties[f"{CORE}title"] == "Größe"


async def test_jobs_that_last_keep_no_request_waiting(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    await space.mkdir("/home/ada/d")
    for number in range(20):
        await space.upload(f"/home/ada/d/{number}", b"x")
    reached, go_on = threading.Semaphore(0), threading.Event()
    real = os.copy_file_range

    def slow(source: int, target: int, count: int) -> int:
        reached.release()
        assert go_on.wait(30)
        return real(source, target, count)

    monkeypatch.setattr(os, "copy_file_range", slow)
    url = await begin(space, transfer_xml("/home/ada/d", uri("/home/ada/copy"), keep=True))
    assert await asyncio.to_thread(reached.acquire, timeout=30)
    names = {thread.name for thread in threading.enumerate() if thread.name.startswith("vospace-job")}
    assert names
    ending = asyncio.create_task(space("POST", f"{url}/phase", data={"PHASE": "ABORT"}))
    async with asyncio.timeout(30):
        while (await space.get(f"{url}/phase")).text != "ABORTED":
            await asyncio.sleep(0.01)
    go_on.set()
    await ending
    # Who ended it is told so when nothing more happens.
    assert (await space.node("/home/ada")).names == ["d"]
    assert [name for name in os.listdir(space.posix("/home/ada")) if "copy" in name] == []
