"""Load the slow server extensions after the server listens.

A person's first page needs the Lab, terminals and this package.  Importing the
others (dask alone takes a second) would hold everything up, so they wait: until
one of their addresses is asked for, or, for those whose addresses are not
known, a moment after the start.  A request that nothing answers meanwhile is
held until the extensions that may answer it are there.
"""

from __future__ import annotations

import asyncio
import importlib
import socket
from collections.abc import Mapping
from pathlib import Path

from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.serverapp import ServerApp
from tornado.routing import AnyMatches, Rule
from tornado.web import HTTPError
from traitlets import Dict, Float, List, Unicode

from astrocloud_lab import tls

AT_START = ("astrocloud_lab", "jupyterhub", "jupyterlab", "jupyter_server_terminals")

ON_REQUEST: Mapping[str, tuple[str, ...]] = {
    "dask_labextension": ("dask/",),
    "jupyter_lsp": ("lsp/",),
}
"""Extension -> first parts of all addresses that it answers.

Not ``jupyter_server_proxy``, whose addresses other packages add to."""

IN_A_THREAD: Mapping[str, tuple[str, ...]] = {"dask_labextension": ("distributed",)}
"""Extension -> what to import in a thread before it, if not itself.

dask_labextension makes a future at import, for which it needs the loop's thread."""


class DeferringServerApp(ServerApp):
    """A ServerApp that loads some extensions after it listens."""

    name = "jupyter-server"

    extensions_at_start = List(
        Unicode(),
        default_value=list(AT_START),
        config=True,
        help="Server extensions that are loaded before the server listens.",
    )

    extensions_on_request = Dict(
        default_value={name: list(prefixes) for name, prefixes in ON_REQUEST.items()},
        config=True,
        help=("Server extension -> first parts of its addresses. It is loaded when one of them is asked for."),
    )

    extensions_wait_s = Float(
        2.0,
        config=True,
        help="Seconds after listening until the remaining extensions are loaded.",
    )

    def find_server_extensions(self) -> None:
        """Find the enabled extensions and put those aside that can wait."""
        super().find_server_extensions()
        self._waiting: dict[str, bool] = {}
        now: dict[str, bool] = {}
        for name, enabled in self.jpserver_extensions.items():  # type: ignore[has-type]
            waits = enabled and name not in self.extensions_at_start
            (self._waiting if waits else now)[name] = enabled
        self.jpserver_extensions = now

    def init_httpserver(self) -> None:
        """Bind the port, and hold requests for extensions that are not there yet."""
        if getattr(self, "_waiting", None):
            self._load_lock = asyncio.Lock()
            if "jupyter_lsp" in self._waiting:
                self._tell_pages_where_files_are()
            self.web_app.settings["astrocloud_deferred"] = self
            # In front of the last rule, which answers 404 to everything.
            rules = self.web_app.wildcard_router.rules
            rules.insert(len(rules) - 1, Rule(AnyMatches(), HeldHandler))
            self.io_loop.call_later(self.extensions_wait_s, self._load_the_rest)
        super().init_httpserver()

    def _tell_pages_where_files_are(self) -> None:
        """Give pages what jupyter_lsp gives them, which may be loaded after the first page."""
        root = Path(self.root_dir).resolve().as_uri()
        page = self.web_app.settings.setdefault("page_config_data", {})
        page.setdefault("rootUri", root)
        page.setdefault("virtualDocumentsUri", f"{root.removesuffix('/')}/.virtual_documents")

    def _bind_http_server_tcp(self) -> bool:
        """Bind the port so that small messages leave at once.

        Without, a kernel's answer waits up to 40 ms for the acknowledgement of the one
        before.  Accepted connections inherit the option of the listening socket.
        """
        bound: bool = super()._bind_http_server_tcp()
        for listening in self.http_server._sockets.values():
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        tls.answer_at_once(self.http_server)
        return bound

    def _load_the_rest(self) -> None:
        rest = [name for name in self._waiting if name not in self.extensions_on_request]
        self._rest_task = asyncio.ensure_future(self.load_waiting(rest))

    def waiting_for(self, path: str) -> list[str]:
        """Return the extensions that have to be loaded before ``path`` can be answered.

        Parameters
        ----------
        path
            Of the request, below the server's base URL, without a leading slash.
        """
        named = [
            name
            for name in self._waiting
            if any(path.startswith(start) for start in self.extensions_on_request.get(name, ()))
        ]
        return named or [name for name in self._waiting if name not in self.extensions_on_request]

    async def load_waiting(self, names: list[str]) -> None:
        """Load extensions that waited, one after the other.

        A module is imported in a thread, so that the server answers meanwhile;
        its handlers are added in the loop.
        """
        manager = self.extension_manager
        for name in names:
            async with self._load_lock:
                if name not in self._waiting:
                    continue
                for module in IN_A_THREAD.get(name, (name,)):
                    try:
                        await asyncio.to_thread(importlib.import_module, module)
                    except Exception:
                        # Imported again below, in the loop's thread, and reported there.
                        self.log.debug("%s cannot be imported in a thread", module, exc_info=True)
                self.jpserver_extensions[name] = True
                if manager.add_extension(name, enabled=True):
                    manager.link_extension(name)
                    manager.load_extension(name)
                    await manager.start_extension(name)
                del self._waiting[name]


class HeldHandler(JupyterHandler):
    """Holds a request that no handler answers until the extensions are there.

    Then the client is sent to the same address again (307 keeps method and body).
    A websocket cannot be sent anywhere: it is told to come again (503), which
    clients of websockets do.
    """

    async def prepare(self) -> None:
        """Wait, then answer."""
        await super().prepare()
        server: DeferringServerApp = self.settings["astrocloud_deferred"]
        names = server.waiting_for(self.request.path.removeprefix(self.base_url))
        # No one else than a signed-in person starts a load.
        if not names or not self.current_user:
            raise HTTPError(404)
        await server.load_waiting(names)
        if not self._answered_by_another():
            raise HTTPError(404)
        if self.request.headers.get("Upgrade", "").lower() == "websocket":
            self.set_header("Retry-After", "1")
            raise HTTPError(503)
        self.redirect(self.request.uri, status=307)

    def _answered_by_another(self) -> bool:
        delegate = self.application.find_handler(self.request)
        handler: type = delegate.handler_class
        return not issubclass(handler, HeldHandler)
