"""Where people's servers are placed, and what a node does to one that takes too much."""

import secrets
from collections.abc import Iterator

import pytest

from tests.kube.cluster import images
from tests.kube.cluster.layout import NODES
from tests.kube.ground import Cluster
from tests.kube.people import PodPlatform, file_tree

pytestmark = [
    pytest.mark.kube,
    pytest.mark.own_nodes("pods call a hub at this machine's address on the bridge"),
    pytest.mark.timeout(600),
]

REGION = "topology.kubernetes.io/region"


@pytest.fixture(scope="module")
def platform(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PodPlatform]:
    """A platform whose servers run in one region and hold little in /tmp."""
    assert cluster.own
    root = tmp_path_factory.mktemp("places")
    tested = f"{cluster.image.rpartition(':')[0]}@{images.digest_of(cluster.image)}"
    namespace = f"places-{secrets.token_hex(3)}"
    servers = {"node_selector": {REGION: "guizhou"}, "tmp_size": "4MiB"}
    with file_tree(cluster, namespace) as tree:
        found = PodPlatform(
            root / "data",
            cluster=cluster,
            namespace=namespace,
            tree=tree,
            images={"stub": tested},
            servers=servers,
        )
        found.services.add("ada", 200001)
        try:
            yield found.start()
        finally:
            found.stop()


def test_servers_are_placed_in_the_region_that_was_chosen(platform: PodPlatform) -> None:
    platform.sign_in("ada")
    platform.start_server("ada")

    (there,) = [host.name for host in NODES if host.region == "guizhou"]
    assert platform.pod("ada")["spec"]["nodeName"] == there
    platform.stop_server("ada")


def test_who_fills_tmp_is_told_so(platform: PodPlatform) -> None:
    platform.start_server("ada")
    platform.run("ada", "open('/tmp/large', 'wb').write(bytes(2**24))")

    end = platform.ended("ada", seconds=120)

    assert (end["reason"], end["what"]) == ("evicted", "tmp")
