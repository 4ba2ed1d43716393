"""What every handler of the hub does besides JupyterHub's part: language, look, request ids, errors with a code."""

import json
import re
import secrets
import time
import unicodedata
from typing import Any, Final

import structlog
from jupyterhub.apihandlers.base import APIHandler
from jupyterhub.handlers.base import BaseHandler
from tornado.web import HTTPError, RequestHandler

from astrocloud.core import words
from astrocloud.core.errors import PlatformError
from astrocloud.core.isolation import people_are_kept_apart
from astrocloud.core.runtime import public_address
from astrocloud.core.web import asset
from astrocloud_hub.errors import HubError, problem_of
from astrocloud_hub.language import LANGUAGE_COOKIE, THEME_COOKIE, THEMES, choose_language, current_language
from astrocloud_hub.roles import sync_admin_role

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")
_log = structlog.get_logger()


class PlatformHandler:
    """Mixed into every handler of the hub, in front of JupyterHub's class."""

    # What comes from JupyterHub's class.
    request: Any
    settings: dict[str, Any]
    _started: float
    # JupyterHub (6.1) asks for it before it has said so of a request by cookie, and fails; goes when it no longer does.
    _token_authenticated: bool = False

    async def prepare(self) -> None:
        """Note language and request id for everything that this request leads to."""
        config = self.settings["astrocloud_config"]
        choose_language(
            accept_language=self.request.headers.get("Accept-Language"),
            cookie=self.get_cookie(LANGUAGE_COOKIE),  # type: ignore[attr-defined]
            default=config.language,
        )
        self.request_id = request_id_of(self.request)
        structlog.contextvars.bind_contextvars(request_id=self.request_id)
        self.set_header("X-Request-ID", self.request_id)  # type: ignore[attr-defined]
        if self._leads_to_public_address():
            return
        await super().prepare()  # type: ignore[misc]

    def _leads_to_public_address(self) -> bool:
        """Send a browser that came by another name of this machine to the platform's address; tell whether so."""
        wants_page = "text/html" in self.request.headers.get("Accept", "") and not isinstance(self, APIHandler)
        there = public_address(
            self.settings.get("astrocloud_public_url", ""), host=self.request.host, target=self.request.uri
        )
        if self.request.method != "GET" or not wants_page or there is None:
            return False
        self.redirect(there)  # type: ignore[attr-defined]
        return True

    async def auth_to_user(self, authenticated: Any, user: Any = None) -> Any:
        """Give administrators their second role, and take it from those who are none any more."""
        user = await super().auth_to_user(authenticated, user)  # type: ignore[misc]
        sync_admin_role(user)
        return user

    async def stop_single_user(self, user: Any, server_name: str = "") -> Any:
        """Note who stops a server before it ends."""
        spawner = user.spawners.get(server_name)
        by = self.current_user  # type: ignore[attr-defined]
        if spawner is not None and by is not None and hasattr(spawner, "ask_to_end"):
            if by.kind == "service" and by.name == "passport":
                # It ends servers only of those who may not be here any more.
                spawner.ask_to_end("disabled")
            else:
                spawner.ask_to_end("stopped", str(by.name))
        return await super().stop_single_user(user, server_name)  # type: ignore[misc]

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """Log why a request is refused or fails, without its query as Tornado would: it may carry a code."""
        about = {"method": self.request.method, "path": _hidden(self.request.path)[:300]}
        if not isinstance(value, HTTPError):
            _log.error("request-failed", **about, exc_info=(typ, value, tb))
        elif reason := value.get_message():
            _log.warning("request-refused", **about, status=value.status_code, reason=reason[:1000])

    def _validate_next_url(self, next_url: str) -> str:
        """Return where to go on, empty when that is elsewhere, or no address: no header can carry a control."""
        if any(unicodedata.category(char) in {"Cc", "Cs"} for char in next_url):
            return ""
        return str(super()._validate_next_url(next_url))  # type: ignore[misc]

    @property
    def template_namespace(self) -> dict[str, Any]:
        """What templates have: JupyterHub's, and what our own pages have (see `astrocloud.core.web.page`)."""
        language = current_language()
        theme = self.get_cookie(THEME_COOKIE) or "auto"  # type: ignore[attr-defined]
        user = self.current_user  # type: ignore[attr-defined]
        namespace: dict[str, Any] = dict(super().template_namespace)  # type: ignore[misc]

        def t(key: str, /, **parameters: Any) -> str:
            return words.text(key, language, **parameters)

        return namespace | {
            "t": t,
            "lang": language,
            "html_lang": words.HTML_LANGUAGE[language],
            "theme": theme if theme in THEMES else "auto",
            "asset": asset,
            "kept_apart": people_are_kept_apart,
            "path": self.request.path,
            # For the look's account corner; None for services.
            "principal": user if getattr(user, "kind", None) == "user" else None,
            "csrf": "",
            "request_id": getattr(self, "request_id", ""),
        }

    async def send_event(self, event: dict[str, Any]) -> None:
        """Tell a stage of a start; a failure with its code and sentence alone."""
        if event.get("failed"):
            names = [*self.path_args, *self.path_kwargs.values()]  # type: ignore[attr-defined]
            user = self.find_user(names[0])  # type: ignore[attr-defined]
            spawner = user.spawners.get(names[1] or "" if len(names) > 1 else "")
            future = spawner._spawn_future if spawner is not None else None
            error = future.exception() if future is not None and future.done() and not future.cancelled() else None
            problem = problem_of(error)
            if problem is not None:
                event = {**event, "code": problem.code, "message": problem.sentence(current_language())}
        await super().send_event(event)  # type: ignore[misc]

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer with the code and the sentence of the error: a page for people, a problem document for programs."""
        error = (kwargs.get("exc_info") or (None, None, None))[1]
        problem = problem_of(error) or self._plain_problem(status_code)
        # Tornado has dropped all headers by now.
        self.set_header("X-Request-ID", getattr(self, "request_id", ""))  # type: ignore[attr-defined]
        if isinstance(self, APIHandler):
            self._write_problem(status_code, problem, error)
            return
        self._problem = problem
        super().write_error(status_code, **kwargs)  # type: ignore[misc]

    def render_template(self, name: str, sync: bool = False, **namespace: Any) -> Any:
        """Render a page; error pages have ``problem``, the RFC 9457 document of the error."""
        problem = getattr(self, "_problem", None)
        if problem is not None:
            language = current_language()
            namespace["problem"] = {
                **problem.problem(language),
                "instance": f"urn:astrocloud:request:{self.request_id}",
            }
        return super().render_template(name, sync=sync, **namespace)  # type: ignore[misc]

    def _plain_problem(self, status: int) -> PlatformError | None:
        """Return our error for what JupyterHub refuses by itself, `None` where its own words say more."""
        if status == 404:
            return HubError("not-found", path=self.request.path[:200])
        if status >= 500:
            return HubError("internal", request_id=getattr(self, "request_id", "-"))
        return None

    def _write_problem(self, status: int, problem: PlatformError | None, error: Any) -> None:
        # JupyterHub's clients read `status` and `message`; ours read the rest (RFC 9457).
        message = error.get_message() if hasattr(error, "get_message") else getattr(error, "log_message", "") or ""
        document: dict[str, Any] = {"status": status, "message": str(message or getattr(error, "reason", "") or "")}
        if problem is not None:
            document |= problem.problem(current_language())
            document |= {"status": status, "message": document["detail"]}
        self.set_header("Content-Type", "application/json")  # type: ignore[attr-defined]
        if isinstance(error, HTTPError):
            for name, value in (getattr(error, "headers", None) or {}).items():
                self.set_header(name, value)  # type: ignore[attr-defined]
        self.clear_header("Content-Length")  # type: ignore[attr-defined]
        self.write(json.dumps(document, ensure_ascii=False))  # type: ignore[attr-defined]
        self.finish()  # type: ignore[attr-defined]


class AdminHandler(BaseHandler):
    """Leads to the platform's pages for administrators, where JupyterHub has its own.

    That one brings styles along that our policy forbids, and speaks no Chinese.
    """

    def get(self) -> None:
        """Lead there; they know who may see them."""
        self.redirect("/services/portal/admin")


def with_platform(handler: type[RequestHandler]) -> type[RequestHandler]:
    """Return `handler` with the platform's part, if it is one of JupyterHub's; its name (in metrics) stays."""
    if not issubclass(handler, BaseHandler) or issubclass(handler, PlatformHandler):
        return handler
    return type(handler.__name__, (PlatformHandler, handler), {"__module__": handler.__module__})


def request_id_of(request: Any) -> str:
    """Return the id that `request` came with, or a new one when that is none."""
    given = request.headers.get("X-Request-ID", "")
    return given if _REQUEST_ID.match(given) else secrets.token_hex(8)


def log_request(handler: Any) -> None:
    """Log one answered request; without its query, which may carry a code or a state."""
    from jupyterhub.metrics import prometheus_log_method

    status = handler.get_status()
    path = handler.request.path
    quiet = status < 400 and (path.startswith("/hub/static/") or path in {"/hub/health", "/hub/api/metrics"})
    log = _log.debug if quiet else (_log.error if status >= 500 else _log.info)
    user = getattr(handler, "_jupyterhub_user", None)
    log(
        "request",
        method=handler.request.method,
        path=_hidden(path)[:300],
        status=status,
        user=getattr(user, "name", "") or "",
        # Handlers of files are Tornado's own and have noted none.
        request_id=getattr(handler, "request_id", "") or request_id_of(handler.request),
        ms=round(1e3 * handler.request.request_time(), 1),
        at=round(time.time(), 3),
    )
    prometheus_log_method(handler)


def _hidden(path: str) -> str:
    """Return `path` without the token or cookie that two old addresses of the hub's API end with."""
    return re.sub(r"(/api/authorizations/(?:token|cookie)/).+", r"\1(hidden)", path)
