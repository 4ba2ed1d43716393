"""What people's pods stand on, where it changes while the hub runs: the file tree, their folders in it, their quota."""

from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from pydantic import SecretStr

from astrocloud_hub.errors import HubError
from astrocloud_hub.spawners.kube import fleet, folders, objects
from astrocloud_hub.spawners.kube.models import Ground, Quota
from astrocloud_hub.spawners.kube.starts import early_end
from tests.hub.test_pod_objects import ADA, BEN, GIB, cluster, ground, plan


class Api:
    """A cluster that knows one claim and its volume."""

    def __init__(self) -> None:
        self.volume = "first"

    async def get(self, path: str, **_query: str) -> dict[str, Any]:
        if path.endswith("/persistentvolumeclaims/sky-astrocloud-tree"):
            return {"spec": {"volumeName": self.volume}}
        assert path == f"/api/v1/persistentvolumes/{self.volume}"
        return {"spec": {"capacity": {"storage": "1Gi"}, "hostPath": {"path": f"/{self.volume}"}}}


def size(memory_gib: int, cpus: float) -> SimpleNamespace:
    return SimpleNamespace(memory=memory_gib * GIB, cpus=cpus)


def fleet_of(api: Any, *sizes: SimpleNamespace, servers: int = 3) -> fleet.Fleet:
    catalogue: Any = SimpleNamespace(catalogue=[SimpleNamespace(resources=sizes or (size(2, 1),))])
    return fleet.fleet_of(api, cluster=cluster(), catalogue=catalogue, servers=servers)


class Slow(Api):
    """One that counts with a quota of before for a moment after it was changed."""

    def __init__(self) -> None:
        super().__init__()
        self.refused: list[str] = []
        self.created: list[str] = []

    async def get(self, path: str, **query: str) -> dict[str, Any]:
        if path.startswith("/api/v1/namespaces/astro-"):
            raise fleet.ClusterError(404, "not found")
        return await super().get(path, **query)

    async def apply(self, made: dict[str, Any]) -> None:
        """Take everything."""

    async def create(self, made: dict[str, Any]) -> dict[str, Any]:
        kind = made["kind"]
        if kind in {"PersistentVolumeClaim", "Pod"} and self.refused.count(kind) < 2:
            self.refused.append(kind)
            raise fleet.ClusterError(403, "exceeded quota: astrocloud, requested: x=1, used: x=1, limited: x=1")
        self.created.append(kind)
        return made


async def test_a_quota_that_was_just_raised_refuses_nobody() -> None:
    api = Slow()
    found = fleet_of(api)
    await found.ensure_namespace(ADA)
    await found.create_pod(plan())

    assert api.refused == ["PersistentVolumeClaim"] * 2 + ["Pod"] * 2
    assert {"PersistentVolumeClaim", "Pod"} <= set(api.created)


async def test_a_quota_that_is_used_up_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "_QUOTA_SETTLES_S", 0)
    api = Slow()

    with pytest.raises(HubError) as refused:
        await fleet_of(api).ensure_namespace(ADA)

    assert refused.value.code == "server-quota"
    assert api.refused == ["PersistentVolumeClaim"]


def volume_and_claims(there: Ground) -> tuple[dict[str, Any], dict[str, str]]:
    made = {each["kind"]: each for each in objects.namespace_objects(there, ADA)}
    pod = objects.pod(there, plan())
    volume, claim = made["PersistentVolume"], made["PersistentVolumeClaim"]
    mounted = next(each for each in pod["spec"]["volumes"] if each["name"] == "tree")
    return volume, {
        "bound to": volume["spec"]["claimRef"]["name"],
        "made": claim["metadata"]["name"],
        "mounted": mounted["persistentVolumeClaim"]["claimName"],
    }


async def test_servers_follow_a_tree_that_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "_TREE_KEPT_S", 0)
    api = Api()
    found = fleet_of(api)

    before, claims_before = volume_and_claims(await found.ground())
    api.volume = "second"
    after, claims_after = volume_and_claims(await found.ground())

    assert (before["spec"]["hostPath"]["path"], after["spec"]["hostPath"]["path"]) == ("/first", "/second")
    # What is there already cannot be changed, so it has another name, the same one everywhere.
    assert before["metadata"]["name"] != after["metadata"]["name"]
    assert len(set(claims_before.values())) == len(set(claims_after.values())) == 1
    assert claims_before != claims_after


async def test_the_same_bytes_are_the_same_volume() -> None:
    first, again = await fleet_of(Api()).ground(), await fleet_of(Api()).ground()

    assert volume_and_claims(first) == volume_and_claims(again)


async def test_a_sign_in_to_a_registry_is_read_anew_and_missed_by_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(fleet, "_TREE_KEPT_S", 0)
    there = cluster(image_pull_secrets=[{"name": "registry"}])
    quota = Quota(pods=5, memory_bytes=48 * GIB, cpus=12, largest_memory_bytes=16 * GIB)
    found = fleet.Fleet(api=Api(), cluster=there, quota=quota, pull=tmp_path)  # type: ignore[arg-type]
    with pytest.raises(HubError) as missed:
        await found.ground()
    assert missed.value.code == "server-pull-secret"
    assert "`registry`" in str(missed.value)

    file = tmp_path / "registry" / ".dockerconfigjson"
    file.parent.mkdir()
    for config in (b"{}", b'{"auths": {}}'):
        file.write_bytes(config)
        assert [secret.config for secret in (await found.ground()).pull_secrets] == [config]


@pytest.mark.parametrize("servers", [1, 3])
@pytest.mark.parametrize("sizes", [(size(2, 0.5),), (size(2, 1), size(16, 4))])
async def test_quota_holds_what_a_person_s_servers_ask_for(servers: int, sizes: tuple[SimpleNamespace, ...]) -> None:
    there = await fleet_of(Api(), *sizes, servers=servers).ground()
    hard = objects.namespace_objects(there, ADA)[1]["spec"]["hard"]
    largest = max(sizes, key=lambda each: each.memory)
    limits = plan().limits.__class__(memory_bytes=largest.memory, processes=64, cpus=largest.cpus)
    asked = objects.pod(there, plan(limits=limits))["spec"]["containers"][0]["resources"]["limits"]

    # All that may run, and one that is ending while another takes its place.
    assert int(hard["pods"]) > servers
    assert int(hard["limits.memory"]) >= (servers + 1) * int(asked["memory"])
    assert int(hard["limits.cpu"].rstrip("m")) >= (servers + 1) * int(asked["cpu"].rstrip("m"))


@pytest.fixture
async def vospace() -> AsyncIterator[tuple[folders.VospaceFolders, list[str]]]:
    """What asks VOSpace for folders, and the names of those for whom it did."""
    asked: list[str] = []

    async def make(request: web.Request) -> web.Response:
        asked.append((await request.json())["username"])
        return web.Response(status=204)

    app = web.Application()
    app.router.add_post(folders.PATH, make)
    async with TestServer(app) as server:
        yield folders.VospaceFolders(url=str(server.make_url("")), secret=SecretStr("s")), asked


async def test_folders_are_asked_for_once(vospace: tuple[folders.VospaceFolders, list[str]]) -> None:
    maker, asked = vospace

    for person in (ADA, ADA, BEN, ADA):
        await maker.ensure(person)

    assert asked == ["ada", "ben"]


async def test_folders_that_did_not_work_are_asked_for_again(
    vospace: tuple[folders.VospaceFolders, list[str]],
) -> None:
    maker, asked = vospace
    for person in (ADA, BEN):
        await maker.ensure(person)

    maker.forget("ada")
    for person in (ADA, BEN):
        await maker.ensure(person)

    assert asked == ["ada", "ben", "ada"]


async def test_folders_are_not_believed_in_for_ever(
    vospace: tuple[folders.VospaceFolders, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    maker, asked = vospace
    monkeypatch.setattr(folders, "_KEPT_S", 0)

    for _ in range(2):
        await maker.ensure(ADA)

    assert asked == ["ada", "ada"]


@pytest.mark.parametrize(("told", "folder"), [("/project/survey\n", "/project/survey"), ("/home/ada\n", "/home/ada")])
def test_the_folder_that_does_not_work_is_named(told: str, folder: str) -> None:
    pod = objects.pod(ground(), plan())

    err = early_end(pod, {"exitCode": objects.HOME_UNUSABLE, "message": told})

    assert err.code == "server-home"
    assert folder in err.sentence("en")
