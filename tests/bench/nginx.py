"""The named peer for bytes: nginx, on the same file system."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from astrocloud.supervisor.processes import descendants
from tests.support.nginx import serving
from tests.support.platform import free_port

_BYTES = """
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000;
    server {{
        listen 127.0.0.1:{port};
        location /get/ {{ alias {files}/; }}
        location /put/ {{ alias {folder}/put/; dav_methods PUT; }}
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


@contextmanager
def nginx(folder: Path, *, files: Path) -> Iterator[Nginx]:
    """Run nginx that gives what is in `files` at ``/get/`` and takes bytes at ``/put/``, below `folder`."""
    (folder / "put").mkdir(parents=True)
    port = free_port()
    with serving(folder, _BYTES.format(folder=folder, files=files, port=port), port=port) as process:
        yield Nginx(f"http://127.0.0.1:{port}", process)
