"""What the chart's pods may do on their nodes and at the cluster's API."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.kube.rendering import VALUES, objects, pods, scope

pytestmark = [pytest.mark.chart, pytest.mark.timeout(1800)]

REVIEWED = yaml.safe_load((VALUES.parent / "rights.yaml").read_text(encoding="utf-8"))
BY_VALUES = yaml.safe_load((VALUES.parent / "rights_by_values.yaml").read_text(encoding="utf-8"))
CONFINED: dict[str, Any] = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
OWNS_FILES = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "SETGID", "SETUID"]
"""What VOSpace has besides, the one exception; the operator guide gives the reasons. All within ``baseline``."""


def test_what_mounts_a_volume_is_alone_in_what_it_may() -> None:
    rendered = objects("--values", VALUES / "glusterfs.yaml")

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


def test_the_rights_are_the_reviewed_ones() -> None:
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
    assert sorted(rendered, key=lambda r: [r[k] for k in key]) == sorted(REVIEWED, key=lambda r: [r[k] for k in key])


def test_the_hub_makes_secrets_only_where_registries_want_a_sign_in() -> None:
    """Copies in people's namespaces: it makes them, and reads none."""

    def of_secrets(*arguments: str) -> list[list[str]]:
        roles = [each for each in objects(*arguments) if each["kind"] == "ClusterRole"]
        return [rule["verbs"] for role in roles for rule in role["rules"] if "secrets" in rule["resources"]]

    assert of_secrets() == []
    assert of_secrets("--set", "imagePullSecrets[0].name=registry") == [["create"]]


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
