"""What JupyterHub reads in tests of TLS: the configuration of a cluster, whose servers are processes of this machine.

As pods are, they are called at their address by the name that their certificate is for.
"""

import os
import sys
from pathlib import Path

from jupyterhub.spawner import SimpleLocalProcessSpawner

from astrocloud.core.layout import DataFolder
from astrocloud_hub.configuration import platform_config
from astrocloud_hub.hosts import host_of
from astrocloud_hub.spawners.kube.certificates import ServerAuthority

c = get_config()  # noqa: F821 - JupyterHub gives it to the files it reads
c.merge(platform_config())


class ProcessSpawner(SimpleLocalProcessSpawner):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.pod, self.namespace = f"default-{self.user.name}", f"astro-{self.user.name}"

    def get_env(self):
        authority = ServerAuthority(DataFolder.from_environment().secrets)
        return super().get_env() | authority.variables(pod=self.pod, namespace=self.namespace)

    async def start(self):
        address, port = await super().start()
        return f"https://{host_of(address, pod=self.pod, namespace=self.namespace)}:{port}"


c.JupyterHub.spawner_class = ProcessSpawner
c.Spawner.cmd = [sys.executable, str(Path(__file__).with_name("tls_server.py"))]
c.Spawner.args = []
c.SimpleLocalProcessSpawner.home_dir_template = os.environ["ASTROCLOUD_DATA"] + "/home-{username}"
