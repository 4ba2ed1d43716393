"""The one schema of the platform's configuration.

The same block is read from ``astrocloud.yaml`` on one machine and from the Helm chart's ``config`` value on
Kubernetes. Every field has a description, a unit where it needs one, and a safe default; unknown keys are refused
with the nearest known name. Secrets are named, never written: see `SecretSource`.
"""

import difflib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, get_args, get_origin

import yaml
from pydantic import (
    AnyHttpUrl,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from astrocloud.core.errors import ConfigError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

Language = Literal["en", "zh"]
"""The platform's two languages, by their ISO 639-1 codes."""


class Block(BaseModel):
    """One block of the configuration: frozen, and no key that is not in it."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class LocalizedText(Block):
    """A text in both languages."""

    en: str = Field(min_length=1)
    """The text in English."""
    zh: str = Field(min_length=1)
    """The text in Chinese."""

    def in_language(self, language: str) -> str:
        """Return the text in `language` (``en`` or ``zh``)."""
        return self.zh if language == "zh" else self.en


class SecretSource(Block):
    """Where a secret is read from: exactly one of a file or an environment variable."""

    file: Path | None = None
    """A file that holds the secret and nothing else; a final line break is dropped."""
    env: str | None = None
    """The name of an environment variable that holds the secret."""

    @model_validator(mode="after")
    def _exactly_one(self) -> "SecretSource":
        if (self.file is None) == (self.env is None):
            msg = "name exactly one of `file` and `env`"
            raise ValueError(msg)
        return self

    def read(self) -> SecretStr:
        """Return the secret.

        Raises
        ------
        ConfigError
            With code ``config-secret`` when the file or the variable is not there or is empty.
        """
        if self.file is not None:
            try:
                value = self.file.read_text(encoding="utf-8").rstrip("\n")
            except (OSError, UnicodeDecodeError) as err:
                raise ConfigError("config-secret", source=f"file {self.file}") from err
            source = f"file {self.file}"
        else:
            value = os.environ.get(self.env or "", "")
            source = f"environment variable {self.env}"
        if not value:
            raise ConfigError("config-secret", source=source)
        return SecretStr(value)


class EmbeddedPassport(Block):
    """The platform's own accounts, behind its own OpenID Connect provider."""

    kind: Literal["embedded"] = "embedded"
    """The platform's own accounts."""
    registration: Literal["closed", "approval"] = "closed"
    """Whether people may ask for an account themselves; an administrator then approves each one."""
    password_min_length: int = Field(default=10, ge=8, le=128)
    """The shortest password taken, in characters."""
    invite_lifetime_s: int = Field(default=7 * 86400, ge=300, le=90 * 86400)
    """How long an invite or reset link works, in seconds."""
    session_lifetime_s: int = Field(default=14 * 86400, ge=300, le=90 * 86400)
    """How long a sign-in at the passport lasts, in seconds."""
    key_lifetime_s: int = Field(default=30 * 86400, ge=3600)
    """How long one signing key is used before the next takes over, in seconds."""


class SignUpBlock(Block):
    """What an external passport has in common with others: who of its people may enter."""

    sign_up: Literal["open", "invited"] = "open"
    """``open``: whoever the passport vouches for gets an account at the first sign-in; ``invited``: only people an
    administrator has added with that passport's subject."""
    admins: tuple[str, ...] = ()
    """Subjects at that passport who are administrators."""


class CstcloudPassport(SignUpBlock):
    """The passport of the China Science and Technology Cloud."""

    kind: Literal["cstcloud"]
    """The CSTCloud passport."""
    client_id: str = Field(min_length=1)
    """The client id that the passport gave this platform."""
    client_secret: SecretSource
    """Where the client secret is."""
    base_url: AnyHttpUrl = AnyHttpUrl("https://passport.escience.cn")
    """The passport's address."""


class OidcPassport(SignUpBlock):
    """Any OpenID Connect provider that can be discovered."""

    kind: Literal["oidc"]
    """An OpenID Connect provider."""
    issuer: AnyHttpUrl
    """The issuer's address; ``/.well-known/openid-configuration`` is read below it."""
    client_id: str = Field(min_length=1)
    """The client id that the provider gave this platform."""
    client_secret: SecretSource
    """Where the client secret is."""
    scopes: tuple[str, ...] = ("openid", "profile", "email")
    """The scopes asked for; ``openid`` is among them."""
    name: LocalizedText = LocalizedText(en="your institution", zh="所在机构")
    """What the sign-in button calls the provider."""

    @field_validator("scopes")
    @classmethod
    def _openid_is_asked_for(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if "openid" not in value:
            msg = "`openid` must be among the scopes"
            raise ValueError(msg)
        return value


Passport = Annotated[EmbeddedPassport | CstcloudPassport | OidcPassport, Field(discriminator="kind")]


class NoTls(Block):
    """Plain HTTP: on this machine alone, or behind a web server that has TLS."""

    kind: Literal["none"] = "none"
    """Plain HTTP."""


class TlsFiles(Block):
    """HTTPS with a certificate in files."""

    kind: Literal["files"]
    """A certificate in files."""
    certificate: Path
    """The certificate and those between it and its authority, in this order, as PEM."""
    key: Path
    """Its private key as PEM, without a password."""
    redirect_port: int = Field(default=0, ge=0, le=65535)
    """A port, such as 80, whose plain HTTP is sent on to HTTPS; 0: none."""


class SelfSignedTls(Block):
    """HTTPS with a certificate that the platform makes: programs and browsers must be told to trust it."""

    kind: Literal["self-signed"]
    """A certificate of the platform's own."""
    names: tuple[str, ...] = ()
    """Names and addresses that it is good for besides this machine's own and that of `public_url`."""
    redirect_port: int = Field(default=0, ge=0, le=65535)
    """A port, such as 80, whose plain HTTP is sent on to HTTPS; 0: none."""


def _tls_block(value: object) -> object:
    """Let ``tls: self-signed`` stand for ``tls: {kind: self-signed}``."""
    return {"kind": value} if isinstance(value, str) else value


TlsBlock = Annotated[NoTls | TlsFiles | SelfSignedTls, Field(discriminator="kind")]
Tls = Annotated[TlsBlock, BeforeValidator(_tls_block, json_schema_input_type=TlsBlock | Literal["none", "self-signed"])]


class People(Block):
    """The directory of people."""

    first_uid: int = Field(default=200_000, ge=1_000, le=2_000_000_000)
    """The user id of the first person, and the id of their own group; later people get the following ones, none twice.
    The default lies between what Debian gives to subordinate ids first and what systemd gives to containers."""
    first_gid: int = Field(default=400_000, ge=1_000, le=2_000_000_000)
    """The group id of the first shared group; keep it well above the user ids there will ever be."""


class Servers(Block):
    """People's own servers."""

    limit_per_person: int = Field(default=3, ge=1, le=50)
    """How many servers one person may run at once."""
    start_timeout_s: int = Field(default=120, ge=5, le=3600)
    """How long a server may take to start, in seconds, its environment being there."""
    idle_timeout_s: int = Field(default=86400, ge=0)
    """A server without activity for so long is stopped, in seconds; 0: never."""
    isolation: Literal["required", "preferred"] = "preferred"
    """``required``: no server starts on a machine without bubblewrap; ``preferred``: it starts, and every page says
    that people are not kept apart."""
    fork: bool = True
    """Whether servers are forked from a process that has imported everything already, where root runs the platform and
    there is bubblewrap: a start then takes a fraction of a second. It costs the memory of one such process for each
    environment in use, which its servers share."""


class Environments(Block):
    """The environments a person can pick."""

    folder: Path | None = None
    """The folder of environments, one folder each with an ``environment.yaml``; by default the project's ``images``."""
    store: Path | None = None
    """Where environments are made on one machine; by default ``environments`` in the data folder. Several platforms on
    one machine may share it."""
    default: str = "astro"
    """The environment that is offered first."""
    prepare_at_start: bool = True
    """Whether a missing environment is made when the platform starts (in the background), not at its first use."""


class Vospace(Block):
    """Files by VOSpace."""

    authority: str = Field(default="astrocloud.local", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """The authority in node URIs, ``vos://AUTHORITY~vospace/…``: the platform's registered IVOA authority, if any."""
    aliases: tuple[str, ...] = ("cadc.nrc.ca~arc",)
    """Other authorities that mean this service; ``cadc.nrc.ca~arc`` is what the client ``vos`` writes for ``arc:``."""
    home_quota_bytes: int = Field(default=200 * 2**30, ge=0)
    """How much a person's home may hold, in bytes; 0: any."""
    home_quota_files: int = Field(default=2_000_000, ge=0)
    """How many files and folders a person's home may hold; 0: any."""
    project_quota_bytes: int = Field(default=2 * 2**40, ge=0)
    """How much a group's project folder may hold, in bytes; 0: any."""
    project_quota_files: int = Field(default=10_000_000, ge=0)
    """How many files and folders a group's project folder may hold; 0: any."""
    upload_limit_bytes: int = Field(default=0, ge=0)
    """The largest file that is taken, in bytes; 0: any."""
    preauth_lifetime_s: int = Field(default=1800, ge=30, le=86400)
    """How long a pre-authorised address of a transfer works, in seconds."""
    scan_interval_s: int = Field(default=6 * 3600, ge=60)
    """How long the walk that counts what notebooks wrote rests between two rounds, in seconds."""
    trash_days: int = Field(default=30, ge=0, le=3650)
    """How long My files keeps what is deleted there, in days; 0: there is no trash, and what is deleted is gone."""
    link_days: float = Field(default=90, gt=0, le=3650)
    """How long a public link of My files may work at most, in days."""
    bytes_url: AnyHttpUrl | None = None
    """The address at which clients reach the way of bytes around the platform's proxy, when a web server or a firewall
    stands before it; by default the platform's own, unless `public_url` is another server's."""
    redirect_from_bytes: int = Field(default=8 * 2**20, ge=0)
    """A file of so many bytes or more, asked for through the proxy, is sent for by a redirect around it."""
    transfer_networks: tuple[str, ...] = ()
    """Private networks (as ``10.1.0.0/16``) that transfers may reach; public addresses always may be."""


class Canary(Block):
    """Trial sessions: a program signs in, starts a server, runs a cell, reads a file and stops, as a person does."""

    every_s: int = Field(default=0, ge=0)
    """Seconds between two trial sessions, whose outcome the front page and the metrics tell; 0: none on a schedule.
    Only with the embedded passport: no program can sign in at another one. At least 60."""
    username: str = Field(default="canary", pattern=r"^[a-z][a-z0-9-]{0,31}$")
    """The account that they use, made when the platform starts; nobody else should."""

    @field_validator("every_s")
    @classmethod
    def _not_all_the_time(cls, value: int) -> int:
        if 0 < value < 60:
            msg = "a trial session takes some seconds itself; give 0 or at least 60"
            raise ValueError(msg)
        return value


class Archive(Block):
    """Data that everybody reads from an S3 bucket, besides what is in ``/archive``."""

    bucket: str = Field(default="", pattern=r"^$|^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^?#]+)?$")
    """The bucket, with a prefix if need be, such as ``surveys/dr18``; empty: there is none."""
    endpoint: AnyHttpUrl | None = None
    """The address of the S3 server; without one it is Amazon's."""
    region: str = ""
    """The bucket's region, where the server has regions."""
    key: SecretSource | None = None
    """The id of a key that may read the bucket and nothing else: servers hold it, so people can see it. Without one,
    the bucket is read by anybody."""
    secret: SecretSource | None = None
    """That key's secret."""

    @model_validator(mode="after")
    def _key_and_secret(self) -> "Archive":
        if (self.key is None) != (self.secret is None):
            msg = "name both `key` and `secret`, or neither for a bucket that anybody may read"
            raise ValueError(msg)
        return self

    def variables(self) -> dict[str, str]:
        """Return the variables of a server by which fsspec (and so s3fs, xarray, zarr, pandas, dask) finds the bucket.

        Raises
        ------
        ConfigError
            ``config-secret`` when the key cannot be read.
        """
        if not self.bucket:
            return {}
        settings: dict[str, Any] = {"anon": True}
        if self.key is not None and self.secret is not None:
            settings = {"key": self.key.read().get_secret_value(), "secret": self.secret.read().get_secret_value()}
        if self.endpoint is not None:
            settings["endpoint_url"] = str(self.endpoint).rstrip("/")
        if self.region:
            settings["client_kwargs"] = {"region_name": self.region}
        return {"ASTROCLOUD_ARCHIVE": f"s3://{self.bucket}", "FSSPEC_S3": json.dumps(settings)}


class Logging(Block):
    """What is logged."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe level that is logged."""


class Config(Block):
    """The whole configuration."""

    public_url: AnyHttpUrl | None = None
    """The address at which people reach the platform, when that is not where it listens (behind a web server)."""
    language: Language = "en"
    """The language of people whose browser asks for neither of the two."""
    name: LocalizedText = LocalizedText(en="Astrocloud", zh="天文云")
    """What this platform is called on its pages."""
    tls: Tls = NoTls()
    """Whether the platform itself speaks HTTPS, on one machine: ``none``, ``self-signed``, or a block with ``kind``."""
    passport: Passport = EmbeddedPassport()
    """How people sign in."""
    people: People = People()
    """The directory of people."""
    servers: Servers = Servers()
    """People's own servers."""
    environments: Environments = Environments()
    """The environments a person can pick."""
    tutorials: Path | None = None
    """The folder of tutorials; by default the project's ``notebooks``."""
    vospace: Vospace = Vospace()
    """Files by VOSpace."""
    archive: Archive = Archive()
    """Data that everybody reads from an S3 bucket."""
    canary: Canary = Canary()
    """Trial sessions on a schedule."""
    logging: Logging = Logging()
    """What is logged."""

    @field_validator("public_url")
    @classmethod
    def _is_an_origin(cls, value: AnyHttpUrl | None) -> AnyHttpUrl | None:
        if value is not None and (value.username or value.password):
            msg = "an address that people see holds no username or password"
            raise ValueError(msg)
        if value is not None and (value.path not in {None, "", "/"} or value.query or value.fragment):
            msg = "it has no path; the platform owns a whole origin such as https://astro.example.org"
            raise ValueError(msg)
        return value

    @model_validator(mode="after")
    def _public_url_fits_tls(self) -> "Config":
        if not isinstance(self.tls, NoTls) and self.public_url is not None and self.public_url.scheme != "https":
            msg = "public_url begins with http:// but tls is on; write https://, or tls: none"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _canary_can_sign_in(self) -> "Config":
        if self.canary.every_s and not isinstance(self.passport, EmbeddedPassport):
            msg = "canary.every_s needs the embedded passport; with another one run `astrocloud canary` from a timer"
            raise ValueError(msg)
        return self

    def secret_sources(self) -> list[SecretSource]:
        """Return where the secrets are that this configuration names."""
        return _secret_sources(self)


def _secret_sources(block: BaseModel) -> list[SecretSource]:
    if isinstance(block, SecretSource):
        return [block]
    values = [getattr(block, name) for name in type(block).model_fields]
    return [source for value in values if isinstance(value, BaseModel) for source in _secret_sources(value)]


_TAGS: Final = {"passport": ("embedded", "cstcloud", "oidc"), "tls": ("none", "files", "self-signed")}
"""The values of `kind` by which a block is told from the others that may stand in its place."""


def load_config(path: Path | None) -> Config:
    """Return the configuration in `path`, or the defaults for `None`.

    Raises
    ------
    ConfigError
        ``config-file`` when the file cannot be read, ``config-yaml`` when it is no YAML mapping, ``config-key`` for
        an unknown key (with the nearest known one), ``config-value`` for a value that is not allowed.
    """
    if path is None:
        return Config()
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as err:
        reason = err.strerror if isinstance(err, OSError) else "it is not UTF-8 text"
        raise ConfigError("config-file", file=str(path), reason=str(reason)) from err
    try:
        document = yaml.load(text, Loader=_Loader)  # noqa: S506 - a safe loader that also refuses a key given twice
    except (yaml.YAMLError, ValueError, RecursionError) as err:
        # ValueError: a date or a number that YAML's pattern takes but Python does not.
        mark = getattr(err, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "somewhere"
        raise ConfigError("config-yaml", file=str(path), where=where) from err
    if document is None:
        document = {}
    if not isinstance(document, dict):
        raise ConfigError("config-yaml", file=str(path), where="its top level, which is not a mapping")
    return parse_config(document, source=str(path))


class _Loader(yaml.SafeLoader):
    """Plain values only, and no key twice: of two, YAML readers silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if key.value in seen:
                    problem = f"found the key {key.value!r} twice"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def parse_config(document: dict[str, Any], *, source: str) -> Config:
    """Return `document` as a configuration; errors name `source`. Raises `ConfigError` as `load_config` does."""
    try:
        return Config.model_validate(document)
    except ValidationError as err:
        # An unknown key first: it is the reason for a missing one as often as not.
        faults = sorted(err.errors(include_url=False), key=lambda fault: fault["type"] != "extra_forbidden")
        raise _refusal(faults[0], source=source) from None


def _refusal(fault: "ErrorDetails", *, source: str) -> ConfigError:
    names = [str(part) for part in fault["loc"]]
    tags = _TAGS.get(names[0], ()) if names else ()
    tagged = set(names[1:2]) <= {*tags}
    where = ".".join([*names[:1], *names[2:]] if tagged else names)
    if fault["type"] == "extra_forbidden":
        known = _known_keys(names[:-1])
        return ConfigError(
            "config-key", file=source, key=where, nearest=_nearest(names[-1], known), allowed=", ".join(sorted(known))
        )
    if fault["type"] == "union_tag_not_found":
        where, reason = f"{where}.kind", f"it is missing; allowed: {', '.join(tags)}"
    else:
        # pydantic's own sentence says what is allowed.
        reason = fault["msg"].removeprefix("Value error, ") + _value(fault)
    return ConfigError("config-value", file=source, key=where or "(top level)", reason=reason)


def _value(fault: "ErrorDetails") -> str:
    """Return the refused value for the sentence, or nothing where it is long or might be a secret."""
    plain = isinstance(fault["input"], int | float) or fault["type"].endswith("_parsing")
    if not plain or any("secret" in str(part) for part in fault["loc"]) or "@" in str(fault["input"]):
        return ""
    return f" (it is {str(fault['input'])[:40]!r})"


def _nearest(name: str, known: list[str]) -> str:
    """Return the one of `known` that `name` most likely means: there always is one."""
    given = name.lower().replace("-", "_")
    words = set(given.split("_"))

    def likeness(candidate: str) -> tuple[bool, int, float]:
        # A whole word in common (`limit` for `limit_per_person`) says more than letters in common do.
        inside = given in candidate or candidate in given
        shared = len(words & set(candidate.split("_")))
        return inside, shared, difflib.SequenceMatcher(None, given, candidate).ratio()

    return max(known, key=likeness)


def _known_keys(location: list[str]) -> list[str]:
    """Return the keys of the block at `location`, whose parts may be tags of a tagged variant."""
    block: type[BaseModel] = Config
    variants: dict[str, type[BaseModel]] = {}
    for name in location:
        if name in block.model_fields:
            found = _blocks_in(block.model_fields[name].annotation)
            block = found[0] if found else block
            variants = {str(b.model_fields["kind"].annotation): b for b in found if "kind" in b.model_fields}
        else:
            block = next((b for tag, b in variants.items() if f"'{name}'" in tag), block)
    return list(block.model_fields)


def _blocks_in(annotation: Any) -> list[type[BaseModel]]:
    """Return the blocks named in a type annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) is None:
        return []
    return [block for part in get_args(annotation) for block in _blocks_in(part)]


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of the configuration."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Config.model_json_schema()}
