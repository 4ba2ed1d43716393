"""What ``astrocloud up`` does, in order: check, start, say where, and end."""

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

from astrocloud.config import Config, NoTls, SelfSignedTls, load_config
from astrocloud.core.errors import StartError
from astrocloud.core.isolation import people_are_kept_apart
from astrocloud.core.layout import BIND_VARIABLE, BYTES_PORT_VARIABLE, PORT_VARIABLE, DataFolder
from astrocloud.core.logs import configure_logs
from astrocloud.core.runtime import Runtime, kept_bytes_port
from astrocloud.core.secrets import SecretFiles
from astrocloud.core.tls import Certificate, certificate_of
from astrocloud.supervisor.environments import catalogue_and_builder
from astrocloud.supervisor.supervisor import Supervisor, check_port, listen_for_bytes, only_one


def port_from_environment() -> int:
    """Return the port in ``ASTROCLOUD_PORT``, by default 8000. Raises `StartError` ``bad-port``."""
    value = os.environ.get(PORT_VARIABLE) or "8000"
    if not value.isascii() or not value.isdigit() or not 0 < int(value) < 65536:
        raise StartError("bad-port", value=value[:40])
    return int(value)


def bytes_port_from_environment(port: int) -> int:
    """Return the port in ``ASTROCLOUD_BYTES_PORT``, 0 for none. Raises `StartError` ``bad-bytes-port``."""
    value = os.environ.get(BYTES_PORT_VARIABLE)
    if not value:
        return 0
    if not value.isascii() or not value.isdigit() or not 0 < int(value) < 65536 or int(value) == port:
        raise StartError("bad-bytes-port", value=value[:40])
    return int(value)


def up(*, say: Callable[[str], None], text: Callable[..., str]) -> int:
    """Run the platform until SIGINT or SIGTERM; return the exit status.

    Raises
    ------
    PlatformError
        Whatever keeps it from starting: the data folder, the configuration, the port, a program, a part.
    """
    bind, port = os.environ.get(BIND_VARIABLE) or "127.0.0.1", port_from_environment()
    bytes_port = bytes_port_from_environment(port)
    data = DataFolder.from_environment()
    data.make()
    config = load_config(data.config_if_any)
    _check(config, data)
    configure_logs(level="warning", part="supervisor")
    with only_one(data):
        check_port(bind, port)
        certificate = certificate_of(config, data, bind=bind)
        _check_redirect_port(config, bind)
        candidates = [number for number in (kept_bytes_port(data), port + 1) if 0 < number < 65536 and number != port]
        with listen_for_bytes(bind, bytes_port, candidates=candidates) as bytes_socket:
            say(text("starting", folder=data.root))
            runtime = Runtime.choose(
                data,
                bind=bind,
                port=port,
                public_url=str(config.public_url) if config.public_url else None,
                bytes_port=bytes_socket.getsockname()[1],
                certificate=str(certificate.certificate.absolute()) if certificate else "",
                key=str(certificate.key.absolute()) if certificate else "",
            )
            secrets = SecretFiles(data.secrets)
            supervisor = Supervisor(
                config=config, data=data, runtime=runtime, secrets=secrets, bytes_socket=bytes_socket
            )
            asyncio.run(_run(supervisor, config=config, data=data, runtime=runtime, say=say, text=text))
    return 0


def _check(config: Config, data: DataFolder) -> None:
    """Find what the parts would stumble over, so that it is one sentence here and not a part that does not start."""
    for source in config.secret_sources():
        source.read()
    catalogue, _builder = catalogue_and_builder(config, data)
    catalogue.get(config.environments.default)


def _check_redirect_port(config: Config, bind: str) -> None:
    port = 0 if isinstance(config.tls, NoTls) else config.tls.redirect_port
    if port:
        try:
            check_port(bind, port)
        except StartError as err:
            raise StartError("redirect-port-in-use", port=port) from err


async def _run(
    supervisor: Supervisor,
    *,
    config: Config,
    data: DataFolder,
    runtime: Runtime,
    say: Callable[[str], None],
    text: Callable[..., str],
) -> None:
    preparing: asyncio.Task[None] | None = None

    async def when_ready() -> None:
        nonlocal preparing
        if not people_are_kept_apart():
            say(text("no-isolation"))
        say(text("ready", url=runtime.public_url))
        if isinstance(config.tls, SelfSignedTls):
            own = Certificate(Path(runtime.certificate), Path(runtime.key))
            say(text("self-signed", file=own.certificate, fingerprint=own.fingerprint))
        if runtime.bind in {"0.0.0.0", "::"} and config.public_url is None:  # noqa: S104 - compared, not listened on
            say(text("no-public-url", url=runtime.public_url, file=data.config_file))
        if link := await asyncio.to_thread(_setup_link, config, data):
            say(text("setup-link", link=link))
        preparing = asyncio.create_task(_see_to_environments(config, data, say=say, text=text))

    try:
        await supervisor.run(when_ready=when_ready, when_ending=lambda: say(text("ending")))
    finally:
        if preparing is not None:
            preparing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await preparing


def _setup_link(config: Config, data: DataFolder) -> str | None:
    from astrocloud.passport.factory import open_directory

    return open_directory(config=config, data=data).setup_link()


async def _see_to_environments(
    config: Config, data: DataFolder, *, say: Callable[[str], None], text: Callable[..., str]
) -> None:
    """Make the default environment, where wanted, and remove those of old locks that no server uses any more."""
    if config.environments.prepare_at_start:
        await _prepare(config, data, say=say, text=text)
    # A store that the configuration names may be other platforms' as well, whose catalogues are not known here.
    if config.environments.store is None:
        catalogue, builder = catalogue_and_builder(config, data)
        for path in await builder.prune(list(catalogue)):
            say(text("environment-removed", folder=path))


async def _prepare(config: Config, data: DataFolder, *, say: Callable[[str], None], text: Callable[..., str]) -> None:
    """Make the default environment in a process of its own, so that its work never holds up the supervisor."""
    catalogue, builder = catalogue_and_builder(config, data)
    environment = catalogue.default
    if await asyncio.to_thread(builder.ready, environment) is not None:
        return
    say(text("environment-making", name=environment.id))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "astrocloud.cli", "environment", "prepare", environment.id),
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        _, errors = await process.communicate()
    except asyncio.CancelledError:
        if process.returncode is None:
            process.terminate()
            await process.wait()
        raise
    if process.returncode == 0:
        say(text("environment-ready", name=environment.id))
    else:
        reason = errors.decode(errors="replace").strip().splitlines()
        say(text("environment-failed", reason=reason[-1] if reason else f"exit {process.returncode}"))
