"""What the passport's handlers share: forms, the session cookie, CSRF, the browser's address, slow work in threads."""

import asyncio
import hashlib
import hmac
import ipaddress
import secrets
from collections import defaultdict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar
from urllib.parse import urlencode, urlsplit

import structlog
from aiohttp import web

from astrocloud.core.errors import PlatformError, RequestError
from astrocloud.core.web import language_of, page, parse_parameters, read_form, wants_page
from astrocloud.passport.accounts import Accounts, Browser, Opened
from astrocloud.passport.models import Person, Session
from astrocloud.passport.provider import own_origins
from astrocloud.passport.proxy import ProxyPods, believed_sender

if TYPE_CHECKING:
    from pydantic import SecretStr

P = ParamSpec("P")
T = TypeVar("T")

PREFIX: Final = "/services/passport"
SESSION_COOKIE: Final = "astrocloud-passport-session"
FORM_COOKIE: Final = "astrocloud-passport-form"
WAITING_LIMIT: Final = 64
"""How many may wait for a password to be compared; more are told to come back."""

_log = structlog.get_logger()


class SlowLane:
    """Runs what compares passwords in threads of its own, so that a flood of it holds nothing else up.

    Parameters
    ----------
    threads
        How many run at once.
    """

    def __init__(self, *, threads: int = 2) -> None:
        self._threads = threads
        self._pool: ThreadPoolExecutor | None = None
        self._waiting = 0

    async def run(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what `work` returns. Raises ``too-many-requests`` when too many wait already."""
        if self._waiting >= WAITING_LIMIT:
            raise RequestError("too-many-requests", wait_s=5)
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="passwords")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, partial(work, *args, **kwargs))
        finally:
            self._waiting -= 1


class Doors:
    """Cookies and forms of the passport's pages.

    Parameters
    ----------
    public_url
        The platform's address.
    secret
        What form tokens are made with.
    accounts
        The accounts; `None` when another passport is used.
    session_lifetime_s
        How long the session cookie is kept, in seconds.
    behind_web_server
        Whether a web server of the operator stands in front of the platform's own proxy.
    proxy
        On a cluster, the pods of that proxy; on one machine it connects from this machine.
    """

    def __init__(
        self,
        *,
        public_url: str,
        secret: "SecretStr",
        accounts: Accounts | None,
        session_lifetime_s: int,
        behind_web_server: bool,
        proxy: ProxyPods | None = None,
    ) -> None:
        self._proxy = proxy
        self.slow = SlowLane()
        self._origins = set(own_origins(public_url))
        self._secure = public_url.startswith("https://")
        self._key = hashlib.sha256(b"passport-forms:" + secret.get_secret_value().encode()).digest()
        self._accounts = accounts
        self._session_lifetime_s = session_lifetime_s
        self._behind_web_server = behind_web_server

    @property
    def accounts(self) -> Accounts:
        """The accounts. Raises ``passport-external`` when another passport is used."""
        if self._accounts is None:
            raise RequestError("passport-external")
        return self._accounts

    # who asks

    def browser(self, request: web.Request) -> Browser:
        """Return where `request` comes from."""
        return Browser(address=self._address(request), agent=request.headers.get("User-Agent", "")[:400])

    def _address(self, request: web.Request) -> str:
        """Return the address of the person's machine: what our own proxies wrote, never what a client may claim."""
        peer = request.remote or ""
        if self._proxy is not None:
            # People's pods may reach this one without the proxy: what they say of themselves is not believed.
            hops = request.headers.get("X-Forwarded-For", "") if peer in self._proxy else ""
            return believed_sender(hops, behind_web_server=self._behind_web_server) or peer
        if not _is_loopback(peer):
            return peer
        told = [hop.strip() for hop in request.headers.get("X-Forwarded-For", "")[-500:].split(",") if hop.strip()]
        # Each proxy appends who called it: the last is our proxy's caller, the one before it the web server's.
        wanted = -2 if self._behind_web_server and len(told) > 1 else -1
        found = told[wanted] if told else peer
        try:
            return str(ipaddress.ip_address(found))
        except ValueError:
            return peer

    async def session(self, request: web.Request) -> tuple[Session, Person] | None:
        """Return the passport's session of `request` and whose it is, or `None`."""
        secret = request.cookies.get(SESSION_COOKIE, "")[:200]
        if self._accounts is None or not secret:
            return None
        return await asyncio.to_thread(self._accounts.session, secret)

    async def need_session(self, request: web.Request) -> tuple[Session, Person]:
        """Return the session of `request`; a page is sent to sign in, a form is refused (``not-signed-in``)."""
        _ = self.accounts
        found = await self.session(request)
        if found is None:
            if wants_page(request) and request.method == "GET":
                raise web.HTTPFound(sign_in_address(request.path))
            raise RequestError("not-signed-in")
        return found

    def open(self, response: web.StreamResponse, opened: Opened) -> None:
        """Give the browser that gets `response` its session."""
        self._set_cookie(response, SESSION_COOKIE, opened.secret, max_age_s=self._session_lifetime_s)

    def close(self, response: web.StreamResponse) -> None:
        """Take the session from the browser that gets `response`."""
        response.del_cookie(SESSION_COOKIE, path=f"{PREFIX}/")

    def _set_cookie(self, response: web.StreamResponse, name: str, value: str, *, max_age_s: int | None) -> None:
        response.set_cookie(
            name, value, path=f"{PREFIX}/", max_age=max_age_s, httponly=True, secure=self._secure, samesite="Lax"
        )

    # forms

    async def form_page(self, request: web.Request, template: str, *, status: int = 200, **values: Any) -> web.Response:
        """Return a page with forms; each carries ``form_token``, good only in this browser."""
        anchor = request.cookies.get(FORM_COOKIE, "")
        fresh = not 20 <= len(anchor) <= 100
        if fresh:
            anchor = secrets.token_urlsafe(32)
        response = page(
            request,
            template,
            status=status,
            form_token=self._token(anchor),
            return_to=request.path_qs,
            **values,
        )
        if fresh:
            self._set_cookie(response, FORM_COOKIE, anchor, max_age_s=None)
        return response

    def _token(self, anchor: str) -> str:
        return hmac.new(self._key, anchor.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()

    async def form(self, request: web.Request) -> dict[str, str]:
        """Return the fields of a form that one of our own pages sent.

        Raises
        ------
        RequestError
            ``form-expired`` when another page sent it; as `read_form` otherwise.
        """
        fields = await read_form(request)
        self.check_form(request, fields)
        return fields

    def check_form(self, request: web.Request, fields: Mapping[str, str]) -> None:
        """Check that one of our own pages sent the form with `fields`. Raises ``form-expired`` if not."""
        anchor = request.cookies.get(FORM_COOKIE, "")
        good = bool(anchor) and hmac.compare_digest(
            fields.get("_csrf", "").encode("utf-8", "surrogatepass"), self._token(anchor).encode()
        )
        if not good or not self.from_own_page(request):
            _log.warning("csrf-refused", path=request.path[:300])
            raise RequestError("form-expired")

    def from_own_page(self, request: web.Request) -> bool:
        """Whether what the browser says of the sender is a page of the passport that a person looks at.

        People's own servers share this origin, so that a script in one could read a form's token. It cannot make the
        browser say that it navigates from a page of ours: a fetch has another mode, a page below ``/user/`` another
        referrer, a page that hides its referrer the origin ``null``.
        """
        headers = request.headers
        origin, referrer = headers.get("Origin"), urlsplit(headers.get("Referer", ""))
        return (
            headers.get("Sec-Fetch-Site", "same-origin") in {"same-origin", "none"}
            and headers.get("Sec-Fetch-Mode", "navigate") == "navigate"
            and headers.get("Sec-Fetch-Dest", "document") == "document"
            and (origin is None or origin in self._origins or urlsplit(origin).netloc == request.host)
            and (not referrer.netloc or referrer.path.startswith(f"{PREFIX}/"))
        )


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def query(request: web.Request) -> dict[str, str]:
    """Return the parameters of the query of `request`. Raises ``bad-request`` as `parse_parameters` does."""
    raw = request.rel_url.raw_query_string
    return parse_parameters(raw.encode("ascii", "replace"))


def sign_in_address(back: str, **parameters: str) -> str:
    """Return the address of the sign-in page, which leads on to `back`."""
    return f"{PREFIX}/sign-in?{urlencode({'next': back, **parameters})}"


def see(address: str) -> web.Response:
    """Return a redirect with GET."""
    return web.Response(status=303, headers={"Location": address})


def field_of(err: PlatformError, fields: Mapping[str, str]) -> str | None:
    """Return the field of a form that `err` is about, by the beginning of its code."""
    return next((field for start, field in fields.items() if err.code.startswith(start)), None)


def form_errors(request: web.Request, err: PlatformError, fields: Mapping[str, str]) -> dict[str, str]:
    """Return the sentence of `err` at the field it is about, or at ``form`` when it is about none."""
    return {field_of(err, fields) or "form": err.sentence(language_of(request))}


def texts(found: Mapping[str, str] | None) -> Mapping[str, str]:
    """Return `found` for a template: a text that is not there is empty."""
    return defaultdict(str, found or {})


def with_retry(response: web.Response, err: PlatformError) -> web.Response:
    """Return `response` with how long to wait, where `err` says so."""
    if "wait_s" in err.parameters:
        response.headers["Retry-After"] = str(err.parameters["wait_s"])
    return response
