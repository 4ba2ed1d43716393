"""Transfers: negotiated, by the service itself, moves and copies; and the jobs that they are (UWS 1.1)."""

import asyncio
import hashlib
import os
from typing import Any

import pytest
from aiohttp import web

from tests.services.vospace.platform import CORE, TEAM, Answer, Space, node_xml, running, uri

UWS = "{http://www.ivoa.net/xml/UWS/v1.0}"
XLINK = "{http://www.w3.org/1999/xlink}"
TOKEN_METHOD = "vos://cadc.nrc.ca~vospace/CADC/std/Auth#token-1.0"


def transfer_xml(
    target: str,
    direction: str,
    *protocols: str,
    view: str | None = None,
    keep: bool | None = None,
    endpoint: str | None = None,
    method: str | None = None,
) -> str:
    view_xml = f'<vos:view uri="{view}"/>' if view else ""
    inside = f"<vos:endpoint>{endpoint}</vos:endpoint>" if endpoint else ""
    inside += f'<vos:securityMethod uri="{method}"/>' if method else ""
    protocol_xml = "".join(f'<vos:protocol uri="{CORE}{name}">{inside}</vos:protocol>' for name in protocols)
    keep_xml = "" if keep is None else f"<vos:keepBytes>{str(keep).lower()}</vos:keepBytes>"
    return (
        '<vos:transfer xmlns:vos="http://www.ivoa.net/xml/VOSpace/v2.0" version="2.1">'
        f"<vos:target>{uri(target)}</vos:target><vos:direction>{direction}</vos:direction>"
        f"{view_xml}{protocol_xml}{keep_xml}</vos:transfer>"
    )


def endpoints(answer: Answer) -> list[str]:
    return [e.text or "" for e in answer.xml.findall("{*}protocol/{*}endpoint")]


async def sync(space: Space, document: str) -> tuple[str, Answer]:
    """Negotiate; return the job's address and the transfer that came back."""
    answer = await space("POST", "/synctrans", data=document, headers={"Content-Type": "text/xml"})
    assert answer.status == 303
    location = answer.headers["Location"]
    return location.removesuffix("/results/transferDetails"), await space.get(location)


async def job(space: Space, document: str, path: str = "/transfers") -> tuple[str, Answer]:
    """Run a job to its end; return its address and its document."""
    answer = await space("POST", path, data=document, headers={"Content-Type": "text/xml"})
    assert answer.status == 303
    url = answer.headers["Location"]
    assert (await space.get(f"{url}/phase")).text == "PENDING"
    answer = await space("POST", f"{url}/phase", data={"PHASE": "RUN"})
    assert (answer.status, answer.headers["Location"]) == (303, url)
    async with asyncio.timeout(20):
        while True:
            answer = await space.get(f"{url}?WAIT=5")
            if answer.xml.findtext(f"{UWS}phase") not in {"QUEUED", "EXECUTING"}:
                return url, answer


async def test_pull_from_gives_an_address_that_works_without_a_login(space: Space) -> None:
    await space.upload("/home/ada/a%20b.fits", b"hello")
    url, details = await sync(space, transfer_xml("/home/ada/a%20b.fits", "pullFromVoSpace", "httpsget", "httpget"))
    assert (await space.get(f"{url}/phase")).text == "COMPLETED"
    assert len(endpoints(details)) == 2
    nobody = space.as_(None)
    for address in endpoints(details):
        assert (await nobody.get(address)).body == b"hello"
        assert (await nobody("HEAD", address)).status == 200
        for method in ("PUT", "DELETE"):
            assert (await nobody(method, address)).status == 403
        assert (await nobody.get(address.replace("a%20b.fits", "other"))).status == 403


async def test_push_to_gives_an_address_to_put_to(space: Space) -> None:
    _url, details = await sync(space, transfer_xml("/home/ada/new", "pushToVoSpace", "httpsput"))
    [address] = endpoints(details)
    nobody = space.as_(None)
    assert (await nobody.get(address)).status == 403
    assert (await nobody.put(address, b"hello")).status == 201
    assert space.posix("/home/ada/new").read_bytes() == b"hello"
    assert space.posix("/home/ada/new").stat().st_uid == 20001


async def test_security_method_is_told_if_and_only_if_it_was_asked_for(space: Space) -> None:
    await space.upload("/home/ada/f", b"hello")
    document = transfer_xml("/home/ada/f", "pullFromVoSpace", "httpsget", method=TOKEN_METHOD)
    _url, details = await sync(space, document)
    [address] = endpoints(details)
    assert details.xml.find("{*}protocol/{*}securityMethod").get("uri") == TOKEN_METHOD
    assert (await space.as_(None).get(address)).status == 403
    assert (await space.get(address)).body == b"hello"
    _url, details = await sync(space, transfer_xml("/home/ada/f", "pullFromVoSpace", "httpsget"))
    assert details.xml.find("{*}protocol/{*}securityMethod") is None


async def test_preauthorised_address_runs_out(tmp_path) -> None:
    async with running(tmp_path / "data") as space:
        await space.upload("/home/ada/f", b"hello")
        _url, details = await sync(space, transfer_xml("/home/ada/f", "pullFromVoSpace", "httpget"))
        [address] = endpoints(details)
        from unittest.mock import patch

        import astrocloud.vospace.preauth as preauth

        now = preauth.time.time()
        with patch.object(preauth.time, "time", return_value=now + 3600):
            answer = await space.as_(None).get(address)
        assert (answer.status, answer.fault) == (403, "PermissionDenied")
        forged = address.replace("preauth:", "preauth:x")
        assert (await space.as_(None).get(forged)).status == 403


@pytest.mark.parametrize(
    ("document", "fault"),
    [
        (transfer_xml("/home/ada/none", "pullFromVoSpace", "httpget"), "NodeNotFound"),
        (transfer_xml("/home/bob/x", "pullFromVoSpace", "httpget"), "PermissionDenied"),
        (transfer_xml("/home/ada/no/x", "pushToVoSpace", "httpput"), "ContainerNotFound"),
        (transfer_xml("/home/ada/f", "pullFromVoSpace", "ftpget"), "ProtocolNotSupported"),
        (transfer_xml("/home/ada/f", "pullFromVoSpace", "httpput"), "ProtocolNotSupported"),
        (transfer_xml("/home/ada/f", "pullFromVoSpace", "httpget", view=f"{CORE}odd"), "ViewNotSupported"),
        (transfer_xml("/home/ada", "pullFromVoSpace", "httpget"), "ViewNotSupported"),
        (transfer_xml("/home/ada/f", "pullToVoSpace", "httpget"), "OperationNotSupported"),
    ],
)
async def test_sync_error_is_a_transfer_without_protocols_and_a_fault_name(
    space: Space, document: str, fault: str
) -> None:
    await space.upload("/home/ada/f", b"hello")
    url, details = await sync(space, document)
    assert details.status == 200
    assert details.xml.find("{*}protocol") is None
    assert (await space.get(f"{url}/phase")).text == "ERROR"
    assert (await space.get(f"{url}/error")).text == fault


async def test_parameters_give_the_document_or_the_bytes(space: Space) -> None:
    await space.upload("/home/ada/f", b"hello")
    query = f"?TARGET={uri('/home/ada/f')}&DIRECTION=pullFromVoSpace&PROTOCOL={CORE.replace('#', '%23')}httpget"
    answer = await space.get(f"/synctrans{query}")
    assert (answer.status, len(endpoints(answer))) == (200, 1)
    answer = await space.get(f"/synctrans{query}&REQUEST=redirect")
    assert answer.status == 303
    assert (await space.as_(None).get(answer.headers["Location"])).body == b"hello"
    form = {"TARGET": uri("/home/ada/none"), "DIRECTION": "pullFromVoSpace"}
    answer = await space("POST", "/synctrans", data=form)
    assert (answer.status, answer.fault) == (404, "NodeNotFound")
    answer = await space("POST", "/synctrans", data={"TARGET": uri("/home/ada/f"), "DIRECTION": "sideways"})
    assert (answer.status, answer.fault) == (400, "InvalidArgument")


async def test_archive_view_of_a_folder_has_an_address(space: Space) -> None:
    await space.mkdir("/home/ada/d")
    await space.upload("/home/ada/d/f", b"hello")
    view = "ivo://astrocloud/vospace/views#zip"
    _url, details = await sync(space, transfer_xml("/home/ada/d", "pullFromVoSpace", "httpget", view=view))
    answer = await space.as_(None).get(endpoints(details)[0])
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/zip")


async def test_async_negotiation_is_a_job(space: Space) -> None:
    await space.upload("/home/ada/f", b"hello")
    url, document = await job(space, transfer_xml("/home/ada/f", "pullFromVoSpace", "httpget"))
    assert document.xml.findtext(f"{UWS}phase") == "COMPLETED"
    [result] = document.xml.findall(f"{UWS}results/{UWS}result")
    assert result.get(f"{XLINK}href") == f"{url}/results/transferDetails"
    details = await space.get(f"{url}/results/transferDetails")
    assert (await space.as_(None).get(endpoints(details)[0])).body == b"hello"


async def test_move_and_copy(space: Space) -> None:
    await space.upload("/home/ada/f", b"hello")
    await space.set("/home/ada/f", {"title": "t"})
    await space.mkdir("/home/ada/d")
    _url, document = await job(space, transfer_xml("/home/ada/f", uri("/home/ada/g"), keep=False))
    assert document.xml.findtext(f"{UWS}phase") == "COMPLETED"
    assert (await space.node("/home/ada/f")).status == 404
    assert space.posix("/home/ada/g").read_bytes() == b"hello"
    # Into an existing folder.
    await job(space, transfer_xml("/home/ada/g", uri("/home/ada/d"), keep=True))
    properties = (await space.node("/home/ada/d/g")).properties
    assert properties[f"{CORE}title"] == "t"
    assert properties[f"{CORE}MD5"] == hashlib.md5(b"hello").hexdigest()
    assert space.posix("/home/ada/g").exists()
    await job(space, transfer_xml("/home/ada/d", uri("/home/ada/e"), keep=True))
    assert (await space.node("/home/ada/e")).names == ["g"]
    status = space.posix("/home/ada/e/g").stat()
    assert (status.st_uid, status.st_mode & 0o777) == (20001, 0o600)


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize(
    ("source", "target", "fault"),
    [
        ("/home/ada/none", "/home/ada/x", "NodeNotFound"),
        ("/home/ada/f", "/home/ada/no/x", "ContainerNotFound"),
        ("/home/ada/f", "/home/ada/g", "DuplicateNode"),
        ("/home/ada/d", "/home/ada/d/inner", "InvalidArgument"),
        ("/home/ada/f", "/home/bob/x", "PermissionDenied"),
        ("/home/bob/x", "/home/ada/x", "PermissionDenied"),
        ("/home/ada/f", "/archive/x", "PermissionDenied"),
        ("/home/ada/link/f", "/home/ada/x", "LinkFound"),
    ],
)
async def test_move_and_copy_that_cannot_be(space: Space, keep: bool, source: str, target: str, fault: str) -> None:
    await space.upload("/home/ada/f", b"hello")
    await space.upload("/home/ada/g", b"other")
    await space.mkdir("/home/ada/d")
    await space.mkdir("/home/ada/d/inner")
    space.posix("/home/ada/link").symlink_to("d")
    before = sorted(str(path) for path in space.root.rglob("*"))
    url, document = await job(space, transfer_xml(source, uri(target), keep=keep))
    assert document.xml.findtext(f"{UWS}phase") == "ERROR"
    assert (await space.get(f"{url}/error")).text == fault
    assert document.xml.findtext(f"{UWS}errorSummary/{UWS}message").startswith(fault)
    assert sorted(str(path) for path in space.root.rglob("*")) == before
    assert space.posix("/home/ada/g").read_bytes() == b"other"


async def test_move_between_quotas_is_counted(tmp_path) -> None:
    limits = {"vospace": {"home_quota_bytes": 1000, "project_quota_bytes": 500}}
    async with running(tmp_path / "data", limits) as space:
        await space.mkdir("/home/ada/d")
        await space.upload("/home/ada/d/f", b"x" * 400)
        await space.upload("/home/ada/d/g", b"x" * 200)
        url, _document = await job(space, transfer_xml("/home/ada/d", uri("/project/team"), keep=False))
        assert (await space.get(f"{url}/error")).text == "QuotaExceeded"
        await job(space, transfer_xml("/home/ada/d/f", uri("/project/team"), keep=False))
        assert (await space.node("/project/team")).properties[f"{CORE}availableSpace"] == "100"
        assert (await space.node("/home/ada")).properties[f"{CORE}availableSpace"] == "800"
        assert space.posix("/project/team/f").stat().st_uid == 20001
        assert space.posix("/project/team").stat().st_gid == TEAM


async def test_job_is_its_owners_alone(space: Space) -> None:
    await space.upload("/home/ada/f", b"hello")
    url, _document = await job(space, transfer_xml("/home/ada/f", "pullFromVoSpace", "httpget"))
    for who in ("bob", None):
        for path in ("", "/phase", "/error", "/results/transferDetails", "/parameters", "/owner"):
            assert (await space.as_(who).get(url + path)).status == 404
        assert (await space.as_(who)("DELETE", url)).status == 404
        assert (await space.as_(who).get("/transfers")).xml.findall("{*}jobref") == []
    assert (await space.get(f"{url}/owner")).text == "ada"
    assert (await space.get(f"{url}/parameters")).xml.find("{*}parameter").get("id") == "TARGET"
    answer = await space("DELETE", url)
    assert answer.status == 303
    assert (await space.get(url)).status == 404


async def test_job_list_can_be_filtered(space: Space) -> None:
    await space.upload("/home/ada/f", b"hello")
    done, _document = await job(space, transfer_xml("/home/ada/f", "pullFromVoSpace", "httpget"))
    document = transfer_xml("/home/ada/f", "pullFromVoSpace", "httpget")
    waiting = (await space("POST", "/transfers", data=document)).headers["Location"]
    assert len((await space.get("/transfers")).xml) == 2
    refs = (await space.get("/transfers?PHASE=PENDING")).xml
    assert [ref.get(f"{XLINK}href") for ref in refs] == [waiting]
    refs = (await space.get("/transfers?LAST=1")).xml
    assert [ref.get(f"{XLINK}href") for ref in refs] == [waiting]
    assert len((await space.get("/transfers?AFTER=2100-01-01T00:00:00Z")).xml) == 0
    assert (await space.get("/transfers?AFTER=never")).status == 400
    assert (await space.get("/transfers?PHASE=ODD")).status == 400
    assert done != waiting


async def test_job_can_be_waited_for_aborted_and_dated(space: Space) -> None:
    document = transfer_xml("/home/ada/f", "pullFromVoSpace", "httpget")
    url = (await space("POST", "/transfers?RUNID=mine", data=document)).headers["Location"]
    answer = await space.get(url)
    assert answer.xml.findtext(f"{UWS}runId") == "mine"
    # It waits while the phase is PENDING, and tells at once that it is not.
    waiting = asyncio.create_task(space.get(f"{url}?WAIT=30"))
    await asyncio.sleep(0)
    await space("POST", f"{url}/phase", data={"PHASE": "ABORT"})
    assert (await waiting).xml.findtext(f"{UWS}phase") == "ABORTED"
    assert (await space.get(f"{url}?WAIT=30")).xml.findtext(f"{UWS}phase") == "ABORTED"
    await space("POST", f"{url}/destruction", data={"DESTRUCTION": "2100-01-01T00:00:00Z"})
    moment = (await space.get(f"{url}/destruction")).text
    assert moment < "2100"  # no later than is allowed
    assert (await space("POST", f"{url}/phase", data={"PHASE": "ODD"})).status == 400
    await space("POST", f"{url}/phase", data={"PHASE": "RUN"})
    assert (await space.get(f"{url}/phase")).text == "ABORTED"


async def test_pull_to_fetches_from_an_allowed_network_only(tmp_path) -> None:
    data = os.urandom(3_000_000)

    async def serve(_request: web.Request) -> web.Response:
        return web.Response(body=data)

    async def redirect(request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": request.query["to"]})

    received: dict[str, bytes] = {}

    async def take(request: web.Request) -> web.Response:
        received[request.path] = b"".join([chunk async for chunk in request.content.iter_any()])
        return web.Response(status=201)

    app = web.Application()
    app.router.add_get("/data", serve)
    app.router.add_get("/redirect", redirect)
    app.router.add_put("/take", take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]
    there = f"http://127.0.0.1:{port}"
    try:
        async with running(tmp_path / "closed") as space:
            await space.upload("/home/ada/f", b"hello")
            for address in (
                f"{there}/data",
                f"http://localhost:{port}/data",
                f"http://0x7f.1:{port}/data",
                f"http://[::ffff:127.0.0.1]:{port}/data",
                "http://169.254.169.254/latest/meta-data",
                "http://10.0.0.1/",
            ):
                document = transfer_xml("/home/ada/new", "pullToVoSpace", "httpget", endpoint=address)
                url, _document = await job(space, document)
                assert (await space.get(f"{url}/error")).text == "TransferFailed"
            for address in ("file:///etc/passwd", "http://user:secret@example.org/"):
                document = transfer_xml("/home/ada/new", "pullToVoSpace", "httpget", endpoint=address)
                url, _document = await job(space, document)
                assert (await space.get(f"{url}/error")).text == "InvalidArgument"
            assert not space.posix("/home/ada/new").exists()
        open_config = {"vospace": {"transfer_networks": ["127.0.0.0/8"]}}
        async with running(tmp_path / "open", open_config) as space:
            document = transfer_xml("/home/ada/new", "pullToVoSpace", "httpget", endpoint=f"{there}/data")
            _url, answer = await job(space, document)
            assert answer.xml.findtext(f"{UWS}phase") == "COMPLETED"
            assert space.posix("/home/ada/new").read_bytes() == data
            # A redirect is checked like the first address.
            address = f"{there}/redirect?to=http://169.254.169.254/"
            url, _document = await job(
                space, transfer_xml("/home/ada/new", "pullToVoSpace", "httpget", endpoint=address)
            )
            assert (await space.get(f"{url}/error")).text == "TransferFailed"
            assert space.posix("/home/ada/new").read_bytes() == data
            document = transfer_xml("/home/ada/new", "pushFromVoSpace", "httpput", endpoint=f"{there}/take")
            _url, answer = await job(space, document)
            assert answer.xml.findtext(f"{UWS}phase") == "COMPLETED"
            assert received == {"/take": data}
    finally:
        await runner.cleanup()


def counts(answer: Answer) -> dict[str, str]:
    return {
        result.get("id"): result.get(f"{XLINK}href").split(":")[1]
        for result in answer.xml.findall(f"{UWS}results/{UWS}result")
    }


async def test_recursive_delete_counts(space: Space) -> None:
    await space.mkdir("/project/team/d")
    await space.mkdir("/project/team/d/mine")
    await space.upload("/project/team/d/mine/f", b"x")
    await space.as_("bob").mkdir("/project/team/d/hers")
    await space.as_("bob").upload("/project/team/d/hers/f", b"x")
    space.posix("/project/team/d/hers").chmod(0o2750)
    answer = await space("POST", "/async-delete", data={"target": uri("/project/team/d")})
    assert answer.status == 303
    url = answer.headers["Location"]
    await space("POST", f"{url}/phase", data={"phase": "RUN"})
    answer = await space.get(f"{url}?WAIT=6")
    assert answer.xml.findtext(f"{UWS}phase") == "COMPLETED"
    assert counts(answer) == {"successcount": "2", "errorcount": "3"}
    assert (await space.node("/project/team/d")).names == ["hers"]


async def test_recursive_properties(space: Space) -> None:
    await space.mkdir("/home/ada/d")
    await space.upload("/home/ada/d/f", b"x")
    space.posix("/home/ada/d/link").symlink_to("f")
    document = node_xml("/home/ada/d", "ContainerNode", {"title": "all", "ispublic": "true"})
    _url, answer = await job(space, document, "/async-setprops")
    assert counts(answer) == {"successcount": "2"}
    for path in ("/home/ada/d", "/home/ada/d/f"):
        properties = (await space.node(path)).properties
        assert (properties[f"{CORE}title"], properties[f"{CORE}ispublic"]) == ("all", "true")


@pytest.mark.parametrize("path", ["/synctrans", "/async-delete"])
@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/x-www-form-urlencoded; charset=none", b"TARGET=x"),
        ("multipart/form-data; boundary=x", b"--x\r\nno header"),
        ("multipart/form-data", b"--x"),
    ],
)
async def test_damaged_form_is_refused_at_once(space: Space, path: str, kind: str, body: bytes) -> None:
    answer = await space("POST", path, data=body, headers={"Content-Type": kind})
    assert answer.status == 400


async def test_damaged_form_does_not_change_a_job(space: Space) -> None:
    document = transfer_xml("/home/ada/f", "pullFromVoSpace", "httpget")
    url = (await space("POST", "/transfers", data=document)).headers["Location"]
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    assert (await space("POST", f"{url}/phase", data=b"--x\r\nno header", headers=headers)).status == 400
    assert (await space.get(f"{url}/phase")).text == "PENDING"


@pytest.mark.parametrize("name", ["%EF%BF%BE", "%EF%BF%BF", "%00", "%1B", "%ED%A0%80", "%FF"])
async def test_job_named_with_what_xml_forbids_is_told_all_the_same(space: Space, name: str) -> None:
    document = transfer_xml("/home/ada/f", "pushToVoSpace", "httpput")
    answer = await space("POST", f"/transfers?RUNID=a{name}b", data=document, headers={"Content-Type": "text/xml"})
    url = answer.headers["Location"]
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    for _ in range(2):
        for address in (url, "/transfers"):
            (told,) = (each.text or "" for each in (await space.get(address)).xml.iter(f"{UWS}runId"))
            assert (told[0], told[-1]) == ("a", "b")
        assert (await space("POST", url, data=f"RUNID=a{name}b", headers=form)).status == 303


async def test_form_that_makes_a_job_can_have_it_run(space: Space) -> None:
    """UWS 1.1, section 2.2.3.1."""
    await space.mkdir("/home/ada/d")
    answer = await space("POST", "/async-delete", data={"target": uri("/home/ada/d"), "phase": "RUN"})
    answer = await space.get(answer.headers["Location"] + "?WAIT=20&PHASE=QUEUED")
    answer = await space.get(f"{answer.url.partition('?')[0]}?WAIT=20&PHASE=EXECUTING")
    assert answer.xml.findtext(f"{UWS}phase") == "COMPLETED"
    assert not space.posix("/home/ada/d").exists()


async def test_who_waits_in_vain_leaves_nothing_behind(space: Space) -> None:
    assert space.service is not None
    jobs = [getattr(each, "__self__", None) for each in space.service.background]
    transfers: Any = next(each for each in jobs if getattr(each, "name", "") == "vospace/transfers")
    document = transfer_xml("/home/ada/f", "pushToVoSpace", "httpput")
    for _ in range(3):
        answer = await space("POST", "/transfers", data=document, headers={"Content-Type": "text/xml"})
        url = answer.headers["Location"]
        assert (await space.get(f"{url}?WAIT=0")).xml.findtext(f"{UWS}phase") == "PENDING"
    assert not transfers._changed
    waiting = [asyncio.create_task(space.get(f"{url}?WAIT=30")) for _ in range(3)]
    async with asyncio.timeout(20):
        while transfers._waiting.total() < 3:
            await asyncio.sleep(0.01)
        assert (await space("POST", f"{url}/phase", data={"PHASE": "RUN"})).status == 303
        for each in waiting:
            assert (await each).xml.findtext(f"{UWS}phase") != "PENDING"
    assert not transfers._changed
