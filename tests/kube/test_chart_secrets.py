"""Which part has which secret, and where none is."""

import json
from pathlib import Path

import pytest
import yaml

from tests.kube.rendering import NO_TLS, READS, mounted, objects

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
