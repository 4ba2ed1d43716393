"""Start a person's server: ``python -m astrocloud_lab.serve [ARGUMENTS]``.

Takes the arguments and the environment of ``jupyterhub-singleuser`` and is one,
started lean.  Whatever goes wrong before the server listens is told in one line
and answered by starting the stock server in the same process.

Environment
-----------
ASTROCLOUD_STOCK_SERVER
    ``1`` starts the stock server.
ASTROCLOUD_LEAN_VERSIONS
    Versions to trust besides the tested ones, see :mod:`astrocloud_lab.lean.versions`.
ASTROCLOUD_LANG
    Language of the Lab until the person chooses one: ``en`` or ``zh_CN``.
ASTROCLOUD_PREPARE_KERNEL
    ``0`` starts every kernel as stock does.
ASTROCLOUD_TLS_CERTIFICATE, ASTROCLOUD_TLS_KEY, ASTROCLOUD_TLS_AUTHORITY
    Texts in PEM with which the server answers by TLS and checks the platform's parts,
    see :mod:`astrocloud_lab.tls`.
ASTROCLOUD_SHARED_NETWORK
    ``1`` where other people's programs reach this server's loopback address: kernels
    and the Lab have no debugger then, which would listen there.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn


def tell(text: str) -> None:
    """Write a line to the server's log, before there is a logger."""
    sys.stderr.write(f"astrocloud_lab: {text}\n")
    sys.stderr.flush()


def stock(argv: Sequence[str], reason: str) -> NoReturn:
    """Become the stock server, with the platform's settings.

    Descriptors opened here are closed by the exec, the bound port with them.
    """
    tell(f"starting the stock server: {reason}")
    try:
        from astrocloud_lab.lean import settings

        settings.prepare_environment(os.environ, stock=True)
        os.chdir(os.path.expanduser("~"))
    except Exception as error:  # noqa: BLE001  # a server without settings is better than none
        tell(f"without the platform's settings: {error}")
    os.execv(sys.executable, [sys.executable, "-m", "jupyterhub.singleuser", *argv])  # noqa: S606


def start_preparing() -> None:
    """Let a child import what a kernel needs while the server is imported here.

    Started before anything else: on a machine with two cores both take the time
    of the longer one.
    """
    if os.environ.get("ASTROCLOUD_PREPARE_KERNEL", "1") != "0":
        import astrocloud_lab.forked
        from astrocloud_lab.kernels import fingerprint, parent

        prepared = astrocloud_lab.forked.KERNELS_ARE_PREPARED and not fingerprint.differs_from_others()
        parent.start(fork=prepared)


def stop_preparing() -> None:
    """End the child of :func:`start_preparing`, if there is one."""
    module = sys.modules.get("astrocloud_lab.kernels.parent")
    if module is not None:
        module.stop()


def main(argv: Sequence[str] | None = None) -> None:
    """Start the server; returns when it has ended."""
    from astrocloud_lab import tls

    arguments = [*(sys.argv[1:] if argv is None else argv), *tls.prepare(os.environ)]
    if os.environ.get("ASTROCLOUD_STOCK_SERVER") == "1":
        stock(arguments, "ASTROCLOUD_STOCK_SERVER is 1")
    try:
        from astrocloud_lab.lean import settings

        settings.prepare_environment(os.environ)
        os.chdir(os.path.expanduser("~"))
        # Before anything else is imported: the first cell waits for this child more than for the server.
        start_preparing()
        from astrocloud_lab.lean import app, versions

        extra = versions.parse_extra(os.environ.get("ASTROCLOUD_LEAN_VERSIONS", ""))
        versions.check(versions.installed(), extra)
        server = app.build(arguments)
    except SystemExit as end:
        if end.code in (None, 0):
            raise  # --help, --version
        stop_preparing()
        stock(arguments, f"the lean start ended with {end.code}")
    except Exception as error:  # noqa: BLE001  # whatever it is, stock may still work
        stop_preparing()
        stock(arguments, f"{type(error).__name__}: {error}")
    try:
        server.start()
    finally:
        stop_preparing()


if __name__ == "__main__":
    main()
