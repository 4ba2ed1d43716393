"""Turns that the processes of a platform take: what one of them does is done once, however many there are."""

from typing import Any

from sqlalchemy import BigInteger, Column, Engine, Table, delete, insert
from sqlalchemy.exc import IntegrityError


def turn_column() -> "Column[int]":
    """Return the key of a table of turns: the number of an interval since 1970, which only one process can insert."""
    return Column("turn", BigInteger, primary_key=True, autoincrement=False)


def take_turn(engine: Engine, table: Table, turn: int, *, kept: int = 0, **values: Any) -> bool:
    """Tell whether a turn is this process's; blocks.

    Parameters
    ----------
    table
        Has a row for each turn that somebody took, and `turn_column`.
    kept
        How many turns before this one stay in it.
    values
        What else the row begins with.

    Returns
    -------
    bool
        Whether nobody had it: no other process, and this one neither before it started anew.
    """
    try:
        with engine.begin() as connection:
            connection.execute(insert(table).values(turn=turn, **values))
            connection.execute(delete(table).where(table.c.turn < turn - kept))
    except IntegrityError:
        return False
    return True
