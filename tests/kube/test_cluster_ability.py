"""Whether a machine can have a cluster is said in a sentence, and nothing is left of finding out."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kube.cluster import ability, cgroups


def test_who_is_not_root_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    assert "takes root" in ability.why_not()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root is asked the rest")
def test_another_system_is_told(tmp_path: Path) -> None:
    release = tmp_path / "os-release"
    release.write_text('ID=fedora\nNAME="Fedora Linux"\n', encoding="utf-8")

    assert "another system" in ability.why_not(release=release)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root is asked the rest")
def test_cgroups_that_cannot_be_made_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cgroups, "hierarchies", lambda: [tmp_path / "missing"])

    assert "cgroups cannot be made here" in ability.why_not()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root is asked the rest")
def test_finding_out_leaves_nothing() -> None:
    ability.why_not()

    assert [each for each in cgroups.hierarchies() if (each / "astrocloud-probe").exists()] == []


def test_on_another_cluster_what_takes_our_own_nodes_is_left_out_with_the_reason(tmp_path: Path) -> None:
    taking = ("archive", "glusterfs", "losses", "seam", "servers")
    files = [str(Path(__file__).with_name(f"test_{name}.py")) for name in taking]
    command = [sys.executable, "-m", "pytest", "-n0", "-p", "no:cacheprovider", "-q", "-rs", "-m", "kube", *files]
    named = os.environ | {"KUBECONFIG": str(tmp_path / "another")}

    done = subprocess.run(
        command, env=named, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False
    )

    # All of them, before anything is asked of a cluster: this one is none.
    assert re.search(r"^\d+ skipped", done.stdout.splitlines()[-1]), done.stdout[-3000:]
    reasons = set(re.findall(r"takes the nodes that the tests make: (.*)", done.stdout))
    assert len(reasons) == 4


def test_who_takes_our_own_nodes_says_so() -> None:
    taken = r"\b(NODES|CONTROL|BRIDGE_ADDRESS|PodPlatform|cluster\.own)\b"
    tests = {path.name: path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py")}
    taking = {name: text for name, text in tests.items() if "mark.kube" in text and re.search(taken, text)}

    assert len(taking) > 5
    assert [name for name, text in taking.items() if "mark.own_nodes(" not in text] == []
