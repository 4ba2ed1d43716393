"""What is sent to a cluster for a person, compared whole with golden files.

`ASTROCLOUD_WRITE_GOLDEN=1` writes them anew; look at the difference before committing it.
"""

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from astrocloud.core.cluster import Cluster, ClusterTls
from astrocloud_hub.hosts import address_in
from astrocloud_hub.spawners.kube import objects
from astrocloud_hub.spawners.kube.certificates import AUTHORITY, CERTIFICATE, KEY, STOCK_START
from astrocloud_hub.spawners.kube.models import Ground, Placement, PullSecret, Quota, ServerPlan, server_label
from astrocloud_hub.spawners.kube.spawner import origin
from astrocloud_hub.spawners.models import Group, Limits, Person

GOLDEN = Path(__file__).with_name("golden")
GIB = 2**30
SIGN_IN = b'{"auths":{"registry.example.org":{"auth":"c2VjcmV0"}}}'

ADA = Person(username="ada", uid=200001, gid=200001, groups=(Group(name="survey", gid=400001),))
BEN = Person(username="ben", uid=200002, gid=200002)


def cluster(**servers: Any) -> Cluster:
    document = {
        "release": "sky",
        "namespace": "astro",
        "public_url": "https://astro.example.org",
        "proxy": "http://sky-astrocloud",
        "proxy_api": "http://sky-astrocloud-proxy-api:8001",
        "hub": "http://sky-astrocloud-hub:8081",
        "services": {name: f"http://sky-astrocloud-{name}:8080" for name in ("portal", "passport", "vospace")},
        "database": {"host": "db.example.org"},
        "servers": {"tree_claim": "sky-astrocloud-tree", **servers},
    }
    return Cluster.model_validate(document)


def ground(**servers: Any) -> Ground:
    quota = Quota(pods=5, memory_bytes=48 * GIB, cpus=12, largest_memory_bytes=16 * GIB)
    tree = {"nfs": {"server": "nfs.example.org", "path": "/tree"}, "mountOptions": ["nfsvers=4.2", "hard"]}
    return Ground(cluster=cluster(**servers), tree=tree, quota=quota)


def plan(**changes: Any) -> ServerPlan:
    standard: dict[str, Any] = {
        "person": ADA,
        "server": "",
        "pod": "default-0a1b2c",
        "environment": "astro",
        "size": "small",
        "image": "registry.example.org/astro@sha256:" + "0" * 64,
        "pull_policy": "IfNotPresent",
        "command": ("python", "-m", "astrocloud_lab.serve", "--HubAuth.cache_max_age=20"),
        "variables": {"HOME": "/home/ada", "USER": "ada", "JUPYTERHUB_API_TOKEN": "a-token"},
        "limits": Limits(memory_bytes=2 * GIB, processes=512, cpus=1),
    }
    return ServerPlan(**{**standard, **changes})


def same_as(name: str, found: Any) -> None:
    """Compare `found` with the golden file `name`."""
    path = GOLDEN / f"{name}.json"
    if os.environ.get("ASTROCLOUD_WRITE_GOLDEN"):
        path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    assert found == json.loads(path.read_text(encoding="utf-8"))


def test_a_person_s_namespace_and_what_is_in_it() -> None:
    same_as("namespace", objects.namespace_objects(ground(), ADA))


def test_the_pod_of_a_person_in_a_group() -> None:
    same_as("pod", objects.pod(ground(), plan()))


def test_a_pod_with_everything_an_operator_and_a_choice_can_say() -> None:
    opened = ground(
        namespace_prefix="people-",
        node_selector={"astrocloud.org/servers": "yes"},
        tolerations=[{"key": "servers", "operator": "Exists", "effect": "NoSchedule"}],
        pod_annotations={"example.org/mesh": "no", "astrocloud.org/server-name": "another's"},
        pod_labels={"example.org/paid-by": "physics", "astrocloud.org/user": "somebody-else"},
        priority_class="sky-astrocloud-server",
        reserve={"memory": 1, "cpus": 0.5},
        tmp_size="2GiB",
    )
    there = replace(opened, pull_secrets=(PullSecret(name="registry", config=SIGN_IN),))
    wanted = plan(
        person=BEN,
        server="Night of the 3rd",
        size="large",
        limits=Limits(memory_bytes=16 * GIB, processes=2048, cpus=4),
        placement=Placement(node_selector={"disk": "fast"}, region="guizhou", avoid=("node7", "node8")),
    )
    same_as("pod-everything", objects.pod(there, wanted))


def encrypted(*, also_plain: bool = False) -> Ground:
    there = ground()
    tls = ClusterTls(internal=True, also_plain=also_plain)
    return replace(there, cluster=there.cluster.model_copy(update={"tls": tls}))


def test_a_pod_that_is_called_by_tls_says_so() -> None:
    handed = {name: f"{name} in PEM" for name in (CERTIFICATE, KEY, AUTHORITY)}
    same_as("pod-tls", objects.pod(encrypted(), plan(tls=True, variables=plan().variables | handed)))


def test_servers_reach_the_platform_s_parts_where_those_listen_by_tls() -> None:
    def ports(land: Ground) -> dict[str, list[int]]:
        (policy,) = [made for made in objects.namespace_objects(land, ADA) if made["metadata"]["name"] == "server"]
        _dns, hub, services, around, *_ = policy["spec"]["egress"]
        found = {"hub": hub, "services": services, "bytes": around}
        return {name: [port["port"] for port in rule["ports"]] for name, rule in found.items()}

    assert ports(ground()) == {"hub": [8081], "services": [8080], "bytes": [8082]}
    assert ports(encrypted()) == {"hub": [8443], "services": [8443], "bytes": [8082]}
    # As long as one of the person's servers was started before.
    assert ports(encrypted(also_plain=True)) == {"hub": [8443, 8081], "services": [8443, 8080], "bytes": [8082]}


def test_a_server_is_called_as_its_pod_says() -> None:
    before, now = (objects.pod(encrypted(), plan(tls=tls)) for tls in (False, True))

    assert origin(before, "10.1.2.3") == "http://10.1.2.3:8888"
    assert origin(before, "fd00::1") == "http://[fd00::1]:8888"
    assert origin(now, "10.1.2.3") == "https://10-1-2-3.default-0a1b2c.astro-ada.server.astrocloud.internal:8888"
    assert address_in(str(urlsplit(origin(now, "fd00::1")).hostname)) == "fd00::1"
    for made in (before, now):  # what a cluster puts into pods besides may come first
        told = origin(made, "10.1.2.3")
        made["spec"]["containers"].insert(0, {"name": "mesh"})
        assert origin(made, "10.1.2.3") == told


def test_an_archive_on_a_volume_of_its_own_is_seen_and_not_written() -> None:
    there = replace(ground(), archive={"nfs": {"server": "nfs.example.org", "path": "/surveys"}})
    kinds = {each["metadata"]["name"]: each for each in objects.namespace_objects(there, ADA)}
    spec = objects.pod(there, plan())["spec"]

    (mount,) = [each for each in spec["containers"][0]["volumeMounts"] if each["mountPath"] == "/archive"]
    assert mount == {"name": "archive", "mountPath": "/archive", "readOnly": True}
    (volume,) = [each for each in spec["volumes"] if each["name"] == "archive"]
    claim = kinds[volume["persistentVolumeClaim"]["claimName"]]
    assert kinds[claim["spec"]["volumeName"]]["spec"]["nfs"]["path"] == "/surveys"


def test_where_a_bucket_is_on_a_private_network_servers_may_connect() -> None:
    rule = {"to": [{"ipBlock": {"cidr": "10.1.2.0/24"}}], "ports": [{"port": 9000}]}
    made = objects.namespace_objects(ground(archive_egress=[rule]), ADA)

    (policy,) = [each for each in made if each["metadata"]["name"] == "server"]
    assert rule in policy["spec"]["egress"]


def test_a_sign_in_to_a_registry_is_copied_under_a_name_of_its_contents() -> None:
    def copies(config: bytes) -> list[dict[str, Any]]:
        there = replace(ground(), pull_secrets=(PullSecret(name="registry", config=config),))
        used = objects.pod(there, plan())["spec"]["imagePullSecrets"]
        made = [each for each in objects.namespace_objects(there, ADA) if each["kind"] == "Secret"]
        assert [each["metadata"]["name"] for each in made] == [each["name"] for each in used]
        return made

    (first,), (other,) = copies(SIGN_IN), copies(b"{}")
    assert base64.b64decode(first["data"][".dockerconfigjson"]) == SIGN_IN
    assert (first["type"], first["immutable"]) == ("kubernetes.io/dockerconfigjson", True)
    assert first["metadata"]["name"] != other["metadata"]["name"]
    assert "c2VjcmV0" not in repr(PullSecret(name="registry", config=SIGN_IN))


def test_networks_that_an_operator_opens_are_opened() -> None:
    lets_out = [{"to": [{"ipBlock": {"cidr": "10.1.0.0/16"}}], "ports": [{"port": 443}]}]
    policies = [
        made
        for made in objects.namespace_objects(ground(egress=lets_out, dns=[{"podSelector": {}}]), BEN)
        if made["kind"] == "NetworkPolicy"
    ]
    same_as("network-policies", policies)


def test_a_server_that_has_started_is_held_to_what_was_chosen() -> None:
    limits = objects.pod(ground(), plan())["spec"]["containers"][0]["resources"]["limits"]
    patch = objects.resized(1.0)

    assert limits["cpu"] == "2000m"
    assert patch["spec"]["containers"] == [{"name": "notebook", "resources": {"limits": {"cpu": "1000m"}}}]


@pytest.mark.parametrize("guide", ["operator/kubernetes.md", "zh/operator/kubernetes.md"])
def test_the_guide_s_way_to_end_all_servers_ends_those_of_the_release_and_no_others(guide: str) -> None:
    text = (Path(__file__).parents[2] / "docs" / guide).read_text(encoding="utf-8")
    (selector,) = re.findall(r"kubectl delete pods --all-namespaces \\\n *-l (\S+)", text)
    named = dict(pair.split("=") for pair in selector.split(","))
    labels = objects.pod(ground(), plan())["metadata"]["labels"]
    assert named.items() <= labels.items()
    # Other charts, too, have pods with the component "server".
    assert {"astrocloud.org/release", "astrocloud.org/release-namespace"} <= named.keys()


def test_the_token_is_in_no_repr() -> None:
    assert "a-token" not in repr(plan())


def test_what_a_namespace_was_made_from_changes_with_any_of_it() -> None:
    def made_from(there: Ground, person: Person) -> str:
        return objects.namespace_objects(there, person)[0]["metadata"]["annotations"]["astrocloud.org/made-from"]

    assert made_from(ground(), ADA) == made_from(ground(), ADA)
    assert made_from(ground(), ADA) != made_from(ground(egress=[]), ADA)


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("", "default"),
        ("second", "second"),
        ("default", "x-"),
        ("x-1", "x-"),
        ("Night of the 3rd", "x-"),
        ("天文", "x-"),
        ("a" * 41, "x-"),
        ("a-", "x-"),
    ],
)
def test_a_server_s_name_becomes_a_label_that_no_other_has(name: str, label: str) -> None:
    found = server_label(name)

    assert found == label or (label == "x-" and found.startswith("x-") and len(found) == 18)


def test_jupyterhub_s_own_start_finds_its_certificate_in_files() -> None:
    told = {
        "ASTROCLOUD_TLS_CERTIFICATE": "a\nb\n",
        "ASTROCLOUD_TLS_KEY": "-n %s\\n\n",
        "ASTROCLOUD_TLS_AUTHORITY": "c\n",
    }
    show = (
        sys.executable,
        "-c",
        "import json, os, sys; print(json.dumps([dict(os.environ), sys.argv[1:]]))",
        "--at=two words",
    )

    done = subprocess.run(
        ["/bin/sh", "-c", STOCK_START, "astrocloud-tls", *show],
        env={**told, "PATH": os.environ["PATH"]}, capture_output=True, text=True, check=True,
    )  # fmt: skip

    found, arguments = json.loads(done.stdout)
    folder = Path(found["JUPYTERHUB_SSL_KEYFILE"]).parent
    try:
        names = ("JUPYTERHUB_SSL_CERTFILE", "JUPYTERHUB_SSL_KEYFILE", "ASTROCLOUD_AUTHORITY")
        assert [Path(found[name]).read_text() for name in names] == list(told.values())
        assert {file.stat().st_mode & 0o777 for file in (folder, *folder.iterdir())} == {0o700, 0o600}
        # What the server starts, as kernels, inherits no key, and browsers are not asked for certificates.
        assert not {*told, "JUPYTERHUB_SSL_CLIENT_CA"} & found.keys()
        assert arguments == ["--at=two words", f"--HubAuth.client_ca={found['ASTROCLOUD_AUTHORITY']}"]
    finally:
        shutil.rmtree(folder)
