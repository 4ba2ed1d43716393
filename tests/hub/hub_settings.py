"""What JupyterHub reads in tests: the platform's configuration, with environments that need no making.

A stub server takes the place of a real one unless TEST_REAL_ENVIRONMENT names a virtual environment with Jupyter.
"""

import os
from pathlib import Path

from astrocloud.core.layout import DataFolder
from astrocloud.environments.catalogue import load_catalogue
from astrocloud.environments.models import BuiltEnvironment, Progress
from astrocloud_hub.configuration import platform_config

c = get_config()  # noqa: F821 - JupyterHub gives it to the files it reads
c.merge(platform_config())


class StubEnvironments:
    """Environments whose only member is the stub server."""

    tutorials = None

    def __init__(self, folder: Path) -> None:
        self.catalogue = load_catalogue(folder / "images")
        self.folder = folder

    async def ensure(self, environment, on_progress):
        on_progress(Progress(environment.id, "installing", 1, 2))
        on_progress(Progress(environment.id, "ready"))
        return self.ready(environment)

    def ready(self, environment):
        real = os.environ.get("TEST_REAL_ENVIRONMENT")
        path = Path(real) if real else self.folder / "environments" / "stub"
        with_lab = os.environ.get("TEST_FORK") == "1"
        return BuiltEnvironment(
            environment=environment.id, path=path, python_version="3", base_prefix=Path("/usr"), with_lab=with_lab
        )

    def command(self, built):
        if os.environ.get("TEST_REAL_ENVIRONMENT"):
            return (str(built.python), "-m", os.environ.get("TEST_REAL_MODULE", "jupyterhub.singleuser"))
        return (str(built.python), str(built.path / "stub_server.py"))


c.LocalSpawner.environment_source = StubEnvironments(DataFolder.from_environment().root)
c.LocalSpawner.fork_servers = os.environ.get("TEST_FORK") == "1"
c.LocalSpawner.stop_grace_s = 3
c.LocalSpawner.ready_timeout_s = 20
for name, value in os.environ.items():
    if name.startswith("TEST_SETTING_"):
        cls, _, trait = name.removeprefix("TEST_SETTING_").partition("__")
        c[cls][trait] = int(value) if value.isdigit() else value
