"""The chart's life on a running cluster: installed, upgraded, rolled back, uninstalled, installed again."""

import base64
import json
import re
from typing import Any

import pytest

from tests.kube.installation import CHART, Installation, until
from tests.kube.rendering import READS
from tests.kube.test_platform import both

pytestmark = [pytest.mark.kube, pytest.mark.timeout(1800)]


def test_what_a_part_runs_is_told_by_its_digest(installation: Installation) -> None:
    wanted = installation.values["proxy"]["image"]["digest"]

    running = {
        status["imageID"].rpartition("@")[2]
        for pod in installation.pods("proxy")
        for status in pod["status"]["containerStatuses"]
    }

    assert running == {wanted}


def test_every_listed_key_is_made(installation: Installation) -> None:
    listed = (CHART / "files" / "secrets.txt").read_text(encoding="utf-8").splitlines()

    made = installation.keys()

    certified = {f"{part}-{kind}" for part in ("database", "proxy", *READS) for kind in ("certificate", "key")}
    authorities = {"database-ca", "platform-ca", "platform-ca-key", "servers-ca", "servers-ca-key"}
    assert made.keys() == {line for line in listed if line and not line.startswith("#")} | certified | authorities
    assert len(set(made.values())) == len(made)


def test_no_key_is_in_what_helm_keeps(installation: Installation) -> None:
    kept = installation.helm("get", "manifest", "sky") + installation.helm("get", "values", "sky", "-a")
    kept += installation.helm("get", "hooks", "sky")

    for name, value in installation.keys().items():
        assert value not in kept, name
        # Nor in clear, however the lines of one that has several are broken and indented there.
        assert max(base64.b64decode(value).decode().splitlines(), key=len) not in kept, name


def test_the_rights_to_make_keys_end_with_the_job(installation: Installation) -> None:
    kinds = "role,rolebinding,serviceaccount,job"
    left = installation.kube.get(kinds, "-n", installation.namespace)["items"]

    assert [found["kind"] for found in left if found["metadata"]["name"] == f"{installation.name}-secrets"] == []


def test_a_key_that_a_version_adds_is_made_and_no_other_changed(installation: Installation) -> None:
    before = installation.keys()
    # One that nothing reads before its first use, as if this version had brought it.
    drop = json.dumps([{"op": "remove", "path": "/data/passport-keys"}])
    installation.kubectl("patch", "secret", f"{installation.name}-secrets", "--type=json", "-p", drop)

    installation.apply()

    after = installation.keys()
    assert after.keys() == before.keys()
    assert {name for name in before if after[name] != before[name]} == {"passport-keys"}
    back = json.dumps([{"op": "replace", "path": "/data/passport-keys", "value": before["passport-keys"]}])
    installation.kubectl("patch", "secret", f"{installation.name}-secrets", "--type=json", "-p", back)


def test_what_cannot_be_changed_is_said_before_it_is_tried(installation: Installation) -> None:
    bundled = installation.values["database"]["bundled"]

    with pytest.raises(AssertionError, match=r"database\.bundled\.size: the database's volume was made with 1Gi"):
        installation.apply(database={"bundled": bundled | {"size": "2Gi"}})


async def test_upgrade_and_rollback_keep_people_signed_in(installation: Installation) -> None:
    name: dict[str, Any] = {"name": {"en": "Other Sky", "zh": "另一片天空"}}
    config = installation.values["config"]
    async with installation.person("ann") as ann:
        await ann.sign_in()

        async def title() -> str:
            async with ann.session.get(f"{ann.url}/") as answer:
                found = re.search("<title>(.*?)</title>", await answer.text())
                return found[1] if found else ""

        async def is_other() -> bool:
            return "Other Sky" in await title()

        async def is_own() -> bool:
            return "Astrocloud" in await title()

        installation.apply(config=config | name)
        installation.wait()
        await until("the new name", is_other)
        await until("the session after the upgrade", lambda: both(ann))

        installation.helm("rollback", "sky")
        installation.wait()
        await until("the earlier name", is_own)
        await until("the session after the rollback", lambda: both(ann))


async def test_saved_databases_can_be_put_back(installation: Installation) -> None:
    database = f"statefulset/{installation.name}-database"
    installation.add("earlier")
    save = "pg_dump -U postgres -Fc astrocloud > /tmp/astrocloud.dump"
    installation.kubectl("exec", database, "--", "sh", "-c", save)
    installation.run("astrocloud", "user", "add", "later")

    selector = f"app.kubernetes.io/instance={installation.release}"
    installation.kubectl("scale", "deployment", "--replicas=0", "-l", selector)
    put_back = "pg_restore -U postgres --clean --if-exists --single-transaction -d astrocloud /tmp/astrocloud.dump"
    installation.kubectl("exec", database, "--", *put_back.split())
    installation.apply()
    installation.wait()

    people = {person["username"] for person in json.loads(installation.run("astrocloud", "user", "list", "--json"))}
    assert "earlier" in people
    assert "later" not in people
    async with installation.person("earlier") as earlier:
        await until("signing in again", lambda: signs_in(earlier))


async def test_uninstalling_leaves_everything_that_an_installation_finds_again(installation: Installation) -> None:
    token = installation.token("ann")
    async with installation.person("ann") as ann:
        file = f"{installation.url}/services/vospace/files/home/ann/kept.txt"
        headers = {"Authorization": f"Bearer {token}"}
        async with ann.session.put(file, data=b"kept", headers=headers) as answer:
            assert answer.status in {200, 201}
        before = installation.keys()

        installation.helm("uninstall", "sky", "--wait")

        assert installation.kube.get("deployments,statefulsets", "-n", installation.namespace)["items"] == []
        assert installation.keys() == before
        for claim in (f"{installation.name}-tree", f"data-{installation.name}-database-0"):
            assert installation.kube.get("pvc", "-n", installation.namespace, claim)["status"]["phase"] == "Bound"

        installation.apply()
        installation.wait()

        await until("signing in again", lambda: signs_in(ann))
        async with ann.session.get(file, headers=headers) as answer:
            assert await answer.read() == b"kept"


async def signs_in(person: Any) -> bool:
    status, path = await person.sign_in()
    return (status, path) == (200, "/services/portal/home")
