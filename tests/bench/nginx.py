"""The named peer for bytes: nginx from Debian, with one worker, on the same file system."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from astrocloud.supervisor.processes import descendants
from tests.support.platform import REPOSITORY, free_port, wait_until

CONFIG = """
user root;
daemon off;
worker_processes 1;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000;
    client_max_body_size 0;
    client_body_temp_path {folder}/incoming;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        location /get/ {{ alias {files}/; }}
        location /put/ {{ alias {folder}/put/; dav_methods PUT; }}
    }}
}}
"""


@dataclass
class Nginx:
    """One running nginx."""

    url: str
    process: subprocess.Popen[bytes]

    @property
    def pids(self) -> list[int]:
        """Its processes."""
        return [self.process.pid, *descendants(self.process.pid)]


def find_nginx() -> str:
    """Return where nginx is; Debian's package is installed where it is missing and this account may."""
    subprocess.run([REPOSITORY / "tools" / "need", "command -v nginx", "nginx-light"], check=True)
    return shutil.which("nginx") or "/usr/sbin/nginx"


@contextmanager
def nginx(folder: Path, *, files: Path) -> Iterator[Nginx]:
    """Run nginx that gives what is in `files` at ``/get/`` and takes bytes at ``/put/``, below `folder`."""
    (folder / "put").mkdir(parents=True)
    port = free_port()
    (folder / "nginx.conf").write_text(CONFIG.format(folder=folder, files=files, port=port), encoding="utf-8")
    command = [find_nginx(), "-c", str(folder / "nginx.conf"), "-p", str(folder), "-e", str(folder / "error.log")]
    process = subprocess.Popen(command)
    url = f"http://127.0.0.1:{port}"

    def up() -> bool:
        assert process.poll() is None, (folder / "error.log").read_text(encoding="utf-8")
        try:
            with urlopen(f"{url}/none", timeout=2):
                return True
        except HTTPError as err:
            err.close()
            return True
        except (URLError, OSError):
            return False

    try:
        wait_until(up, within_s=20, what="nginx")
        yield Nginx(url, process)
    finally:
        process.terminate()
        process.wait(20)
