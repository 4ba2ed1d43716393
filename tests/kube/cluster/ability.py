"""Whether a cluster can be made on this machine."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from tests.kube.cluster import cgroups

_PROBE: Final = "astrocloud-probe"


def why_not(*, release: Path = Path("/etc/os-release")) -> str:
    """Return what this machine lacks for a cluster, in one sentence; empty when it has all."""
    if os.geteuid() != 0:
        return "its nodes are made of namespaces and cgroups, which takes root"
    if "debian" not in release.read_text().lower() or shutil.which("apt-get") is None:
        return "what its nodes run comes from Debian, and this is another system"
    kinds = ["--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "--mount-proc"]
    tried = subprocess.run(["unshare", *kinds, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        return f"namespaces cannot be made here ({tried.stderr.strip()})"
    try:
        if not cgroups.hierarchies():
            return "no cgroups are mounted here"
        cgroups.create(_PROBE)
        cgroups.remove(_PROBE)
    except OSError as err:
        return f"cgroups cannot be made here ({err})"
    return ""
