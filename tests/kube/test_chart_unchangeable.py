"""What Kubernetes lets nobody change is said by the chart in its own words, before an upgrade has begun."""

import copy
import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.kube.cluster.programs import program
from tests.kube.rendering import CHART, chart_programs, objects

pytestmark = [pytest.mark.chart, pytest.mark.timeout(1800)]

Json = dict[str, Any]
Upgrade = Callable[..., subprocess.CompletedProcess[str]]
ANSWERS: dict[str, Json] = {
    "/version": {"major": "1", "minor": "37", "gitVersion": "v1.37.0"},
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
}


@pytest.fixture(scope="module", autouse=True)
def programs() -> None:
    chart_programs()


def plural(kind: str) -> str:
    name = kind.lower()
    return f"{name[:-1]}ies" if name.endswith("y") else f"{name}s"


def path_of(made: Json) -> str:
    """Return where an object is at the cluster's API."""
    version, metadata = made["apiVersion"], made["metadata"]
    top = "/api/v1" if version == "v1" else f"/apis/{version}"
    within = f"/namespaces/{metadata['namespace']}" if "namespace" in metadata else ""
    return f"{top}{within}/{plural(made['kind'])}/{metadata['name']}"


def known_kinds(made: list[Json]) -> dict[str, Json]:
    """Return what a cluster answers who asks it for its kinds: those of `made`, and those that are looked up."""
    looked_up = [
        ("v1", "PersistentVolume", False),
        ("v1", "PersistentVolumeClaim", True),
        ("apps/v1", "StatefulSet", True),
    ]
    kinds = {*looked_up, *((each["apiVersion"], each["kind"], "namespace" in each["metadata"]) for each in made)}
    answers: dict[str, Json] = {}
    for version in sorted({version for version, _, _ in kinds}):
        resources = [
            {"name": plural(kind), "kind": kind, "namespaced": namespaced, "singularName": "", "verbs": ["get"]}
            for own, kind, namespaced in sorted(kinds)
            if own == version
        ]
        top = "/api/v1" if version == "v1" else f"/apis/{version}"
        answers[top] = {"kind": "APIResourceList", "groupVersion": version, "resources": resources}
    groups = [
        {"name": version.partition("/")[0], "versions": [named], "preferredVersion": named}
        for version in sorted({version for version, _, _ in kinds if version != "v1"})
        for named in [{"groupVersion": version, "version": version.partition("/")[2]}]
    ]
    return answers | {"/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}}


@contextmanager
def cluster_with(answers: dict[str, Json]) -> Iterator[str]:
    """Run what answers as a cluster does that has these objects, and yield its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = answers.get(self.path.partition("?")[0])
            nothing = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}
            body = json.dumps(found or nothing).encode()
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@cache
def rendered(*arguments: str) -> list[Json]:
    return objects(*arguments)


def settings(values: Json) -> list[str]:
    return [part for key, value in values.items() for part in ("--set-json", f"{key}={json.dumps(value)}")]


@pytest.fixture
def upgrade(tmp_path: Path) -> Upgrade:
    """Ask Helm what an upgrade from one set of values to another one would make, on a cluster that has the first."""
    nobody = tmp_path / "kubeconfig"
    nobody.write_text("", encoding="utf-8")

    def run(before: Json, after: Json, as_written: Json | None = None) -> subprocess.CompletedProcess[str]:
        there = copy.deepcopy(rendered(*settings(before)))
        kept = [each for each in there if each["kind"] in {"PersistentVolume", "PersistentVolumeClaim", "StatefulSet"}]
        for each in kept:
            if each["kind"] == "PersistentVolumeClaim":
                # A class's own volume is bound by the cluster.
                each["spec"].setdefault("volumeName", "pvc-0a1b2c")
                each["spec"] |= as_written or {}
        answers = (
            ANSWERS
            | known_kinds([*rendered(), *rendered(*settings(NFS)), *rendered(*settings(GLUSTERFS))])
            | {path_of(each): each for each in kept}
        )
        with cluster_with(answers) as address:
            command = [str(program("helm")), "template", "astrocloud", str(CHART), "--namespace", "platform"]
            asked = ["--dry-run=server", "--is-upgrade", "--disable-openapi-validation", "--kube-apiserver", address]
            return subprocess.run(
                [*command, *asked, "--kubeconfig", str(nobody), *settings(after)],
                capture_output=True,
                text=True,
                check=False,
                # What it remembers of a cluster at this address is another one's at the next.
                env=os.environ | {"KUBECACHEDIR": str(tmp_path)},
            )

    return run


CLAIM = {"storage.tree.claim": {"size": "1024Gi", "storageClassName": "cephfs"}}
NFS = {"storage.tree": {"kind": "nfs", "nfs": {"server": "nfs.example.org", "path": "/export"}}}
GLUSTERFS = {
    "storage.tree": {
        "kind": "glusterfs",
        "glusterfs": {"servers": ["one.example.org"], "volume": "people", "folder": "tree"},
    }
}


def tree(base: Json, **changed: Any) -> Json:
    """Return values with another setting of the tree; two underscores go one level down."""
    return base | {f"storage.tree.{key.replace('__', '.')}": value for key, value in changed.items()}


MADE_WITH = "storage.tree.kind: the tree was made with"
CHANGES = [
    ({}, {"database.bundled.size": "20Gi"}, "database.bundled.size: the database's volume was made with 10Gi"),
    (
        {},
        {"database.bundled.storageClassName": "fast"},
        """database.bundled.storageClassName: the database's volume was made with "" and the value is "fast" now""",
    ),
    (CLAIM, NFS, f"{MADE_WITH} claim and the value is nfs now"),
    (CLAIM, GLUSTERFS, f"{MADE_WITH} claim and the value is glusterfs now"),
    (NFS, CLAIM, f"{MADE_WITH} nfs and the value is claim now"),
    (NFS, GLUSTERFS, f"{MADE_WITH} nfs and the value is glusterfs now"),
    (GLUSTERFS, CLAIM, f"{MADE_WITH} glusterfs and the value is claim now"),
    (GLUSTERFS, NFS, f"{MADE_WITH} glusterfs and the value is nfs now"),
    (
        NFS,
        tree(NFS, nfs__server="other.example.org"),
        "storage.tree.nfs: the tree's volume was made for nfs.example.org:/export and the values are other",
    ),
    (NFS, tree(NFS, nfs__path="/other"), "the values are nfs.example.org:/other now"),
    (
        GLUSTERFS,
        tree(GLUSTERFS, glusterfs__folder="other"),
        "storage.tree.glusterfs: the tree's volume was made for the folder "
        "/var/lib/astrocloud/platform-astrocloud/volume/tree of the nodes",
    ),
    (GLUSTERFS, tree(GLUSTERFS, glusterfs__hostPath="/mnt"), "make it /mnt/platform-astrocloud/volume/tree now"),
    (
        GLUSTERFS,
        tree(GLUSTERFS, claim__size="200Gi"),
        "storage.tree.claim.size: the tree's claim has 100Gi and the value is 200Gi now. Leave the value: of the kind",
    ),
    (
        CLAIM,
        tree(CLAIM, claim__size="1000Gi"),
        "storage.tree.claim.size: the tree's claim has 1024Gi and the value is 1000Gi now. No claim gets smaller",
    ),
    (
        CLAIM,
        tree(CLAIM, claim__storageClassName="nfs"),
        "storage.tree.claim.storageClassName: the tree's volume is of the class cephfs and the value is nfs now",
    ),
]


@pytest.mark.parametrize(("before", "after", "said"), CHANGES)
def test_what_cannot_be_changed_is_said(before: Json, after: Json, said: str, upgrade: Upgrade) -> None:
    done = upgrade(before, after)

    assert done.returncode != 0
    assert said in done.stderr


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {}),
        (CLAIM, CLAIM),
        (NFS, NFS),
        (GLUSTERFS, GLUSTERFS),
        # A volume of a class may grow.
        (CLAIM, tree(CLAIM, claim__size="2Ti")),
        # Another claim, whose volume is the operator's.
        (CLAIM, tree(CLAIM, claim__existingClaim="mine")),
        (NFS, {"storage.tree.claim.existingClaim": "mine"}),
        # A class that is the cluster's default one is not said.
        (CLAIM, tree(CLAIM, claim__storageClassName=None)),
        (NFS, tree(NFS, nfs__mountOptions=["nfsvers=4.1"])),
    ],
)
def test_what_can_be_changed_goes_on(before: Json, after: Json, upgrade: Upgrade) -> None:
    done = upgrade(before, after)

    assert done.returncode == 0, done.stderr


def test_a_size_is_the_same_however_it_is_written(upgrade: Upgrade) -> None:
    """Kubernetes writes 1024Gi as 1Ti."""
    done = upgrade(CLAIM, CLAIM, as_written={"resources": {"requests": {"storage": "1Ti"}}})

    assert done.returncode == 0, done.stderr
