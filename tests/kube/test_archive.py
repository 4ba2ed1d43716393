"""Data that everybody reads and nobody writes: in an S3 bucket, and on a volume of its own."""

import secrets
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from tests.kube.cluster.layout import BRIDGE_ADDRESS, VOLUMES
from tests.kube.cluster.machines import wait_until
from tests.kube.cluster.programs import build, program
from tests.kube.conftest import say
from tests.kube.ground import Cluster
from tests.kube.installation import Installation, installed
from tests.kube.working import working

pytestmark = [
    pytest.mark.kube,
    pytest.mark.slow,
    pytest.mark.own_nodes("pods reach an S3 server of this machine, and volumes are its folders"),
    pytest.mark.timeout(1800),
]

TABLE = "name,magnitude\nVega,0.03\nDeneb,1.25\n"


@dataclass(frozen=True)
class Bucket:
    """A bucket that can only be read, at a real S3 server."""

    endpoint: str
    key: str
    secret: str


@contextmanager
def bucket(folder: Path) -> Iterator[Bucket]:
    """Serve the bucket ``surveys`` with a table in it, to whoever has the key, on this machine."""
    build(("versitygw",), say=say)
    (folder / "surveys" / "dr18").mkdir(parents=True)
    (folder / "surveys" / "dr18" / "stars.csv").write_text(TABLE)
    with socket.socket() as free:
        free.bind((BRIDGE_ADDRESS, 0))
        port = free.getsockname()[1]
    made = Bucket(f"http://{BRIDGE_ADDRESS}:{port}", "reader", secrets.token_hex(16))
    command = [program("versitygw"), "--port", f"{BRIDGE_ADDRESS}:{port}", "--readonly", "--quiet", "posix", folder]
    keys = {"ROOT_ACCESS_KEY": made.key, "ROOT_SECRET_KEY": made.secret}
    with subprocess.Popen(command, env=keys) as server:
        try:
            wait_until("the S3 server", lambda: listens(BRIDGE_ADDRESS, port), within_s=20)
            yield made
        finally:
            server.terminate()


def listens(host: str, port: int) -> bool:
    with suppress(OSError):
        socket.create_connection((host, port), timeout=1).close()
        return True
    return False


@pytest.fixture(scope="module")
def surveys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    with bucket(tmp_path_factory.mktemp("s3")) as made:
        yield made


@pytest.fixture(scope="module")
def platform(cluster: Cluster, built_images: dict[str, str], astro: str, surveys: Bucket) -> Iterator[Installation]:
    servers = {"namespacePrefix": "archive-", "reserve": {"memory": 0.1, "cpus": 0.05}}
    with installed(
        cluster, built_images | {"astro": astro}, servers=servers, priorityClasses={"create": False}
    ) as running:
        running.kubectl(
            "create",
            "secret",
            "generic",
            "s3",
            f"--from-literal=key={surveys.key}",
            f"--from-literal=secret={surveys.secret}",
        )
        running.add("cara")
        yield running


async def test_a_bucket_is_read_in_a_notebook_and_not_written(platform: Installation, surveys: Bucket) -> None:
    s3 = {"endpoint": surveys.endpoint, "bucket": "surveys/dr18", "secret": "s3", "networks": [f"{BRIDGE_ADDRESS}/32"]}
    platform.apply(storage=platform.values["storage"] | {"archive": {"kind": "s3", "s3": s3}})
    platform.wait()
    async with working(platform, "cara") as cara:
        await cara.run("import os, fsspec, pandas; archive = os.environ['ASTROCLOUD_ARCHIVE']", within_s=120)

        assert await cara.run("print(pandas.read_csv(archive + '/stars.csv')['name'].tolist())") == "['Vega', 'Deneb']"
        assert await cara.run("print(fsspec.open(archive + '/stars.csv', 'rt').open().readline())") == "name,magnitude"
        error = await cara.fails("fsspec.filesystem('s3').pipe(archive + '/new.txt', b'mine')")
        assert error.split(":")[0] in {"PermissionError", "OSError"}, error


async def test_an_archive_on_a_volume_of_its_own_is_at_the_same_place_everywhere(platform: Installation) -> None:
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "surveys"},
        "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    platform.kubectl("create", "-f", "-", given=claim)
    platform.kubectl("wait", "--for=jsonpath={.status.phase}=Bound", "--timeout=60s", "pvc/surveys")
    volume = platform.kube.get("pvc", "-n", platform.namespace, "surveys")["spec"]["volumeName"]
    (VOLUMES / volume).chmod(0o755)
    (VOLUMES / volume / "stars.csv").write_text(TABLE)
    platform.apply(
        storage=platform.values["storage"] | {"archive": {"kind": "claim", "claim": {"existingClaim": "surveys"}}}
    )
    platform.wait()

    async with working(platform, "cara") as cara:
        assert await cara.run("print(open('/archive/stars.csv').readline())") == "name,magnitude"
        error = await cara.fails("open('/archive/new.txt', 'w')")
        assert error.split(":")[0] in {"PermissionError", "OSError"}, error
    headers = {"Authorization": f"Bearer {platform.token('cara')}"}
    files = f"{platform.url}/services/vospace/files/archive"
    async with aiohttp.ClientSession(headers=headers) as session:
        async with session.get(f"{files}/stars.csv") as answer:
            assert await answer.text() == TABLE
        async with session.put(f"{files}/new.txt", data=b"mine") as answer:
            assert answer.status == 403
