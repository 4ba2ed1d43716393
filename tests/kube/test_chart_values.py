"""What an operator's values change in what the chart renders."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from astrocloud.config import parse_config
from astrocloud.core.runtime import SERVICES
from tests.kube.cluster.programs import CHART_PROGRAMS, build
from tests.kube.test_chart import CHART, helm, objects, pods, scope, settings_in, templates

pytestmark = [pytest.mark.chart, pytest.mark.timeout(1800)]

VALUES = Path(__file__).parent / "values"
DEDICATED = {"example.org/role": "platform"}
TAINTED = {"key": "example.org/platform", "operator": "Exists", "effect": "NoSchedule"}
HOOKS = ("Job/astrocloud-secrets", "Pod/astrocloud-canary", "Pod/astrocloud-test")


@pytest.fixture(scope="module", autouse=True)
def programs() -> None:
    build(CHART_PROGRAMS, say=print)


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
    elsewhere = {"example.org/role": "tests"}
    passport = given(services__passport={"nodeSelector": DEDICATED, "tolerations": [TAINTED]})

    made = pods(objects(*passport, *given(secrets__job={"nodeSelector": elsewhere}, tests={"nodeSelector": elsewhere})))

    for hook in HOOKS:
        assert made[hook]["nodeSelector"] == elsewhere
        assert TAINTED in made[hook]["tolerations"]


def test_a_hook_takes_what_every_workload_takes() -> None:
    made = objects("--values", VALUES / "everything.yaml")

    names = [hook.replace("astrocloud", "astro-platform") for hook in HOOKS]
    for name in names:
        spec = pods(made)[name]
        assert spec["nodeSelector"] == DEDICATED, name
        assert spec["priorityClassName"] == "system-cluster-critical", name
        assert spec["affinity"] == {"podAntiAffinity": {}}, name
        assert spec["imagePullSecrets"] == [{"name": "registry"}, {"name": "other-registry"}], name
        (container,) = spec["containers"]
        assert {"name": "EXAMPLE", "value": "1000000"} in container["env"], name
        assert container["resources"]["limits"] == {"memory": "200Mi"}, name
    for document in made:
        if f"{document['kind']}/{document['metadata']['name']}" in names:
            metadata = (document if document["kind"] == "Pod" else document["spec"]["template"])["metadata"]
            assert metadata["labels"]["example.org/label"] == "1000000"
            assert metadata["annotations"]["example.org/annotation"] == "true"


def test_what_mounts_the_tree_takes_what_other_pods_take() -> None:
    made = templates(objects("--values", VALUES / "glusterfs.yaml"))["DaemonSet/astrocloud-storage"]

    assert made["metadata"]["labels"]["example.org/label"] == "1000000"
    assert made["metadata"]["annotations"] == {"example.org/annotation": "true"}
    (container,) = made["spec"]["containers"]
    assert container["env"] == [{"name": "EXAMPLE", "value": "1000000"}]


def test_only_hooks_after_the_installation_have_the_platform_s_priority() -> None:
    """The class is made with the release: what runs before would be refused."""
    made = pods(objects())

    assert "priorityClassName" not in made["Job/astrocloud-secrets"]
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


# What is written


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


# Rights

REVIEWED = yaml.safe_load((VALUES.parent / "rights.yaml").read_text(encoding="utf-8"))
BY_VALUES = yaml.safe_load((VALUES.parent / "rights_by_values.yaml").read_text(encoding="utf-8"))

Right = tuple[str, str, str, str, str, str]


def single(holder: str, where: str, rule: dict[str, Any]) -> set[Right]:
    """Return the rights of one rule, each alone: who, where, the group, the kind, the name if one is said, the verb."""
    combined = itertools.product(rule["groups"], rule["resources"], rule.get("names", [""]), rule["verbs"])
    return {(holder, where, group, resource, name, verb) for group, resource, name, verb in combined}


def rendered_rights(*arguments: str) -> set[Right]:
    return set().union(
        *(
            single(
                role["metadata"]["labels"]["app.kubernetes.io/component"],
                scope(role),
                {
                    "groups": rule["apiGroups"],
                    "resources": rule["resources"],
                    "names": rule.get("resourceNames", [""]),
                    "verbs": rule["verbs"],
                },
            )
            for role in objects(*arguments)
            if role["kind"] in {"Role", "ClusterRole"}
            for rule in role["rules"]
        )
    )


@pytest.mark.parametrize("case", BY_VALUES, ids=lambda case: case["values"][0])
def test_values_change_no_right_but_those_that_were_reviewed(case: dict[str, Any]) -> None:
    default = set().union(
        *(single(right["holder"], right["scope"], rule) for right in REVIEWED for rule in right["rules"])
    )
    listed = {
        change: set().union(*(single(right["holder"], right["scope"], right) for right in case.get(change, [])))
        for change in ("added", "dropped")
    }

    found = rendered_rights(*(part for value in case["values"] for part in ("--set", value)))

    assert listed["dropped"] <= default
    assert found - default == listed["added"]
    assert default - found == listed["dropped"]
