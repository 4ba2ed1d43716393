"""The job that an upgrade waits for until the nodes have the images of the new menu."""

import importlib.util
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from tests.repository.files import REPOSITORY


@pytest.fixture(scope="module")
def program() -> ModuleType:
    spec = importlib.util.spec_from_file_location("wait_for_images", REPOSITORY / "images/services/wait_for_images.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def told(ready: int, nodes: int, *, seen: int = 1) -> dict[str, Any]:
    status = {"observedGeneration": seen, "numberReady": ready, "desiredNumberScheduled": nodes}
    return {"metadata": {"generation": 1}, "status": status}


class Waiting:
    """A wait of ten seconds, whose clock goes only while it sleeps, for what a cluster answers one after the other."""

    def __init__(self, program: ModuleType, *answers: dict[str, Any] | Exception) -> None:
        self._answers: Iterator[dict[str, Any] | Exception] = iter(answers)
        self._last: dict[str, Any] | Exception = answers[-1]
        self._now = 0.0
        self.said: list[str] = []
        self.well = program.wait(self._ask, 10, say=self.said.append, clock=lambda: self._now, sleep=self._sleep)

    @property
    def seconds(self) -> float:
        return self._now

    def _ask(self) -> dict[str, Any]:
        answer = next(self._answers, self._last)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _sleep(self, seconds: float) -> None:
        self._now += seconds


@pytest.fixture
def waiting(program: ModuleType) -> Callable[..., Waiting]:
    return lambda *answers: Waiting(program, *answers)


def test_it_ends_when_every_node_has_them(waiting: Callable[..., Waiting]) -> None:
    found = waiting(told(0, 3), told(2, 3), told(2, 3), told(3, 3))

    assert found.well
    assert found.seconds < 10
    assert found.said == [f"{ready} of 3 nodes have the images" for ready in (0, 2, 3)]


def test_a_node_that_does_not_answer_holds_it_up_no_longer_than_the_limit(waiting: Callable[..., Waiting]) -> None:
    found = waiting(told(2, 3))

    assert not found.well
    assert 10 <= found.seconds < 15


def test_what_nobody_has_counted_is_not_taken_for_done(waiting: Callable[..., Waiting]) -> None:
    found = waiting({"metadata": {"generation": 1}, "status": {}}, told(0, 0, seen=0), told(3, 3))

    assert found.well
    assert found.said[-1] == "3 of 3 nodes have the images"
    assert len(found.said) == 2


def test_without_nodes_there_is_nothing_to_wait_for(waiting: Callable[..., Waiting]) -> None:
    assert waiting(told(0, 0)).seconds == 0


def test_an_answer_that_fails_is_asked_for_again(waiting: Callable[..., Waiting]) -> None:
    assert waiting(OSError("connection refused"), ValueError("no JSON"), told(1, 1)).well
    assert not waiting(OSError("connection refused")).well


def test_at_the_limit_the_upgrade_goes_on_and_that_is_said(
    program: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(program, "status", lambda _: told(2, 3))
    monkeypatch.setattr("sys.argv", ["wait_for_images", "--daemonset=fetch", "--timeout=0"])

    assert program.main() == 0

    said = capsys.readouterr().out
    assert said.startswith("2 of 3 nodes have the images\n")
    assert "timeoutSeconds" in said
