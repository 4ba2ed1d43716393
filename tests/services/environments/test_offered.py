"""What people are offered on a cluster: images, in the catalogue's words and the operator's."""

from pathlib import Path
from typing import Any

import pytest

from astrocloud.config import Config, parse_config
from astrocloud.core.cluster import Cluster
from astrocloud.environments import CatalogueError, UnknownEnvironment, offered
from tests.services.environments.conftest import write_environment

LOCK = "tinystar==1.0 \\\n    --hash=sha256:00\n"
SIZE = {"id": "one", "name": {"en": "One", "zh": "一"}, "memory": "4Gi", "cpus": 2, "processes": 512}
OWN = {"name": {"en": "Radio", "zh": "射电"}, "description": {"en": "CASA.", "zh": "CASA。"}, "resources": [SIZE]}


def cluster(**environments: dict[str, Any]) -> Cluster:
    document = {
        "release": "sky",
        "namespace": "astro",
        "public_url": "https://astro.example.org",
        "proxy": "http://sky-astrocloud",
        "proxy_api": "http://sky-astrocloud-proxy-api:8001",
        "hub": "http://sky-astrocloud-hub:8081",
        "services": {},
        "database": {"host": "db.example.org"},
        "servers": {
            "environments": {name: {"image": name, "menu": menu} for name, menu in environments.items()},
        },
    }
    return Cluster.model_validate(document)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """The catalogue has ``tiny``, which nobody said comes first."""
    folder = write_environment(tmp_path, LOCK).parents[1]
    return parse_config({"environments": {"folder": str(folder)}}, source="test")


def test_an_environment_is_offered_as_the_catalogue_has_it_but_for_what_the_operator_says(config: Config) -> None:
    (tiny,) = offered(config, cluster(tiny={"resources": [SIZE]}))
    assert tiny.name.en == "Tiny"
    assert dict(tiny.software) == {"tinystar": "1.0"}
    assert [(size.id, int(size.memory)) for size in tiny.resources] == [("one", 4 * 2**30)]


def test_an_environment_of_the_operator_s_own_needs_no_catalogue(config: Config) -> None:
    menu = offered(config, cluster(radio=OWN | {"software": {"casa": "6.7"}}))
    assert [each.id for each in menu] == ["radio"]
    assert menu.default.description.zh == "CASA。"
    assert dict(menu.default.software) == {"casa": "6.7"}
    assert menu.resources("radio").processes == 512


def test_of_the_catalogue_that_alone_is_offered_of_which_there_is_an_image(config: Config) -> None:
    with pytest.raises(UnknownEnvironment, match="called tiny; there are: radio"):
        offered(config, cluster(radio=OWN)).get("tiny")


def test_the_one_to_offer_first_is_one_of_them(config: Config) -> None:
    chosen = config.model_copy(update={"environments": config.environments.model_copy(update={"default": "tiny"})})
    assert offered(chosen, cluster(radio=OWN, tiny={})).default.id == "tiny"
    with pytest.raises(UnknownEnvironment, match="called sky; there are: radio, tiny"):
        offered(parse_config({"environments": {"default": "sky"}}, source="test"), cluster(radio=OWN, tiny=OWN))


@pytest.mark.parametrize(
    ("menu", "said"),
    [
        ({}, r"`radio` in the chart's `environments`: `name` is missing"),
        (OWN | {"name": {"en": "Radio"}}, r"`name.zh` is missing"),
        (OWN | {"size": 3}, r"`size` is 3; allowed: no such key; the keys are name, description, software"),
        (OWN | {"resources": [SIZE | {"memory": "4 mem"}]}, r"`resources.0.memory` is '4 mem'; allowed: could not"),
    ],
)
def test_what_is_described_wrongly_is_said_with_its_key(menu: dict[str, Any], said: str, config: Config) -> None:
    with pytest.raises(CatalogueError, match=said) as caught:
        offered(config, cluster(radio=menu))
    assert caught.value.code == "environment-image"


def test_a_cluster_without_images_is_refused(config: Config) -> None:
    with pytest.raises(CatalogueError, match="names no image") as caught:
        offered(config, cluster())
    assert caught.value.code == "environment-none"
