"""HTTP plumbing that every service shares: request ids, logs, metrics, languages, errors, security headers, pages."""

import asyncio
import json
import re
import secrets
import time
import unicodedata
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

import jinja2
import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from markupsafe import Markup
from prometheus_client import CONTENT_TYPE_LATEST, Counter, Histogram, generate_latest

from astrocloud.core import words
from astrocloud.core.errors import PlatformError, RequestError
from astrocloud.core.isolation import people_are_kept_apart
from astrocloud.core.runtime import public_address

if TYPE_CHECKING:
    from astrocloud.config import Config
    from astrocloud.core.auth import HubLogin

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

LANGUAGE_COOKIE: Final = "astrocloud-lang"
THEME_COOKIE: Final = "astrocloud-theme"
THEMES: Final = ("light", "dark", "auto")
PAGES: Final = Path(__file__).with_name("pages")
"""The shared look: layout, style, scripts, icons."""

BODY_LIMIT_BYTES: Final = 256 * 1024
"""The largest body of a form or a JSON document; services that take files read them as streams instead."""

FORM_TYPE: Final = "application/x-www-form-urlencoded"
FORM_LIMIT_BYTES: Final = 16 * 1024
"""The largest form of a page, unless its reader says otherwise."""
FORM_TIMEOUT_S: Final = 20
FORM_FIELDS: Final = 40

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_PREAUTHORISED: Final = re.compile(r"preauth:[^/]*")
_LINK_TOKEN: Final = re.compile(r"^(/services/vospace/link/[^/]{6})[^/]+")
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")
_CSP: Final = (
    "default-src 'self'; img-src 'self' data:; style-src 'self'; script-src 'self'; object-src 'none'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_HEADERS: Final = {
    "Content-Security-Policy": _CSP,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}

_log = structlog.get_logger()
_requests = Counter("astrocloud_requests_total", "HTTP requests answered.", ["service", "method", "status"])
_seconds = Histogram("astrocloud_request_seconds", "Time to answer an HTTP request, in seconds.", ["service"])


@dataclass(frozen=True, kw_only=True)
class Service:
    """One service as its ``factory.py`` hands it to the platform."""

    name: str
    """The name in ``/services/NAME/``."""
    routes: Sequence[web.AbstractRouteDef]
    """Routes with whole paths, below ``/services/NAME/`` (the portal also has ``/``)."""
    login: "HubLogin | None" = None
    """How the service signs people in."""
    templates: Path | None = None
    """The folder of its page templates."""
    health: Callable[[], Awaitable[Mapping[str, str]]] | None = None
    """State of what it depends on: part -> ``ok`` or a code; anything but ``ok`` makes it not ready."""
    direct: Sequence[web.AbstractRouteDef] = ()
    """Routes that are also served around the proxy, at the platform's address for bytes."""
    background: Sequence[Callable[[], Awaitable[None]]] = field(default=())
    """Coroutines that run as long as the platform does; cancelled at its end."""
    drain: Sequence[Callable[[], Awaitable[None]]] = field(default=())
    """Called when the platform is told to end, and given time: each begins nothing new and returns when nothing is
    under way any more; cancelled when the time is over."""


LOGINS: Final = web.AppKey("logins", dict[str, "HubLogin"])
REQUEST_ID: Final = web.RequestKey("request_id", str)
PRINCIPAL: Final = web.RequestKey("principal", object)
"""Who sends the request (`auth.Principal` or `None`), once somebody has asked."""
NAMES: Final = web.AppKey("names", frozenset[str])
CONFIG: Final = web.AppKey("config", object)
PUBLIC_URL: Final = web.AppKey("public_url", str)
TEMPLATES: Final = web.AppKey("templates", jinja2.Environment)
BY_COOKIE: Final = web.AppKey("by_cookie", bool)
"""Whether browsers can be signed in: not where only bytes are served, and no cookie counts there."""


class Underway:
    """Requests that are being answered, so that an end can wait for them.

    The server itself cannot: it takes no more of a body as soon as it is told to end.
    """

    def __init__(self) -> None:
        self._count = 0
        self._none = asyncio.Event()
        self.ending = False

    def begin(self) -> None:
        """Count one more."""
        self._count += 1
        self._none.clear()

    def end(self) -> None:
        """Count one less."""
        self._count -= 1
        if not self._count:
            self._none.set()

    async def none_left(self) -> None:
        """Return when none is left; from now on each is its connection's last."""
        self.ending = True
        if self._count:
            await self._none.wait()


UNDERWAY: Final = web.AppKey("underway", Underway)
DRAINS: Final = web.AppKey("drains", Sequence[Callable[[], Awaitable[None]]])


async def end(*runners: web.AppRunner, within_s: float) -> None:
    """Let nobody new in, wait for what is under way as long as `within_s`, and end."""
    for runner in runners:
        for site in [*runner.sites]:
            await site.stop()
    works = [work for runner in runners for work in (runner.app[UNDERWAY].none_left, *runner.app[DRAINS])]
    waited = [asyncio.ensure_future(work()) for work in works]
    await asyncio.wait(waited, timeout=within_s)
    for each in waited:
        each.cancel()
    await asyncio.gather(*waited, return_exceptions=True)
    await asyncio.gather(*(runner.cleanup() for runner in runners))


def build_app(services: Sequence[Service], *, config: "Config", public_url: str = "") -> web.Application:
    """Return the application that answers for `services` at `public_url`."""
    app = _bare_app(services, config=config, public_url=public_url, by_cookie=True)
    for service in services:
        app.router.add_routes(list(service.routes))
        if service.login:
            app.router.add_routes(list(service.login.routes()))
        app.router.add_routes(_operations(service))

    async def _background(_app: web.Application) -> Any:
        tasks = [asyncio.create_task(_keep_running(work)) for s in services for work in s.background]
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    app[DRAINS] = [drain for service in services for drain in service.drain]
    app.cleanup_ctx.append(_background)
    return app


def build_direct_app(services: Sequence[Service], *, config: "Config", public_url: str = "") -> web.Application:
    """Return the application that answers beside `build_app`'s, around the proxy: bytes, and no cookie counts."""
    app = _bare_app(services, config=config, public_url=public_url, by_cookie=False)
    app[DRAINS] = []
    for service in services:
        app.router.add_routes(list(service.direct))
    return app


def _bare_app(services: Sequence[Service], *, config: "Config", public_url: str, by_cookie: bool) -> web.Application:
    middlewares = [_with_request_context, _with_errors, *([_at_public_address] if by_cookie else [])]
    app = web.Application(middlewares=middlewares, client_max_size=BODY_LIMIT_BYTES)
    app[CONFIG] = config
    app[UNDERWAY] = Underway()
    app[PUBLIC_URL] = public_url
    app[BY_COOKIE] = by_cookie
    app[NAMES] = frozenset(service.name for service in services)
    app[LOGINS] = {service.name: service.login for service in services if service.login}
    app[TEMPLATES] = _template_environment([s.templates for s in services if s.templates])
    app.on_response_prepare.append(_add_headers)
    return app


async def _keep_running(work: Callable[[], Awaitable[None]]) -> None:
    """Run `work` again after a pause when it fails: one bad moment must not end a reconciler for good."""
    while True:
        try:
            await work()
        except asyncio.CancelledError:
            raise
        except Exception:  # noqa: BLE001 - logged, and tried again
            _log.exception("background-failed", work=getattr(work, "__qualname__", str(work)))
        await asyncio.sleep(5)


def _operations(service: Service) -> list[web.AbstractRouteDef]:
    """Return ``health`` (is the process up), ``ready`` (can it work) and ``metrics`` of one service."""

    async def health(_request: web.Request) -> web.Response:
        """Say that the service runs."""
        return web.json_response({"status": "ok", "service": service.name})

    async def ready(_request: web.Request) -> web.Response:
        """Say whether the service and what it needs are ready, part by part."""
        parts = dict(await service.health()) if service.health else {}
        # What is full still gives what it holds.
        good = all(state in {"ok", "full"} for state in parts.values())
        document = {"status": "ok" if good else "degraded", "service": service.name, "parts": parts}
        return web.json_response(document, status=200 if good else 503)

    async def metrics(_request: web.Request) -> web.Response:
        """Return its figures, for Prometheus."""
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    prefix = f"/services/{service.name}"
    return [
        web.get(f"{prefix}/health", health),
        web.get(f"{prefix}/ready", ready),
        web.get(f"{prefix}/metrics", metrics),
    ]


def service_of(request: web.Request) -> str:
    """Return the name of the service that `request` is for (the portal owns ``/``)."""
    parts = request.path.split("/", 3)
    return parts[2] if len(parts) > 2 and parts[1] == "services" else "portal"


def logged_path(request: web.Request) -> str:
    """Return the path of `request` for a log.

    It is without the query, which may carry a code or a state, and without the part of a pre-authorised address or of
    a link that is as good as a sign-in; of a link's the beginning is left, to tell links apart. A question mark in a
    name is no query.
    """
    path = request.path.replace("?", "%3F")
    return _LINK_TOKEN.sub(r"\1…", _PREAUTHORISED.sub("preauth:…", path))[:300]


def language_of(request: web.Request) -> str:
    """Return the language to answer `request` in: chosen by cookie, else by Accept-Language, else the default."""
    config: Any = request.app.get(CONFIG)
    return words.negotiate(
        request.headers.get("Accept-Language"),
        chosen=request.cookies.get(LANGUAGE_COOKIE),
        default=config.language if config is not None else "en",
    )


@web.middleware
async def _with_request_context(request: web.Request, handler: Handler) -> web.StreamResponse:
    given = request.headers.get("X-Request-ID", "")
    request_id = given if _REQUEST_ID.match(given) else secrets.token_hex(8)
    request[REQUEST_ID] = request_id
    service = service_of(request)
    started = time.perf_counter()
    status = 499  # the client went away before there was an answer
    with structlog.contextvars.bound_contextvars(request_id=request_id, service=service):
        underway = request.app[UNDERWAY]
        underway.begin()
        try:
            response = await handler(request)
            status = response.status
            if underway.ending and not response.prepared:
                response.force_close()
        except web.HTTPException as err:  # a redirect; whatever is refused has become an answer
            status = err.status
            raise
        finally:
            underway.end()
            took = time.perf_counter() - started
            # Only names of ours become labels: whoever makes up paths and methods must not fill the memory.
            known = service if service in request.app[NAMES] else "none"
            method = request.method if request.method in _METHODS else "other"
            _requests.labels(known, method, status).inc()
            _seconds.labels(known).observe(took)
            _log.info("request", method=method, path=logged_path(request), status=status, ms=round(took * 1e3, 1))
    return response


@web.middleware
async def _with_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except PlatformError as err:
        return error_response(request, err)
    except web.HTTPNotFound:
        return error_response(request, RequestError("not-found", path=request.path[:200]))
    except web.HTTPMethodNotAllowed as err:
        allowed = ", ".join(sorted(err.allowed_methods))
        problem = error_response(
            request, RequestError("method-not-allowed", method=request.method[:20], allowed=allowed)
        )
        problem.headers["Allow"] = allowed
        return problem
    except web.HTTPRequestEntityTooLarge:
        return error_response(request, RequestError("too-large", limit_bytes=BODY_LIMIT_BYTES))
    except web.HTTPException as err:
        if err.status < 400:
            raise
        return error_response(request, RequestError("bad-request", reason=err.reason))
    except (ConnectionResetError, asyncio.CancelledError):
        raise
    except Exception:  # noqa: BLE001 - the one place where the unexpected is logged and answered
        _log.exception("request-failed", path=logged_path(request))
        return error_response(request, RequestError("internal", request_id=request[REQUEST_ID]))


@web.middleware
async def _at_public_address(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Lead a person who typed ``localhost`` to the address that the platform signs people in at."""
    if request.method == "GET" and wants_page(request):
        there = public_address(request.app[PUBLIC_URL], host=request.host, target=request.rel_url.raw_path_qs)
        if there is not None:
            return web.Response(status=302, headers={"Location": there})
    return await handler(request)


def wants_page(request: web.Request) -> bool:
    """Whether `request` comes from a person's browser that navigates, rather than from a program."""
    return "text/html" in request.headers.get("Accept", "") and "/api/" not in request.path and _has_pages(request)


def _has_pages(request: web.Request) -> bool:
    return request.app.get(BY_COOKIE, True)


def error_response(request: web.Request, err: PlatformError) -> web.Response:
    """Return `err` as a page for people and as ``application/problem+json`` (RFC 9457) for programs."""
    language = language_of(request)
    headers = {"Content-Language": words.HTML_LANGUAGE[language], "Vary": "Accept-Language, Accept, Cookie"}
    if "wait_s" in err.parameters:
        headers["Retry-After"] = str(err.parameters["wait_s"])
    problem = {**err.problem(language), "instance": f"urn:astrocloud:request:{request.get(REQUEST_ID, '')}"}
    if wants_page(request):
        try:
            response = page(request, "error.html", status=err.status, problem=problem)
        except Exception:  # noqa: BLE001 - a broken template must not hide the error that led here
            _log.exception("error-page-failed", code=err.code)
        else:
            response.headers.update(headers)
            return response
    return web.json_response(problem, status=err.status, headers=headers, content_type="application/problem+json")


async def _add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers.setdefault("X-Request-ID", _request.get(REQUEST_ID, ""))
    if "Cache-Control" not in response.headers:
        response.headers["Cache-Control"] = "no-store"


@cache
def _asset_version() -> str:
    """Return a short digest of the static files, so that a new version is fetched anew and an old one never."""
    import hashlib

    digest = hashlib.sha256()
    for path in sorted((PAGES / "static").rglob("*")):
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()[:10]


def asset(name: str) -> str:
    """Return the address of the static file `name`."""
    return f"/services/portal/static/{name}?v={_asset_version()}"


def _template_environment(folders: Sequence[Path]) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([*folders, PAGES]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["asset"] = asset
    environment.globals["kept_apart"] = people_are_kept_apart
    return environment


def page(request: web.Request, template: str, *, status: int = 200, **values: Any) -> web.Response:
    """Return the page `template` in the language and theme of `request`.

    A template has ``t(key, **parameters)`` for texts, ``lang``, ``theme``, ``config``, ``path``, ``principal`` (`None`
    when nobody is signed in at this service) and ``csrf`` (the token for its forms).
    """
    language = language_of(request)
    theme = request.cookies.get(THEME_COOKIE, "auto")
    principal: Any = request.get(PRINCIPAL)

    def t(key: str, /, **parameters: Any) -> str:
        return words.text(key, language, **parameters)

    body = (
        request.app[TEMPLATES]
        .get_template(template)
        .render(
            t=t,
            lang=language,
            html_lang=words.HTML_LANGUAGE[language],
            theme=theme if theme in THEMES else "auto",
            config=request.app[CONFIG],
            path=request.path,
            principal=principal,
            csrf=principal.csrf if principal is not None else "",
            Markup=Markup,
            **values,
        )
    )
    return web.Response(
        text=body,
        status=status,
        content_type="text/html",
        headers={"Content-Language": words.HTML_LANGUAGE[language], "Vary": "Accept-Language, Cookie"},
    )


async def read_json(request: web.Request) -> dict[str, Any]:
    """Return the JSON object in the body of `request`. Raises ``bad-request`` when it is none."""
    try:
        document = await request.json()
        # An escaped half of a surrogate pair is JSON, but no text that can be stored or sent on.
        json.dumps(document, ensure_ascii=False).encode()
    except (ValueError, LookupError, RecursionError) as err:  # not JSON, not of that charset, no such charset, too deep
        raise RequestError("bad-request", reason="the body is not JSON") from err
    if not isinstance(document, dict):
        raise RequestError("bad-request", reason="the body is not a JSON object")
    return document


async def read_fields(request: web.Request) -> list[tuple[str, str]]:
    """Return the text fields of the form in the body of `request`, in order; a name may be there more than once.

    Raises
    ------
    RequestError
        ``bad-request`` when it is no form, ``too-slow``.
    """
    try:
        async with asyncio.timeout(FORM_TIMEOUT_S):
            fields = await request.post()
    except TimeoutError as err:
        raise RequestError("too-slow", limit_s=FORM_TIMEOUT_S) from err
    except (ValueError, LookupError, AssertionError, HttpProcessingError) as err:  # aiohttp's, of a damaged body
        raise RequestError("bad-request", reason="the body is not a form") from err
    return [(name, value) for name, value in fields.items() if isinstance(value, str)]


async def read_form(request: web.Request, *, limit_bytes: int = FORM_LIMIT_BYTES) -> dict[str, str]:
    """Return the fields of a form of a page, each given once.

    Whoever checks a form before its handler may ask for it, too: its body is read once.

    Parameters
    ----------
    limit_bytes
        How long it may be; the fields of our own pages are short.

    Raises
    ------
    RequestError
        ``too-large``, ``too-slow``, or ``bad-request`` when it is no form or has a field twice.
    """
    if request.content_type != FORM_TYPE or (request.charset or "utf-8").lower() not in {"utf-8", "utf8"}:
        raise RequestError("bad-request", reason=f"the body is not a form ({FORM_TYPE}, UTF-8)")
    if (request.content_length or 0) > limit_bytes:
        raise RequestError("too-large", limit_bytes=limit_bytes)
    try:
        async with asyncio.timeout(FORM_TIMEOUT_S):
            body = await request.read()
    except TimeoutError as err:
        raise RequestError("too-slow", limit_s=FORM_TIMEOUT_S) from err
    if len(body) > limit_bytes:
        raise RequestError("too-large", limit_bytes=limit_bytes)
    return parse_parameters(body)


def parse_parameters(text: bytes) -> dict[str, str]:
    """Return the parameters in a query or a form. Raises ``bad-request`` when one is given twice or is no UTF-8."""
    try:
        pairs = parse_qsl(
            text.decode("ascii"), keep_blank_values=True, max_num_fields=FORM_FIELDS, encoding="utf-8", errors="strict"
        )
    except ValueError as err:
        raise RequestError("bad-request", reason="the parameters are not URL-encoded UTF-8, or are too many") from err
    found = dict(pairs)
    if len(found) != len(pairs):
        raise RequestError("bad-request", reason="a parameter is given twice")
    return found


def safe_next(path: str, *, default: str = "/") -> str:
    """Return `path` if it is a path on this origin, else `default`: never a way off the platform."""
    if len(path) > 2000 or not path.startswith("/") or path.startswith("//"):
        return default
    if any(unicodedata.category(char) in {"Cc", "Cs"} or char == "\\" for char in path):  # controls, half characters
        return default
    return path
