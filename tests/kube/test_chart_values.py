"""What an operator's values change in what the chart renders."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.kube.cluster.programs import CHART_PROGRAMS, build
from tests.kube.test_chart import objects, pods

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

    hooks = {name: spec for name, spec in pods(made).items() if name.partition("/")[0] in {"Job", "Pod"}}
    assert len(hooks) == len(HOOKS)
    for name, spec in hooks.items():
        assert spec["nodeSelector"] == DEDICATED, name
        assert spec["priorityClassName"] == "system-cluster-critical", name
        assert spec["affinity"] == {"podAntiAffinity": {}}, name
        assert spec["imagePullSecrets"] == [{"name": "registry"}, {"name": "other-registry"}], name
        (container,) = spec["containers"]
        assert {"name": "EXAMPLE", "value": "1000000"} in container["env"], name
        assert container["resources"]["limits"] == {"memory": "200Mi"}, name
    for document in made:
        if document["kind"] in {"Job", "Pod"}:
            metadata = (document if document["kind"] == "Pod" else document["spec"]["template"])["metadata"]
            assert metadata["labels"]["example.org/label"] == "1000000"
            assert metadata["annotations"]["example.org/annotation"] == "true"


def test_only_hooks_after_the_installation_have_the_platform_s_priority() -> None:
    """The class is made with the release: what runs before would be refused."""
    made = pods(objects())

    assert "priorityClassName" not in made["Job/astrocloud-secrets"]
    assert made["Pod/astrocloud-canary"]["priorityClassName"] == "platform-astrocloud-platform"
