"""What builds the images says what it cannot do with the builder that is there."""

import os
import subprocess
from pathlib import Path

import pytest

DOCKER = """#!/bin/sh
if [ "$1" = info ]; then echo "$KEEPS_IMAGES"; else echo "docker $*"; fi
"""


@pytest.mark.parametrize("annotates", [True, False])
def test_docker_that_writes_no_annotations_is_told_of(annotates: bool, repository: Path, tmp_path: Path) -> None:
    program = tmp_path / "docker"
    program.write_text(DOCKER, encoding="utf-8")
    program.chmod(0o755)
    store = "[[driver-type io.containerd.snapshotter.v1]]" if annotates else "[[Backing Filesystem extfs]]"
    path = f"{tmp_path}:{os.environ['PATH']}"

    done = subprocess.run(
        [repository / "images" / "build", "proxy"],
        env=os.environ | {"PATH": path, "IMAGE_BUILDER": "docker", "KEEPS_IMAGES": store},
        capture_output=True,
        text=True,
        check=True,
    )

    (built,) = [line for line in done.stdout.splitlines() if line.startswith("docker build")]
    assert ("--annotation org.opencontainers.image.title=Astrocloud: proxy" in built) is annotates
    assert ("writes no annotations" in done.stderr) is not annotates
