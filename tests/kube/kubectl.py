"""A cluster's API by ``kubectl``."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.kube.cluster.programs import program


@dataclass(frozen=True, kw_only=True)
class Kubectl:
    """The cluster that a file names."""

    kubeconfig: Path

    def run(self, *arguments: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
        """Return what came of one command, whether it failed or not."""
        command = [str(program("kubectl")), "--kubeconfig", str(self.kubeconfig), *arguments]
        return subprocess.run(command, input=given, capture_output=True, text=True, check=False)

    def try_kubectl(self, *arguments: str, given: Any = None) -> subprocess.CompletedProcess[str]:
        """Return what came of one command that takes an object, whether it failed or not."""
        return self.run(*arguments, given=None if given is None else json.dumps(given))

    def kubectl(self, *arguments: str, given: Any = None) -> str:
        """Return what one command prints; it does not fail."""
        done = self.try_kubectl(*arguments, given=given)
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def get(self, *arguments: str) -> Any:
        """Return what there is of a kind."""
        return json.loads(self.kubectl("get", *arguments, "-o", "json"))
