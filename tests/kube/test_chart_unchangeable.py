"""What Kubernetes lets nobody change is said by the chart in its own words, before an upgrade has begun."""

import copy
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.kube.lookups import Json, asked, settings
from tests.kube.rendering import objects

pytestmark = [pytest.mark.chart, pytest.mark.timeout(1800)]

Upgrade = Callable[..., subprocess.CompletedProcess[str]]


@cache
def rendered(*arguments: str) -> list[Json]:
    return objects(*arguments)


@pytest.fixture
def upgrade(tmp_path: Path) -> Upgrade:
    """Ask Helm what an upgrade from one set of values to another one would make, on a cluster that has the first."""

    def run(before: Json, after: Json, as_written: Json | None = None) -> subprocess.CompletedProcess[str]:
        made = copy.deepcopy(rendered(*settings(before)))
        kept = [each for each in made if each["kind"] in {"PersistentVolume", "PersistentVolumeClaim", "StatefulSet"}]
        for each in kept:
            if each["kind"] == "PersistentVolumeClaim":
                # A class's own volume is bound by the cluster.
                each["spec"].setdefault("volumeName", "pvc-0a1b2c")
                each["spec"] |= as_written or {}
        kinds = [*rendered(), *rendered(*settings(NFS)), *rendered(*settings(GLUSTERFS))]
        return asked(tmp_path, after, there=kept, kinds=kinds)

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
