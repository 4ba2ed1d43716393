"""The language of the request that is being answered."""

from contextvars import ContextVar
from typing import Final

from astrocloud.core.words import LANGUAGES, negotiate

LANGUAGE_COOKIE: Final = "astrocloud-lang"
THEME_COOKIE: Final = "astrocloud-theme"
THEMES: Final = ("light", "dark", "auto")

_language: ContextVar[str] = ContextVar("astrocloud_language", default=LANGUAGES[0])


def current_language() -> str:
    """Return the language of the request that the running task answers, English outside of one."""
    return _language.get()


def choose_language(*, accept_language: str | None, cookie: str | None, default: str) -> str:
    """Take the language of a request, from its cookie or header, for the rest of the running task; return it."""
    language = negotiate(accept_language, chosen=cookie, default=default)
    _language.set(language)
    return language
