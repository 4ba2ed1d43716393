"""What JupyterHub reads in tests of pods: a hub on this machine whose servers are pods of the test cluster.

The stub server of the hub's tests is the program, given in the command; its image only has Python.
"""

import json
import os
from functools import partial
from pathlib import Path

from astrocloud.core.cluster import Cluster
from astrocloud.core.layout import DataFolder
from astrocloud.environments.catalogue import load_catalogue
from astrocloud_hub.configuration import platform_config
from astrocloud_hub.spawners import homes
from astrocloud_hub.spawners.kube.fleet import fleet_of
from astrocloud_hub.spawners.kube.spawner import PodSpawner

c = get_config()  # noqa: F821 - JupyterHub gives it to the files it reads
c.merge(platform_config())
told = json.loads(os.environ["TEST_CLUSTER"])


class Source:
    catalogue = load_catalogue(DataFolder.from_environment().root / "images")


class FoldersHere:
    """The bytes of the cluster's claims are folders of this machine."""

    async def ensure(self, person):
        if not (Path(told["tree"]) / "leave-folders").exists():
            homes.make_folders(Path(told["tree"]), person, as_root=True)

    def forget(self, username):
        pass


port = c.JupyterHub.hub_bind_url.rpartition(":")[2]
c.JupyterHub.hub_bind_url = f"http://0.0.0.0:{port}"
c.JupyterHub.hub_connect_url = f"http://{told['here']}:{port}"
c.JupyterHub.spawner_class = PodSpawner
c.PodSpawner.environment_source = Source()
c.PodSpawner.fleet_source = partial(
    fleet_of, cluster=Cluster.model_validate(told["cluster"]), catalogue=Source(), servers=told["servers"]
)
c.PodSpawner.folders = FoldersHere()
if told["stub"]:
    stub = (Path(__file__).parents[1] / "hub" / "stub_server.py").read_text(encoding="utf-8")
    c.PodSpawner.command = ("python3", "-c", stub)
    c.Spawner.args = []
c.PodSpawner.stop_grace_s = 3
for name, value in os.environ.items():
    if name.startswith("TEST_SETTING_"):
        cls, _, trait = name.removeprefix("TEST_SETTING_").partition("__")
        c[cls][trait] = int(value) if value.isdigit() else value
