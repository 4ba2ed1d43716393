"""Which server a start means, and what an announcement may be."""

from datetime import UTC, datetime

import pytest

from astrocloud.portal.domain import Start, check_announcement, plan_start
from astrocloud.portal.errors import PortalError
from astrocloud.portal.models import End, Server
from tests.services.portal.conftest import FakeMenu

ASTRO = FakeMenu().environments()[0]
NOW = datetime(2026, 5, 1, 12, 30, 15, tzinfo=UTC)


def server(name: str, state: str = "running", title: str = "", ended_at: datetime | None = None) -> Server:
    end = End(reason="idle", at=ended_at) if ended_at else None
    return Server(owner="ana", name=name, title=title, state=state, url="/", environment="astro", end=end)  # type: ignore[arg-type]


def plan(*servers: Server, title: str = "", limit: int = 3) -> Start:
    return plan_start(environment=ASTRO, size=ASTRO.resources[0], title=title, servers=servers, limit=limit)


def test_first_start_is_the_default_server() -> None:
    assert plan().name == ""
    assert plan(server("", "stopped")).name == ""


def test_further_starts_take_the_first_free_name() -> None:
    assert plan(server("")).name == "astro"
    assert plan(server(""), server("astro"), limit=4).name == "astro-2"
    assert plan(server(""), server("astro", "stopped")).name == "astro"


def test_untitled_start_leaves_titled_servers_alone() -> None:
    assert plan(server(""), server("astro", "stopped", title="Mine"), limit=4).name == "astro-2"


def test_title_finds_its_stopped_server_again() -> None:
    assert plan(server("m31", "stopped", title="M31"), title="M31").name == "m31"


def test_title_without_latin_letters_takes_the_environments_name() -> None:
    assert plan(title="星系").name == "astro"
    assert plan(title="星系").title == "星系"


@pytest.mark.parametrize("title", ["M31", "x" * 60, "9 lives!", "a--b", "Ünïcødé"])
def test_names_are_what_the_hub_takes(title: str) -> None:
    from jupyterhub.slugs import is_valid_safe_slug

    assert is_valid_safe_slug(plan(title=title).name)


def test_running_title_is_refused() -> None:
    with pytest.raises(PortalError, match="M31") as error:
        plan(server("m31", title="M31"), title="M31")
    assert error.value.code == "server-running"


def test_limit_counts_what_runs() -> None:
    with pytest.raises(PortalError) as error:
        plan(server(""), server("astro"), limit=2)
    assert error.value.code == "server-limit"


def test_oldest_stopped_server_makes_room_for_a_new_name() -> None:
    early, late = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)
    chosen = plan(server("a", "stopped", ended_at=late), server("b", "stopped", ended_at=early), title="New")
    assert (chosen.name, chosen.replaces) == ("new", "b")


def test_title_gives_way_when_only_the_default_server_is_free() -> None:
    chosen = plan(server("a"), server("b"), title="New")
    assert (chosen.name, chosen.title, chosen.replaces) == ("", "", None)


FIELDS = {"severity": "info", "title_en": "A", "title_zh": "甲", "text_en": "B", "text_zh": "乙"}


def checked(**changes: str) -> object:
    return check_announcement({**FIELDS, **changes}, number=0, author="root", now=lambda: NOW)


def test_announcement_begins_at_once_and_lasts_until_removed() -> None:
    announcement = check_announcement(FIELDS, number=0, author="root", now=lambda: NOW)
    assert announcement.starts_at == NOW.replace(second=0)
    assert announcement.ends_at is None
    assert announcement.shown_at(NOW)


def test_times_are_utc_unless_they_say_otherwise() -> None:
    fields = {**FIELDS, "starts_at": "2026-06-01T08:00", "ends_at": "2026-06-01T18:00+08:00"}
    announcement = check_announcement(fields, number=0, author="root", now=lambda: NOW)
    assert announcement.starts_at == datetime(2026, 6, 1, 8, tzinfo=UTC)
    assert announcement.ends_at == datetime(2026, 6, 1, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"severity": "loud"}, "announcement-severity"),
        ({"title_zh": " "}, "announcement-text"),
        ({"title_en": "x" * 121}, "announcement-text"),
        ({"text_en": "x" * 2001}, "announcement-text"),
        ({"text_zh": "a\x07b"}, "announcement-text"),
        ({"starts_at": "tomorrow"}, "announcement-time"),
        ({"starts_at": "0001-01-01T00:00"}, "announcement-time"),
        ({"starts_at": "2026-06-01T08:00", "ends_at": "2026-06-01T08:00"}, "announcement-time"),
        ({"ends_at": "2099-01-01T00:00"}, "announcement-time"),
    ],
)
def test_announcement_that_is_wrong_is_refused(changes: dict[str, str], code: str) -> None:
    with pytest.raises(PortalError) as error:
        checked(**changes)
    assert error.value.code == code
