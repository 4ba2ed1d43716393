"""The chart renders to what Kubernetes takes, and to nothing it should not hold."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from astrocloud.config import parse_config
from astrocloud.core.cluster import Cluster
from astrocloud.core.runtime import SERVICES
from tests.kube.cluster import schemas
from tests.kube.cluster.programs import program
from tests.kube.rendering import (
    CHART,
    TLS,
    VALUES,
    OnceLoader,
    chart_programs,
    helm,
    objects,
    pods,
    render,
    settings_in,
    templates,
)

pytestmark = [pytest.mark.chart, pytest.mark.timeout(1800)]


def test_it_lints(values: Path) -> None:
    done = helm("lint", "--strict", CHART, "--values", values)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def described() -> None:
    chart_programs()
    schemas.ensure(say=print)


def conforms(manifests: str) -> subprocess.CompletedProcess[str]:
    command = [program("kubeconform"), "-strict", "-output", "json", "-schema-location", schemas.LOCATION, "-"]
    return subprocess.run(command, input=manifests, capture_output=True, text=True, check=False)


@pytest.mark.usefixtures("described")
def test_kubernetes_takes_what_it_renders(values: Path) -> None:
    done = conforms(render("--values", values))

    assert done.returncode == 0, done.stdout
    assert json.loads(done.stdout)["resources"] == []


@pytest.mark.usefixtures("described")
@pytest.mark.parametrize(
    ("kind", "right", "wrong"),
    [
        ("Service", "clusterIP:", "clusterPI:"),
        ("Ingress", "ingressClassName:", "ingressClasName:"),
        ("HTTPRoute", "parentRefs:", "parentRef:"),
        ("HTTPRoute", "timeouts:", "timeout:"),
        ("HTTPRoute", "request: 0s", "requests: 0s"),
        ("HTTPRoute", "request: 0s", "request: never"),
        ("HTTPRoute", "type: PathPrefix", "type: Prefix"),
        ("HTTPRoute", "labels:", "lables:"),
        ("ServiceMonitor", "matchLabels:", "matchLabel:"),
        ("ServiceMonitor", "interval: 30s", "interval: half a minute"),
        ("ServiceMonitor", "credentials:", "credential:"),
        ("ServiceMonitor", "serverName:", "servername:"),
        ("PrometheusRule", "expr:", "expression:"),
        ("PrometheusRule", "annotations:", "anotations:"),
        ("PrometheusRule", "for: ", "for: a "),
    ],
)
def test_a_field_that_a_kind_does_not_know_is_refused(kind: str, right: str, wrong: str) -> None:
    everything = render("--values", VALUES / "everything.yaml", *TLS).split("\n---\n")
    found = next(each for each in everything if f"\nkind: {kind}\n" in each and right in each)
    assert conforms(found).returncode == 0

    done = conforms(found.replace(right, wrong))

    assert done.returncode != 0
    (told,) = json.loads(done.stdout)["resources"]
    assert (told["kind"], told["status"]) == (kind, "statusInvalid")


@pytest.mark.usefixtures("described")
def test_a_kind_that_nobody_described_is_refused() -> None:
    done = conforms(json.dumps({"apiVersion": "example.org/v1", "kind": "Telescope", "metadata": {"name": "x"}}))

    assert done.returncode != 0
    assert "Telescope" in done.stdout


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("hub.imgae.tag=1", "imgae"),
        ("config.langauge=en", "langauge"),
        ("config.language=fr", "language"),
        ("config.servers.limit_per_person=0", "limit_per_person"),
        ("storage.tree.kind=nsf", "kind"),
        ("services.protal.replicas=2", "protal"),
        ("hub.image.digest=sha256:12", "digest"),
        ("servers.tmpSize=500m", "tmpSize"),
        # A person's name has up to 32 characters, a namespace's up to 63.
        ("servers.namespacePrefix=a23456789-123456789-123456789-1-", "namespacePrefix"),
    ],
)
def test_a_typo_is_refused(setting: str, named: str) -> None:
    done = helm("template", "astrocloud", CHART, "--set", setting)

    assert done.returncode != 0
    assert named in done.stderr


def test_a_missing_address_is_named() -> None:
    done = helm("template", "astrocloud", CHART, "--set", "database.kind=external")

    assert done.returncode != 0
    assert "database.external.host" in done.stderr


def test_an_archive_in_a_bucket_is_told_to_the_hub_and_let_through() -> None:
    rendered = objects("--values", VALUES / "everything.yaml")
    settings = settings_in(rendered)["data"]
    config = parse_config(yaml.safe_load(settings["astrocloud.yaml"]), source="values")
    cluster = Cluster.model_validate(yaml.load(settings["cluster.yaml"], OnceLoader))

    assert (config.archive.bucket, config.archive.region) == ("surveys/dr18", "north")
    assert config.archive.key is not None
    assert cluster.servers.archive_egress == [{"to": [{"ipBlock": {"cidr": "10.1.2.0/24"}}], "ports": [{"port": 9000}]}]
    holders = [
        name.rpartition("-")[2]
        for name, spec in pods(rendered).items()
        for volume in spec.get("volumes", [])
        if volume.get("secret", {}).get("secretName") == "s3-keys"
    ]
    assert holders == ["hub"]


def test_an_archive_on_a_volume_of_its_own_is_what_vospace_shows() -> None:
    rendered = objects("--values", VALUES / "glusterfs.yaml")
    (vospace,) = [spec for name, spec in pods(rendered).items() if name.endswith("-vospace")]

    (mount,) = [each for each in vospace["containers"][0]["volumeMounts"] if each["name"] == "archive"]
    assert mount == {"name": "archive", "mountPath": "/srv/astrocloud/tree/archive", "readOnly": True}
    assert yaml.safe_load(settings_in(rendered)["data"]["cluster.yaml"])["servers"]["archive_claim"] == "surveys"


def test_a_volume_without_servers_is_refused() -> None:
    done = helm("template", "sky", CHART, "--set", "storage.tree.kind=glusterfs")

    assert done.returncode != 0
    assert "storage.tree.glusterfs.servers" in done.stderr


def test_a_part_that_did_not_start_is_not_given_the_time_of_one_that_works() -> None:
    """VOSpace ends its transfers in order, for minutes; one that waits for a database has none, and was stuck."""
    parts = [each["spec"]["template"]["spec"]["containers"][0] for each in objects() if each["kind"] == "Deployment"]
    probes = [part["startupProbe"] for part in parts if part["name"] in {"portal", "passport", "vospace"}]

    assert len(probes) == 3
    assert all(probe["terminationGracePeriodSeconds"] <= 10 for probe in probes)
    assert all(probe["periodSeconds"] * probe["failureThreshold"] >= 300 for probe in probes)


def test_the_configuration_arrives_as_it_was_given() -> None:
    file = VALUES / "production.yaml"
    given = yaml.safe_load(file.read_text(encoding="utf-8"))["config"]

    settings = settings_in(objects("--values", file))

    assert yaml.safe_load(settings["data"]["astrocloud.yaml"]) == given
    cluster = Cluster.model_validate(yaml.safe_load(settings["data"]["cluster.yaml"]))
    assert cluster.services.keys() == set(SERVICES)
    assert cluster.public_url == given["public_url"]


def test_every_set_of_values_gives_settings_that_the_parts_take(values: Path) -> None:
    settings = settings_in(objects("--values", values))

    Cluster.model_validate(yaml.load(settings["data"]["cluster.yaml"], OnceLoader))


def test_servers_look_names_up_where_they_are_told_to() -> None:
    def told(*arguments: str | Path) -> list[dict[str, Any]]:
        settings = settings_in(objects(*arguments))["data"]["cluster.yaml"]
        return Cluster.model_validate(yaml.safe_load(settings)).servers.dns

    everything = VALUES / "everything.yaml"
    platform = 'networkPolicies.dns=[{"ipBlock":{"cidr":"192.0.2.1/32"}}]'

    assert told("--values", everything) == [{"ipBlock": {"cidr": "169.254.20.10/32"}}]
    assert told("--set-json", platform) == [{"ipBlock": {"cidr": "192.0.2.1/32"}}]


def test_a_new_version_of_the_chart_alone_restarts_nothing(tmp_path: Path) -> None:
    digests = VALUES / "production.yaml"
    newer = tmp_path / "astrocloud"
    shutil.copytree(CHART, newer)
    about = newer / "Chart.yaml"
    about.write_text(re.sub(r"(?m)^(version|appVersion): .*$", r'\1: "77.0.0"', about.read_text(encoding="utf-8")))

    before, after = objects("--values", digests), objects("--values", digests, chart=newer)

    assert "77.0.0" in json.dumps(after)
    assert templates(after) == templates(before)


def test_every_part_leaves_a_lost_node_soon(values: Path) -> None:
    made = templates(objects("--values", values))

    for name, template in made.items():
        if name.startswith("DaemonSet/"):
            continue
        seconds = {
            toleration["key"].rpartition("/")[2]: toleration["tolerationSeconds"]
            for toleration in template["spec"]["tolerations"]
            if "tolerationSeconds" in toleration
        }
        assert seconds == {"not-ready": 30, "unreachable": 30}, name


def test_how_long_a_part_stays_on_a_lost_node_is_the_operator_s_to_say() -> None:
    own = {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute"}
    made = templates(objects("--set-json", f"hub.tolerations={json.dumps([own])}"))

    told = made["Deployment/astrocloud-hub"]["spec"]["tolerations"]

    assert [each for each in told if each["key"] == own["key"]] == [own]


def test_prometheus_has_what_it_needs() -> None:
    made = objects(
        *("--set", "monitoring.serviceMonitor=true", "--set", "monitoring.alerts=true"),
        *("--set", "monitoring.runbooks=https://docs.example.org/runbooks.html"),
    )
    monitors = {each["metadata"]["name"]: each["spec"] for each in made if each["kind"] == "ServiceMonitor"}
    (rules,) = [each["spec"]["groups"] for each in made if each["kind"] == "PrometheusRule"]
    services = {each["metadata"]["name"]: each for each in made if each["kind"] == "Service"}

    assert {name.rpartition("-")[2] for name in monitors} == {"hub", *SERVICES}
    for name, monitor in monitors.items():
        (endpoint,) = monitor["endpoints"]
        assert monitor["selector"]["matchLabels"].items() <= services[name]["metadata"]["labels"].items()
        assert endpoint["port"] in {port["name"] for port in services[name]["spec"]["ports"]}
    authorization = monitors["astrocloud-hub"]["endpoints"][0]["authorization"]
    assert authorization["credentials"] == {"name": "astrocloud-secrets", "key": "service-monitoring"}
    alerts = [rule for group in rules for rule in group["rules"]]
    headings = {
        heading.lower()
        for heading in re.findall(
            r"(?m)^#+ (\w+)$", (CHART.parents[1] / "docs/operator/runbooks.md").read_text(encoding="utf-8")
        )
    }
    links = [alert["annotations"]["runbook_url"].partition("#") for alert in alerts]
    assert {page for page, _, _ in links} == {"https://docs.example.org/runbooks.html"}
    assert {anchor for _, _, anchor in links} <= headings


def test_an_image_is_named_by_its_digest() -> None:
    images = [
        container["image"]
        for spec in pods(objects("--values", VALUES / "production.yaml")).values()
        for container in spec["containers"] + spec.get("initContainers", [])
    ]

    assert images
    assert all("@sha256:" in image for image in images), images
