"""The images are built from their Containerfiles and run on the cluster's nodes as confined as they will be."""

import json
import subprocess
from typing import Any

import pytest

from tests.kube.conftest import Cluster, pod

pytestmark = [pytest.mark.kube, pytest.mark.timeout(1800)]

PARTS = ["hub", "services", "proxy", "database"]
OTHERS = ["astro", "glusterfs"]
NAMES = [*PARTS, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)]
TOOLS = "pip pip3 uv gcc cc make npm git curl"

WORKS = {
    "hub": "python -c 'import astrocloud_hub.app, kubespawner, psycopg'",
    "services": "astrocloud --version && python /opt/astrocloud/libexec/make_secrets.py --help"
    " && python /opt/astrocloud/libexec/wait_for_images.py --help",
    "proxy": "cd /opt/proxy && node --require ./trust.cjs"
    " node_modules/configurable-http-proxy/bin/configurable-http-proxy --version",
    "database": "postgres --version && pg_dump --version && command -v start-database",
    "glusterfs": "mount-volume --help && glusterfs --version && command -v mount umount",
    "astro": "python -c 'import astropy, jupyterlab, astrocloud_lab.serve' && ls /tutorials/first-look.en.ipynb",
}
"""A command that shows that what the image is for is in it."""

TITLES = {"astro": "Astronomy"}
TOOLS_OF = {"astro": ["/opt/astro/bin/pip", "/opt/astro/bin/pip3"]}
"""What is a tool, and meant: people's ``%pip install`` is the environment's own pip, not the base's."""


@pytest.fixture(scope="module", params=NAMES)
def image(request: pytest.FixtureRequest) -> tuple[str, str]:
    """The name of an image, and its reference by digest."""
    name: str = request.param
    made = request.getfixturevalue(name if name in OTHERS else "built_images")
    return name, made if name in OTHERS else made[name]


def inspected(reference: str, what: str) -> dict[str, Any]:
    command = ["skopeo", "inspect", what, "--tls-verify=false", f"docker://{reference}"]
    found: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return found


def test_it_is_named_by_a_digest(image: tuple[str, str], cluster: Cluster) -> None:
    name, reference = image

    assert reference.startswith(f"{cluster.registry}/astrocloud/{name}@sha256:")


def test_it_says_what_it_is_and_runs_as_nobody_special(image: tuple[str, str]) -> None:
    config = inspected(image[1], "--config")["config"]

    assert config["User"] == {"database": "999:999", "glusterfs": "0:0"}.get(image[0], "1000:1000")
    # Of the image for who runs it, and of its manifest for registries.
    for told in (config["Labels"], inspected(image[1], "--raw")["annotations"]):
        assert told["org.opencontainers.image.licenses"] == "BSD-3-Clause"
        assert told["org.opencontainers.image.title"] == f"Astrocloud: {TITLES.get(image[0], image[0])}"
        assert len(told["org.opencontainers.image.description"]) > 20
        assert len(told["org.opencontainers.image.revision"]) == 40


def test_it_works_on_a_node_and_holds_no_build_tools(image: tuple[str, str], cluster: Cluster, namespace: str) -> None:
    name, reference = image
    tried = f"for tool in {TOOLS}; do command -v $tool || true; done"
    contents = f"cat /usr/share/sbom/astrocloud-{name}.spdx.json"
    wanted = pod(cluster, "look", f"set -e; {{ {WORKS[name]}; }} > /dev/null; {tried}; {contents}", memory="512Mi")
    container = wanted["spec"]["containers"][0]
    container["image"] = reference
    container["securityContext"]["readOnlyRootFilesystem"] = True
    if name != "glusterfs":  # What mounts is root's: here it is only looked at.
        del wanted["spec"]["securityContext"]["runAsUser"]

    cluster.kubectl("create", "-n", namespace, "-f", "-", given=wanted)
    cluster.kubectl("wait", "-n", namespace, "--for=jsonpath={.status.phase}=Succeeded", "--timeout=180s", "pod/look")
    said = cluster.kubectl("logs", "-n", namespace, "look")

    tools, _, listed = said.partition("{")
    assert tools.split() == TOOLS_OF.get(name, [])
    packages = {package["name"] for package in json.loads("{" + listed)["packages"]}
    held = {
        "hub": "jupyterhub",
        "services": "aiohttp",
        "proxy": "configurable-http-proxy",
        "database": "postgresql-15",
        "astro": "astropy",
        "glusterfs": "glusterfs-client",
    }
    assert held[name] in packages
    assert "libc6" in packages
