"""JupyterHub as this platform runs it."""

import asyncio
import logging
from typing import Any

import structlog
from jupyterhub.app import JupyterHub
from jupyterhub.httpclient import JupyterHubHTTPClient
from sqlalchemy import event
from tornado.httpserver import HTTPServer
from tornado.ioloop import PeriodicCallback
from traitlets import Any as AnyTrait
from traitlets import Bool, Integer, default

from astrocloud.core.database import keep_no_nul
from astrocloud.core.runtime import Door
from astrocloud.core.tls import Certificate
from astrocloud.core.trust import NONE
from astrocloud_hub.bodies import LimitedApplication
from astrocloud_hub.caretaker import Caretaker
from astrocloud_hub.hosts import Resolver
from astrocloud_hub.keeping import keep_parent
from astrocloud_hub.pages import AdminHandler, log_request, with_platform
from astrocloud_hub.roles import restore_administrators
from astrocloud_hub.routes import RouteKeeper

_log = structlog.get_logger()


class AstrocloudHub(JupyterHub):
    """JupyterHub, with the platform's part in each of its handlers and somebody who takes care of idle servers."""

    name = "jupyterhub"

    _by_tls: HTTPServer | None = None

    idle_timeout_s = Integer(86400, help="A server without activity for so long is stopped, in seconds; 0: never.").tag(
        config=True
    )
    keep_routes = Bool(False, help="Whether a proxy that lost its routes gets them back from here at once.").tag(
        config=True
    )
    trust = AnyTrait(NONE, help="Whose certificates the other parts and servers have: a `Trust`.").tag(config=True)
    tls_door = AnyTrait(None, help="Where to listen for the other parts by TLS: a `Door`.").tag(config=True)
    care_interval_s = Integer(10, help="How often servers are looked after, in seconds.").tag(config=True)

    @default("log")
    def _default_log(self) -> logging.Logger:
        # traitlets would give it a handler of its own for everything before `init_logging`.
        return logging.getLogger("jupyterhub")

    def init_logging(self) -> None:
        """Leave logging to the platform's own (JSON lines); JupyterHub's messages go there, too."""
        self.log.propagate = True
        for logger in (self.log, logging.getLogger("tornado"), logging.getLogger("traitlets")):
            logger.handlers = []
            logger.propagate = True
        for handler in logging.getLogger().handlers:
            handler.addFilter(_without_sessions)
        logging.getLogger("alembic").setLevel(logging.WARNING)

    def init_db(self) -> None:
        """Open the database in a way in which readers and the writer do not wait for each other."""
        super().init_db()
        engine = self.session_factory.kw["bind"] if hasattr(self.session_factory, "kw") else self.db.get_bind()
        keep_no_nul(engine)
        if engine.dialect.name == "sqlite":

            @event.listens_for(engine, "connect")
            def _set_pragmas(connection: Any, _record: Any) -> None:
                set_pragmas(connection)

            with engine.connect() as connection:
                set_pragmas(connection.connection.dbapi_connection)

    async def init_role_assignment(self) -> None:
        """Give people the roles that they are known to have."""
        await super().init_role_assignment()
        restore_administrators(self.db)

    def init_handlers(self) -> None:
        """Put the platform's part in front of every handler.

        Left out are those that services asked about tokens and cookies before JupyterHub 2: nobody does any more, they
        have the secret in their address, and fail with a status 500 when they are asked otherwise than by a service.
        """
        super().init_handlers()
        self.handlers: list[Any]
        self.handlers = [
            (rule[0], with_platform(AdminHandler if rule[0].endswith("/admin") else rule[1]), *rule[2:])
            for rule in self.handlers
            if "/api/authorizations/" not in rule[0]
        ]

    def init_tornado_settings(self) -> None:
        """Log requests our way."""
        super().init_tornado_settings()
        self.tornado_settings["log_function"] = log_request

    def init_tornado_application(self) -> None:
        """Make the web application, one that keeps no large bodies."""
        self.tornado_application = LimitedApplication(self.handlers, **self.tornado_settings)

    def init_internal_ssl(self) -> None:
        """Let JupyterHub's own client know whom to trust, and where servers are.

        Its `internal_ssl` is another thing: by that every part, each server too, has to show a certificate to each
        other, which for a pod takes a Secret and a Service at each start.
        """
        super().init_internal_ssl()
        if self.trust.authorities:
            client = JupyterHubHTTPClient.instance()
            client._internal_connector_options = {"ssl": self.trust.context(), "resolver": Resolver()}

    async def start_service(self, *args: Any, **kwargs: Any) -> bool:
        """Wait for a service, and listen before: it may ask the hub for something first."""
        self._listen_by_tls()
        return bool(await super().start_service(*args, **kwargs))

    def _listen_by_tls(self) -> None:
        """Listen for the other parts, besides what JupyterHub listens at, if that is not done yet."""
        if self.tls_door is None or self._by_tls is not None:
            return
        door: Door = self.tls_door
        assert door.files is not None
        self._by_tls = HTTPServer(
            self.tornado_application,
            ssl_options=Certificate(*door.files).context(),
            xheaders=True,
            trusted_downstream=self.trusted_downstream_ips,
        )
        self._by_tls.listen(door.port, address=door.address)

    def stop(self) -> None:
        """Stop listening, and end."""
        if self._by_tls is not None:
            self._by_tls.stop()
        super().stop()

    async def start(self) -> None:
        """Start the hub, then look after servers from time to time."""
        await super().start()
        caretaker = Caretaker(app=self, idle_timeout_s=self.idle_timeout_s, trust=self.trust)

        async def care() -> None:
            try:
                await keep_parent(self.config)
                await caretaker.look()
            except asyncio.CancelledError:
                raise
            except Exception:  # noqa: BLE001 - logged; the next look may succeed
                _log.exception("care-failed")

        self._care = PeriodicCallback(care, self.care_interval_s * 1000)
        self._care.start()
        if self.keep_routes:
            keeper = RouteKeeper(
                api_url=self.proxy.api_url,
                token=self.proxy.auth_token,
                trust=self.trust,
                restore=lambda: self.proxy.check_routes(self.users, self._service_map),
            )
            self._keeping_routes = asyncio.create_task(keeper.keep())
        await keep_parent(self.config)


def _without_sessions(record: logging.LogRecord) -> bool:
    """Drop the one message of JupyterHub (6.1) that tells the id of a browser's session."""
    return not str(record.msg).startswith("Setting new xsrf cookie")


def set_pragmas(connection: Any) -> None:
    """Switch a SQLite connection to write-ahead logging, and let it wait for a lock a while."""
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=10000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
