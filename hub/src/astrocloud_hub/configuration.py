"""The platform's configuration as JupyterHub's."""

import os
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from traitlets.config import Config as HubConfig

from astrocloud.config import Config, CstcloudPassport, OidcPassport, load_config
from astrocloud.core.database import database_url
from astrocloud.core.layout import DataFolder
from astrocloud.core.runtime import CUSTOM_SCOPES, ClusterRuntime, Runtime
from astrocloud.core.secrets import SecretFiles
from astrocloud.core.trust import Trust
from astrocloud_hub.authenticators.cstcloud import CstcloudAuthenticator
from astrocloud_hub.authenticators.directory import Directory
from astrocloud_hub.authenticators.embedded import EmbeddedAuthenticator
from astrocloud_hub.authenticators.oidc import OidcAuthenticator
from astrocloud_hub.nodes import HANDLERS
from astrocloud_hub.roles import PASSPORT_CLIENT_SCOPES, PORTAL_CLIENT_SCOPES, VOSPACE_CLIENT_SCOPES, roles
from astrocloud_hub.spawners.environments import CatalogueSource, LocalEnvironments

TEMPLATES: Final = Path(__file__).with_name("templates")

CSP: Final = (
    "default-src 'self'; img-src 'self' data:; style-src 'self'; script-src 'self'; object-src 'none'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
"""The hub's pages are never framed: people's servers share their origin and could lay themselves over them."""

HEADERS: Final = {
    "Content-Security-Policy": CSP,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # No other origin calls the hub from a browser.
    "Access-Control-Allow-Headers": "",
}


def platform_config() -> HubConfig:
    """Return JupyterHub's configuration for the platform whose data folder ``ASTROCLOUD_DATA`` names."""
    data = DataFolder.from_environment()
    config = load_config(data.config_if_any)
    return hub_config(config, Runtime.read(data), SecretFiles(data.secrets), data)


def hub_config(config: Config, runtime: Runtime, secrets: SecretFiles, data: DataFolder) -> HubConfig:
    """Return JupyterHub's configuration for this platform.

    Parameters
    ----------
    config
        What the operator decided.
    runtime
        The addresses of the parts.
    secrets
        Where the parts' own secrets are.
    data
        Where everything is kept.
    """
    c = HubConfig()
    _addresses(c, runtime, secrets)
    _storage(c, secrets, data)
    _access(c, runtime, secrets)
    _sign_in(c, config, runtime, secrets)
    _servers(c, config, runtime)
    if isinstance(runtime, ClusterRuntime):
        _pods(c, config, runtime, secrets)
    else:
        _processes(c, config, data)
    _pages(c, config, runtime)
    return c


def _addresses(c: HubConfig, runtime: Runtime, secrets: SecretFiles) -> None:
    host = f"[{runtime.bind}]" if ":" in runtime.bind else runtime.bind
    c.JupyterHub.bind_url = f"http://{host}:{runtime.port}"
    c.JupyterHub.public_url = f"{runtime.public_url}/"
    doors = runtime.doors("hub")
    plain = next((door for door in doors if door.files is None), None)
    # JupyterHub itself always listens without TLS: where nobody is to call it so, in its own pod alone.
    c.JupyterHub.hub_bind_url = f"http://{plain.address if plain else '127.0.0.1'}:{runtime.hub_port}"
    c.AstrocloudHub.tls_door = next((door for door in doors if door.files is not None), None)
    c.AstrocloudHub.trust = runtime.trust
    c.JupyterHub.hub_connect_url = runtime.hub_url
    # The front page is the portal's; what people's servers do not answer comes to the hub.
    c.JupyterHub.hub_routespec = "/hub/"
    c.ConfigurableHTTPProxy.should_start = False
    c.ConfigurableHTTPProxy.api_url = runtime.proxy_api_url
    c.ConfigurableHTTPProxy.auth_token = secrets.get("proxy-token").get_secret_value()
    c.ConfigurableHTTPProxy.extra_routes = {
        "/user/": runtime.hub_url,
        "/": runtime.service_url("portal"),
        # Where VOSpace's clients look up the address of the service that they know by its IVOA identifier.
        "/reg/": runtime.service_url("vospace"),
    }
    # On one machine the supervisor tells the hub of a new proxy; the check is for a route that got lost otherwise.
    c.AstrocloudHub.keep_routes = isinstance(runtime, ClusterRuntime)
    c.JupyterHub.proxy_check_interval = 60
    # Servers, and the proxy, outlive a restart of the hub.
    c.JupyterHub.cleanup_servers = False
    c.JupyterHub.cleanup_proxy = False


def _storage(c: HubConfig, secrets: SecretFiles, data: DataFolder) -> None:
    c.JupyterHub.db_url = database_url(data, "jupyterhub")
    c.JupyterHub.cookie_secret = bytes.fromhex(secrets.get("hub-cookie").get_secret_value())
    c.CryptKeeper.keys = [bytes.fromhex(secrets.get("hub-crypt").get_secret_value())]
    c.JupyterHub.upgrade_db = True
    c.JupyterHub.activity_resolution = 30


def _access(c: HubConfig, runtime: Runtime, secrets: SecretFiles) -> None:
    c.JupyterHub.custom_scopes = {name: {"description": text} for name, text in CUSTOM_SCOPES.items()}
    c.JupyterHub.load_roles = roles()
    c.JupyterHub.services = [
        {
            "name": name,
            "url": runtime.service_url(name),
            "api_token": secrets.get(f"service-{name}").get_secret_value(),
            # A path, not an address: the platform answers at localhost as well as at 127.0.0.1.
            "oauth_redirect_uri": f"/services/{name}/oauth_callback",
            # Ours, on this origin: asking people whether they trust it would teach them to click.
            "oauth_no_confirm": True,
            "oauth_client_allowed_scopes": list(scopes),
            "display": False,
        }
        for name, scopes in (
            ("portal", PORTAL_CLIENT_SCOPES),
            ("passport", PASSPORT_CLIENT_SCOPES),
            ("vospace", VOSPACE_CLIENT_SCOPES),
        )
    ]
    c.JupyterHub.services += [
        {"name": name, "api_token": secrets.get(f"service-{name}").get_secret_value(), "display": False}
        for name in ("operator", "monitoring")
    ]
    c.JupyterHub.oauth_require_pkce = True
    # A token in a browser's cookie for a service or a server; renewed by silent redirects.
    c.JupyterHub.oauth_token_expires_in = 14 * 86400
    c.JupyterHub.cookie_max_age_days = 14
    c.JupyterHub.authenticate_prometheus = True


def _sign_in(c: HubConfig, config: Config, runtime: Runtime, secrets: SecretFiles) -> None:
    directory = Directory(
        services_url=runtime.service_url("passport"), secret=secrets.get("internal"), trust=runtime.trust
    )
    c.PassportAuthenticator.directory = directory
    c.PassportAuthenticator.public_url = runtime.public_url
    passport = config.passport
    if isinstance(passport, OidcPassport):
        c.JupyterHub.authenticator_class = OidcAuthenticator
        c.OidcAuthenticator.issuer = str(passport.issuer)
        c.OidcAuthenticator.client_id = passport.client_id
        c.OidcAuthenticator.secret = passport.client_secret.read()
        c.OidcAuthenticator.scopes = list(passport.scopes)
        c.PassportAuthenticator.passport_name = passport.name.in_language(config.language)
    elif isinstance(passport, CstcloudPassport):
        c.JupyterHub.authenticator_class = CstcloudAuthenticator
        c.CstcloudAuthenticator.base_url = str(passport.base_url).rstrip("/")
        c.CstcloudAuthenticator.client_id = passport.client_id
        c.CstcloudAuthenticator.secret = passport.client_secret.read()
        c.PassportAuthenticator.passport_name = "CSTCloud"
    else:
        c.JupyterHub.authenticator_class = EmbeddedAuthenticator
        c.EmbeddedAuthenticator.services_url = runtime.service_url("passport")
        c.EmbeddedAuthenticator.trust = runtime.trust
        c.EmbeddedAuthenticator.client_id = "hub"
        c.EmbeddedAuthenticator.secret = secrets.get("passport-client")
        c.PassportAuthenticator.passport_name = config.name.in_language(config.language)
    c.Authenticator.auto_login = True
    c.Authenticator.auto_login_oauth2_authorize = True
    c.Authenticator.enable_auth_state = True
    c.Authenticator.manage_groups = True
    c.OAuthenticator.allow_all = True
    # The directory's rule (`astrocloud.passport.names`); JupyterHub matches the beginning only, unless told the end.
    c.Authenticator.username_pattern = r"[a-z](?:[a-z0-9-]{0,30}[a-z0-9])?\Z"
    # Disabled means out within 30 s: asked about every 10 s; a service caches what the hub says for 15 s at most.
    c.Authenticator.auth_refresh_age = 10
    # Tokens, too, stop when their owner is not active any more.
    c.Authenticator.auth_refresh_strict = True
    c.Authenticator.refresh_pre_spawn = True


def _processes(c: HubConfig, config: Config, data: DataFolder) -> None:
    """Servers of one machine."""
    from astrocloud_hub.spawners.local import LocalSpawner

    c.JupyterHub.spawner_class = LocalSpawner
    c.LocalSpawner.data_folder = str(data.root)
    c.LocalSpawner.environment_source = LocalEnvironments(config=config, data=data)
    c.LocalSpawner.isolation = config.servers.isolation
    c.LocalSpawner.fork_servers = config.servers.fork


def _pods(c: HubConfig, config: Config, runtime: ClusterRuntime, secrets: SecretFiles) -> None:
    """Servers of a cluster."""
    # It takes what only the hub's image has.
    from astrocloud_hub.spawners.kube.certificates import ServerAuthority
    from astrocloud_hub.spawners.kube.fleet import fleet_of
    from astrocloud_hub.spawners.kube.folders import VospaceFolders
    from astrocloud_hub.spawners.kube.spawner import PodSpawner

    c.JupyterHub.spawner_class = PodSpawner
    authority = None
    if runtime.cluster.tls.internal:
        authority = ServerAuthority(runtime.secrets)
        c.AstrocloudHub.trust = Trust((*runtime.trust.authorities, runtime.secrets / "servers-ca"))
    source = CatalogueSource(config=config, cluster=runtime.cluster)
    c.PodSpawner.environment_source = source
    c.PodSpawner.fleet_source = partial(
        fleet_of,
        cluster=runtime.cluster,
        catalogue=source,
        servers=config.servers.limit_per_person,
        authority=authority,
    )
    c.PodSpawner.folders = VospaceFolders(
        url=runtime.service_url("vospace"), secret=secrets.get("internal"), trust=runtime.trust
    )
    # Nothing in it waits for a processor of the hub's.
    c.JupyterHub.concurrent_spawn_limit = 100


def _servers(c: HubConfig, config: Config, runtime: Runtime) -> None:
    c.PlatformSpawner.ready_timeout_s = config.servers.start_timeout_s
    # Nothing of the hub's own environment goes to a server.
    c.Spawner.env_keep = []
    # Where a person's files are by VOSpace: how they are called, and how a notebook reaches them past the proxy.
    c.Spawner.environment = {
        "ASTROCLOUD_VOSPACE": f"{config.vospace.authority}~vospace",
        "ASTROCLOUD_VOSPACE_URL": f"{runtime.service_url('vospace')}/services/vospace",
        # Read anew for each start: a key that was changed is used from the next one on.
        **{name: _Variable(config, name) for name in config.archive.variables()},
    }
    # A server believes the hub about a token for so long, in seconds; stock is 300.
    c.Spawner.args = ["--HubAuth.cache_max_age=20"]
    # Making an environment counts as part of a start and has limits of its own.
    c.Spawner.start_timeout = 3600
    c.Spawner.http_timeout = 30
    # The end of a server is noticed at once, a lost node's too; this is for what that misses.
    c.Spawner.poll_interval = 10
    # A person's own mistakes must not end the hub for everybody.
    c.Spawner.consecutive_failure_limit = 0
    c.JupyterHub.allow_named_servers = True
    c.PlatformSpawner.server_limit = config.servers.limit_per_person
    # That one counts stopped servers, too; it only keeps their list from growing without end.
    c.JupyterHub.named_server_limit_per_user = config.servers.limit_per_person + 50
    # A class that begins at the hour: a start is short and waits for the processor, not for the hub.
    c.JupyterHub.concurrent_spawn_limit = max(16, 8 * (os.cpu_count() or 1))
    c.JupyterHub.init_spawners_timeout = 10
    c.AstrocloudHub.idle_timeout_s = config.servers.idle_timeout_s


class _Variable:
    """A variable of servers that is looked up at each start, and never shown where configuration is."""

    def __init__(self, config: Config, name: str) -> None:
        self._config = config
        self._name = name

    def __call__(self, _spawner: Any) -> str:
        return self._config.archive.variables()[self._name]


def _pages(c: HubConfig, config: Config, runtime: Runtime) -> None:
    import astrocloud.core

    c.JupyterHub.template_paths = [str(TEMPLATES), str(Path(astrocloud.core.__file__).with_name("pages"))]
    c.JupyterHub.template_vars = {"config": config, "admin_access": False}
    c.JupyterHub.extra_handlers = HANDLERS
    c.JupyterHub.default_url = "/"
    c.JupyterHub.redirect_to_server = False
    c.JupyterHub.tornado_settings = tornado_settings(config, runtime)
    c.JupyterHub.log_level = {"debug": 10, "info": 20, "warning": 30, "error": 40}[config.logging.level]


def tornado_settings(config: Config, runtime: Runtime) -> dict[str, Any]:
    """Return what the hub's web server is told besides."""
    secure = urlsplit(runtime.public_url).scheme == "https"
    return {
        "headers": HEADERS,
        # HttpOnly is what the hub sets anyway, but for its own xsrf cookie, which scripts of its pages read.
        "cookie_options": {"samesite": "Lax", **({"secure": True} if secure else {})},
        # An answer within a second is an answer at once; whatever takes longer shows its stages.
        "slow_spawn_timeout": 1,
        "slow_stop_timeout": 10,
        "astrocloud_config": config,
        "astrocloud_public_url": runtime.public_url,
    }
