"""Which part has which secret, and where none is."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.kube.lookups import asked, settings
from tests.kube.rendering import CHART, NO_TLS, READS, helm, mounted, objects

pytestmark = [pytest.mark.chart, pytest.mark.timeout(1800)]


def test_no_secret_is_in_what_is_rendered(values: Path) -> None:
    made = objects("--values", values)

    assert [document["metadata"]["name"] for document in made if document["kind"] == "Secret"] == []


@pytest.mark.parametrize("part", READS)
def test_a_part_has_the_secrets_that_it_reads(part: str) -> None:
    assert mounted(objects(*NO_TLS), part).keys() == READS[part] | {"database-ca"}
    assert mounted(objects(*NO_TLS, "--set", "database.bundled.tls=false"), part).keys() == READS[part]


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


def test_a_secret_that_the_configuration_names_is_there_for_whom_it_concerns() -> None:
    other = {
        "kind": "cstcloud",
        "client_id": "astro",
        "client_secret": {"file": "/srv/astrocloud/secrets/cstcloud"},
    }
    made = objects("--set-json", f"config.passport={json.dumps(other)}")

    having = {part for part in READS if "cstcloud" in mounted(made, part)}

    assert having == {"hub", "passport"}


# An operator's own keys


def read_from(made: list[dict[str, Any]], secret: str) -> set[str]:
    """Return the keys that pods and Prometheus read from a Secret; what is optional is none of them."""
    found: set[str] = set()

    def walk(node: Any) -> None:
        if isinstance(node, list):
            for each in node:
                walk(each)
        elif isinstance(node, dict):
            if secret in {node.get("name"), node.get("secretName")} and not node.get("optional"):
                found.update(item["key"] for item in node.get("items", []))
                found.update([node["key"]] if "key" in node else [])
            for each in node.values():
                walk(each)

    walk(made)
    return found


OWN: dict[str, dict[str, Any]] = {
    "all": {"secrets.existingSecret": "mine"},
    "no-tls": {"secrets.existingSecret": "mine", "tls.internal": False, "database.bundled.tls": False},
    "external": {"secrets.existingSecret": "mine", "database.kind": "external", "database.external.host": "db"},
    "password": {
        "database.kind": "external",
        "database.external.host": "db",
        "database.external.passwordSecret": "mine",
    },
    "named": {
        "secrets.existingSecret": "mine",
        "config.passport": {
            "kind": "cstcloud",
            "client_id": "astro",
            "client_secret": {"file": "/srv/astrocloud/secrets/cstcloud"},
        },
    },
}


@pytest.mark.parametrize("values", OWN.values(), ids=OWN)
@pytest.mark.parametrize("upgrade", [True, False])
def test_an_operator_is_told_what_their_own_secret_lacks(values: dict[str, Any], upgrade: bool, tmp_path: Path) -> None:
    """Before anything is changed: pods that read a key that is not there never start."""
    everywhere = {"monitoring.serviceMonitor": True, **values}
    made = objects(*settings(everywhere))
    wanted = read_from(made, "mine")

    def told(keys: set[str]) -> subprocess.CompletedProcess[str]:
        metadata = {"name": "mine", "namespace": "platform"}
        mine = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": dict.fromkeys(keys, "eA==")}
        return asked(tmp_path, everywhere, there=[mine], kinds=made, upgrade=upgrade)

    assert told(wanted).returncode == 0
    for key in sorted(wanted)[:2]:
        done = told(wanted - {key})
        assert done.returncode != 0
        assert f"the Secret mine has no {key}, and" in done.stderr
    done = told({"something-else"})
    assert f"Secret: the Secret mine has no {', '.join(sorted(wanted))}, and" in done.stderr
    assert ("`tls.internal: false`" in done.stderr) is ("platform-ca" in wanted)


def test_the_notes_say_what_a_secret_has_to_hold_that_is_not_there_yet() -> None:
    """Something else may make it, which Helm does not wait for."""

    def notes(values: dict[str, Any]) -> str:
        done = helm("install", "sky", CHART, "--dry-run=client", *settings(values))
        assert done.returncode == 0, done.stderr
        return done.stdout.partition("NOTES:")[2]

    wanted = read_from(objects(*settings(OWN["all"])), "mine")
    assert f"Parts wait until the Secret mine is there and has: {', '.join(sorted(wanted))}." in notes(OWN["all"])
    assert "the Secret mine is there and has: database-password." in notes(OWN["password"])
    assert "Parts wait" not in notes({})
