"""The platform on a running cluster: people sign in and use it, and what is lost comes back."""

import asyncio
import itertools
import json
import re
from collections.abc import Awaitable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import aiohttp
import pytest

from tests.kube.installation import Installation, until
from tests.support.person import Person

pytestmark = [pytest.mark.kube, pytest.mark.timeout(1800)]


PATIENCE = aiohttp.ClientTimeout(total=5)
"""A connection to a pod that is gone at once with its address ends by nobody's answering, as to a lost node."""


def say(line: str) -> None:
    print(line, flush=True)


async def get(session: aiohttp.ClientSession, address: str, **headers: str) -> tuple[int, str]:
    async with session.get(address, headers=headers, timeout=PATIENCE) as answer:
        return answer.status, await answer.text()


async def signed_in(person: Person) -> bool:
    """Whether the portal shows its page for `person` without asking to sign in again."""
    home = f"{person.url}/services/portal/home"
    async with person.session.get(home, allow_redirects=False, timeout=PATIENCE) as answer:
        return answer.status == 200


def test_every_part_answers_where_people_come_in(installation: Installation) -> None:
    said = installation.helm("test", "sky", "--timeout", "120s", "--filter", f"name={installation.name}-test")

    assert "Succeeded" in said


def test_the_operator_s_commands_work_in_a_pod(installation: Installation) -> None:
    installation.add("chief", admin=True)

    listed = json.loads(installation.run("astrocloud", "user", "list", "--json"))
    status = json.loads(installation.run("astrocloud", "status", "--json"))

    assert next(person["admin"] for person in listed if person["username"] == "chief") is True
    assert status["url"] == installation.url
    assert set(status["parts"].values()) == {"ok"}, status


async def test_a_person_signs_in_and_finds_every_part_well(installation: Installation) -> None:
    async with installation.person("ann") as ann:
        assert await ann.sign_in() == (200, "/services/portal/home")

        status, text = await get(ann.session, f"{ann.url}/services/portal/api/health")

    assert status == 200
    assert json.loads(text)["status"] == "ok", text


async def test_files_are_their_owner_s_and_the_same_by_every_replica(installation: Installation) -> None:
    token, url = installation.token("ann"), f"{installation.url}/services/vospace"
    headers = {"Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession(headers=headers) as session:
        async with session.put(f"{url}/files/home/ann/night.txt", data=b"clear skies") as answer:
            assert answer.status == 201, await answer.text()
        other = {"Authorization": f"Bearer {installation.token('bob')}"}
        assert (await get(session, f"{url}/files/home/ann/night.txt", **other))[0] == 403

    uid = next(
        p["uid"] for p in json.loads(installation.run("astrocloud", "user", "list", "--json")) if p["username"] == "ann"
    )
    look = "stat -c '%u %g %a' /srv/astrocloud/tree/home/ann && cat /srv/astrocloud/tree/home/ann/night.txt"
    pods = [pod["metadata"]["name"] for pod in installation.pods("vospace")]
    assert len(pods) == 2
    for pod in pods:
        assert installation.kubectl("exec", pod, "--", "sh", "-c", look) == f"{uid} {uid} 700\nclear skies"


async def test_a_deleted_proxy_comes_back_with_all_routes(installation: Installation) -> None:
    async with installation.person("ann") as ann:
        await ann.sign_in()
        installation.delete("proxy")

        took = await until("the portal and the hub behind a new proxy", lambda: both(ann))

        say(f"proxy deleted: everything answered again after {took:.1f} s")


async def test_who_is_signed_in_stays_so_when_the_hub_is_deleted(installation: Installation) -> None:
    async with installation.person("ann") as ann:
        await ann.sign_in()
        installation.delete("hub")

        # Without the hub nobody's rights are known, but the portal says so instead of failing.
        assert (await get(ann.session, f"{ann.url}/"))[0] == 200
        took = await until("the hub's new pod", lambda: both(ann), within_s=120)

        say(f"hub deleted: everything answered again after {took:.1f} s")


async def test_vospace_is_found_by_its_identifier(installation: Installation) -> None:
    async with aiohttp.ClientSession() as session:
        status, told = await get(session, f"{installation.url}/reg/resource-caps")
    assert status == 200
    assert f"{installation.url}/services/vospace/capabilities" in told


async def listed(installation: Installation) -> set[str]:
    told = await asyncio.to_thread(installation.run, "astrocloud", "user", "list", "--json")
    return {person["username"] for person in json.loads(told)}


async def keep_adding(installation: Installation, acknowledged: list[str]) -> None:
    """Add people one after the other until cancelled, and note those of whom it was said that they were."""
    headers = {"Authorization": f"Bearer {installation.token('boss')}"}
    async with aiohttp.ClientSession(installation.url, headers=headers, timeout=PATIENCE) as session:
        for number in itertools.count():
            with suppress(aiohttp.ClientError, TimeoutError):
                asked = {"username": f"late{number}"}
                async with session.post("/services/passport/api/people", json=asked) as answer:
                    if answer.status in {200, 201}:
                        acknowledged.append(asked["username"])
            await asyncio.sleep(0.1)


async def test_people_and_sessions_survive_a_deleted_database(installation: Installation) -> None:
    installation.add("before")
    installation.add("boss", admin=True)
    acknowledged: list[str] = []
    async with installation.person("ann") as ann, installation.person("boss") as boss:
        await ann.sign_in()
        await boss.sign_in()
        adding = asyncio.ensure_future(keep_adding(installation, acknowledged))
        await until("somebody is added", lambda: asyncio.sleep(0, bool(acknowledged)))
        await asyncio.to_thread(installation.delete, "database")
        deleted = len(acknowledged)

        async def added() -> bool:
            return len(acknowledged) > deleted + 3 and bool(await listed(installation))

        took = await until("the database's new pod", added, within_s=120)
        await until("the session of before", lambda: both(ann))
        say(f"database deleted: people were known again after {took:.1f} s")
        adding.cancel()
        with suppress(asyncio.CancelledError):
            await adding

    # What was said to be done while it went is done.
    assert set(acknowledged) <= await listed(installation)
    async with installation.person("before") as before:
        assert (await before.sign_in())[0] == 200


def test_people_added_at_once_have_ids_of_their_own(installation: Installation) -> None:
    names = [f"crowd{number}" for number in range(6)]

    with ThreadPoolExecutor(len(names)) as at_once:
        list(at_once.map(installation.add, names))

    listed = json.loads(installation.run("astrocloud", "user", "list", "--json"))
    assert set(names) <= {person["username"] for person in listed}
    assert len({person["uid"] for person in listed}) == len(listed)


async def test_one_replica_deleted_of_two_is_not_noticed_for_long(installation: Installation) -> None:
    token, url = installation.token("ann"), f"{installation.url}/services/vospace"
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as session:
        written: list[str] = []

        async def write(number: int) -> None:
            name = f"{url}/files/home/ann/series/{number:03}.txt"
            async with session.put(name, data=f"frame {number}".encode(), timeout=PATIENCE) as answer:
                if answer.status in {200, 201}:
                    written.append(name)

        async with session.put(f"{url}/nodes/home/ann/series", data=FOLDER) as answer:
            assert answer.status in {200, 201, 409}, await answer.text()
        for number in range(60):
            if number == 10:
                pod = installation.pods("vospace")[0]["metadata"]["name"]
                installation.kubectl("delete", "pod", pod, "--grace-period=0", "--force")
            try:
                await write(number)
            except (aiohttp.ClientError, TimeoutError):
                continue
        installation.wait("vospace")

        # Some may be refused while the dead one still counts; what was acknowledged is there.
        assert len(written) >= 30
        for name in written:
            number = int(name[-7:-4])
            assert await get(session, name) == (200, f"frame {number}")
        say(f"one of two replicas deleted: {len(written)} of 60 writes taken, all of them there")


FOLDER = (
    '<node xmlns="http://www.ivoa.net/xml/VOSpace/v2.0" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
    'xsi:type="ContainerNode" uri="vos://astrocloud.local~vospace/home/ann/series"/>'
)


async def both(person: Person) -> bool:
    """Whether the portal knows `person`, and the hub, the passport and VOSpace are reached through the proxy."""
    asked: list[Awaitable[tuple[int, Any]]] = [
        get(person.session, f"{person.url}{path}")
        for path in ("/hub/health", "/services/passport/health", "/services/vospace/health")
    ]
    answers = await asyncio.gather(*asked)
    return all(status == 200 for status, _ in answers) and await signed_in(person)


def test_no_key_is_in_what_the_parts_print(installation: Installation) -> None:
    import base64

    printed = "".join(
        installation.kubectl("logs", pod["metadata"]["name"], "--all-containers", "--tail=-1")
        for part in ("hub", "proxy", "portal", "passport", "vospace", "database")
        for pod in installation.pods(part)
    )

    assert re.search("JupyterHub is now running", printed)
    for name, value in installation.keys().items():
        assert base64.b64decode(value).decode() not in printed, name
    for name, password in installation.passwords.items():
        assert password not in printed, name


def test_connections_to_the_database_are_encrypted_and_others_refused(installation: Installation) -> None:
    asked = "SELECT s.ssl FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid) WHERE a.client_addr IS NOT NULL"
    database = f"statefulset/{installation.name}-database"
    plain = (
        "from sqlalchemy import create_engine, make_url; from astrocloud.core.database import database_url; "
        "from astrocloud.core.layout import DataFolder; "
        "url = make_url(database_url(DataFolder.from_environment(), 'astrocloud')); "
        "create_engine(url).connect().close(); "
        "create_engine(url.update_query_dict({'sslmode': 'disable'})).connect()"
    )
    pod = f"deployment/{installation.name}-passport"

    encrypted = installation.kubectl("exec", database, "--", "psql", "-U", "postgres", "-Atc", asked).split()
    refused = installation.kube.run("exec", "-n", installation.namespace, pod, "--", "python", "-c", plain)

    assert set(encrypted) == {"t"}
    assert refused.returncode != 0
    assert "no encryption" in refused.stderr
