"""Builds the passport from the configuration."""

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from astrocloud.config import Config, CstcloudPassport, EmbeddedPassport, NoTls, OidcPassport
from astrocloud.core.database import database_url, open_database, upgrade_database
from astrocloud.core.layout import PORT_VARIABLE, DataFolder
from astrocloud.core.runtime import ClusterRuntime, Runtime
from astrocloud.core.secrets import SecretFiles
from astrocloud.passport.accounts import Accounts
from astrocloud.passport.directory import Directory
from astrocloud.passport.passwords import Passwords
from astrocloud.passport.people import People, PeopleRules
from astrocloud.passport.storage import Storage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from datetime import datetime

    from aiohttp import web
    from sqlalchemy import Engine

    from astrocloud.core.web import Service
    from astrocloud.passport.keys import SigningKeys

PREFIX: Final = "/services/passport"
TEMPLATES: Final = Path(__file__).with_name("templates")
CLEAN_UP_EVERY_S: Final = 3600

__all__ = ["Directory", "build_passport", "open_directory"]


def build_passport(
    *,
    config: Config,
    runtime: Runtime,
    secrets: SecretFiles,
    data: DataFolder,
    engine: "Engine",
    clock: "Callable[[], datetime] | None" = None,
) -> "Service":
    """Return the passport as a service.

    Parameters
    ----------
    config, runtime, secrets, engine
        The configuration, the addresses, the platform's secrets and its database, which is up to date.
    data
        The data folder; nothing of it is used directly.
    clock
        Returns the time now; for tests.
    """
    # The command line opens the directory without any of these.
    from astrocloud.core.auth import HubLogin
    from astrocloud.core.web import Service
    from astrocloud.passport.api import InternalApi, PeopleApi
    from astrocloud.passport.keys import SigningKeys
    from astrocloud.passport.oidc import OidcEndpoints
    from astrocloud.passport.pages_account import AccountPages
    from astrocloud.passport.pages_people import PeoplePages
    from astrocloud.passport.pages_sign_in import SignInPages
    from astrocloud.passport.provider import Client, Provider
    from astrocloud.passport.proxy import ProxyPods
    from astrocloud.passport.reconcile import Hub, Reconciler
    from astrocloud.passport.web import Doors

    del data
    public_url = runtime.public_url
    storage = Storage(engine)
    people = build_people(config=config, storage=storage, public_url=public_url, clock=clock)
    accounts = build_accounts(config=config, storage=storage, people=people, clock=clock)
    people_api = PeopleApi(
        people=people,
        accounts=accounts,
        link_address=lambda secret: link_address(public_url, secret),
        issuer=external_issuer(config),
    )
    routes: list[web.AbstractRouteDef] = [
        *InternalApi(people=people, secret=secrets.get("internal")).routes(),
        *people_api.routes(),
        *PeoplePages(people=people, api=people_api, embedded=accounts is not None).routes(),
    ]
    hub = Hub(api_url=runtime.hub_api_url, token=secrets.get("service-passport"), trust=runtime.trust)
    background: list[Callable[[], Awaitable[None]]] = [Reconciler(storage=storage, hub=hub).run]
    proxy = ProxyPods(runtime.cluster.proxy_pods) if isinstance(runtime, ClusterRuntime) else None
    if proxy is not None:
        background.append(proxy.run)
    passport = config.passport
    lifetime_s = passport.session_lifetime_s if isinstance(passport, EmbeddedPassport) else 0
    doors = Doors(
        public_url=public_url,
        secret=secrets.get("passport-keys"),
        accounts=accounts,
        session_lifetime_s=lifetime_s,
        behind_web_server=config.public_url is not None,
        proxy=proxy,
    )
    # With another passport these pages answer that accounts are kept elsewhere.
    routes += [*SignInPages(doors=doors).routes(), *AccountPages(doors=doors, people=people).routes()]
    if accounts is not None and isinstance(passport, EmbeddedPassport):
        keys = SigningKeys(
            storage=storage,
            secret=secrets.get("passport-keys"),
            lifetime_s=passport.key_lifetime_s,
            **({"clock": clock} if clock else {}),
        )
        client = Client(client_id="hub", secret=secrets.get("passport-client"), public_url=public_url)
        provider = Provider(
            issuer=public_url + PREFIX,
            storage=storage,
            keys=keys,
            clients=[client],
            **({"clock": clock} if clock else {}),
        )
        routes += OidcEndpoints(doors=doors, provider=provider).routes()
        background.append(_housekeeping(accounts, keys))
        if config.canary.every_s:
            directory = Directory(people=people, accounts=accounts, link_address=lambda _secret: "")
            background.append(_program_account(directory, config.canary.username, secrets))

    async def health() -> "Mapping[str, str]":
        await asyncio.to_thread(people.find, "nobody")
        return {"database": "ok"}

    return Service(
        name="passport",
        routes=routes,
        login=HubLogin(service="passport", runtime=runtime, api_token=secrets.get("service-passport")),
        templates=TEMPLATES,
        health=health,
        background=background,
    )


def _housekeeping(accounts: Accounts, keys: "SigningKeys") -> "Callable[[], Awaitable[None]]":
    """Return what makes keys in time and drops what is over."""

    async def housekeeping() -> None:
        while True:
            await asyncio.to_thread(keys.rotate)
            await asyncio.to_thread(accounts.clean_up)
            await asyncio.sleep(CLEAN_UP_EVERY_S)

    return housekeeping


def _program_account(directory: Directory, username: str, secrets: SecretFiles) -> "Callable[[], Awaitable[None]]":
    """Return what makes the account of the trial sessions, once."""

    async def program_account() -> None:
        from astrocloud.operations.canary import SECRET

        password = secrets.get(SECRET).get_secret_value()
        await asyncio.to_thread(directory.ensure, username, password=password)
        await asyncio.Event().wait()

    return program_account


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


def open_directory(
    config: Config,
    data: DataFolder,
    *,
    public_url: str | None = None,
    clock: "Callable[[], datetime] | None" = None,
) -> Directory:
    """Return the directory on the database in `data`, which is made or brought up to date first.

    Parameters
    ----------
    config
        The configuration.
    data
        The data folder, which is there.
    public_url
        The platform's address for links; by default what the running platform wrote down, else the configured one.
    clock
        Returns the time now; for tests.
    """
    engine = open_database(database_url(data, "astrocloud"), owner="passport")
    upgrade_database(engine)
    storage = Storage(engine)
    address = public_url or _public_url(config, data)
    people = build_people(config=config, storage=storage, public_url=address, clock=clock)
    return Directory(
        people=people,
        accounts=build_accounts(config=config, storage=storage, people=people, clock=clock),
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
        scheme = "http" if isinstance(config.tls, NoTls) else "https"
        return str(config.public_url or f"{scheme}://127.0.0.1:{port}").rstrip("/")
