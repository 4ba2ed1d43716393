"""The hub has a person's folders made before a server sees them."""

import os
from collections.abc import Callable
from typing import Any

import pytest

from astrocloud.core.secrets import SecretFiles
from tests.services.vospace.platform import Space

PATH = "/api/internal/folders"
IDA = {"username": "ida", "uid": 20009, "gid": 20009, "groups": [{"name": "crew", "gid": 30009}]}


async def ask(space: Space, body: Any, *, secret: str | None = None) -> int:
    assert space.data is not None
    given = secret or SecretFiles(space.data.secrets).get("internal").get_secret_value()
    answer = await space("POST", PATH, headers={"Authorization": f"Bearer {given}"}, json=body)
    return answer.status


async def test_they_are_the_person_s_and_the_group_s(space: Space) -> None:
    assert await ask(space, IDA) == 204

    home, project = space.root / "home" / "ida", space.root / "project" / "crew"
    assert oct(home.stat().st_mode) == "0o40700"
    assert oct(project.stat().st_mode) == "0o42770"
    if os.geteuid() == 0:
        assert (home.stat().st_uid, home.stat().st_gid, project.stat().st_gid) == (20009, 20009, 30009)


async def test_one_that_kubernetes_made_first_gets_its_owner(space: Space) -> None:
    (space.root / "project" / "crew").mkdir(mode=0o755)

    assert await ask(space, IDA) == 204

    if os.geteuid() == 0:
        assert oct((space.root / "project" / "crew").stat().st_mode) == "0o42770"


async def test_only_parts_of_the_platform_may_ask(space: Space) -> None:
    assert await ask(space, IDA, secret="ada") == 401
    assert not (space.root / "home" / "ida").exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body.update(uid=0),
        lambda body: body.update(username="../root"),
        lambda body: body.update(groups=[{"name": "..", "gid": 30009}]),
        lambda body: body.update(more=1),
    ],
)
async def test_ids_of_the_system_and_names_that_lead_elsewhere_are_refused(
    space: Space, change: Callable[[dict[str, Any]], None]
) -> None:
    body = dict(IDA)
    change(body)

    assert await ask(space, body) == 400
