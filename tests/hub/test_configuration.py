"""The platform's configuration as JupyterHub's."""

from pathlib import Path
from typing import Any

import pytest

from astrocloud.config import parse_config
from astrocloud.core.layout import DataFolder
from astrocloud.core.runtime import CUSTOM_SCOPES, Runtime
from astrocloud.core.secrets import SecretFiles
from astrocloud_hub.configuration import hub_config
from astrocloud_hub.roles import ADMIN_SCOPES, roles


def made(tmp_path: Path, *, public_url: str = "http://127.0.0.1:8000", **document: Any) -> Any:
    data = DataFolder(tmp_path)
    data.make()
    runtime = Runtime("127.0.0.1", 8000, public_url, 8101, 8102, 8103)
    return hub_config(parse_config(document, source="test"), runtime, SecretFiles(data.secrets), data)


def test_the_hub_is_on_loopback_and_the_proxy_is_not_its_own(tmp_path: Path) -> None:
    c = made(tmp_path)
    assert c.JupyterHub.hub_bind_url == "http://127.0.0.1:8102"
    assert c.JupyterHub.hub_routespec == "/hub/"
    assert c.ConfigurableHTTPProxy.should_start is False
    assert c.ConfigurableHTTPProxy.api_url == "http://127.0.0.1:8101"
    services = "http://127.0.0.1:8103"
    routes = {"/user/": "http://127.0.0.1:8102", "/": services, "/reg/": services}
    assert c.ConfigurableHTTPProxy.extra_routes == routes


def test_cookies_are_secure_just_where_the_address_is(tmp_path: Path) -> None:
    plain = made(tmp_path).JupyterHub.tornado_settings["cookie_options"]
    secure = made(tmp_path, public_url="https://sky.example").JupyterHub.tornado_settings["cookie_options"]
    assert plain == {"samesite": "Lax"}
    assert secure == {"samesite": "Lax", "secure": True}


@pytest.mark.parametrize(
    ("passport", "name"),
    [
        ({"kind": "embedded"}, "EmbeddedAuthenticator"),
        ({"kind": "cstcloud", "client_id": "a", "client_secret": {"env": "A_SECRET"}}, "CstcloudAuthenticator"),
        (
            {"kind": "oidc", "issuer": "https://id.example", "client_id": "a", "client_secret": {"env": "A_SECRET"}},
            "OidcAuthenticator",
        ),
    ],
)
def test_each_passport_has_its_authenticator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, passport: dict[str, Any], name: str
) -> None:
    monkeypatch.setenv("A_SECRET", "s3cret-of-the-client")
    c = made(tmp_path, passport=passport)
    assert c.JupyterHub.authenticator_class.__name__ == name
    assert "s3cret-of-the-client" not in repr(c)


def test_no_secret_shows_in_what_is_printed_of_it(tmp_path: Path) -> None:
    c = made(tmp_path)
    secrets = SecretFiles(tmp_path / "secrets")
    for name in ("internal", "passport-client"):
        assert secrets.get(name).get_secret_value() not in repr(c)


def test_limits_of_the_configuration_are_the_spawners(tmp_path: Path) -> None:
    c = made(
        tmp_path, servers={"limit_per_person": 5, "idle_timeout_s": 60, "isolation": "required", "start_timeout_s": 9}
    )
    assert c.PlatformSpawner.server_limit == 5
    assert c.LocalSpawner.isolation == "required"
    assert c.PlatformSpawner.ready_timeout_s == 9
    assert c.AstrocloudHub.idle_timeout_s == 60


def test_every_role_knows_only_scopes_that_exist() -> None:
    from jupyterhub.scopes import scope_definitions

    known = set(scope_definitions) | set(CUSTOM_SCOPES)
    for role in roles():
        for scope in role["scopes"]:
            assert scope.split("!")[0] in known, (role["name"], scope)


def test_a_servers_token_can_do_nothing_to_people_or_other_servers() -> None:
    scopes = next(role["scopes"] for role in roles() if role["name"] == "server")
    assert {scope.split("!")[0] for scope in scopes} == {
        "users:activity", "access:servers", "custom:vospace:read", "custom:vospace:write",
    }  # fmt: skip
    assert all("!" in scope for scope in scopes)


def test_no_service_may_administer_people_but_the_operator() -> None:
    for role in roles():
        if role["name"] in {"portal", "passport", "user", "server"}:
            assert not {"admin:users", "admin:servers", *ADMIN_SCOPES} & set(role["scopes"]), role["name"]
