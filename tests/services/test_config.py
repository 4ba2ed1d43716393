"""The configuration: what is taken, what is refused, and how it says so."""

import json
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from astrocloud.config import Config, SecretSource, json_schema, load_config, parse_config
from astrocloud.core.errors import ConfigError


def refused(document: dict, code: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        parse_config(document, source="astrocloud.yaml")
    assert caught.value.code == code, caught.value
    return caught.value


def test_no_file_and_an_empty_file_mean_the_defaults(tmp_path: Path):
    empty = tmp_path / "astrocloud.yaml"
    empty.write_text("# nothing yet\n")
    assert load_config(None) == load_config(empty) == Config()


@pytest.mark.parametrize(
    ("document", "key", "nearest"),
    [
        ({"pasport": {}}, "pasport", "passport"),
        ({"servers": {"limit": 3}}, "servers.limit", "limit_per_person"),
        ({"servers": {"timeout": 3}}, "servers.timeout", "idle_timeout_s"),
        ({"servers": {"start_timeout": 3}}, "servers.start_timeout", "start_timeout_s"),
        ({"servers": {"Isolation": "required"}}, "servers.Isolation", "isolation"),
        ({"url": "http://localhost"}, "url", "public_url"),
        ({"name": {"en": "A", "zh": "B", "cn": "C"}}, "name.cn", None),
        ({"passport": {"kind": "embedded", "password_length": 9}}, "passport.password_length", "password_min_length"),
        ({"passport": {"kind": "oidc", "issuer_url": "x"}}, "passport.issuer_url", "issuer"),
        ({"passport": {"kind": "cstcloud", "url": "x"}}, "passport.url", "base_url"),
        ({"oidc": {"issuer": "x"}}, "oidc", None),
        ({"passport": {"kind": "embedded", "embedded": 1}}, "passport.embedded", None),
        ({"zzzz": 1}, "zzzz", None),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_known_one(document: dict, key: str, nearest: str | None):
    error = refused(document, "config-key")
    assert error.parameters["key"] == key
    known = error.parameters["allowed"].split(", ")
    assert error.parameters["nearest"] in known
    if nearest is not None:
        assert error.parameters["nearest"] == nearest
    for language in ("en", "zh"):
        assert f"`{error.parameters['nearest']}`" in error.sentence(language)


def test_an_unknown_key_in_a_secret_source_of_a_variant_is_named_with_its_place():
    block = {"kind": "oidc", "issuer": "https://id.example.org", "client_id": "c", "client_secret": {"path": "/x"}}
    error = refused({"passport": block}, "config-key")
    assert error.parameters["key"] == "passport.client_secret.path"
    assert error.parameters["allowed"] == "env, file"


@pytest.mark.parametrize(
    ("document", "key", "says"),
    [
        ({"servers": {"limit_per_person": 0}}, "servers.limit_per_person", "0"),
        ({"servers": {"limit_per_person": "many"}}, "servers.limit_per_person", "many"),
        ({"servers": {"isolation": "none"}}, "servers.isolation", "'required' or 'preferred'"),
        ({"servers": []}, "servers", ""),
        ({"language": "de"}, "language", "'en' or 'zh'"),
        ({"name": {"en": "Only English"}}, "name.zh", "required"),
        ({"passport": {"kind": "saml"}}, "passport", "'embedded', 'cstcloud', 'oidc'"),
        ({"passport": {"registration": "approval"}}, "passport.kind", "embedded, cstcloud, oidc"),
        ({"public_url": "not an address"}, "public_url", "URL"),
        ({"public_url": "https://example.org/astro"}, "public_url", "path"),
        ({"public_url": "https://example.org/?a=1"}, "public_url", "path"),
        ({"public_url": "https://me:pass@example.org"}, "public_url", "password"),
        ({1: 2}, "1", ""),
    ],
)
def test_a_value_that_is_not_allowed_is_named_with_what_is(document: dict, key: str, says: str):
    error = refused(document, "config-value")
    assert error.parameters["key"] == key
    assert says in error.sentence("en")


@pytest.mark.parametrize(
    "text",
    [
        "servers: [",
        "- a\n- b\n",
        "just words",
        "a: 2026-13-45",
        "a: " + "1" * 5000,
        "[" * 5000,
        "a: !!python/object:os.system x",
        "a: \x01",
        "servers:\n  limit_per_person: 1\nservers:\n  limit_per_person: 2\n",
    ],
    ids=["open-bracket", "list", "scalar", "no-date", "long-number", "deep", "python-tag", "control", "twice"],
)
def test_what_is_no_mapping_in_yaml_is_refused(tmp_path: Path, text: str):
    file = tmp_path / "astrocloud.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert caught.value.code == "config-yaml"
    assert str(file) in caught.value.sentence("zh")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path):
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"name: \xe9\xe8")
    for file in (tmp_path / "nowhere.yaml", tmp_path, latin):
        with pytest.raises(ConfigError) as caught:
            load_config(file)
        assert caught.value.code == "config-file"
        assert str(file) in str(caught.value)


class TestSecrets:
    WORD = "correct-horse-battery-staple"

    def oidc(self, secret: object) -> dict:
        return {
            "passport": {
                "kind": "oidc",
                "issuer": "https://id.example.org",
                "client_id": "astrocloud",
                "client_secret": secret,
            }
        }

    def test_one_is_read_from_a_file_or_the_environment(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        file = tmp_path / "secret"
        file.write_text(self.WORD + "\n")
        monkeypatch.setenv("OIDC_SECRET", self.WORD)
        for source in ({"file": str(file)}, {"env": "OIDC_SECRET"}):
            config = parse_config(self.oidc(source), source="x")
            assert config.passport.client_secret.read().get_secret_value() == self.WORD

    @pytest.mark.parametrize("source", [{}, {"file": "/x", "env": "Y"}])
    def test_exactly_one_place_is_named(self, source: dict):
        assert "exactly one" in refused(self.oidc(source), "config-value").sentence("en")

    def test_a_missing_or_empty_one_is_an_error_that_names_the_place(self, tmp_path: Path):
        empty = tmp_path / "empty"
        empty.write_text("\n")
        for source in (SecretSource(file=empty), SecretSource(file=tmp_path / "none"), SecretSource(env="NOT_THERE_X")):
            with pytest.raises(ConfigError) as caught:
                source.read()
            assert caught.value.code == "config-secret"

    def test_it_is_never_shown(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("OIDC_SECRET", self.WORD)
        config = parse_config(self.oidc({"env": "OIDC_SECRET"}), source="x")
        secret = config.passport.client_secret.read()
        shown = [repr(config), str(config), config.model_dump_json(), repr(secret), str(secret), f"{secret}"]
        assert not [text for text in shown if self.WORD in text]

    @pytest.mark.parametrize("wrong", [WORD, [WORD], {"file": [WORD]}, {"env": {"a": WORD}}, {"file": 1, "env": WORD}])
    def test_one_written_into_the_file_is_refused_without_repeating_it(self, wrong: object):
        error = refused(self.oidc(wrong), "config-value")
        assert self.WORD not in error.sentence("en") + error.sentence("zh") + repr(error)
        assert error.__cause__ is None


def test_a_configuration_cannot_be_changed():
    with pytest.raises(ValidationError):
        Config().language = "zh"


def test_every_field_of_the_schema_has_a_description():
    schema = json_schema()
    blocks = {"Config": schema, **schema["$defs"]}

    def described(entry: dict) -> bool:
        return bool(entry.get("description") or schema["$defs"].get(entry.get("$ref", "")[8:], {}).get("description"))

    fields = {f"{name}.{key}": entry for name, block in blocks.items() for key, entry in block["properties"].items()}
    assert not [name for name, entry in fields.items() if not described(entry)]


def test_the_schema_and_the_defaults_survive_a_round_trip():
    document = Config().model_dump(mode="json")
    assert parse_config(yaml.safe_load(yaml.safe_dump(document)), source="x") == Config()
    assert json.loads(json.dumps(json_schema()))["additionalProperties"] is False


def test_a_bucket_is_told_to_fsspec(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("reader\n")
    (tmp_path / "secret").write_text("hidden\n")
    text = f"""
archive:
  bucket: surveys/dr18
  endpoint: https://s3.example.org:9000
  region: north
  key: {{file: {tmp_path}/key}}
  secret: {{file: {tmp_path}/secret}}
"""
    variables = parse_config(yaml.safe_load(text), source="astrocloud.yaml").archive.variables()

    assert variables["ASTROCLOUD_ARCHIVE"] == "s3://surveys/dr18"
    assert json.loads(variables["FSSPEC_S3"]) == {
        "key": "reader",
        "secret": "hidden",
        "endpoint_url": "https://s3.example.org:9000",
        "client_kwargs": {"region_name": "north"},
    }
    assert "hidden" not in repr(parse_config(yaml.safe_load(text), source="astrocloud.yaml"))


def test_a_bucket_without_a_key_is_read_as_anybody_may() -> None:
    assert json.loads(
        parse_config({"archive": {"bucket": "open"}}, source="astrocloud.yaml").archive.variables()["FSSPEC_S3"]
    ) == {"anon": True}
    assert parse_config({}, source="astrocloud.yaml").archive.variables() == {}


def test_a_key_without_its_secret_is_refused() -> None:
    with pytest.raises(ConfigError, match="neither"):
        parse_config({"archive": {"bucket": "open", "key": {"env": "S3_KEY"}}}, source="astrocloud.yaml")
