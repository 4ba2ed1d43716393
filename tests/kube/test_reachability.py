"""Who may connect to whom: the policies that the chart and the spawner write, evaluated for every pair."""

import subprocess
from ipaddress import ip_network
from typing import Any

import pytest
import yaml

from astrocloud.core.cluster import Cluster
from astrocloud_hub.spawners.kube.models import SERVER_PORT, Ground, Quota
from astrocloud_hub.spawners.kube.objects import namespace_objects
from astrocloud_hub.spawners.models import Person
from tests.kube.cluster.programs import CHART_PROGRAMS, build, program
from tests.kube.installation import CHART
from tests.kube.reachability import Place, reaches

pytestmark = [pytest.mark.chart, pytest.mark.timeout(1800)]

NAMESPACE = "platform"
# Who (rows) reaches what (columns); x: yes. A person's own servers do not reach each other. The cluster's DNS has no
# policies here, and "stranger" is a pod of somebody else's in a namespace without any.
MATRIX = """
          proxy proxy-api hub portal passport vospace bytes database ann bob dns internet private metadata kubelet api
people    x     .         .   .      .        .       x     .        .   .   x   x        x       x        x       x
stranger  x     .         .   .      .        .       x     .        .   .   x   x        x       x        x       x
ann       .     .         x   x      x        x       x     .        .   .   x   x        .       .        .       .
bob       .     .         x   x      x        x       x     .        .   .   x   x        .       .        .       .
proxy     .     .         x   x      x        x       .     .        x   x   x   .        .       .        .       .
hub       x     x         .   x      x        x       x     x        x   x   x   x        x       x        x       x
portal    x     .         x   x      x        x       .     x        .   .   x   .        .       .        .       .
passport  x     .         x   x      x        x       .     x        .   .   x   .        .       .        .       .
vospace   x     .         x   x      x        x       .     x        .   .   x   x        .       .        .       .
database  .     .         .   .      .        .       .     .        .   .   .   .        .       .        .       .
prepuller x     .         .   .      .        .       x     .        .   .   x   x        x       x        x       x
fetch     x     .         .   .      .        .       x     .        .   .   x   x        x       x        x       x
waiting   x     .         .   .      .        .       x     .        .   .   x   x        x       x        x       x
secrets   x     .         .   .      .        .       x     .        .   .   x   x        x       x        x       x
test      x     .         x   .      .        .       x     x        .   .   x   x        x       x        x       x
"""

OUTSIDE = {
    "people": Place(name="people", address="198.51.100.7"),
    "internet": Place(name="internet", address="203.0.113.9"),
    "private": Place(name="private", address="10.20.30.40"),
    "metadata": Place(name="metadata", address="169.254.169.254"),
    "kubelet": Place(name="kubelet", address="10.0.0.5"),
    "api": Place(name="api", address="10.96.0.1"),
}
WHERE = {
    "proxy-api": ("proxy", 8001, "TCP"),
    "ann": ("ann", SERVER_PORT, "TCP"),
    "bob": ("bob", SERVER_PORT, "TCP"),
    "dns": ("dns", 53, "UDP"),
    "internet": ("internet", 443, "TCP"),
    "private": ("private", 443, "TCP"),
    "metadata": ("metadata", 80, "TCP"),
    "kubelet": ("kubelet", 10250, "TCP"),
    "api": ("api", 443, "TCP"),
    "database": ("database", 5432, "TCP"),
    "hub": ("hub", 8081, "TCP"),
    "proxy": ("proxy", 8000, "TCP"),
    "bytes": ("vospace", 8082, "TCP"),
}


def render(*arguments: str) -> list[dict[str, Any]]:
    build(CHART_PROGRAMS, say=print)
    command = [str(program("helm")), "template", "sky", str(CHART), "--namespace", NAMESPACE, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def ground(made: list[dict[str, Any]]) -> Ground:
    found = next(d for d in made if d["kind"] == "ConfigMap" and d["metadata"]["name"].endswith("-settings"))
    settings = found["data"]["cluster.yaml"]
    quota = Quota(pods=5, memory_bytes=2**34, cpus=8, largest_memory_bytes=2**33)
    return Ground(cluster=Cluster.model_validate(yaml.safe_load(settings)), tree={"hostPath": {}}, quota=quota)


def policies_and_places(*arguments: str) -> tuple[list[dict[str, Any]], dict[str, Place]]:
    made = render(*arguments)
    land = ground(made)
    policies = [document for document in made if document["kind"] == "NetworkPolicy"]
    places = dict(OUTSIDE)
    for document in made:
        if document["kind"] in {"Deployment", "StatefulSet", "DaemonSet", "Job", "Pod"}:
            pod = document if document["kind"] == "Pod" else document["spec"]["template"]
            labels = pod["metadata"]["labels"]
            part = labels["app.kubernetes.io/component"]
            places[part] = Place(
                name=part,
                address=f"10.90.1.{len(places)}",
                namespace=NAMESPACE,
                namespace_labels={"kubernetes.io/metadata.name": NAMESPACE},
                labels=labels,
                ports={
                    port["name"]: port["containerPort"]
                    for container in pod["spec"]["containers"]
                    for port in container.get("ports", [])
                },
            )
    for number, name in enumerate(("ann", "bob")):
        objects = namespace_objects(land, Person(username=name, uid=200000 + number, gid=200000 + number, groups=()))
        policies += [found for found in objects if found["kind"] == "NetworkPolicy"]
        space = objects[0]["metadata"]
        places[name] = Place(
            name=name,
            address=f"10.90.2.{number + 1}",
            namespace=space["name"],
            namespace_labels={"kubernetes.io/metadata.name": space["name"], **space["labels"]},
            labels=land.pod_labels,
        )
    for name, namespace in (("stranger", "elsewhere"), ("dns", "kube-system")):
        labels = {"kubernetes.io/metadata.name": namespace}
        places[name] = Place(
            name=name, address="10.90.3.1", namespace=namespace, namespace_labels=labels, labels={"app": name}
        )
    return policies, places


def table(text: str) -> dict[tuple[str, str], bool]:
    first, *rows = [line.split() for line in text.strip().splitlines()]
    return {(row[0], column): mark == "x" for row in rows for column, mark in zip(first, row[1:], strict=True)}


@pytest.mark.parametrize("tls", ["false", "true"])
def test_every_pair_is_as_it_should_be(tls: str) -> None:
    policies, places = policies_and_places("--set", f"tls.internal={tls}")
    wanted = table(MATRIX)

    found = {}
    for source, column in wanted:
        target, port, protocol = WHERE.get(column, (column, 8080, "TCP"))
        if tls == "true" and port in {8080, 8081}:
            port = 8443
        found[source, column] = reaches(policies, places[source], places[target], port, protocol=protocol)

    assert {pair: now for pair, now in found.items() if now != wanted[pair]} == {}


def test_without_tls_only_servers_of_before_are_let_in_and_only_when_asked_for() -> None:
    plain = {"hub": 8081, "vospace": 8080, "portal": 8080, "passport": 8080}
    for also in (False, True):
        policies, places = policies_and_places("--set", f"tls.internal=true,tls.alsoPlain={str(also).lower()}")
        let = {
            (source, part)
            for source in places
            for part, port in plain.items()
            if source != part and reaches(policies, places[source], places[part], port)
        }
        assert let == ({(who, part) for who in ("ann", "bob") for part in ("hub", "vospace")} if also else set())


def test_every_part_of_the_chart_is_in_the_table() -> None:
    _, places = policies_and_places()

    rows = {source for source, _ in table(MATRIX)}

    assert places.keys() - OUTSIDE.keys() - {"dns"} == rows - OUTSIDE.keys()


def test_the_proxy_can_be_kept_to_those_in_front_of_it() -> None:
    source = 'networkPolicies.from=[{"namespaceSelector":{"matchLabels":{"kubernetes.io/metadata.name":"elsewhere"}}}]'
    policies, places = policies_and_places("--set-json", source)

    assert reaches(policies, places["stranger"], places["proxy"], 8000)
    assert not reaches(policies, places["people"], places["proxy"], 8000)
    assert not reaches(policies, places["ann"], places["proxy"], 8000)
    # The portal looks whether people can come in.
    assert reaches(policies, places["portal"], places["proxy"], 8000)
    # The way of bytes around it is open to the same, and to people's servers.
    assert reaches(policies, places["stranger"], places["vospace"], 8082)
    assert not reaches(policies, places["people"], places["vospace"], 8082)
    assert reaches(policies, places["ann"], places["vospace"], 8082)


@pytest.mark.parametrize("network", ["203.0.113.0/24", "2001:db8::/32"])
def test_what_the_operator_keeps_out_of_the_internet_is_not_reached(network: str) -> None:
    policies, places = policies_and_places("--set-json", f'networkPolicies.except=["{network}"]')
    outside = Place(name="nodes", address=str(ip_network(network)[9]))

    for source in ("ann", "vospace"):
        assert not reaches(policies, places[source], outside, 443)
        assert reaches(policies, places[source], Place(name="other", address="198.51.100.77"), 443)


def test_prometheus_reaches_what_it_is_let_to() -> None:
    source = 'monitoring.from=[{"namespaceSelector":{"matchLabels":{"kubernetes.io/metadata.name":"elsewhere"}}}]'
    policies, places = policies_and_places("--set-json", source)

    for part in ("portal", "passport", "vospace", "hub"):
        (port,) = (port for name, port in places[part].ports.items() if name in {"http", "https"})
        assert reaches(policies, places["stranger"], places[part], port)
    assert not reaches(policies, places["stranger"], places["database"], 5432)
    assert not reaches(policies, places["stranger"], places["proxy"], 8001)


def test_transfers_reach_the_private_networks_that_the_operator_names() -> None:
    policies, places = policies_and_places("--set-json", 'config.vospace={"transfer_networks":["10.20.0.0/16"]}')

    assert reaches(policies, places["vospace"], places["private"], 443)
    assert not reaches(policies, places["vospace"], places["metadata"], 80)


@pytest.mark.parametrize("wrong", ["no policies at all", "another's server"])
def test_the_evaluation_tells_when_something_is_open(wrong: str) -> None:
    policies, places = policies_and_places()
    left = [] if wrong == "no policies at all" else [p for p in policies if p["metadata"]["namespace"] == NAMESPACE]

    assert reaches(left, places["bob"], places["ann"], SERVER_PORT)
    assert not reaches(policies, places["bob"], places["ann"], SERVER_PORT)
