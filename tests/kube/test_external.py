"""A platform on what its operator has already: a PostgreSQL, the keys, an authority; and two of what may be two."""

import asyncio
import json
import subprocess
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import Any, Final

import aiohttp
import pytest

from tests.kube.cluster.programs import program
from tests.kube.conftest import say
from tests.kube.ground import Cluster
from tests.kube.installation import CHART, Installation, installed, until
from tests.kube.operators import PASSWORD, USER, Authority, Postgres, own_keys, postgres, secret
from tests.kube.test_platform import both, get, signed_in
from tests.kube.working import answers, working
from tests.support.person import Person

pytestmark = [pytest.mark.kube, pytest.mark.slow, pytest.mark.timeout(2400)]

CONNECTIONS: Final = (
    "SELECT DISTINCT a.datname || '|' || a.usename || '|' || s.ssl FROM pg_stat_ssl s "
    "JOIN pg_stat_activity a USING (pid) WHERE a.client_addr IS NOT NULL"
)
CREW: Final = tuple(f"crew{number}" for number in range(4))


@pytest.fixture(scope="module")
def database(cluster: Cluster, built_images: dict[str, str]) -> Iterator[Postgres]:
    with postgres(cluster, built_images["database"]) as made:
        yield made


def external(database: Postgres, **changed: str) -> dict[str, Any]:
    """Return the chart's values for the operator's database."""
    place = {"host": database.host, "user": USER, "passwordSecret": "postgresql", "sslmode": "verify-full"}
    return {"kind": "external", "external": place | changed}


@pytest.fixture(scope="module")
def platform(
    cluster: Cluster,
    built_images: dict[str, str],
    astro: str,
    database: Postgres,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Installation]:
    """Nothing of the chart's own that an operator can bring; all that may be two is two."""

    def prepare(made: Installation) -> None:
        keys = own_keys(tmp_path_factory.mktemp("keys"), name=made.name, namespace=made.namespace)
        stranger = Authority(tmp_path_factory.mktemp("stranger"), "stranger")
        password = PASSWORD + "\n"
        for name, held in {
            "sky-keys": keys,
            "postgresql": {"database-password": password, "database-ca": database.authority},
            "postgresql-by-a-stranger": {"database-password": password, "database-ca": stranger.certificate},
        }.items():
            made.kubectl("create", "-f", "-", given=secret(name, held))
        made.values["services"]["passport"]["replicas"] = 2

    servers = {"namespacePrefix": "external-", "reserve": {"memory": 0.1, "cpus": 0.05}}
    with installed(
        cluster,
        built_images | {"astro": astro},
        prepare=prepare,
        servers=servers,
        database=external(database),
        secrets={"existingSecret": "sky-keys"},
        tls={"internal": True},
    ) as made:
        made.kubectl("rollout", "status", "--timeout=600s", f"daemonset/{made.name}-prepuller")
        for name in CREW:
            made.add(name)
        yield made


def test_the_claim_of_a_tree_on_nfs_has_its_volume(cluster: Cluster, namespace: str) -> None:
    """What is mounted is not tried: it takes a kernel that speaks NFS, and a server."""
    place = {"kind": "nfs", "nfs.server": "nfs.example.org", "nfs.path": "/astro"}
    given = [f"--set=storage.tree.{name}={value}" for name, value in place.items()]
    command = [
        str(program("helm")),
        "template",
        "sky",
        str(CHART),
        "-n",
        namespace,
        "-s",
        "templates/tree.yaml",
        *given,
    ]
    rendered = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    try:
        done = cluster.run("create", "-f", "-", given=rendered)
        assert done.returncode == 0, done.stderr
        bound = "--for=jsonpath={.status.phase}=Bound"
        cluster.kubectl("wait", "-n", namespace, bound, "--timeout=60s", "pvc/sky-astrocloud-tree")
        volume = cluster.get("persistentvolume", f"{namespace}-sky-astrocloud-tree")["spec"]
    finally:
        cluster.kubectl("delete", "persistentvolume", f"{namespace}-sky-astrocloud-tree", "--wait=false")
    assert volume["nfs"] == {"server": "nfs.example.org", "path": "/astro"}
    assert volume["mountOptions"] == ["nfsvers=4.2", "hard", "noatime"]
    assert volume["persistentVolumeReclaimPolicy"] == "Retain"


async def test_a_person_works_and_everything_is_in_the_operator_s_database(
    platform: Installation, database: Postgres
) -> None:
    async with working(platform, "cara") as cara:
        assert await cara.run("print(open('/home/cara/night.txt', 'w').write('clear skies'))") == "11"
        headers = {"Authorization": f"Bearer {platform.token('cara')}"}
        address = f"{platform.url}/services/vospace/files/home/cara/night.txt"
        assert await get(cara.person.session, address, **headers) == (200, "clear skies")

    assert set(database.ask(CONNECTIONS)) == {f"{name}|{USER}|true" for name in ("astrocloud", "jupyterhub")}
    there = {
        kind: {each["metadata"]["name"] for each in platform.kube.get(kind, "-n", platform.namespace)["items"]}
        for kind in ("statefulsets", "jobs", "secrets")
    }
    own = {name for name in there["secrets"] if not name.startswith("sh.helm.release.")}
    assert (there["statefulsets"], there["jobs"]) == (set(), set())
    assert own == {"sky-keys", "postgresql", "postgresql-by-a-stranger"}


def test_the_chart_s_own_test_does_what_a_person_does(platform: Installation) -> None:
    said = platform.helm("test", platform.release, "--timeout", "300s")

    assert "Succeeded" in said
    status = json.loads(platform.run("astrocloud", "status", "--json"))
    assert set(status["parts"].values()) == {"ok"}, status


class Comings:
    """People who come one after another, each at a browser of their own, until told to stop."""

    def __init__(self, platform: Installation, stack: AsyncExitStack) -> None:
        self._platform, self._stack = platform, stack
        self._over = asyncio.Event()
        self.inside: list[Person] = []
        self.refused: list[str] = []

    async def come(self, name: str) -> None:
        while not self._over.is_set():
            person = await self._stack.enter_async_context(self._platform.person(name))
            try:
                async with asyncio.timeout(30):
                    status, path = await person.sign_in()
            except (aiohttp.ClientError, TimeoutError, StopIteration) as error:
                self.refused.append(f"{name}: {error!r}")
            else:
                if (status, path) == (200, "/services/portal/home"):
                    self.inside.append(person)
                else:
                    self.refused.append(f"{name}: {status} {path}")

    async def more(self, count: int) -> None:
        """Return when `count` more people are inside."""
        there = len(self.inside)

        async def enough() -> bool:
            return len(self.inside) >= there + count

        await until(f"{count} more sign-ins; refused were {self.refused}", enough, within_s=120)

    def stop(self) -> None:
        self._over.set()


@pytest.mark.parametrize("part", ["passport", "portal"])
@pytest.mark.parametrize("how", ["in-order", "at-once"])
async def test_people_come_in_while_one_of_two_is_deleted(platform: Installation, part: str, how: str) -> None:
    async with AsyncExitStack() as stack:
        comings = Comings(platform, stack)
        async with asyncio.TaskGroup() as group:
            for name in CREW[:2]:
                group.create_task(comings.come(name))
            try:
                await comings.more(3)
                pods = [pod["metadata"]["name"] for pod in platform.pods(part)]
                assert len(pods) == 2
                at_once = ("--grace-period=0", "--force") if how == "at-once" else ()
                await asyncio.to_thread(platform.kubectl, "delete", "pod", pods[0], *at_once)
                await asyncio.to_thread(platform.wait, part)
                await comings.more(3)
            finally:
                comings.stop()
        # Who was told to be inside is, and by whichever of the two.
        for person in comings.inside:
            assert await signed_in(person)
    say(f"{part} deleted {how}: {len(comings.inside)} came in, refused: {comings.refused or 'nobody'}")
    if how == "in-order":
        assert comings.refused == []


async def test_the_database_is_restarted_while_somebody_works(platform: Installation, database: Postgres) -> None:
    async with working(platform, "cara") as cara:
        await cara.run("kept = 41")
        platform.add("just-before")

        await asyncio.to_thread(database.restart)

        took = await until("the session", lambda: both(cara.person), within_s=120)
        say(f"the operator's database restarted: everything answered {took:.1f} s after it did")
        await until("the server", lambda: answers(cara))
        assert await cara.run("print(kept + 1)") == "42"
        async with platform.person("just-before") as person:
            assert (await person.sign_in())[0] == 200


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [("host", "does not match host name"), ("passwordSecret", "certificate verify failed")],
)
async def test_a_database_with_another_s_certificate_is_refused(
    platform: Installation, database: Postgres, wrong: str, reason: str
) -> None:
    value = {"host": database.other_host, "passwordSecret": "postgresql-by-a-stranger"}[wrong]
    async with working(platform, "cara") as cara:
        await cara.run("kept = 41")
        platform.apply(database=external(database, **{wrong: value}))
        try:
            for part in ("hub", "passport"):
                await until(f"the log of {part}", partial(told, platform, part, reason), within_s=120)
            # Neither is believed meanwhile, and who works goes on.
            assert not any(
                status["ready"] for pod in platform.pods("hub") for status in pod["status"].get("containerStatuses", [])
            )
            assert await cara.run("print(kept + 1)") == "42"
        finally:
            platform.apply()
            platform.wait()
        await until("the session", lambda: both(cara.person), within_s=120)
        await until("the server", lambda: answers(cara))
        assert await cara.run("print(kept + 1)") == "42"


async def told(platform: Installation, part: str, reason: str) -> bool:
    """Whether a pod of `part` says in its log that it waits for the database, and why."""
    for pod in platform.pods(part):
        done = platform.kube.run("logs", "-n", platform.namespace, pod["metadata"]["name"])
        for line in done.stdout.splitlines():
            with suppress(json.JSONDecodeError):
                event = json.loads(line)
                if event.get("event") == "database-awaited" and reason in event["reason"]:
                    assert PASSWORD not in done.stdout
                    return True
    return False
