"""What a part of the platform makes of the settings that the chart writes for it."""

import os
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy.engine import make_url

from astrocloud.core.database import database_url
from astrocloud.core.errors import ConfigError
from astrocloud.core.layout import DataFolder
from astrocloud.core.runtime import ClusterRuntime, Runtime

SETTINGS: dict[str, Any] = {
    "release": "sky",
    "namespace": "platform",
    "public_url": "https://astro.example.org/",
    "proxy": "http://sky-astrocloud:80",
    "proxy_api": "http://sky-astrocloud-proxy-api:8001",
    "hub": "http://sky-astrocloud-hub:8081",
    "services": {
        "portal": "http://sky-astrocloud-portal:8080",
        "passport": "http://sky-astrocloud-passport:8080",
        "vospace": "http://sky-astrocloud-vospace:8080",
    },
    "database": {"host": "db.example.org", "port": 5433, "user": "astro", "sslmode": "verify-full"},
}


@pytest.fixture
def data(tmp_path: Path) -> DataFolder:
    """A data folder as a pod has it: settings and secrets mounted, nothing else there."""
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "database-password").write_text("it's:a\\secret\n", encoding="utf-8")
    (tmp_path / "cluster.yaml").write_text(yaml.safe_dump(SETTINGS), encoding="utf-8")
    return DataFolder(tmp_path)


def test_parts_call_each_other_by_their_services_names(data: DataFolder) -> None:
    runtime = Runtime.read(data)

    assert isinstance(runtime, ClusterRuntime)
    assert runtime.public_url == "https://astro.example.org"
    assert runtime.hub_api_url == "http://sky-astrocloud-hub:8081/hub/api"
    assert runtime.service_url("vospace") == "http://sky-astrocloud-vospace:8080"
    assert runtime.proxy_url == "http://sky-astrocloud:80"
    assert runtime.proxy_api_url == "http://sky-astrocloud-proxy-api:8001"
    # Others connect from other pods.
    assert runtime.listen == ""


def test_no_address_of_a_database_holds_the_password(data: DataFolder) -> None:
    data.make()

    url = make_url(database_url(data, "jupyterhub"))

    assert (url.host, url.port, url.username, url.database) == ("db.example.org", 5433, "astro", "jupyterhub")
    assert url.password is None
    assert url.query["sslmode"] == "verify-full"
    passwords = Path(str(url.query["passfile"]))
    # libpq's own way of writing what would end a field.
    assert passwords.read_text(encoding="utf-8") == "*:*:*:*:it's\\:a\\\\secret\n"
    assert stat.S_IMODE(passwords.stat().st_mode) == 0o600


def test_a_lost_node_is_noticed_at_both_ends_of_a_connection(data: DataFolder) -> None:
    data.make()

    query = make_url(database_url(data, "astrocloud")).query

    # Seconds; and what the server is told of its own end, in its own names.
    idle, interval, count = (int(str(query[f"keepalives_{name}"])) for name in ("idle", "interval", "count"))
    assert idle + interval * count <= 15
    assert int(str(query["tcp_user_timeout"])) <= 15_000
    told = dict(each.strip().split("=") for each in str(query["options"]).split("-c ") if each)
    assert told["tcp_keepalives_idle"] == str(idle)
    assert told["tcp_keepalives_count"] == str(count)
    assert told["tcp_user_timeout"] == query["tcp_user_timeout"]
    assert told["idle_in_transaction_session_timeout"] == "60s"


def test_the_hub_may_rest_inside_a_transaction(data: DataFolder) -> None:
    data.make()

    options = make_url(database_url(data, "jupyterhub")).query["options"]

    # As JupyterHub does between requests: ended, the next one would be refused.
    assert "idle_in_transaction" not in options
    assert "tcp_keepalives_idle" in options


def test_an_authority_of_the_operator_s_own_is_the_one_believed(data: DataFolder) -> None:
    data.make()
    assert make_url(database_url(data, "astrocloud")).query["sslrootcert"] == "/etc/ssl/certs/ca-certificates.crt"

    own = data.secrets / "database-ca"
    own.write_text("a certificate", encoding="utf-8")

    assert make_url(database_url(data, "astrocloud")).query["sslrootcert"] == str(own)


def test_what_is_mounted_is_left_as_it_is(data: DataFolder) -> None:
    data.secrets.chmod(0o550)

    data.make()

    assert stat.S_IMODE(data.secrets.stat().st_mode) == 0o550
    assert sorted(os.listdir(data.root)) == ["cluster.yaml", "run", "secrets"]


def test_the_tree_s_own_folders_are_nobody_else_s_to_change(data: DataFolder) -> None:
    data.tree.mkdir(mode=0o777)
    data.tree.chmod(0o777)

    data.make_tree()
    data.make_tree()

    assert stat.S_IMODE(data.tree.stat().st_mode) == 0o755
    assert sorted(os.listdir(data.tree)) == ["archive", "course", "home", "project"]


@pytest.mark.parametrize(
    ("change", "named"),
    [({"hubb": "x"}, "hubb"), ({"database": {"host": "x", "sslmode": "off"}}, "database.sslmode"), ({"hub": 5}, "hub")],
)
def test_settings_that_this_version_does_not_read_are_named(
    data: DataFolder, change: dict[str, Any], named: str
) -> None:
    data.cluster_file.write_text(yaml.safe_dump(SETTINGS | change), encoding="utf-8")

    with pytest.raises(ConfigError) as caught:
        Runtime.read(data)

    assert named in str(caught.value)


def test_without_settings_of_a_cluster_it_is_one_machine(tmp_path: Path) -> None:
    data = DataFolder(tmp_path)
    data.make()

    assert not data.on_cluster
    assert database_url(data, "astrocloud") == f"sqlite:///{data.databases}/astrocloud.sqlite"
    assert data.tree.is_dir()
