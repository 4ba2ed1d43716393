"""What a cluster loses while people work: its registry, a node with a person's server, the node with the database."""

import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager

import pytest

from tests.kube.cluster import control, machines, node
from tests.kube.cluster.layout import CONTROL, NODES, Host
from tests.kube.conftest import say
from tests.kube.ground import Cluster
from tests.kube.installation import Installation, installed, until
from tests.kube.test_platform import both
from tests.kube.working import answers, events_page, nodes_of, only_on, two_at_work, working

pytestmark = [
    pytest.mark.kube,
    pytest.mark.slow,
    pytest.mark.own_nodes("nodes and the registry are switched off"),
    pytest.mark.timeout(1800),
]


@pytest.fixture(scope="module")
def platform(cluster: Cluster, built_images: dict[str, str], astro: str) -> Iterator[Installation]:
    """A platform of its own, two people of one group, and an environment whose image no registry has."""
    servers = {"namespacePrefix": "losses-", "reserve": {"memory": 0.1, "cpus": 0.05}}
    first, *_, last = [each["metadata"]["name"] for each in cluster.get("nodes")["items"]]
    # What is lost is neither people's way in nor both the database and a server.
    places = {"proxy": first, "database": last}
    with installed(cluster, built_images | {"astro": astro}, places=places, servers=servers) as running:
        running.kubectl("rollout", "status", "--timeout=600s", f"daemonset/{running.name}-prepuller")
        for name in ("cara", "dan"):
            running.add(name, groups=("survey",))
        yield running


@contextmanager
def no_registry() -> Iterator[None]:
    """Stop the cluster's registry meanwhile."""
    machines.stop_daemon(CONTROL, "registry")
    try:
        yield
    finally:
        control.start()
        machines.wait_until("the registry", control.registry_answers, within_s=20)


@contextmanager
def switched_off(lost: Host) -> Iterator[None]:
    """Pull a node's plug meanwhile, and wait at the end until it is ready again."""
    machines.power_off(lost)
    try:
        yield
    finally:
        node.start_runtime(lost)
        node.start_kubelet(lost)
        control.kubectl("wait", "--for=condition=Ready", "--timeout=120s", f"node/{lost.name}")


def host_of(name: str) -> Host:
    return next(host for host in NODES if host.name == name)


async def test_without_a_registry_people_work_and_servers_start(platform: Installation) -> None:
    async with working(platform, "cara") as cara:
        await cara.run("kept = 41")
        with no_registry():
            assert await cara.run("print(kept + 1)") == "42"
            # Its image is on every node, and named by its digest: nobody need be asked.
            async with working(platform, "dan") as dan:
                assert await dan.run("print(6 * 7)") == "42"
            platform.delete("portal")
            platform.wait("portal")
            await until("the portal's new pods", lambda: both(cara.person))
        assert await cara.run("print(kept + 1)") == "42"


async def test_a_node_with_a_server_stops_and_returns(platform: Installation) -> None:
    async with two_at_work(platform) as (cara, dan):
        await cara.run("kept = 41")
        written = "import os; f = open('/project/survey/night.txt', 'w'); f.write('frame'); f.flush(); os.fsync(f)"
        await dan.run(written)
        began = time.monotonic()
        with switched_off(host_of(dan.node)):
            assert await cara.run("print(kept + 1)") == "42"
            await until("what was on the node is elsewhere", lambda: both(cara.person), within_s=240)
            say(f"node stopped: everything answered again after {time.monotonic() - began:.1f} s")
            assert await cara.run("print(open('/project/survey/night.txt').read())") == "frame"

            async def ended() -> bool:
                return await dan.person.reason_of_end() == "node-lost"

            await until("the end of dan's server is known", ended, within_s=60)

            async def on_the_page() -> bool:
                text = await events_page(platform)
                return f"Node {dan.node}" in text and "Is silent" in text

            await until("the event", on_the_page, within_s=120)
            async with working(platform, "dan") as again:
                assert again.node != dan.node
                assert await again.run("print(open('/project/survey/night.txt').read())") == "frame"
        # The node has come back: nothing of before runs on it, and cara's kernel never noticed.
        assert await cara.run("print(kept + 1)") == "42"


async def test_the_node_with_the_database_stops_and_returns(platform: Installation) -> None:
    (database,) = [pod["spec"]["nodeName"] for pod in platform.pods("database")]
    assert database == nodes_of(platform)[-1]
    async with AsyncExitStack() as stack:
        with only_on(platform, nodes_of(platform)[0]):
            cara = await stack.enter_async_context(working(platform, "cara"))
        await cara.run("kept = 41")
        platform.add("just-before")
        with switched_off(host_of(database)):
            assert await cara.run("print(kept + 1)") == "42"
        began = time.monotonic()
        await until("the platform", lambda: both(cara.person), within_s=300)
        await until("the server", lambda: answers(cara), within_s=60)
        say(f"the database's node is back: everything answered after {time.monotonic() - began:.1f} s")
        assert await cara.run("print(kept + 1)") == "42"
        async with platform.person("just-before") as person:
            assert (await person.sign_in())[0] == 200
