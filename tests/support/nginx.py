"""nginx from Debian, with one worker, which writes nowhere but in a folder of its own."""

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from tests.support.platform import REPOSITORY, wait_until

_CONFIGURATION: Final = """
user root;
daemon off;
worker_processes 1;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_max_body_size 0;
    client_body_temp_path {folder}/incoming;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
{http}
}}
"""


def _find() -> str:
    """Return where nginx is; Debian's package is installed where it is missing and this account may."""
    subprocess.run([REPOSITORY / "tools" / "need", "command -v nginx", "nginx-light"], check=True)
    return shutil.which("nginx") or "/usr/sbin/nginx"


@contextmanager
def serving(folder: Path, http: str, *, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run nginx by what `http` says in the block of that name, until it listens at `port` of the loopback address."""
    configuration = folder / "nginx.conf"
    configuration.write_text(_CONFIGURATION.format(folder=folder, http=http), encoding="utf-8")
    command = [_find(), "-c", str(configuration), "-p", str(folder), "-e", str(folder / "error.log")]
    process = subprocess.Popen(command)
    try:
        wait_until(partial(_listens, process, port, folder), within_s=20, what=f"nginx in {folder}")
        yield process
    finally:
        process.terminate()
        process.wait(20)


def _listens(process: subprocess.Popen[bytes], port: int, folder: Path) -> bool:
    assert process.poll() is None, (folder / "error.log").read_text(encoding="utf-8")
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
