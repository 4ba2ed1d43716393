"""The ``astrocloud`` command.

Every subcommand is a function that takes the parsed arguments. An error that a person can act on is one sentence on
standard error, in English or Chinese after the locale, and exit status 2; a traceback is an error of ours.
"""

import argparse
import contextlib
import io
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from astrocloud import __version__
from astrocloud.config import Config, json_schema, load_config
from astrocloud.core import words
from astrocloud.core.errors import PlatformError, StartError
from astrocloud.core.layout import BYTES_SOCKET_VARIABLE, DataFolder
from astrocloud.core.runtime import SERVICES, ClusterRuntime
from astrocloud.core.secrets import SecretFiles

if TYPE_CHECKING:
    from aiohttp import web

    from astrocloud.core.runtime import Runtime
    from astrocloud.passport.factory import Directory

USAGE_ERROR = 2
_LOADED_AFTER_S = 10.0


def terminal_language() -> str:
    """Return the language of the person at the terminal, after ``LC_ALL``, ``LC_MESSAGES`` and ``LANG``."""
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        if value := os.environ.get(name):
            return "zh" if value.lower().startswith("zh") else "en"
    return "en"


def _say(line: str = "") -> None:
    print(line, flush=True)


def _text(key: str, **parameters: Any) -> str:
    return words.text(f"terminal.{key}", terminal_language(), **parameters)


def _configuration(data: DataFolder) -> Config:
    return load_config(data.config_if_any)


def _print_json(document: object) -> None:
    print(json.dumps(document, indent=2, ensure_ascii=False))


def _up(_options: argparse.Namespace) -> int:
    from astrocloud.supervisor.up import up

    def say(line: str) -> None:
        # A terminal that is gone must not keep the platform from ending in order.
        with contextlib.suppress(OSError):
            _say(line)

    try:
        return up(say=say, text=_text)
    finally:
        _let_go_of_closed_output()


def _serve(options: argparse.Namespace) -> int:
    import asyncio
    import gc
    import signal

    from aiohttp import web

    from astrocloud.core.capabilities import SYS_RESOURCE, drop
    from astrocloud.core.logs import configure_logs
    from astrocloud.core.tls import Certificate, keep_connections_small
    from astrocloud.core.web import end
    from astrocloud.platform import build_platform

    data = DataFolder.from_environment()
    if data.on_cluster:
        data.make()
    config = _configuration(data)
    configure_logs(level=config.logging.level, part="services")
    keep_connections_small()
    drop(SYS_RESOURCE)  # root is held to the quotas of a file system that has them, as people are
    # A container's first process ignores what it does not handle, and may still wait for the database.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    names = list(SERVICES) if options.name == "all" else [options.name]
    platform = build_platform(names, config=config, data=data)
    runtime = platform.runtime

    async def serve() -> None:
        runner = web.AppRunner(platform.app, access_log=None, handle_signals=False, shutdown_timeout=2)
        await runner.setup()
        for door in runtime.doors(names[0]):
            context = Certificate(*door.files).context() if door.files else None
            await web.TCPSite(runner, door.address or None, door.port, ssl_context=context, reuse_address=True).start()
        around = await _serve_bytes(platform.direct, runtime)
        # What was loaded stays: to look through it for garbage again and again would stop all answers for a while.
        asyncio.get_running_loop().call_later(_LOADED_AFTER_S, gc.freeze)
        await _until_signal()
        await end(*(each for each in (runner, around) if each is not None), within_s=platform.drain_s)

    asyncio.run(serve())
    return 0


async def _serve_bytes(direct: "web.Application", runtime: "Runtime") -> "web.AppRunner | None":
    """Answer for bytes at the socket that the supervisor gave, or on a cluster at a port of our own."""
    import socket

    from aiohttp import web

    from astrocloud.core.tls import Certificate

    given = os.environ.get(BYTES_SOCKET_VARIABLE)
    if not given and not (runtime.own_bytes_port and len(direct.router.resources())):
        return None
    # Files come in large pieces: fewer turns of the loop for each megabyte.
    runner = web.AppRunner(direct, access_log=None, handle_signals=False, shutdown_timeout=2, read_bufsize=1 << 20)
    await runner.setup()
    # On a cluster only one part has any.
    files = runtime.bytes_files("vospace")
    context = Certificate(*files).context() if files else None
    if not given:
        await web.TCPSite(
            runner, runtime.listen or None, runtime.own_bytes_port, ssl_context=context, reuse_address=True
        ).start()
        return runner
    await web.SockSite(runner, socket.socket(fileno=int(given)), ssl_context=context).start()
    return runner


async def _until_signal() -> None:
    import asyncio
    import signal

    ending = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ending.set)
    await ending.wait()


def _directory() -> "Directory":
    from astrocloud.passport.factory import open_directory

    data = DataFolder.from_environment()
    data.make()
    return open_directory(config=_configuration(data), data=data)


def _user_add(options: argparse.Namespace) -> int:
    password: str | None = None
    if options.password_stdin:
        password = sys.stdin.readline().rstrip("\n")
    added = _directory().add(
        options.name, admin=options.admin, groups=tuple(options.group), password=password, name=options.display_name
    )
    if options.json:
        _print_json({"username": added.username, "uid": added.uid, "invite": added.invite})
    else:
        _say(_text("user-added", name=added.username, uid=added.uid))
        if added.invite:
            _say(_text("user-invite", link=added.invite))
    return 0


def _user_list(options: argparse.Namespace) -> int:
    people = _directory().list()
    if options.json:
        _print_json([person.document() for person in people])
        return 0
    rows = [("NAME", "UID", "STATUS", "ADMIN", "GROUPS")]
    rows += [(p.username, str(p.uid), p.status, "yes" if p.admin else "", " ".join(p.groups)) for p in people]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    for row in rows:
        _say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def _user_change(options: argparse.Namespace) -> int:
    directory = _directory()
    getattr(directory, options.action)(options.name)
    if options.json:
        _print_json({"username": options.name, "done": options.action})
    else:
        _say(_text(f"user-{options.action}d", name=options.name))
    return 0


def _token(options: argparse.Namespace) -> int:
    from astrocloud.operations.hub import HubClient

    hub = HubClient(DataFolder.from_environment())
    person = _directory().get(options.name)
    made = hub.make_token(person.username, scopes=tuple(options.scope), expires=options.expires)
    if options.json:
        _print_json(made)
    else:
        _say(made["token"])
    return 0


def _check_config(options: argparse.Namespace) -> int:
    config = load_config(Path(options.file))
    if options.json:
        _print_json(config.model_dump(mode="json"))
    else:
        _say(_text("config-good", file=options.file))
    return 0


def _schema(_options: argparse.Namespace) -> int:
    _print_json(json_schema())
    return 0


def _status(options: argparse.Namespace) -> int:
    from astrocloud.operations.status import status

    report = status(DataFolder.from_environment())
    if options.json:
        _print_json(report)
    elif not report["running"]:
        _say(_text("not-running"))
    else:
        _say(_text("running", url=report["url"]))
        for part, state in report["parts"].items():
            _say(f"  {part:20} {state}")
    return 0 if report["running"] and all(state == "ok" for state in report["parts"].values()) else 1


def _backup(options: argparse.Namespace) -> int:
    from astrocloud.operations.backup import backup

    report = backup(DataFolder.from_environment(), Path(options.folder), homes=options.homes)
    if options.json:
        _print_json(report)
    else:
        _say(_text("backup-made", folder=options.folder, count=len(report["files"]), tree=report["tree"]))
    return 0


def _restore(options: argparse.Namespace) -> int:
    from astrocloud.operations.backup import restore

    data = DataFolder.from_environment()
    report = restore(data, Path(options.folder))
    if options.json:
        _print_json(report)
    else:
        _say(_text("restored", folder=str(data.root)))
    return 0


def _canary(options: argparse.Namespace) -> int:
    import asyncio

    from astrocloud.core.cluster import read_cluster
    from astrocloud.environments.offered import offered
    from astrocloud.operations.canary import SECRET, Plan, try_out
    from astrocloud.operations.hub import HubClient

    data = DataFolder.from_environment()
    config = _configuration(data)
    hub = HubClient(data)
    runtime = hub.runtime
    directory = _directory()
    embedded = config.passport.kind == "embedded"
    password = SecretFiles(data.secrets).get(SECRET) if embedded else None
    name = options.name or config.canary.username
    directory.ensure(name, password=password.get_secret_value() if password else None)
    token = None if embedded else hub.make_token(name, scopes=(), expires="1h")["token"]
    plan = Plan(
        url=options.url or runtime.public_url,
        username=name,
        password=password,
        token=SecretStr(token) if token else None,
        environment=options.environment or offered(config, read_cluster(data)).default.id,
        # From a pod the way in that people take may not be open.
        connect_to=runtime.proxy_url if isinstance(runtime, ClusterRuntime) and not options.url else "",
        trust=runtime.trust,
        start_within_s=config.servers.start_timeout_s,
        patience_s=options.patience,
        certificate=Path(options.certificate) if options.certificate else None,
        language=terminal_language(),
    )

    def done(step: str, seconds: float) -> None:
        if not options.json:
            _say(f"{_text(f'canary-{step}'):40} {seconds:6.2f} s")

    trial = asyncio.run(try_out(plan, done=done))
    if options.json:
        _print_json(trial.document())
    elif trial.failed is None:
        _say(_text("canary-good", seconds=f"{sum(trial.seconds.values()):.1f}"))
    else:
        sys.stderr.write(f"astrocloud: {trial.error().sentence(terminal_language())}\n")
    return 0 if trial.failed is None else 1


def _environment(options: argparse.Namespace) -> int:
    from astrocloud.supervisor.environments import list_environments, prepare_environment, prune_environments

    data = DataFolder.from_environment()
    data.make()
    config = _configuration(data)
    if options.action == "list":
        found = list_environments(config, data)
        if options.json:
            _print_json(found)
        else:
            for entry in found:
                _say(f"{entry['id']:16} {entry['state']:8} {entry['name'][terminal_language()]}")
        return 0
    if options.action == "prune":
        removed = [str(path) for path in prune_environments(config, data)]
        if options.json:
            _print_json({"removed": removed})
        else:
            _say("\n".join(_text("environment-removed", folder=folder) for folder in removed) or _text("nothing-old"))
        return 0
    name = options.name or config.environments.default
    path = prepare_environment(config, data, name, say=_say, language=terminal_language())
    if options.json:
        _print_json({"environment": name, "path": str(path)})
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="astrocloud", description="A science platform for astronomy.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    with_json = argparse.ArgumentParser(add_help=False)
    with_json.add_argument("--json", action="store_true", help="print JSON, for programs")

    def command(name: str, run: Any, text: str, within: Any = commands) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = within.add_parser(name, help=text, description=text, parents=[with_json])
        made.set_defaults(run=run)
        return made

    command("up", _up, "Run the whole platform on this machine, in the foreground.")
    serve = command("serve", _serve, "Run one service (or all) of the platform.")
    serve.add_argument("name", choices=["all", *SERVICES])
    _user_parsers(commands, command)
    token = command("token", _token, "Print a bearer token that every service takes.")
    token.add_argument("name", help="whose token")
    token.add_argument("--scope", action="append", default=[], help="restrict it to a scope; repeatable")
    token.add_argument("--expires", default="30d", metavar="D", help="how long it works: 3600, 12h, 30d (default 30d)")
    check = command("check-config", _check_config, "Check a configuration file.")
    check.add_argument("file")
    command("schema", _schema, "Print the JSON Schema of the configuration.")
    command("status", _status, "Say whether the platform runs and how its parts are.")
    saving = command("backup", _backup, "Save databases, keys and configuration while the platform runs.")
    saving.add_argument("folder", help="a folder that does not exist yet")
    saving.add_argument("--homes", action="store_true", help="copy people's files too, not only name their place")
    restoring = command("restore", _restore, "Restore a backup into an empty data folder.")
    restoring.add_argument("folder", help="a folder that `astrocloud backup` made")
    canary = command(
        "canary", _canary, "Try what a person does: sign in, start a server, run a cell, read a file, stop."
    )
    canary.add_argument("--url", help="the platform's address (default: as the platform knows it)")
    canary.add_argument("--name", help="the account for it, made if it is not there (default: the configured one)")
    canary.add_argument("--environment", help="the environment's id (default: the configured one)")
    canary.add_argument("--certificate", metavar="FILE", help="certificates to trust besides the machine's own")
    canary.add_argument(
        "--patience", type=float, default=30.0, metavar="S", help="seconds for any one answer (default 30)"
    )
    environment = command("environment", _environment, "List environments, make one ready, or remove old ones.")
    environment.add_argument(
        "action", choices=["list", "prepare", "prune"], help="prune: remove those that nobody uses and can start"
    )
    environment.add_argument("name", nargs="?", help="for prepare: the id (default: the configured one)")
    return parser


def _user_parsers(commands: Any, command: Any) -> None:
    user = commands.add_parser("user", help="Add, list and change people.", description="Add, list and change people.")
    actions = user.add_subparsers(required=True, metavar="ACTION")
    add = command("add", _user_add, "Add a person; prints an invite link unless a password is given.", actions)
    add.add_argument("name", help="the username: a-z, 0-9 and -, a letter first")
    add.add_argument("--admin", action="store_true", help="make this person an administrator")
    add.add_argument("--group", action="append", default=[], help="put this person into a group; repeatable")
    add.add_argument("--display-name", default="", help="the name to show")
    add.add_argument("--password-stdin", action="store_true", help="read the password from standard input")
    command("list", _user_list, "List people.", actions)
    for name, text in (
        ("disable", "Keep a person out; ends sessions and servers within 30 s."),
        ("enable", "Let a disabled person in again."),
        ("remove", "Remove a person; the name is never given again and the files stay."),
    ):
        change = command(name, _user_change, text, actions)
        change.add_argument("name")
        change.set_defaults(action=name)


def _let_go_of_closed_output() -> None:
    """Keep the interpreter from failing at its end because nobody reads its output any more."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _refuse(err: PlatformError) -> int:
    sys.stderr.write(f"astrocloud: {err.sentence(terminal_language())}\n")
    return USAGE_ERROR


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    for stream in (sys.stdout, sys.stderr):
        # A name that the terminal's encoding does not have must not end the command.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    options = _parser().parse_args(arguments)
    try:
        status: int = options.run(options)
    except PlatformError as err:
        return _refuse(err)
    except PermissionError as err:
        root = DataFolder.from_environment().root
        if root not in Path(str(err.filename)).parents:
            raise
        return _refuse(StartError("data-folder", folder=str(root), reason=err.strerror or str(err)))
    except BrokenPipeError:
        _let_go_of_closed_output()
        return 1
    except KeyboardInterrupt:
        return 130
    return status


if __name__ == "__main__":
    sys.exit(main())
