"""Pages for somebody who is not signed in yet: sign in, follow a link, ask for an account. No script is needed."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from aiohttp import web
from prometheus_client import Counter

from astrocloud.core.errors import PlatformError
from astrocloud.core.web import LANGUAGE_COOKIE, language_of, safe_next
from astrocloud.passport.accounts import Opened
from astrocloud.passport.errors import PasswordRefused
from astrocloud.passport.web import PREFIX, Doors, form_errors, query, see, texts, with_retry

_sign_ins = Counter("astrocloud_sign_ins_total", "Sign-in forms: good, or the code of the refusal.", ["outcome"])
_LINK_FIELDS: Final = {"username": "username", "password-unlike": "again", "password": "password"}
_REGISTER_FIELDS: Final = {**_LINK_FIELDS, "email": "email"}
_FRONT: Final = "/"
_INTO_THE_PLATFORM: Final = "/services/portal/sign-in/hub?next=/"
"""The way to the front page that signs in at the hub, too: who has just chosen a password is in."""


class SignInPages:
    """The pages.

    Parameters
    ----------
    doors
        Cookies and forms.
    """

    def __init__(self, *, doors: Doors) -> None:
        self._doors = doors

    def routes(self) -> Sequence[web.AbstractRouteDef]:
        """Return the routes."""
        return [
            web.get(f"{PREFIX}/sign-in", self._sign_in_page),
            web.post(f"{PREFIX}/sign-in", self._sign_in),
            web.get(f"{PREFIX}/link", self._link_page),
            web.post(f"{PREFIX}/link", self._use_link),
            web.get(f"{PREFIX}/register", self._register_page),
            web.post(f"{PREFIX}/register", self._register),
        ]

    # signing in

    async def _sign_in_page(self, request: web.Request) -> web.Response:
        """Show the sign-in form."""
        accounts = self._doors.accounts
        given = query(request)
        back = safe_next(given.get("next", _FRONT))
        found = await self._doors.session(request)
        again = given.get("again") == "1"
        if found is not None and not again:
            return see(back)
        return await self._doors.form_page(
            request,
            "passport/sign-in.html",
            back=back,
            again=again,
            username=found[1].username if found else "",
            errors=texts(None),
            registration=accounts.registration,
        )

    async def _sign_in(self, request: web.Request) -> web.Response:
        """Sign in with username and password."""
        accounts = self._doors.accounts
        fields = await self._doors.form(request)
        back = safe_next(fields.get("next", _FRONT))
        browser = self._doors.browser(request)
        username = fields.get("username", "")
        try:
            opened = await self._doors.slow.run(accounts.sign_in, username, fields.get("password", ""), browser)
        except PlatformError as err:
            _sign_ins.labels(err.code).inc()
            response = await self._doors.form_page(
                request,
                "passport/sign-in.html",
                status=err.status,
                back=back,
                again=fields.get("again") == "1",
                username=username[:254],
                errors=texts(form_errors(request, err, {})),
                registration=accounts.registration,
            )
            return with_retry(response, err)
        _sign_ins.labels("good").inc()
        return await self._signed_in(request, opened, back)

    async def _signed_in(self, request: web.Request, opened: Opened, back: str) -> web.Response:
        """Give the browser its new session; the one it had before, of whomever, ends."""
        back = _INTO_THE_PLATFORM if back == _FRONT else back
        before = await self._doors.session(request)
        if before is not None:
            await asyncio.to_thread(self._doors.accounts.end_session, before[1].username, before[0].public_id)
        response = see(back)
        self._doors.open(response, opened)
        if opened.person.language and LANGUAGE_COOKIE not in request.cookies:
            response.set_cookie(LANGUAGE_COOKIE, opened.person.language, path="/", max_age=365 * 86400, samesite="Lax")
        return response

    # links

    async def _link_page(self, request: web.Request) -> web.Response:
        """Show the page to which a set-up, invite or reset link leads."""
        accounts = self._doors.accounts
        key = query(request).get("key", "")[:200]
        link = await asyncio.to_thread(accounts.link, key, self._doors.browser(request))
        return await self._link_form(request, key=key, purpose=link.purpose, username=link.username)

    async def _link_form(self, request: web.Request, *, status: int = 200, errors: Any = None, **values: Any) -> Any:
        response = await self._doors.form_page(
            request,
            "passport/link.html",
            status=status,
            errors=texts(errors),
            min_length=self._doors.accounts.password_min_length,
            **values,
        )
        # The address of this page is the key: nothing that the page loads may learn it.
        response.headers["Referrer-Policy"] = "same-origin"
        return response

    async def _use_link(self, request: web.Request) -> web.Response:
        """Choose a password by a link."""
        accounts = self._doors.accounts
        fields = await self._doors.form(request)
        key, browser = fields.get("key", "")[:200], self._doors.browser(request)
        link = await asyncio.to_thread(accounts.link, key, browser)
        username = fields.get("username", "").strip() if link.purpose == "setup" else link.username
        try:
            _same_twice(fields)
            opened = await self._doors.slow.run(
                accounts.use_link, key, fields.get("password", ""), browser, username=username
            )
        except PlatformError as err:
            if err.code == "link-used":
                raise
            errors = form_errors(request, err, _LINK_FIELDS)
            response: web.Response = await self._link_form(
                request, status=err.status, errors=errors, key=key, purpose=link.purpose, username=username[:64]
            )
            return with_retry(response, err)
        return await self._signed_in(request, opened, _FRONT)

    # asking for an account

    async def _register_page(self, request: web.Request) -> web.Response:
        """Show the form to ask for an account."""
        if not self._doors.accounts.registration:
            raise PasswordRefused("registration-closed")
        return await self._register_form(request)

    async def _register_form(
        self, request: web.Request, *, status: int = 200, errors: Any = None, values: Any = None
    ) -> web.Response:
        return await self._doors.form_page(
            request,
            "passport/register.html",
            status=status,
            errors=texts(errors),
            values=texts(values),
            min_length=self._doors.accounts.password_min_length,
        )

    async def _register(self, request: web.Request) -> web.Response:
        """Ask for an account."""
        accounts = self._doors.accounts
        fields = await self._doors.form(request)
        try:
            _same_twice(fields)
            await self._doors.slow.run(
                accounts.register,
                fields.get("username", "").strip(),
                fields.get("password", ""),
                self._doors.browser(request),
                display_name=fields.get("display_name", ""),
                email=fields.get("email", ""),
                language=language_of(request),
            )
        except PlatformError as err:
            shown = {name: fields.get(name, "")[:254] for name in ("username", "display_name", "email")}
            errors = form_errors(request, err, _REGISTER_FIELDS)
            response = await self._register_form(request, status=err.status, errors=errors, values=shown)
            return with_retry(response, err)
        return await self._doors.form_page(request, "passport/registered.html", status=201)


def _same_twice(fields: dict[str, str]) -> None:
    """Check that a new password was typed alike twice. Raises `PasswordRefused` (``password-unlike``)."""
    if fields.get("password", "") != fields.get("again", ""):
        raise PasswordRefused("password-unlike")
