"""Whether a machine can have a cluster is said in a sentence, and nothing is left of finding out."""

import os
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
