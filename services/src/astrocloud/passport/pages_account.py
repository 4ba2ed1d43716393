"""The page of one's own account at the embedded passport: name, language, password, sessions, signing out."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

from aiohttp import web

from astrocloud.core.errors import PlatformError
from astrocloud.core.web import LANGUAGE_COOKIE
from astrocloud.passport.errors import PasswordRefused
from astrocloud.passport.models import Person, Session
from astrocloud.passport.people import People
from astrocloud.passport.web import PREFIX, Doors, form_errors, query, see, texts, with_retry

_FIELDS: Final = {
    "password-old": "old",
    "password-unlike": "again",
    "password": "password",
    "email": "email",
}
# The more particular names first: each browser also calls itself what came before it.
_BROWSERS: Final = (
    ("Edg", "Edge"),
    ("OPR/", "Opera"),
    ("Firefox/", "Firefox"),
    ("Chrome/", "Chrome"),
    ("Safari/", "Safari"),
)
_SYSTEMS: Final = (
    ("Android", "Android"),
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Windows", "Windows"),
    ("Mac OS X", "macOS"),
    ("Linux", "Linux"),
)
_DONE: Final = {"password", "profile", "session"}


class AccountPages:
    """The page.

    Parameters
    ----------
    doors
        Cookies and forms.
    people
        The directory.
    """

    def __init__(self, *, doors: Doors, people: People) -> None:
        self._doors = doors
        self._people = people

    def routes(self) -> Sequence[web.AbstractRouteDef]:
        """Return the routes."""
        return [
            web.get(f"{PREFIX}/account", self._page),
            web.post(f"{PREFIX}/account/password", self._change_password),
            web.post(f"{PREFIX}/account/profile", self._change_profile),
            web.post(f"{PREFIX}/account/sessions/end", self._end_session),
            web.post(f"{PREFIX}/sign-out", self._sign_out),
        ]

    async def _page(self, request: web.Request) -> web.Response:
        """Show one's own account."""
        session, person = await self._doors.need_session(request)
        done = query(request).get("done", "")
        return await self._show(request, session, person, done=done if done in _DONE else "")

    async def _show(
        self,
        request: web.Request,
        session: Session,
        person: Person,
        *,
        status: int = 200,
        errors: Mapping[str, str] | None = None,
        done: str = "",
    ) -> web.Response:
        sessions = await asyncio.to_thread(self._doors.accounts.sessions, person.username)
        return await self._doors.form_page(
            request,
            "passport/account.html",
            status=status,
            person=person,
            sessions=sessions,
            this=session.public_id,
            browser_name=browser_name,
            errors=texts(errors),
            done=done,
            min_length=self._doors.accounts.password_min_length,
        )

    async def _change_password(self, request: web.Request) -> web.Response:
        """Change one's password; other sessions end."""
        session, person = await self._doors.need_session(request)
        fields = await self._doors.form(request)
        try:
            if fields.get("password", "") != fields.get("again", ""):
                raise PasswordRefused("password-unlike")
            await self._doors.slow.run(
                self._doors.accounts.change_password,
                session,
                old=fields.get("old", ""),
                new=fields.get("password", ""),
                browser=self._doors.browser(request),
            )
        except PlatformError as err:
            errors = form_errors(request, err, _FIELDS)
            return with_retry(await self._show(request, session, person, status=err.status, errors=errors), err)
        return see(f"{PREFIX}/account?done=password")

    async def _change_profile(self, request: web.Request) -> web.Response:
        """Change one's name and language."""
        session, person = await self._doors.need_session(request)
        fields = await self._doors.form(request)
        try:
            person = await asyncio.to_thread(
                self._people.change,
                person.username,
                display_name=fields.get("display_name"),
                email=fields.get("email"),
                language=fields.get("language"),
            )
        except PlatformError as err:
            errors = form_errors(request, err, _FIELDS)
            return await self._show(request, session, person, status=err.status, errors=errors)
        response = see(f"{PREFIX}/account?done=profile")
        if person.language:
            response.set_cookie(LANGUAGE_COOKIE, person.language, path="/", max_age=365 * 86400, samesite="Lax")
        return response

    async def _end_session(self, request: web.Request) -> web.Response:
        """End one of one's sessions."""
        session, person = await self._doors.need_session(request)
        fields = await self._doors.form(request)
        ended = fields.get("session", "")[:64]
        await asyncio.to_thread(self._doors.accounts.end_session, person.username, ended)
        if ended == session.public_id:
            return self._out()
        return see(f"{PREFIX}/account?done=session")

    async def _sign_out(self, request: web.Request) -> web.Response:
        """Sign out."""
        await self._doors.form(request)
        found = await self._doors.session(request)
        if found is not None:
            await asyncio.to_thread(self._doors.accounts.end_session, found[1].username, found[0].public_id)
        return self._out()

    def _out(self) -> web.Response:
        """Send the browser, whose session here is over, to end the one at the hub as well."""
        response = see("/hub/logout")
        self._doors.close(response)
        return response


def browser_name(agent: str) -> str:
    """Return what a person calls the browser that names itself `agent`; that itself, shortened, when it is unknown."""
    product = next((name for token, name in _BROWSERS if token in agent), "")
    system = next((name for token, name in _SYSTEMS if token in agent), "")
    return " · ".join(part for part in (product, system) if part) or agent[:40] or "–"
