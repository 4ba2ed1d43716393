"""Which process ends when a server is out of memory: a notebook's kernel, and not the server."""

from __future__ import annotations

from contextlib import suppress

SCORE = 500
"""How much more likely than the server, in thousandths of the memory there is (``proc_pid_oom_score_adj(5)``)."""


def offer_first(pid: int | str = "self") -> bool:
    """Let the operating system end process `pid`, of this user, rather than others; tell whether that could be said."""
    path = f"/proc/{pid}/oom_score_adj"
    with suppress(OSError, ValueError):
        with open(path, encoding="ascii") as file:
            now = int(file.read())
        if now < SCORE:
            with open(path, "w", encoding="ascii") as file:
                file.write(str(SCORE))
        return True
    return False
