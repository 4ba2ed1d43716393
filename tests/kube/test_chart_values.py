"""What an operator's values change in what the chart renders."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from astrocloud.config import parse_config
from astrocloud.core.cluster import Cluster
from astrocloud.core.runtime import SERVICES
from helm import values_schema
from tests.kube.rendering import CHART, VALUES, helm, objects, pods, settings_in, templates

pytestmark = [pytest.mark.chart, pytest.mark.timeout(1800)]

DEDICATED = {"example.org/role": "platform"}
TAINTED = {"key": "example.org/platform", "operator": "Exists", "effect": "NoSchedule"}
HOOKS = ("Job/astrocloud-secrets", "Pod/astrocloud-canary", "Pod/astrocloud-test", "Job/astrocloud-fetch")


def given(**values: Any) -> tuple[str, ...]:
    """Return the arguments that set `values`; two underscores are a dot."""
    return tuple(
        part
        for key, value in values.items()
        for part in ("--set-json", f"{key.replace('__', '.')}={json.dumps(value)}")
    )


# Where pods run


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_runs_where_the_parts_may(hook: str) -> None:
    """On a cluster whose nodes all bear a taint an installation would wait for its keys until its time is over."""
    placed = {"nodeSelector": DEDICATED, "tolerations": [TAINTED]}

    spec = pods(objects(*given(services__passport=placed)))[hook]

    assert spec["nodeSelector"] == DEDICATED
    assert TAINTED in spec["tolerations"]


def test_a_hook_s_own_values_say_where_it_runs() -> None:
    elsewhere = {"nodeSelector": {"example.org/role": "tests"}}
    passport = given(services__passport={"nodeSelector": DEDICATED, "tolerations": [TAINTED]})
    own = given(secrets__job=elsewhere, tests=elsewhere, prepuller__beforeUpgrade=elsewhere)

    made = pods(objects(*passport, *own))

    for hook in HOOKS:
        assert made[hook]["nodeSelector"] == elsewhere["nodeSelector"]
        assert TAINTED in made[hook]["tolerations"]


def test_every_pod_takes_what_an_operator_says_of_pods() -> None:
    """Labels by which somebody pays, annotations for a mesh, a priority class, and the rest."""
    made = objects("--values", VALUES / "everything.yaml")
    metadata = {
        f"{each['kind']}/{each['metadata']['name']}": (
            each if each["kind"] == "Pod" else each["spec"].get("template", {})
        ).get("metadata")
        for each in made
        if "spec" in each
    }

    found = pods(made)

    assert {name.replace("astrocloud", "astro-platform") for name in HOOKS} < found.keys()
    for name, spec in found.items():
        fetching = name in {"DaemonSet/astro-platform-prepuller", "DaemonSet/astro-platform-fetch"}
        assert metadata[name]["labels"]["example.org/label"] == "1000000", name
        assert metadata[name]["annotations"]["example.org/annotation"] == "true", name
        assert spec["priorityClassName"] == "system-cluster-critical", name
        assert spec["imagePullSecrets"] == [{"name": "registry"}, {"name": "other-registry"}], name
        assert spec["nodeSelector"] == ({"example.org/role": "servers"} if fetching else DEDICATED), name
        assert spec["affinity"], name
        for container in [*spec["containers"], *spec.get("initContainers", [])]:
            # What does nothing reads no environment.
            assert fetching or {"name": "EXAMPLE", "value": "1000000"} in container["env"], name
            assert container["resources"]["limits"]["memory"] in {"32Mi", "200Mi", "256Mi", "2Gi", "4Gi"}, name


def test_people_s_servers_take_what_an_operator_says_of_pods() -> None:
    def servers(*arguments: str | Path) -> Any:
        return Cluster.model_validate(yaml.safe_load(settings_in(objects(*arguments))["data"]["cluster.yaml"])).servers

    told, plain = servers("--values", VALUES / "everything.yaml"), servers()

    assert (told.pod_labels, told.pod_annotations) == (
        {"example.org/label": "1000000"},
        {"example.org/annotation": "true"},
    )
    assert (told.priority_class, plain.priority_class) == ("people", "platform-astrocloud-server")
    assert (plain.pod_labels, plain.pod_annotations) == ({}, {})


def test_what_mounts_the_tree_takes_what_other_pods_take() -> None:
    made = templates(objects("--values", VALUES / "glusterfs.yaml"))["DaemonSet/astrocloud-storage"]

    assert made["metadata"]["labels"]["example.org/label"] == "1000000"
    assert made["metadata"]["annotations"] == {"example.org/annotation": "true"}
    (container,) = made["spec"]["containers"]
    assert container["env"] == [{"name": "EXAMPLE", "value": "1000000"}]


def test_only_hooks_after_the_installation_have_the_platform_s_priority() -> None:
    """The class is made with the release: what runs before would be refused."""
    made = pods(objects())

    for hook in ("Job/astrocloud-secrets", "Job/astrocloud-fetch", "DaemonSet/astrocloud-fetch"):
        assert "priorityClassName" not in made[hook]
    assert made["DaemonSet/astrocloud-prepuller"]["priorityClassName"] == "platform-astrocloud-filler"
    assert made["Pod/astrocloud-canary"]["priorityClassName"] == "platform-astrocloud-platform"


def test_who_uses_the_tree_goes_where_it_is_mounted() -> None:
    """Elsewhere pods would hang on a folder that is not there."""
    own = {"topology.kubernetes.io/region": "north"}
    volume = ("--values", VALUES / "glusterfs.yaml")

    made = objects(*volume, *given(servers__nodeSelector=own, services__vospace__nodeSelector=own))

    mounted = {"example.org/role": "servers"}
    found = pods(made)
    assert found["DaemonSet/astrocloud-storage"]["nodeSelector"] == mounted
    servers = yaml.safe_load(settings_in(made)["data"]["cluster.yaml"])["servers"]
    assert servers["node_selector"] == mounted | own
    assert found["Deployment/astrocloud-vospace"]["nodeSelector"] == mounted | own
    assert found["DaemonSet/astrocloud-prepuller"]["nodeSelector"] == mounted | own
    # Who has nothing to do with files goes anywhere.
    assert "nodeSelector" not in found["Deployment/astrocloud-portal"]


@pytest.mark.parametrize("who", ["servers", "services.vospace"])
def test_nodes_without_the_tree_are_refused(who: str) -> None:
    named = f"{who}.nodeSelector"
    values = {named.replace(".", "__"): {"example.org/role": "platform"}}

    done = helm("template", "sky", CHART, "--values", VALUES / "glusterfs.yaml", *given(**values))

    assert done.returncode != 0
    assert f"{named}: example.org/role=platform" in done.stderr
    assert "storage.tree.glusterfs.nodeSelector has example.org/role=servers" in done.stderr


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("servers.podLabels.paid-by=physics department", "does not match pattern"),
        (f"proxy.podLabels.paid-by={'x' * 64}", "maxLength"),
        ("hub.podLabels.-key=x", "does not match pattern"),
        ("prepuller.podLabels.app\\.kubernetes\\.io/component=mine", "app.kubernetes.io/component"),
        ("servers.podAnnotations.a key=x", "does not match pattern"),
        ("storage.tree.glusterfs.servers={[fd00::1]:24007}", "does not match pattern"),
    ],
)
def test_what_a_cluster_would_refuse_later_is_refused(argument: str, said: str) -> None:
    done = helm("template", "sky", CHART, "--set-string", argument)
    assert done.returncode != 0
    assert said in done.stderr


# What is written

READ_OTHERWISE = ["n", "12", "1e3", "null"]
"""Names that somebody may give, which YAML without quotes reads as a truth value, numbers or nothing."""


def shape(node: Any) -> Any:
    """Return `node` with the type of each value in its place."""
    if isinstance(node, dict):
        return {key: shape(value) for key, value in node.items()}
    return [shape(each) for each in node] if isinstance(node, list) else type(node).__name__


def shapes(made: list[dict[str, Any]]) -> list[Any]:
    """Return the shapes of what was rendered, and of the settings that the platform's parts read from it."""
    cluster = yaml.safe_load(settings_in(made)["data"]["cluster.yaml"])
    Cluster.model_validate(cluster)
    return [*map(shape, made), shape(cluster)]


def called(word: str, given: Any, schema: dict[str, Any], definitions: dict[str, Any]) -> Any:
    """Return values in which every text is `word` that may be any text, as `schema` has it."""
    if "$ref" in schema:
        return called(word, given, definitions[schema["$ref"].rpartition("/")[2]], definitions)
    if "anyOf" in schema and given is not None:
        return called(word, given, next(each for each in schema["anyOf"] if each.get("type") != "null"), definitions)
    if isinstance(given, dict):
        other = schema.get("additionalProperties")
        known = schema.get("properties", {})
        return {
            key: called(word, value, known.get(key, other if isinstance(other, dict) else {}), definitions)
            for key, value in given.items()
        }
    if isinstance(given, list):
        return [called(word, each, schema.get("items", {}), definitions) for each in given]
    free = isinstance(given, str) and schema.get("type") == "string" and not {"enum", "const", "format"} & schema.keys()
    return word if free and re.search(schema.get("pattern", ""), word) else given


@pytest.mark.parametrize("file", ["everything.yaml", "glusterfs.yaml"])
@pytest.mark.parametrize("word", READ_OTHERWISE)
def test_a_namespace_and_a_release_may_have_any_name(file: str, word: str) -> None:
    plain = objects("--values", VALUES / file)

    made = objects("--values", VALUES / file, release=word, namespace=word)

    assert shapes(made) == shapes(plain)
    namespaces = [each["metadata"].get("namespace") for each in made]
    renamed = {
        None: None,
        "platform": word,
        "platform-storage": f"{word}-storage",
        "kube-node-lease": "kube-node-lease",
    }
    assert namespaces == [renamed[each["metadata"].get("namespace")] for each in plain]
    subjects = [subject["namespace"] for each in made for subject in each.get("subjects", [])]
    assert set(subjects) == {word}
    (settings,) = [yaml.safe_load(settings_in(made)["data"]["cluster.yaml"])]
    assert (settings["release"], settings["namespace"]) == (word, word)


@pytest.mark.parametrize("file", ["values.yaml", "everything.yaml", "glusterfs.yaml", "production.yaml"])
@pytest.mark.parametrize("word", READ_OTHERWISE)
def test_a_value_that_is_a_text_stays_one(file: str, word: str, tmp_path: Path) -> None:
    """Every one that the schema lets be any text; of the chart's own values those that are empty, too."""
    schema = values_schema.schema()
    values = yaml.safe_load((CHART / file if file == "values.yaml" else VALUES / file).read_text(encoding="utf-8"))
    values.pop("config", None)

    def made(text: str) -> list[dict[str, Any]]:
        renamed = tmp_path / f"{text}.yaml"
        texts = called(text, values, schema, schema["$defs"])
        renamed.write_text(json.dumps(texts, default=str, ensure_ascii=False), encoding="utf-8")
        assert renamed.read_text(encoding="utf-8").count(text) > 10
        return objects("--values", renamed)

    assert shapes(made(word)) == shapes(made("word"))


def test_a_large_number_is_written_whole() -> None:
    """Helm holds numbers as floats: of seven digits and more they would come out as 1.0007e+09, which nobody takes."""
    uid = 1_000_700_000
    made = objects(*given(database__bundled__uid=uid, config__people__first_uid=uid))

    security = pods(made)["StatefulSet/astrocloud-database"]["securityContext"]
    assert security["runAsUser"] == security["runAsGroup"] == security["fsGroup"] == uid
    assert {type(value) for key, value in security.items() if key in {"runAsUser", "runAsGroup", "fsGroup"}} == {int}
    config = parse_config(yaml.safe_load(settings_in(made)["data"]["astrocloud.yaml"]), source="values")
    assert config.people.first_uid == uid


def test_monitors_and_rules_have_the_labels_that_a_prometheus_chooses_by() -> None:
    label = {"release": "prometheus"}
    wanted = {"serviceMonitor": True, "alerts": True, "labels": label}

    made = objects("--values", VALUES / "glusterfs.yaml", *given(monitoring=wanted))

    chosen = [each for each in made if each["kind"] in {"ServiceMonitor", "PrometheusRule"}]
    # One for each part that has metrics, and the rules.
    assert len(chosen) == len({*SERVICES, "hub", "storage", "rules"})
    assert all(label.items() <= each["metadata"]["labels"].items() for each in chosen)


# Accounts


def test_a_part_can_have_an_account_and_gets_no_token_with_it() -> None:
    made = objects("--values", VALUES / "everything.yaml")
    accounts = {each["metadata"]["name"]: each for each in made if each["kind"] == "ServiceAccount"}
    parts = {name.partition("/astro-platform-")[2]: spec for name, spec in pods(made).items()}
    bound = {
        subject["name"] for each in made if each["kind"].endswith("Binding") for subject in each.get("subjects", [])
    }
    services = {service: f"astro-platform-{service}" for service in SERVICES}

    for part, account in {**services, "proxy": "proxy-account", "database": "theirs"}.items():
        assert parts[part]["serviceAccountName"] == account
        assert parts[part]["automountServiceAccountToken"] is False
        assert account not in bound
    for account in services.values():
        assert accounts[account]["metadata"]["annotations"] == {"example.org/role": "services"}
    assert "hub-account" in bound
    # One that is only named is there already.
    assert "proxy-account" in accounts
    assert "theirs" not in accounts
    assert {each["automountServiceAccountToken"] for each in accounts.values()} == {False}


def test_a_part_without_an_account_of_its_own_has_the_namespace_s() -> None:
    found = pods(objects())

    for part in (*SERVICES, "proxy"):
        assert "serviceAccountName" not in found[f"Deployment/astrocloud-{part}"]
    assert "serviceAccountName" not in found["StatefulSet/astrocloud-database"]
