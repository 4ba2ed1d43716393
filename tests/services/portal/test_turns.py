"""The processes of a platform take turns."""

from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import Engine, select

from astrocloud.portal.events import looks
from astrocloud.portal.trials import trials
from astrocloud.portal.turns import take_turn


def test_a_turn_is_taken_once(engine: Engine) -> None:
    with ThreadPoolExecutor(4) as processes:
        taken = list(processes.map(lambda _: take_turn(engine, looks, 7), range(4)))

    assert sorted(taken) == [False, False, False, True]
    assert take_turn(engine, looks, 8)


def test_turns_are_forgotten_after_as_many_as_are_to_be_kept(engine: Engine) -> None:
    for turn in (1, 2, 3):
        assert take_turn(engine, looks, turn)
        assert take_turn(engine, trials, turn, kept=1, reason="", seconds="{}")

    with engine.connect() as connection:
        assert connection.execute(select(looks.c.turn)).scalars().all() == [3]
        assert connection.execute(select(trials.c.turn).order_by(trials.c.turn)).scalars().all() == [2, 3]
    assert not take_turn(engine, trials, 2, kept=1, reason="", seconds="{}")
