"""The page of events: what was the matter with the platform, since when and until when."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, update

from astrocloud.core.database import open_database, sqlite_url
from astrocloud.core.errors import RequestError
from astrocloud.portal import events as module
from astrocloud.portal.events import KEPT_S, Events, Trouble
from astrocloud.portal.hub import Hub
from tests.services.portal.conftest import Portal

PAGE = "/services/portal/admin/events"
SINCE = datetime(2026, 11, 23, 7, 12, tzinfo=UTC)


class Platform:
    """A platform that is as told."""

    def __init__(self) -> None:
        self.parts: dict[str, str] = {"hub": "ok", "files": "ok", "environment:astro": "absent"}
        self.nodes: Sequence[Trouble] | RequestError | None = ()
        self.then: dict[str, str] | None = None
        """What the parts are at the second look, if not as before."""

    async def ask_parts(self) -> Mapping[str, str]:
        now = dict(self.parts)
        if self.then is not None:
            self.parts, self.then = self.then, None
        return now

    async def ask_nodes(self) -> Sequence[Trouble] | None:
        if isinstance(self.nodes, RequestError):
            raise self.nodes
        return self.nodes


def silent(node: str) -> Trouble:
    return Trouble(kind="node", subject=node, state="silent", since=SINCE)


@pytest.fixture
def platform() -> Platform:
    return Platform()


@pytest.fixture
def events(engine: Engine, platform: Platform) -> Events:
    return Events(engine=engine, parts=platform.ask_parts, nodes=platform.ask_nodes, again_s=0)


def told(events: Events) -> list[tuple[str, str, bool]]:
    return [(each.subject, each.state, each.ended_at is None) for each in events.recent()]


async def test_what_goes_and_comes_back_is_one_event(events: Events, platform: Platform) -> None:
    await events.look()
    assert told(events) == []

    platform.parts["files"] = "away"
    await events.look()
    await events.look()
    assert told(events) == [("files", "away", True)]

    platform.parts["files"] = "ok"
    await events.look()
    assert told(events) == [("files", "away", False)]


async def test_another_matter_with_the_same_part_is_another_event(events: Events, platform: Platform) -> None:
    platform.parts["files"] = "full"
    await events.look()
    platform.parts["files"] = "away"
    await events.look()

    assert told(events) == [("files", "away", True), ("files", "full", False)]


async def test_what_is_over_in_a_moment_is_no_event(events: Events, platform: Platform) -> None:
    platform.parts["hub"] = "away"
    platform.then = {"hub": "ok"}

    await events.look()

    assert told(events) == []


async def test_a_node_s_trouble_began_when_the_hub_says(events: Events, platform: Platform) -> None:
    platform.nodes = [silent("node3")]

    await events.look()

    (event,) = events.recent()
    assert (event.subject, event.began_at) == ("node3", SINCE)


async def test_what_was_over_between_two_looks_is_kept_once(events: Events, platform: Platform) -> None:
    since = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=10)
    until = since + timedelta(seconds=2)
    platform.nodes = [Trouble(kind="node", subject="node2", state="mount", since=since, until=until)]

    await events.look()
    await events.look()

    (event,) = events.recent()
    assert (event.began_at, event.ended_at) == (since, until)


async def test_what_was_seen_while_it_lasted_is_not_told_again_when_it_is_over(
    events: Events, platform: Platform
) -> None:
    since = datetime.now(UTC).replace(microsecond=0)
    lasts = Trouble(kind="node", subject="node2", state="mount", since=since)
    platform.nodes = [lasts]
    await events.look()
    over = Trouble(kind="node", subject="node2", state="mount", since=since - timedelta(seconds=1), until=since)
    platform.nodes = [over]

    await events.look()

    assert told(events) == [("node2", "mount", False)]


@pytest.mark.parametrize("answer", [None, RequestError("unavailable", part="JupyterHub")])
async def test_what_nobody_can_tell_of_nodes_is_as_it_was(
    events: Events, platform: Platform, answer: RequestError | None
) -> None:
    platform.nodes = [silent("node3")]
    await events.look()

    platform.nodes = answer
    platform.parts["hub"] = "away"
    await events.look()
    assert told(events) == [("hub", "away", True), ("node3", "silent", True)]

    platform.nodes, platform.parts["hub"] = (), "ok"
    await events.look()
    assert [lasts for _, _, lasts in told(events)] == [False, False]


async def test_events_are_forgotten_after_a_while_and_not_while_they_last(
    engine: Engine, events: Events, platform: Platform
) -> None:
    long_ago = int((datetime.now(UTC) - timedelta(seconds=KEPT_S + 60)).timestamp())
    platform.parts |= {"files": "full", "hub": "away"}
    await events.look()
    platform.parts["hub"] = "ok"
    await events.look()
    with engine.begin() as connection:
        connection.execute(update(module.events).values(began_at=long_ago))
        connection.execute(update(module.events).where(module.events.c.subject == "hub").values(ended_at=long_ago))

    await events.look()

    assert told(events) == [("files", "full", True)]


async def test_of_several_processes_one_looks_each_turn(
    engine: Engine, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_EVERY_S", 1)
    looked: list[int] = []
    turned = asyncio.Event()

    class Counted(Events):
        async def look(self) -> None:
            looked.append(int(datetime.now(UTC).timestamp()))
            if len(looked) == 3:
                turned.set()

    tasks = [
        asyncio.create_task(Counted(engine=engine, parts=platform.ask_parts, nodes=platform.ask_nodes).run())
        for _ in range(3)
    ]
    try:
        async with asyncio.timeout(30):
            await turned.wait()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    assert len(set(looked)) == len(looked)


@pytest.fixture
async def hub(portal: Portal) -> AsyncIterator[Hub]:
    """The hub as the portal asks it."""
    made = Hub(api_url=f"{portal.url}/hub/api", token=SecretStr(portal.hub.service_token))
    yield made
    await made.close()


async def test_the_hub_tells_of_the_nodes(portal: Portal, hub: Hub) -> None:
    portal.hub.nodes = {
        "known": True,
        "nodes": [
            {"node": "node3", "state": "silent", "since": SINCE.isoformat()},
            {"node": "node2", "state": "mount", "since": ""},
            {"node": "node2", "state": "mount", "since": SINCE.isoformat(), "until": SINCE.isoformat()},
            {"node": "node1", "state": "what a newer hub knows"},
        ],
    }
    assert await hub.troubled_nodes() == [
        silent("node3"),
        Trouble(kind="node", subject="node2", state="mount"),
        Trouble(kind="node", subject="node2", state="mount", since=SINCE, until=SINCE),
    ]

    portal.hub.nodes = {"known": False, "nodes": []}
    assert await hub.troubled_nodes() is None


async def test_administrators_read_it_in_their_language(portal: Portal) -> None:
    browser = await portal.signed_in("root")
    async with browser.get(PAGE) as answer:
        assert "Nothing was the matter" in await answer.text()
    platform = Platform()
    kept = Events(
        engine=open_database(sqlite_url(portal.data.databases)),
        parts=platform.ask_parts,
        nodes=platform.ask_nodes,
        again_s=0,
    )
    platform.parts |= {"files": "full", "environment:astro": "failed"}
    platform.nodes = [silent("node3"), Trouble(kind="node", subject="node2", state="mount")]
    await kept.look()
    platform.nodes = [silent("node3")]
    await kept.look()

    async with browser.get(PAGE) as answer:
        text = await answer.text()
    for expected in ("Files", "Full: nothing more", "Environment Astronomy", "Node node3", "Is silent", "Lasts still"):
        assert expected in text
    assert "2026-11-23 07:12 UTC" in text
    assert text.count("Lasts still") == 3
    async with browser.get(PAGE, headers={"Accept-Language": "zh"}) as answer:
        text = await answer.text()
    assert "节点 node2" in text
    assert "尚未恢复" in text
