"""What the cluster's machines run is nobody's but theirs."""

import os
import signal
from pathlib import Path

import pytest

from tests.kube.cluster import layout, machines
from tests.kube.cluster.layout import CONTROL


def test_a_daemon_holds_nothing_that_was_open_to_who_started_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A lock around `make cluster`, say, by flock(1): the cluster would hold it after that has ended."""
    monkeypatch.setattr(layout, "STATE", tmp_path)
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    machines.spawn(CONTROL, "one", ["sleep", "infinity"])
    process = machines.pid_of(CONTROL, "one")
    assert process is not None
    try:
        os.close(writing)
        os.set_blocking(reading, False)

        assert os.read(reading, 1) == b""
    finally:
        os.close(reading)
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
