"""The images that the cluster itself takes, made here because no public registry can be reached."""

import fcntl
import json
import os
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.kube.cluster.layout import CACHE, PAUSE_IMAGE, REGISTRY, REPOSITORY
from tests.kube.cluster.machines import ClusterError, run
from tests.kube.cluster.programs import program

DEBIAN_IMAGE = "docker.io/library/debian:bookworm-slim"
PYTHON = "3.11"
PYTHON_IMAGE = f"docker.io/library/python:{PYTHON}-slim-bookworm"


def storage() -> dict[str, str]:
    """Return the variables that keep images of ours apart from those of the machine's own users."""
    folder = CACHE / "containers"
    folder.mkdir(parents=True, exist_ok=True)
    settings = folder / "storage.conf"
    settings.write_text(f'[storage]\ndriver = "overlay"\ngraphroot = "{folder}/graph"\nrunroot = "{folder}/run"\n')
    return {"CONTAINERS_STORAGE_CONF": str(settings), "BUILDAH_ISOLATION": "chroot"}


def buildah(*arguments: str | Path) -> str:
    """Return what ``buildah`` prints. Raises `ClusterError` when it fails."""
    command = ["buildah", *map(str, arguments)]
    done = subprocess.run(command, env=os.environ | storage(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClusterError(f"{' '.join(command)} failed: " + "\n".join(done.stderr.splitlines()[-8:]))
    return done.stdout.strip()


def in_registry(image: str) -> bool:
    """Return whether the cluster's registry has an image that is named by a tag there."""
    name, _, tag = image.removeprefix(f"{REGISTRY}/").rpartition(":")
    request = urllib.request.Request(f"http://{REGISTRY}/v2/{name}/manifests/{tag}", method="HEAD")
    request.add_header("Accept", "application/vnd.oci.image.manifest.v1+json")
    try:
        urllib.request.urlopen(request, timeout=10).close()
    except urllib.error.HTTPError:
        return False
    return True


def digest_of(image: str) -> str:
    """Return the digest of an image that is named by a tag in the cluster's registry."""
    told = subprocess.run(
        ["skopeo", "inspect", "--tls-verify=false", f"docker://{image}"], capture_output=True, text=True, check=True
    )
    return str(json.loads(told.stdout)["Digest"])


def push(local: str, remote: str) -> None:
    """Copy a local image to the cluster's registry."""
    buildah("push", "-q", "--tls-verify=false", "--format", "oci", local, f"docker://{remote}")


def with_layer(base: str, remote: str, layer: Path) -> str:
    """Put an image of `base` and one file more into the cluster's registry, and return its name by digest there."""
    with _container(base) as container:
        buildah("add", "-q", container, layer, "/layer")
        buildah("commit", "-q", "--rm=false", container, remote)
    push(remote, remote)
    buildah("rmi", remote)
    return f"{remote.rpartition(':')[0]}@{digest_of(remote)}"


def ensure_pause() -> None:
    """Put the sandbox's image into the registry; nothing when it is there."""
    if in_registry(PAUSE_IMAGE):
        return
    with _container("scratch") as container:
        buildah("add", "-q", container, program("pause"), "/pause")
        buildah("config", "--entrypoint", '["/pause"]', "--user", "65535:65535", container)
        buildah("commit", "-q", container, PAUSE_IMAGE)
    push(PAUSE_IMAGE, PAUSE_IMAGE)


def ensure_bases(*, say: Callable[[str], None]) -> None:
    """Make the bases of this project's Containerfiles from Debian's packages, under the names they use there.

    They stand in for the official images, and hold what those promise: Debian 12, and Python with pip on it.
    """
    if not _have(DEBIAN_IMAGE):
        say("making a Debian base image")
        with tempfile.TemporaryDirectory() as scratch:
            archive = Path(scratch) / "base.tar"
            run("mmdebstrap", "--variant=minbase", "--include=ca-certificates", "--quiet", "bookworm", archive)
            with _container("scratch") as container:
                buildah("add", "-q", container, archive, "/")
                buildah("config", "--cmd", "bash", container)
                buildah("commit", "-q", container, DEBIAN_IMAGE)
    if not _have(PYTHON_IMAGE):
        say("making a Python base image")
        script = """
            apt-get update -q
            DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends python3 python3-venv
            rm -rf /var/lib/apt/lists/*
            python3 -m venv /usr/local
        """
        with _container(DEBIAN_IMAGE) as container:
            buildah("run", container, "--", "sh", "-e", "-c", script)
            buildah("config", "--cmd", "python3", container)
            buildah("commit", "-q", container, PYTHON_IMAGE)


def make(
    *names: str,
    prefix: str,
    tag: str,
    say: Callable[[str], None],
    source: Path = REPOSITORY,
    here: bool = True,
) -> dict[str, str]:
    """Build this project's images with ``images/build`` and push them to the cluster's registry.

    Parameters
    ----------
    source
        The tree that they are built from, where it is not this one.
    here
        Whether the cluster is the one made here; else builder, bases and sign-in are whatever the machine has.

    Returns
    -------
    dict
        name -> the image's reference by digest.
    """
    settings = {"IMAGE_PREFIX": prefix, "IMAGE_TAG": tag, "IMAGE_PUSH": "1"}
    if here:
        ensure_bases(say=say)
        settings |= _settings_here()
    CACHE.mkdir(parents=True, exist_ok=True)
    made: dict[str, str] = {}
    with (CACHE / "building.lock").open("w") as lock:
        # Builds of two checkouts share layers here, and with chroot isolation this machine's /dev as well.
        fcntl.flock(lock, fcntl.LOCK_EX)
        for name in names:
            say(f"building the image {name}")
            command = [str(source / "images" / "build"), name]
            done = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True, check=False)
            if done.returncode:
                raise ClusterError(f"the image {name} does not build: " + (done.stdout + done.stderr)[-3000:])
            made[name] = done.stdout.strip().splitlines()[-1]
    return made


def _settings_here() -> dict[str, str]:
    """Return how images are built from the bases made here, for the registry that speaks plain HTTP."""
    return storage() | {
        "IMAGE_BUILDER": "buildah",
        "IMAGE_PUSH_FLAGS": "--tls-verify=false --format oci",
        "IMAGE_FLAGS": " ".join(["--pull-never", "--layers", f"--build-arg=PYTHON_VERSION={PYTHON}", *_trust()]),
    }


def _trust() -> list[str]:
    """Return the arguments by which programs in a build trust whom this machine trusts."""
    bundle = Path("/etc/ssl/certs/ca-certificates.crt")
    if not bundle.exists():
        return []
    folder = CACHE / "trust"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pip.conf").write_text(f"[global]\ncert = {bundle}\n")
    (folder / "npmrc").write_text(f"cafile={bundle}\n")
    (folder / "uv.toml").write_text("native-tls = true\n")
    mounts = {
        bundle: bundle,
        folder / "pip.conf": "/etc/pip.conf",
        folder / "npmrc": "/root/.npmrc",
        folder / "uv.toml": "/etc/uv/uv.toml",
    }
    return [f"-v={source}:{target}:ro" for source, target in mounts.items()]


def _have(image: str) -> bool:
    done = subprocess.run(
        ["buildah", "inspect", "--type", "image", image],
        env=os.environ | storage(),
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


@contextmanager
def _container(base: str) -> Iterator[str]:
    container = buildah("from", "--pull-never", base) if base != "scratch" else buildah("from", "scratch")
    try:
        yield container
    finally:
        buildah("rm", container)
