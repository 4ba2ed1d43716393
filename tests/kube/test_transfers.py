"""Files on their way while what carries them goes: VOSpace's replicas, told to or not, and the proxy."""

import asyncio
import base64
import hashlib
import io
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from tests.kube.cluster.layout import BRIDGE_ADDRESS
from tests.kube.conftest import say
from tests.kube.ground import Cluster
from tests.kube.installation import Installation, free_node_port, installed, until
from tests.support.halves import Source, serving

pytestmark = [pytest.mark.kube, pytest.mark.timeout(1800)]

TUS = {"Tus-Resumable": "1.0.0"}
UWS = "{http://www.ivoa.net/xml/UWS/v1.0}"
FILES = 2500
"""In the folder that is copied: as many as take a while."""

own_nodes = pytest.mark.own_nodes("pods fetch from this machine's address on the bridge")


@pytest.fixture(scope="module")
def platform(cluster: Cluster, built_images: dict[str, str]) -> Iterator[Installation]:
    """A platform whose bytes have a way around the proxy, and which fetches from this machine."""
    node = cluster.get("nodes")["items"][0]["status"]["addresses"]
    address = next(found["address"] for found in node if found["type"] == "InternalIP")
    port = free_node_port(cluster)
    config = {"vospace": {"bytes_url": f"http://{address}:{port}", "transfer_networks": [f"{BRIDGE_ADDRESS}/32"]}}
    small: dict[str, Any] = {"requests": {"cpu": "20m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}}
    way = {"drainSeconds": 300, "bytesService": {"type": "NodePort", "nodePort": port}}
    images = built_images | {"astro": built_images["services"]}
    repository, _, digest = images["services"].partition("@")
    services = {
        "image": {"repository": repository, "digest": digest},
        "vospace": {"replicas": 2, "resources": small, **way},
    }
    with installed(cluster, images, config=config, services=services, prepuller={"enabled": False}) as running:
        yield running


@dataclass
class Files:
    """Somebody's files by VOSpace."""

    session: aiohttp.ClientSession
    url: str

    async def transfer(self, target: str, direction: str, *, endpoint: str = "", keep: bool = False) -> str:
        """Run a transfer as a job, and return its address."""
        inside = f"<endpoint>{endpoint}</endpoint>" if endpoint else ""
        protocol = f'<protocol uri="ivo://ivoa.net/vospace/core#httpget">{inside}</protocol>' if endpoint else ""
        document = (
            '<transfer xmlns="http://www.ivoa.net/xml/VOSpace/v2.0" version="2.1">'
            f"<target>vos://astrocloud.local~vospace{target}</target><direction>{direction}</direction>"
            f"{protocol}{'<keepBytes>true</keepBytes>' if keep else ''}</transfer>"
        )
        headers = {"Content-Type": "text/xml"}
        address = f"{self.url}/transfers?PHASE=RUN"
        async with self.session.post(address, data=document, headers=headers, allow_redirects=False) as answer:
            assert answer.status == 303, await answer.text()
            return answer.headers["Location"]

    async def phase(self, job: str) -> str:
        async with self.session.get(f"{job}/phase") as answer:
            return await answer.text()

    async def ended(self, job: str) -> str:
        """Return the phase in which a job ended."""
        found = ""

        async def is_over() -> bool:
            nonlocal found
            found = await self.phase(job)
            return found in {"COMPLETED", "ERROR", "ABORTED"}

        await until("the job's end", is_over, within_s=400)
        return found

    async def send_resumably(self, path: str, data: bytes) -> int:
        """Upload by tus, going on after each interruption; return how many there were."""
        uri = base64.b64encode(f"vos://astrocloud.local~vospace{path}".encode()).decode()
        headers = {**TUS, "Upload-Length": str(len(data)), "Upload-Metadata": f"uri {uri}"}
        async with self.session.post(f"{self.url}/uploads", headers=headers) as answer:
            assert answer.status == 201, await answer.text()
            upload = answer.headers["Location"]
        broken = offset = 0

        async def pieces() -> AsyncIterator[bytes]:
            for first in range(offset, len(data), 1 << 19):
                yield data[first : first + (1 << 19)]
                await asyncio.sleep(0.05)  # as a line that is no faster

        async def goes_on() -> bool:
            nonlocal broken, offset
            try:
                async with self.session.head(upload, headers=TUS) as answer:
                    if answer.status == 404:  # whole, though its answer was lost
                        return True
                    assert answer.status == 200
                    offset = int(answer.headers["Upload-Offset"])
                headers = {**TUS, "Upload-Offset": str(offset), "Content-Type": "application/offset+octet-stream"}
                async with self.session.patch(upload, data=pieces(), headers=headers) as answer:
                    return answer.status == 204
            except (aiohttp.ClientError, ConnectionError, TimeoutError):
                broken += 1
                raise

        await until("the upload", goes_on, within_s=400)
        return broken

    async def fetch_resumably(self, path: str, size: int) -> tuple[bytes, int]:
        """Download, going on by Range after each interruption; return the bytes and how many there were."""
        read, broken, tag = bytearray(), 0, ""

        async def goes_on() -> bool:
            nonlocal broken, tag
            headers = {"Range": f"bytes={len(read)}-", **({"If-Range": tag} if tag else {})}
            try:
                async with self.session.get(f"{self.url}/files{path}", headers=headers) as answer:
                    assert answer.status == 206, answer.status
                    tag = answer.headers["ETag"]
                    async for piece in answer.content.iter_chunked(1 << 18):
                        read.extend(piece)
                        await asyncio.sleep(0.02)
            except (aiohttp.ClientError, ConnectionError, TimeoutError):
                broken += 1
                raise
            return len(read) == size

        await until("the download", goes_on, within_s=400)
        return bytes(read), broken


@pytest.fixture
async def files(platform: Installation) -> AsyncIterator[Files]:
    headers = {"Authorization": f"Bearer {platform.token('ann')}"}
    # A connection to a pod that is lost ends by nobody's answering.
    timeout = aiohttp.ClientTimeout(total=None, sock_read=30, sock_connect=10)
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(headers=headers, timeout=timeout, connector=connector) as session:
        yield Files(session, f"{platform.url}/services/vospace")


@pytest.fixture
async def source() -> AsyncIterator[Source]:
    async with serving(BRIDGE_ADDRESS, size=8_000_000) as found:
        yield found


def in_a_pod(platform: Installation, script: str) -> str:
    """Return what a script prints in one of VOSpace's pods."""
    pod = platform.pods("vospace")[0]["metadata"]["name"]
    return platform.kubectl("exec", pod, "--", "python", "-c", script)


def sums(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@own_nodes
async def test_all_ends_right_when_a_replica_is_lost(platform: Installation, files: Files, source: Source) -> None:
    large = os.urandom(24_000_000)
    async with files.session.put(f"{files.url}/files/home/ann/large", data=io.BytesIO(large)) as answer:
        assert answer.status in {200, 201}, await answer.text()
    home = "/srv/astrocloud/tree/home/ann"
    make = (
        f"import os; os.makedirs('{home}/many'); owner = os.stat('{home}'); "
        f"[open(f'{home}/many/{{n}}', 'w').write(str(n) * 500) for n in range({FILES})]; "
        f"[os.chown(p, owner.st_uid, owner.st_gid) for p in "
        f"['{home}/many', *(f'{home}/many/{{n}}' for n in range({FILES}))]]"
    )
    in_a_pod(platform, make)
    uploading = [asyncio.create_task(files.send_resumably(f"/home/ann/sent{n}", large)) for n in range(2)]
    fetching = [asyncio.create_task(files.fetch_resumably("/home/ann/large", len(large))) for _ in range(2)]
    names = [f"/home/ann/pulled{n}" for n in range(3)]
    pulls = [await files.transfer(name, "pullToVoSpace", endpoint=source.url) for name in names]
    await source.half_sent.wait()
    copies = [
        await files.transfer("/home/ann/many", f"vos://astrocloud.local~vospace/home/ann/copy{n}", keep=True)
        for n in range(4)
    ]

    lost = platform.pods("vospace")[0]["metadata"]["name"]
    platform.kubectl("delete", "pod", lost, "--grace-period=0", "--force")
    source.go_on.set()
    broken = await asyncio.gather(*uploading)
    fetched = await asyncio.gather(*fetching)

    for job in [*pulls, *copies]:
        assert await files.ended(job) == "COMPLETED"
    for data, _ in fetched:
        assert sums(data) == sums(large)
    look = (
        "import hashlib, os; h = lambda p: hashlib.sha256(open(p, 'rb').read()).hexdigest(); "
        f"print(*[h('{home}/' + n) for n in ('sent0', 'sent1', 'pulled0', 'pulled1', 'pulled2')]); "
        f"same = lambda c, n: open(f'{home}/copy{{c}}/{{n}}').read() == str(n) * 500; "
        f"print(*[sum(same(c, n) for n in range({FILES})) for c in range(4)]); "
        f"print(*[len(os.listdir(f'{home}/copy{{c}}')) for c in range(4)])"
    )
    hashes, whole, counted = in_a_pod(platform, look).strip().splitlines()
    assert hashes.split() == [sums(large)] * 2 + [sums(source.data)] * 3
    assert whole.split() == counted.split() == [str(FILES)] * 4
    platform.wait("vospace")
    interrupted = sum(broken) + sum(number for _, number in fetched)
    say(
        f"a replica of two lost: {interrupted} of 4 transfers interrupted and whole, {source.asked - 3} of 3 pulls anew"
    )


@own_nodes
async def test_replicas_that_are_told_to_end_finish_what_they_do(
    platform: Installation, files: Files, source: Source
) -> None:
    large = os.urandom(20_000_000)
    sending = asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        yield large[:10_000_000]
        await sending.wait()
        yield large[10_000_000:]

    job = await files.transfer("/home/ann/drained", "pullToVoSpace", endpoint=source.url)
    await source.half_sent.wait()
    patience = aiohttp.ClientTimeout(total=400)
    upload = asyncio.create_task(
        files.session.put(f"{files.url}/files/home/ann/put", data=pieces(), timeout=patience)  # type: ignore[arg-type]
    )
    found = "import glob; print(len(glob.glob('/srv/astrocloud/tree/home/ann/.put.*')))"

    async def arriving() -> bool:
        return int(await asyncio.to_thread(in_a_pod, platform, found)) > 0

    await until("the upload's bytes", arriving)
    old = {pod["metadata"]["name"] for pod in platform.pods("vospace")}
    platform.kubectl("delete", "pod", *old, "--wait=false")

    async def replaced() -> bool:
        pods = platform.pods("vospace")
        ready = [p for p in pods if any(s.get("ready") for s in p["status"].get("containerStatuses", []))]
        return len(ready) == 2 and not old & {pod["metadata"]["name"] for pod in pods}

    took = await until("new pods", replaced, within_s=300)

    async def goes_on() -> bool:
        return await files.phase(job) == "EXECUTING"

    # Nodes hear of the new pods a moment after Kubernetes.
    await until("the job is told of", goes_on, within_s=30)
    source.go_on.set()
    sending.set()
    answer = await upload

    assert answer.status == 201
    assert await files.ended(job) == "COMPLETED"
    assert source.asked == 1
    for name, data in (("drained", source.data), ("put", large)):
        async with files.session.get(f"{files.url}/files/home/ann/{name}") as got:
            assert sums(await got.read()) == sums(data)
    say(f"both replicas told to end: new ones after {took:.1f} s, and nothing under way was cut")


async def test_bytes_come_and_go_without_the_proxy(platform: Installation, files: Files) -> None:
    data = os.urandom(12_000_000)
    async with files.session.put(f"{files.url}/files/home/ann/around", data=io.BytesIO(data)) as answer:
        assert answer.status in {200, 201}
    async with files.session.get(f"{files.url}/files/home/ann/around", allow_redirects=False) as answer:
        assert answer.status == 303
        address = answer.headers["Location"]
    query = {"TARGET": "vos://astrocloud.local~vospace/home/ann/back", "DIRECTION": "pushToVoSpace"}
    query |= {"PROTOCOL": "ivo://ivoa.net/vospace/core#httpput", "REQUEST": "redirect"}
    async with files.session.get(f"{files.url}/synctrans", params=query, allow_redirects=False) as answer:
        assert answer.status == 303, await answer.text()
        target = answer.headers["Location"]
    around = platform.values["config"]["vospace"]["bytes_url"]
    assert address.startswith(around)
    assert target.startswith(around)
    assert urlsplit(around).port != urlsplit(platform.url).port

    platform.kubectl("scale", "--replicas=0", f"deployment/{platform.name}-proxy")
    try:

        async def gone() -> bool:
            with suppress(aiohttp.ClientError, TimeoutError):
                async with files.session.get(platform.url):
                    return False
            return True

        await until("the proxy's end", gone)
        async with aiohttp.ClientSession() as nobody:
            async with nobody.get(address) as answer:
                assert sums(await answer.read()) == sums(data)
            async with nobody.put(target, data=io.BytesIO(data)) as answer:
                assert answer.status == 201
            # Nothing else is there, and who is signed in by a cookie elsewhere is not here.
            async with nobody.get(f"{around}/services/vospace/nodes/home/ann") as answer:
                assert answer.status == 404
            async with nobody.get(f"{around}/services/vospace/files/home/ann/around") as answer:
                assert answer.status in {401, 403}
    finally:
        platform.kubectl("scale", "--replicas=1", f"deployment/{platform.name}-proxy")
        platform.wait("proxy")

    async def back() -> bool:
        async with files.session.get(f"{files.url}/files/home/ann/back") as answer:
            return answer.status == 200 and sums(await answer.read()) == sums(data)

    await until("the proxy's routes", back)
