"""The chart renders to what Kubernetes takes, and to nothing it should not hold."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from astrocloud.config import parse_config
from astrocloud.core.cluster import Cluster
from astrocloud.core.runtime import SERVICES
from tests.kube.cluster import schemas
from tests.kube.cluster.programs import CHART_PROGRAMS, build, program

pytestmark = [pytest.mark.chart, pytest.mark.timeout(1800)]

CHART = Path(__file__).parents[2] / "helm" / "astrocloud"
VALUES = sorted((Path(__file__).parent / "values").glob("*.yaml"))
TLS = ("--set", "tls.internal=true")
NO_TLS = ("--set", "tls.internal=false")


@pytest.fixture(scope="module", autouse=True)
def programs() -> None:
    build(CHART_PROGRAMS, say=print)


def helm(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program("helm"), *arguments], capture_output=True, text=True, check=False)


def render(
    *arguments: str | Path, chart: Path = CHART, release: str = "astrocloud", namespace: str = "platform"
) -> str:
    done = helm("template", release, chart, "--namespace", namespace, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


class OnceLoader(yaml.SafeLoader):
    """Reads as Helm and Kubernetes do, where PyYAML reads otherwise.

    It refuses a key that is written twice, of which PyYAML would take the last; and to it ``y`` and ``n`` are truth
    values, and ``1e3`` is a number.
    """

    bool_values = {**yaml.SafeLoader.bool_values, "y": True, "n": False}  # noqa: RUF012 - as in the class above it


def _mapping(loader: OnceLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [loader.construct_object(key) for key, _ in node.value]
    twice = {key for key in keys if keys.count(key) > 1}
    if twice:
        raise yaml.constructor.ConstructorError(None, None, f"written twice: {twice}", node.start_mark)
    return loader.construct_mapping(node, deep=True)


OnceLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
OnceLoader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^[yYnN]$"), list("yYnN"))
OnceLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def objects(*arguments: str | Path, **of: Any) -> list[dict[str, Any]]:
    """Return what the chart renders to; `of` is the chart, the release's name or its namespace, as for `render`."""
    rendered = render(*arguments, **of)
    return [document for document in yaml.load_all(rendered, OnceLoader) if document]


def pods(made: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return kind/name -> spec of every pod, however it comes to be."""
    found = {}
    for document in made:
        spec = document.get("spec", {})
        spec = spec if document["kind"] == "Pod" else spec.get("template", {}).get("spec")
        if spec and "containers" in spec:
            found[f"{document['kind']}/{document['metadata']['name']}"] = spec
    return found


def settings_in(made: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the ConfigMap from which the platform's parts read their settings."""
    return next(d for d in made if d["kind"] == "ConfigMap" and d["metadata"]["name"].endswith("-settings"))


@pytest.fixture(params=VALUES, ids=lambda path: path.stem)
def values(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def test_it_lints(values: Path) -> None:
    done = helm("lint", "--strict", CHART, "--values", values)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def described() -> None:
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
    everything = render("--values", Path(__file__).parent / "values" / "everything.yaml", *TLS).split("\n---\n")
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


CONFINED: dict[str, Any] = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
OWNS_FILES = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "SETGID", "SETUID"]
"""What VOSpace has besides, the one exception; the operator guide gives the reasons. All within ``baseline``."""


def test_what_mounts_a_volume_is_alone_in_what_it_may() -> None:
    rendered = objects("--values", Path(__file__).parent / "values/glusterfs.yaml")

    there = {each["kind"]: each for each in rendered if each["metadata"].get("namespace") == "platform-storage"}
    assert set(there) == {"DaemonSet", "Service", "ServiceMonitor"}
    mounter = there["DaemonSet"]
    (own,) = [each for each in rendered if each["kind"] == "Namespace"]
    assert own["metadata"]["name"] == "platform-storage"
    assert own["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "privileged"
    assert mounter["spec"]["updateStrategy"] == {"type": "OnDelete"}
    spec = mounter["spec"]["template"]["spec"]
    assert spec["automountServiceAccountToken"] is False
    (container,) = spec["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    (tree,) = [each for each in rendered if each["kind"] == "PersistentVolume"]
    # Below the mount, and never made: without the mount nothing is written to the node's disk.
    assert tree["spec"]["hostPath"] == {
        "path": "/mnt/astrocloud/platform-astrocloud/volume/people",
        "type": "Directory",
    }
    assert "--target=/mnt/astrocloud/platform-astrocloud/volume" in container["args"]
    assert {"--server=fd00::3", "--ipv6", "--folder=people"} <= set(container["args"])


def test_an_archive_in_a_bucket_is_told_to_the_hub_and_let_through() -> None:
    rendered = objects("--values", Path(__file__).parent / "values/everything.yaml")
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
    rendered = objects("--values", Path(__file__).parent / "values/glusterfs.yaml")
    (vospace,) = [spec for name, spec in pods(rendered).items() if name.endswith("-vospace")]

    (mount,) = [each for each in vospace["containers"][0]["volumeMounts"] if each["name"] == "archive"]
    assert mount == {"name": "archive", "mountPath": "/srv/astrocloud/tree/archive", "readOnly": True}
    assert yaml.safe_load(settings_in(rendered)["data"]["cluster.yaml"])["servers"]["archive_claim"] == "surveys"


def test_a_volume_without_servers_is_refused() -> None:
    done = helm("template", "sky", CHART, "--set", "storage.tree.kind=glusterfs")

    assert done.returncode != 0
    assert "storage.tree.glusterfs.servers" in done.stderr


def test_every_pod_is_as_confined_as_people_s(values: Path) -> None:
    # What mounts a volume is in a namespace of its own, and has a test of its own.
    rendered = [each for each in objects("--values", values) if each["metadata"].get("namespace") != "platform-storage"]
    found = pods(rendered)

    assert found
    assert len([name for name in found if name.endswith("-vospace")]) == 1
    for name, spec in found.items():
        security = spec["securityContext"]
        owner_of_files = name.endswith("-vospace")
        assert security["runAsNonRoot"] is not owner_of_files, name
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys(), name
        assert not any("hostPath" in volume for volume in spec.get("volumes", [])), name
        for container in spec["containers"] + spec.get("initContainers", []):
            wanted = CONFINED | ({"capabilities": {"drop": ["ALL"], "add": OWNS_FILES}} if owner_of_files else {})
            assert container["securityContext"] == wanted, name


def test_only_who_needs_it_has_an_account_s_token(values: Path) -> None:
    found = pods(objects("--values", values))

    with_token = {name.rpartition("-")[2] for name, spec in found.items() if spec["automountServiceAccountToken"]}
    assert with_token <= {"hub", "secrets", "fetch"}


def test_no_secret_is_in_what_is_rendered(values: Path) -> None:
    made = objects("--values", values)

    assert [document["metadata"]["name"] for document in made if document["kind"] == "Secret"] == []


def scope(role: dict[str, Any]) -> str:
    """Return where a role holds: in the whole cluster, in the release's namespace, or in another one that is named."""
    where: str = role["metadata"].get("namespace", "cluster")
    return "namespace" if where == "platform" else where


def test_the_rights_are_the_reviewed_ones() -> None:
    reviewed = yaml.safe_load((Path(__file__).parent / "rights.yaml").read_text(encoding="utf-8"))

    rendered = [
        {
            "holder": document["metadata"]["labels"]["app.kubernetes.io/component"],
            "scope": scope(document),
            "rules": [
                {
                    "groups": rule["apiGroups"],
                    "resources": rule["resources"],
                    **({"names": rule["resourceNames"]} if "resourceNames" in rule else {}),
                    "verbs": rule["verbs"],
                }
                for rule in document["rules"]
            ],
        }
        for document in objects()
        if document["kind"] in {"Role", "ClusterRole"}
    ]

    key = ("holder", "scope")
    assert sorted(rendered, key=lambda r: [r[k] for k in key]) == sorted(reviewed, key=lambda r: [r[k] for k in key])


def test_a_part_that_did_not_start_is_not_given_the_time_of_one_that_works() -> None:
    """VOSpace ends its transfers in order, for minutes; one that waits for a database has none, and was stuck."""
    parts = [each["spec"]["template"]["spec"]["containers"][0] for each in objects() if each["kind"] == "Deployment"]
    probes = [part["startupProbe"] for part in parts if part["name"] in {"portal", "passport", "vospace"}]

    assert len(probes) == 3
    assert all(probe["terminationGracePeriodSeconds"] <= 10 for probe in probes)
    assert all(probe["periodSeconds"] * probe["failureThreshold"] >= 300 for probe in probes)


def test_the_hub_makes_secrets_only_where_registries_want_a_sign_in() -> None:
    """Copies in people's namespaces: it makes them, and reads none."""

    def of_secrets(*arguments: str) -> list[list[str]]:
        roles = [each for each in objects(*arguments) if each["kind"] == "ClusterRole"]
        return [rule["verbs"] for role in roles for rule in role["rules"] if "secrets" in rule["resources"]]

    assert of_secrets() == []
    assert of_secrets("--set", "imagePullSecrets[0].name=registry") == [["create"]]


def test_the_configuration_arrives_as_it_was_given() -> None:
    file = Path(__file__).parent / "values" / "production.yaml"
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

    everything = Path(__file__).parent / "values" / "everything.yaml"
    platform = 'networkPolicies.dns=[{"ipBlock":{"cidr":"192.0.2.1/32"}}]'

    assert told("--values", everything) == [{"ipBlock": {"cidr": "169.254.20.10/32"}}]
    assert told("--set-json", platform) == [{"ipBlock": {"cidr": "192.0.2.1/32"}}]


def templates(made: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return kind/name -> the template of every pod that a controller makes."""
    found = {}
    for document in made:
        if document["kind"] in {"Deployment", "StatefulSet", "DaemonSet"}:
            found[f"{document['kind']}/{document['metadata']['name']}"] = document["spec"]["template"]
    return found


def test_a_new_version_of_the_chart_alone_restarts_nothing(tmp_path: Path) -> None:
    digests = Path(__file__).parent / "values" / "production.yaml"
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


READS = {
    "hub": {
        *("hub-cookie", "hub-crypt", "proxy-token", "internal", "passport-client", "database-password"),
        *("service-operator", "service-monitoring", "service-portal", "service-passport", "service-vospace"),
    },
    "passport": {
        *("internal", "passport-client", "passport-keys", "proxy-token", "canary", "database-password"),
        *("service-operator", "service-passport"),
    },
    "portal": {"canary", "service-portal", "database-password"},
    "vospace": {"internal", "service-vospace", "database-password"},
}
"""The platform's secrets that each part has as files."""


def mounted(made: list[dict[str, Any]], part: str) -> dict[str, str]:
    """Return file -> Secret of what a part has in its folder of secrets."""
    (volume,) = [
        each
        for each in templates(made)[f"Deployment/astrocloud-{part}"]["spec"]["volumes"]
        if each["name"] == "secrets"
    ]
    return {
        item["path"]: source["secret"]["name"]
        for source in volume["projected"]["sources"]
        for item in source["secret"]["items"]
    }


@pytest.mark.parametrize("part", READS)
def test_a_part_has_the_secrets_that_it_reads(part: str) -> None:
    assert mounted(objects(*NO_TLS), part).keys() == READS[part] | {"database-ca"}
    assert mounted(objects(*NO_TLS, "--set", "database.bundled.tls=false"), part).keys() == READS[part]


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


@pytest.mark.parametrize("encrypted", [True, False])
def test_the_database_has_its_certificate_and_no_other_part_its_key(encrypted: bool) -> None:
    made = objects("--set", f"database.bundled.tls={str(encrypted).lower()}")
    (database,) = [each for each in made if each["kind"] == "StatefulSet"]
    (settings,) = [each["data"] for each in made if each["metadata"]["name"].endswith("-settings")]
    (volume,) = [v["secret"] for v in database["spec"]["template"]["spec"]["volumes"] if v["name"] == "password"]
    (job,) = [each for each in made if each["kind"] == "Job" and each["metadata"]["name"].endswith("-secrets")]

    connection = yaml.safe_load(settings["cluster.yaml"])["database"]
    names = [
        argument for argument in job["spec"]["template"]["spec"]["containers"][0]["args"] if "=database=" in argument
    ]
    certificate = {"database-certificate", "database-key"}

    assert connection["sslmode"] == ("verify-full" if encrypted else "disable")
    assert {item["key"] for item in volume["items"]} == {"database-password"} | (certificate if encrypted else set())
    # What the parts call it is what it is certified for.
    assert [connection["host"] in name.rpartition("=")[2].split(",") for name in names] == [True] * encrypted
    for part in READS:
        assert "database-key" not in mounted(made, part)


@pytest.mark.parametrize("part", READS)
@pytest.mark.parametrize(
    ("keys", "password"),
    [("", "mine"), ("keys", "mine"), ("mine", "mine"), ("mine", "")],
    ids=["beside-the-job-s", "beside-the-operator-s", "one-for-all", "not-named"],
)
def test_the_password_of_an_external_database_is_the_operator_s(part: str, keys: str, password: str) -> None:
    external = ["database.kind=external", "database.external.host=db", f"database.external.passwordSecret={password}"]

    found = mounted(objects(*NO_TLS, "--set", ",".join([*external, f"secrets.existingSecret={keys}"])), part)

    assert found.keys() == READS[part] | {"database-ca"}
    assert {found["database-password"], found["database-ca"]} == {"mine"}
    assert {found[name] for name in READS[part] - {"database-password"}} == {keys or "astrocloud-secrets"}


def test_an_external_database_is_not_checked_by_the_bundled_one_s_authority() -> None:
    """It may be in the job's Secret, from before the operator took a database of their own."""
    made = objects("--set", "database.kind=external,database.external.host=db")

    assert "database-ca" not in mounted(made, "hub")


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


def test_a_secret_that_the_configuration_names_is_there_for_whom_it_concerns() -> None:
    other = {
        "kind": "cstcloud",
        "client_id": "astro",
        "client_secret": {"file": "/srv/astrocloud/secrets/cstcloud"},
    }
    made = objects("--set-json", f"config.passport={json.dumps(other)}")

    having = {part for part in READS if "cstcloud" in mounted(made, part)}

    assert having == {"hub", "passport"}


def test_an_image_is_named_by_its_digest() -> None:
    images = [
        container["image"]
        for spec in pods(objects("--values", Path(__file__).parent / "values" / "production.yaml")).values()
        for container in spec["containers"] + spec.get("initContainers", [])
    ]

    assert images
    assert all("@sha256:" in image for image in images), images
