"""The environments of a cluster: those that the platform brings along, and an operator's own."""

from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from astrocloud.config import Config
from astrocloud.core.cluster import Cluster
from astrocloud.environments import offered
from tests.kube.ground import Cluster as Ground
from tests.kube.installation import installed
from tests.kube.rendering import CHART, VALUES, helm, objects, settings_in
from tests.kube.working import working

pytestmark = pytest.mark.timeout(1800)


@pytest.mark.chart
def test_an_operator_s_own_environments_arrive_on_the_menu_and_at_the_hub() -> None:
    settings = settings_in(objects("--values", VALUES / "everything.yaml"))["data"]
    cluster = Cluster.model_validate(yaml.safe_load(settings["cluster.yaml"]))
    menu = offered(Config(), cluster)

    radio, astro = menu.get("radio-2026"), menu.get("astro")
    assert (radio.name.zh, dict(radio.software), radio.tutorials) == ("射电", {"casa": "6.7"}, ("first-look",))
    assert radio.deprecated is not None
    assert str(radio.deprecated.until) == "2027-01-31"
    assert [int(size.memory) for each in menu for size in each.resources] == [4 * 2**30] * 2
    # What is not said of it is as it was brought along.
    assert astro.name.en == "Astronomy"
    assert "astropy" in astro.software
    there = cluster.servers.environments["radio-2026"]
    assert (there.image, there.pull_policy) == ("registry.example.org/radio:2026.1", "Always")
    assert there.command == ("jupyterhub-singleuser",)


@pytest.mark.chart
def test_nodes_and_servers_ask_for_an_image_alike_where_nothing_is_said(tmp_path: Path) -> None:
    file = tmp_path / "values.yaml"
    size = {"id": "one", "name": {"en": "One", "zh": "一"}, "memory": "1Gi", "cpus": 1, "processes": 256}
    words = {"en": "Plain", "zh": "原样"}
    plain = {"image": {"repository": "plain"}, "name": words, "description": words, "resources": [size]}
    file.write_text(yaml.safe_dump({"environments": {"plain": plain}}))
    rendered = objects("--values", file)

    cluster = Cluster.model_validate(yaml.safe_load(settings_in(rendered)["data"]["cluster.yaml"]))
    (prepuller,) = [each for each in rendered if each["metadata"]["name"].endswith("-prepuller")]
    fetched = {each["name"]: each for each in prepuller["spec"]["template"]["spec"]["initContainers"]}
    assert fetched["plain"]["imagePullPolicy"] == cluster.servers.environments["plain"].pull_policy == "IfNotPresent"
    assert fetched["plain"]["image"] == cluster.servers.environments["plain"].image


@pytest.mark.chart
@pytest.mark.parametrize(
    ("key", "given", "said"),
    [
        ("radio", {"image": {"repository": "radio"}}, "missing properties 'name', 'description', 'resources'"),
        ("Radio", {"image": {"repository": "radio"}}, "'Radio' does not match pattern"),
        ("astro", {"resources": [{"id": "one", "memory": "4 mem"}]}, "missing properties 'name'"),
        ("astro", {"software": {"casa": 6.7}}, "got number, want string"),
        ("astro", {"sizes": []}, "additional properties 'sizes' not allowed"),
    ],
)
def test_an_environment_described_wrongly_is_refused(
    key: str, given: dict[str, Any], said: str, tmp_path: Path
) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump({"environments": {key: given}}))
    done = helm("template", "sky", CHART, "--values", file)
    assert done.returncode != 0
    assert said in done.stderr


@pytest.mark.kube
@pytest.mark.slow
async def test_a_server_of_an_image_that_knows_nothing_of_the_platform(
    cluster: Ground, built_images: dict[str, str], astro: str
) -> None:
    repository, _, digest = astro.partition("@")
    plain = {
        "image": {"repository": repository, "digest": digest},
        "name": {"en": "Plain", "zh": "原样"},
        "description": {"en": "Stock JupyterLab.", "zh": "原版 JupyterLab。"},
        "resources": [{"id": "one", "name": {"en": "One", "zh": "一"}, "memory": "1Gi", "cpus": 1, "processes": 256}],
        # What any image with JupyterHub's own start in it has.
        "command": ["jupyterhub-singleuser"],
    }
    servers = {"namespacePrefix": "plain-", "reserve": {"memory": 0.1, "cpus": 0.05}}
    with installed(cluster, built_images | {"astro": astro}, servers=servers) as platform:
        platform.apply(environments={"plain": plain, "astro": None})
        platform.wait()
        async with working(platform, "cara", environment="plain") as cara:
            (pod,) = cluster.get("pods", "-n", platform.namespace_of("cara"))["items"]
            (container,) = pod["spec"]["containers"]
            assert container["resources"]["limits"]["memory"] == str(2**30)
            assert "jupyterhub-singleuser" in container["command"]
            assert container["ports"] == [{"name": "https", "containerPort": 8888, "protocol": "TCP"}]
            await cara.run("open('/home/cara/made.txt', 'w').write('by a stock server')")
            status, listed = await cara.person.server_api(cara.base, "GET", "api/contents/home/cara?content=1")
            assert status == 200
            assert "made.txt" in [each["name"] for each in listed["content"]]
            # The menu is what there is an image of, and nothing else.
            async with cara.person.session.get(f"{platform.url}/services/portal/api/environments") as answer:
                assert [each["id"] for each in await answer.json()] == ["plain"]
        files = f"{platform.url}/services/vospace/files/home/cara/made.txt"
        headers = {"Authorization": f"Bearer {platform.token('cara')}"}
        async with aiohttp.ClientSession(headers=headers) as session, session.get(files) as answer:
            assert await answer.text() == "by a stock server"
