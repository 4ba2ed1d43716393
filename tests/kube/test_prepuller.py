"""Images are on the nodes before somebody waits for them: on every node, on a new one, and before an upgrade."""

import re
import secrets
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.kube.cluster import images
from tests.kube.cluster.machines import wait_until
from tests.kube.ground import Cluster
from tests.kube.installation import Installation, named
from tests.kube.rendering import objects, templates

pytestmark = pytest.mark.timeout(1800)


def hooks(made: list[dict[str, Any]], event: str) -> dict[str, int]:
    """Return kind/name -> weight of what Helm makes at `event`, in the order in which it does."""
    found = {
        f"{each['kind']}/{each['metadata']['name']}": each["metadata"]["annotations"]
        for each in made
        if event in each["metadata"].get("annotations", {}).get("helm.sh/hook", "").split(",")
    }
    weights = {name: int(told["helm.sh/hook-weight"]) for name, told in found.items()}
    for told in found.values():
        assert told["helm.sh/hook-delete-policy"] == "before-hook-creation,hook-succeeded"
    return dict(sorted(weights.items(), key=lambda item: item[1]))


@pytest.mark.chart
def test_an_upgrade_waits_for_the_images_of_the_menu(values: Path) -> None:
    made = objects("--values", values)
    order = [re.sub("/.*-", "/", name) for name in hooks(made, "pre-upgrade")]
    found = {re.sub("/.*-", "/", name): template["spec"] for name, template in templates(made).items()}

    fetching, kept = found["DaemonSet/fetch"], found["DaemonSet/prepuller"]
    places = ("nodeSelector", "tolerations", "initContainers", "containers", "securityContext")
    assert {name: fetching.get(name) for name in places} == {name: kept.get(name) for name in places}
    # The account is there before who uses it, and what is waited for before who waits.
    for kind in ("DaemonSet", "ServiceAccount", "Role", "RoleBinding"):
        assert order.index(f"{kind}/fetch") < order.index("Job/fetch")
    if "Job/secrets" in order:
        assert order.index("Job/secrets") < order.index("DaemonSet/fetch")
    assert not [name for name in hooks(made, "pre-install") if "fetch" in name]


@pytest.mark.chart
def test_an_upgrade_waits_for_images_no_longer_than_it_is_told() -> None:
    def waits(*arguments: str) -> list[str]:
        jobs = [each for each in objects(*arguments) if each["metadata"]["name"] == "astrocloud-fetch"]
        return [each["spec"]["template"]["spec"]["containers"][0]["args"][-1] for each in jobs if each["kind"] == "Job"]

    assert waits() == ["--timeout=240"]
    assert waits("--set", "prepuller.beforeUpgrade.timeoutSeconds=86400") == ["--timeout=86400"]
    assert waits("--set", "prepuller.beforeUpgrade.enabled=false") == []
    assert waits("--set", "prepuller.enabled=false") == []


@pytest.fixture
def another(cluster: Cluster, tmp_path: Path) -> str:
    """An image of an environment that no node has, named by its digest."""
    layer = tmp_path / "layer"
    layer.write_bytes(secrets.token_bytes(1000))
    return images.with_layer(images.PYTHON_IMAGE, f"{cluster.image.rpartition(':')[0]}:another", layer)


@pytest.fixture
def changing(installation: Installation) -> Iterator[Installation]:
    """The installation, put back after the test."""
    yield installation
    installation.apply()
    installation.wait()


def environment(image: str) -> dict[str, Any]:
    """Return the value `environments` with nothing on the menu but `image`."""
    return {"astro": {"image": named(image)}}


def fetched(installation: Installation, part: str, image: str) -> set[str]:
    """Return the nodes that had not got `image` until the pods of `part` had them fetch it."""
    events = installation.kube.get("events", "-n", installation.namespace, "--field-selector=reason=Pulled")["items"]
    return {
        event["source"]["host"]
        for event in events
        if event["involvedObject"]["name"].startswith(f"{installation.name}-{part}-")
        and event["message"].startswith("Successfully pulled")
        and image in event["message"]
    }


def nodes(installation: Installation) -> list[str]:
    return [node["metadata"]["name"] for node in installation.kube.get("nodes")["items"]]


def rolled_out(installation: Installation) -> None:
    installation.kubectl("rollout", "status", "--timeout=180s", f"daemonset/{installation.name}-prepuller")


needs_an_image_that_is_nowhere = pytest.mark.own_nodes("the builder of our own cluster makes an image that no node has")


@pytest.mark.kube
@needs_an_image_that_is_nowhere
def test_before_an_upgrade_every_node_fetches_the_new_image(changing: Installation, another: str) -> None:
    said = changing.apply(environments=environment(another))

    assert fetched(changing, "fetch", another) == set(nodes(changing))
    assert f"{len(nodes(changing))} of {len(nodes(changing))} nodes have the images" in said
    # It was there when the new parts came: what keeps it there had nothing to fetch.
    rolled_out(changing)
    assert fetched(changing, "prepuller", another) == set()
    left = changing.kube.get("daemonset,job,role,rolebinding,serviceaccount", "-n", changing.namespace)["items"]
    assert [found["kind"] for found in left if found["metadata"]["name"].endswith("-fetch")] == []


@pytest.mark.kube
def test_an_upgrade_with_the_same_images_waits_for_nothing(changing: Installation) -> None:
    rolled_out(changing)

    assert "nodes have the images" not in changing.apply()


@pytest.mark.kube
def test_an_image_that_is_nowhere_does_not_hold_up_an_upgrade(changing: Installation) -> None:
    nowhere = f"{changing.values['environments']['astro']['image']['repository']}@sha256:{'0' * 64}"

    said = changing.apply(
        environments=environment(nowhere),
        prepuller={"beforeUpgrade": {"timeoutSeconds": 4}},
        config=changing.values["config"] | {"name": {"en": "Went on", "zh": "继续"}},
    )

    assert f"0 of {len(nodes(changing))} nodes have the images" in said
    assert "goes on" in said
    settings = changing.kube.get("configmap", "-n", changing.namespace, f"{changing.name}-settings")["data"]
    assert "Went on" in settings["astrocloud.yaml"]


@pytest.mark.kube
@needs_an_image_that_is_nowhere
def test_a_new_node_fetches_the_images(changing: Installation, another: str) -> None:
    """A node is new to what fetches when it is one of those that servers run on."""
    *old, new = nodes(changing)
    label = "astrocloud.test/servers"
    changing.kubectl("label", "nodes", *old, f"{label}=yes")
    try:
        changing.apply(environments=environment(another), prepuller={"nodeSelector": {label: "yes"}})
        rolled_out(changing)
        assert fetched(changing, "fetch", another) == set(old)

        changing.kubectl("label", "nodes", new, f"{label}=yes")

        told = partial(fetched, changing, "prepuller", another)
        wait_until("the image on the new node", lambda: told() == {new}, within_s=120)
    finally:
        changing.kubectl("label", "nodes", *old, new, f"{label}-")
