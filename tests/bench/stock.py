"""The named peer: a stock JupyterHub with SimpleLocalProcessSpawner and the same environment's JupyterLab."""

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from astrocloud.supervisor.programs import find_node, find_proxy
from tests.support.platform import free_port, wait_until

CONFIG = """
import os
c = get_config()
c.JupyterHub.bind_url = f"http://127.0.0.1:{os.environ['STOCK_PORT']}"
c.JupyterHub.hub_port = int(os.environ["STOCK_HUB_PORT"])
c.ConfigurableHTTPProxy.api_url = f"http://127.0.0.1:{os.environ['STOCK_PROXY_PORT']}"
c.ConfigurableHTTPProxy.command = [os.environ["STOCK_NODE"], os.environ["STOCK_PROXY"]]
c.JupyterHub.spawner_class = "simple"
c.JupyterHub.authenticator_class = "dummy"
c.Authenticator.allow_all = True
c.DummyAuthenticator.password = os.environ["STOCK_PASSWORD"]
c.JupyterHub.services = [{"name": "bench", "api_token": os.environ["STOCK_TOKEN"]}]
c.JupyterHub.load_roles = [{"name": "bench", "services": ["bench"], "scopes": ["admin:servers", "admin:users"]}]
c.Spawner.cmd = [os.environ["STOCK_SINGLEUSER"]]
c.Spawner.args = ["--allow-root"]
c.Spawner.default_url = "/lab"
c.Spawner.start_timeout = c.Spawner.http_timeout = 300
c.SimpleLocalProcessSpawner.home_dir_template = os.environ["STOCK_HOMES"] + "/{username}"
"""


@contextmanager
def stock_hub(folder: Path, *, singleuser: Path, password: str) -> Iterator[tuple[str, str]]:
    """A stock hub below `folder` with the given ``jupyterhub-singleuser``; gives its address and a token."""
    folder.mkdir(parents=True)
    (folder / "homes").mkdir()
    (folder / "jupyterhub_config.py").write_text(CONFIG, encoding="utf-8")
    port, token = free_port(), secrets.token_hex(32)
    variables = {
        **os.environ,
        "PATH": f"{singleuser.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "STOCK_PORT": str(port),
        "STOCK_HUB_PORT": str(free_port()),
        "STOCK_PROXY_PORT": str(free_port()),
        "STOCK_NODE": find_node(),
        "STOCK_PROXY": find_proxy(),
        "STOCK_PASSWORD": password,
        "STOCK_TOKEN": token,
        "STOCK_SINGLEUSER": str(singleuser),
        "STOCK_HOMES": str(folder / "homes"),
    }
    command = [sys.executable, "-m", "jupyterhub", "-f", "jupyterhub_config.py"]
    with (folder / "hub.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=variables, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"

    def up() -> bool:
        assert process.poll() is None, (folder / "hub.log").read_text(encoding="utf-8")[-3000:]
        try:
            with urlopen(f"{url}/hub/health", timeout=2):
                return True
        except (URLError, OSError):
            return False

    try:
        wait_until(up, within_s=60, what="the stock hub")
        yield url, token
    finally:
        process.terminate()
        process.wait(60)
