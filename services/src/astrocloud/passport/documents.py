"""What the passport's APIs take and answer, as JSON has it."""

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from astrocloud.core.errors import RequestError
from astrocloud.passport.models import Group, Person


class Body(BaseModel):
    """A body: strict types, and no field that is not known."""

    model_config = ConfigDict(extra="forbid", strict=True)


T = TypeVar("T", bound=Body)


class SignInBody(Body):
    """Somebody who just signed in at a passport, as the hub saw them."""

    issuer: str = Field(min_length=1, max_length=400)
    subject: str = Field(min_length=1, max_length=255)
    claims: dict[str, Any] = Field(default_factory=dict)


class PersonBody(Body):
    """A new person."""

    username: str = Field(max_length=200)
    admin: bool = False
    display_name: str = Field(default="", max_length=400)
    email: str = Field(default="", max_length=400)
    language: str = Field(default="", pattern="^(en|zh)?$")
    groups: list[str] = Field(default_factory=list, max_length=500)
    subject: str | None = Field(default=None, min_length=1, max_length=255)


class PersonChange(Body):
    """What to change of a person; what is not given stays."""

    admin: bool | None = None
    display_name: str | None = Field(default=None, max_length=400)
    email: str | None = Field(default=None, max_length=400)
    language: str | None = Field(default=None, pattern="^(en|zh)?$")
    groups: list[str] | None = Field(default=None, max_length=500)
    status: str | None = Field(default=None, pattern="^(active|disabled)$")


class GroupBody(Body):
    """A new group."""

    name: str = Field(max_length=200)


class GroupChange(Body):
    """Who is in a group."""

    members: list[str] = Field(max_length=10_000)


def parse(kind: type[T], document: dict[str, Any]) -> T:
    """Return `document` as a body. Raises ``bad-request`` that names the field; never its value."""
    try:
        return kind.model_validate(document)
    except ValidationError as err:
        first = err.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part)[:64] for part in first["loc"]) or "the body"
        raise RequestError("bad-request", reason=f"`{where}`: {first['msg']}") from None


def person_document(person: Person) -> dict[str, Any]:
    """Return `person` as the hub and programs see them."""
    return {
        "username": person.username,
        "uid": person.uid,
        "gid": person.gid,
        "groups": [{"name": group.name, "gid": group.gid} for group in person.groups],
        "admin": person.admin,
        "language": person.language,
        "status": person.status,
        "display_name": person.display_name,
        "email": person.email,
        "sessions_valid_after": person.sessions_valid_after,
        "created_at": person.created_at.isoformat(),
    }


def group_document(group: Group) -> dict[str, Any]:
    """Return `group` as programs see it."""
    return {"name": group.name, "gid": group.gid, "members": list(group.members)}
