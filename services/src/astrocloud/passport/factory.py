"""Builds the passport from the configuration."""

import os
from typing import TYPE_CHECKING, Final

from astrocloud.config import Config, CstcloudPassport, EmbeddedPassport, OidcPassport
from astrocloud.core.database import open_database, sqlite_url, upgrade_database
from astrocloud.core.layout import PORT_VARIABLE, DataFolder
from astrocloud.core.runtime import Runtime
from astrocloud.passport.accounts import Accounts
from astrocloud.passport.directory import Directory
from astrocloud.passport.passwords import Passwords
from astrocloud.passport.people import People, PeopleRules
from astrocloud.passport.storage import Storage

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

PREFIX: Final = "/services/passport"

__all__ = ["Directory", "open_directory"]


def build_people(
    *, config: Config, storage: Storage, public_url: str, clock: "Callable[[], datetime] | None" = None
) -> People:
    """Return the directory of people as `config` wants it."""
    passport = config.passport
    external = None if isinstance(passport, EmbeddedPassport) else passport
    rules = PeopleRules(
        first_uid=config.people.first_uid,
        first_gid=config.people.first_gid,
        own_issuer=public_url + PREFIX if external is None else "",
        sign_up=external.sign_up if external else "invited",
        admins=frozenset(external.admins) if external else frozenset(),
    )
    return People(storage=storage, rules=rules, **({"clock": clock} if clock else {}))


def build_accounts(
    *, config: Config, storage: Storage, people: People, clock: "Callable[[], datetime] | None" = None
) -> Accounts | None:
    """Return the embedded passport's accounts, or `None` when another passport is used."""
    passport = config.passport
    if not isinstance(passport, EmbeddedPassport):
        return None
    return Accounts(
        storage=storage,
        people=people,
        passwords=Passwords(min_length=passport.password_min_length),
        invite_lifetime_s=passport.invite_lifetime_s,
        session_lifetime_s=passport.session_lifetime_s,
        registration=passport.registration == "approval",
        **({"clock": clock} if clock else {}),
    )


def external_issuer(config: Config) -> str:
    """Return the issuer of the external passport as sign-ins name it, or an empty text for the embedded one."""
    passport = config.passport
    if isinstance(passport, OidcPassport):
        return str(passport.issuer)
    return str(passport.base_url).rstrip("/") if isinstance(passport, CstcloudPassport) else ""


def open_directory(config: Config, data: DataFolder, *, public_url: str | None = None) -> Directory:
    """Return the directory on the database in `data`, which is made or brought up to date first.

    Parameters
    ----------
    config
        The configuration.
    data
        The data folder, which is there.
    public_url
        The platform's address for links; by default what the running platform wrote down, else the configured one.
    """
    engine = open_database(sqlite_url(data.databases))
    upgrade_database(engine)
    storage = Storage(engine)
    address = public_url or _public_url(config, data)
    people = build_people(config=config, storage=storage, public_url=address)
    return Directory(
        people=people,
        accounts=build_accounts(config=config, storage=storage, people=people),
        link_address=lambda secret: link_address(address, secret),
        issuer=external_issuer(config),
    )


def link_address(public_url: str, secret: str) -> str:
    """Return the address of an invite, reset or set-up link; the secret is in the query, which is not logged."""
    return f"{public_url}{PREFIX}/link?key={secret}"


def _public_url(config: Config, data: DataFolder) -> str:
    try:
        return Runtime.read(data).public_url
    except (FileNotFoundError, ValueError, TypeError):
        port = os.environ.get(PORT_VARIABLE, "8000")
        return str(config.public_url or f"http://127.0.0.1:{port}").rstrip("/")
