"""TLS between the platform's parts, as the chart sets it up."""

import json
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from astrocloud.core.cluster import Cluster
from astrocloud.core.runtime import SERVICES
from tests.kube.rendering import CHART, NO_TLS, READS, TLS, helm, mounted, objects, pods, render, settings_in

pytestmark = [pytest.mark.chart, pytest.mark.timeout(1800)]


@pytest.mark.parametrize("part", READS)
def test_a_part_has_its_own_certificate_and_whom_to_believe(part: str) -> None:
    own = {"platform-ca", f"{part}-certificate", f"{part}-key"}
    # The hub makes those of people's servers.
    more = {"servers-ca", "servers-ca-key"} if part == "hub" else set()

    assert mounted(objects(*TLS), part).keys() == READS[part] | {"database-ca"} | own | more


def test_the_authority_s_key_is_in_no_pod() -> None:
    made = objects(*TLS, "--set", "tls.front=true", "--set", "monitoring.serviceMonitor=true")

    for name, spec in pods(made).items():
        assert "platform-ca-key" not in json.dumps(spec), name
        assert ("servers-ca-key" in json.dumps(spec)) is (name == "Deployment/astrocloud-hub"), name


def certified(made: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Return part -> the names that the job makes its certificate for, by the platform's authority."""
    (job,) = [each for each in made if each["kind"] == "Job" and each["metadata"]["name"].endswith("-secrets")]
    found = {}
    for argument in job["spec"]["template"]["spec"]["containers"][0]["args"]:
        option, _, value = argument.partition("=")
        part, at, names = value.partition("@platform=")
        if option == "--certificate" and at:
            found[part] = names.split(",")
    return found


def test_each_part_is_called_by_tls_and_by_what_it_is_certified_for() -> None:
    made = objects(*TLS, "--set", "tls.front=true")
    settings = Cluster.model_validate(yaml.safe_load(settings_in(made)["data"]["cluster.yaml"]))
    names = certified(made)
    called = {
        "hub": settings.hub,
        **settings.services,
        "proxy": settings.proxy_api,
        "front": settings.proxy,
        "public": settings.public_url,
    }
    services = {f"{each['metadata']['name']}.platform.svc": each["spec"] for each in made if each["kind"] == "Service"}

    assert settings.tls.internal
    assert {urlsplit(url).scheme for url in called.values()} == {"https"}
    for part, url in called.items():
        if part == "public":
            continue
        place = urlsplit(url)
        assert place.hostname in names["proxy" if part == "front" else part]
        assert place.port in {port["port"] for port in services[str(place.hostname)]["ports"]}


def test_no_port_of_the_hub_or_a_service_is_without_tls() -> None:
    made = objects(*TLS)

    for name, spec in pods(made).items():
        if name.removeprefix("Deployment/astrocloud-") not in {"hub", *SERVICES}:
            continue
        (container,) = spec["containers"]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert ports.pop("https") == 8443
        assert ports.keys() <= {"bytes"}
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert (container[probe]["httpGet"]["port"], container[probe]["httpGet"]["scheme"]) == ("https", "HTTPS")


def test_the_proxy_checks_whom_it_calls_and_is_called_by_tls() -> None:
    (container,) = pods(objects(*TLS))["Deployment/astrocloud-proxy"]["containers"]
    arguments = dict(argument.split("=", 1) for argument in container["args"])

    assert arguments["--default-target"].startswith("https://")
    assert arguments["--error-target"].startswith("https://")
    assert {"--api-ssl-key", "--api-ssl-cert"} <= arguments.keys()
    assert "--insecure" not in arguments
    assert {"name": "ASTROCLOUD_TRUST", "value": "/srv/astrocloud/tls"} in container["env"]
    # What is in front of it is another thing.
    assert "--ssl-key" not in arguments
    (container,) = pods(objects(*TLS, "--set", "tls.front=true"))["Deployment/astrocloud-proxy"]["containers"]
    assert "--ssl-key=/srv/astrocloud/tls/proxy-key" in container["args"]
    assert container["readinessProbe"]["httpGet"]["scheme"] == "HTTPS"


def test_what_is_in_front_is_told_that_it_is_to_speak_tls() -> None:
    bytes_too = ("--set", "config.vospace.bytes_url=https://bytes.example.org")
    for front in (False, True):
        made = objects(*TLS, *bytes_too, "--set", f"tls.front={str(front).lower()}")
        ports = {
            each["metadata"]["name"]: each["spec"]["ports"][0].get("appProtocol")
            for each in made
            if each["kind"] == "Service"
        }
        assert ports["astrocloud"] == ports["astrocloud-bytes"] == ("https" if front else None)


def test_a_front_by_tls_takes_the_rest() -> None:
    done = helm("template", "astrocloud", CHART, *NO_TLS, "--set", "tls.front=true")

    assert done.returncode != 0
    assert "tls.internal" in done.stderr


def test_metrics_are_read_by_tls() -> None:
    made = objects(*TLS, "--set", "monitoring.serviceMonitor=true")
    services = {each["metadata"]["name"]: each for each in made if each["kind"] == "Service"}
    names = certified(made)

    for monitor in (each for each in made if each["kind"] == "ServiceMonitor"):
        name = monitor["metadata"]["name"]
        (endpoint,) = monitor["spec"]["endpoints"]
        assert endpoint["port"] in {port["name"] for port in services[name]["spec"]["ports"]}
        assert endpoint["scheme"] == "https"
        assert endpoint["tlsConfig"]["serverName"] in names[name.removeprefix("astrocloud-")]
        assert endpoint["tlsConfig"]["ca"]["secret"] == {"name": "astrocloud-secrets", "key": "platform-ca"}


def test_without_tls_nothing_is_made_for_it() -> None:
    rendered = render(*NO_TLS, "--set", "monitoring.serviceMonitor=true")

    assert "platform-ca" not in rendered
    assert "8443" not in rendered
    assert "HTTPS" not in rendered
