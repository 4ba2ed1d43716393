"""The trial session on a real platform: good where people can work, and telling which step fails where not."""

import json
import os
import signal
import urllib.request
from pathlib import Path

import pytest

from tests.support.platform import Platform, running_platform, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory):
    with running_platform(tmp_path_factory.mktemp("canary")) as running:
        yield running


def test_it_tries_what_a_person_does_and_can_be_repeated(platform: Platform):
    for _ in range(2):
        trial = platform.run_json("canary")
        assert trial["ok"], trial
        assert list(trial["seconds"]) == ["sign-in", "start", "cell", "vospace", "stop"]


def test_a_schedule_tells_everybody_on_the_front_page(tmp_path: Path):
    with running_platform(tmp_path, config={"canary": {"every_s": 60}}) as scheduled:

        def state() -> str | None:
            with urllib.request.urlopen(f"{scheduled.url}/services/portal/api/health") as answer:
                found: str = json.load(answer)["parts"]["canary"]
            return found if found != "waiting" else None

        assert wait_until(state, within_s=60, what="the first trial") == "ok"
        with urllib.request.urlopen(f"{scheduled.url}/services/portal/metrics") as answer:
            assert "astrocloud_canary_good 1.0" in answer.read().decode()


def test_it_tells_people_each_step(platform: Platform):
    done = platform.run("canary", "--name", "trial")
    assert done.returncode == 0, done.stderr
    assert "A cell ran and wrote a file" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("A person who comes now can work")


def test_it_changes_nothing_of_an_account_that_is_somebodys(platform: Platform):
    platform.add("mei", "stars over kunlun 7")
    done = platform.run("canary", "--name", "mei")
    assert done.returncode == 1
    assert "failed at the step `sign-in`" in done.stderr
    again = platform.run("canary", "--json", "--name", "mei")
    assert "stars over" not in again.stdout + again.stderr


def test_it_names_the_step_that_fails(platform: Platform):
    trial = platform.run("canary", "--environment", "no-such")
    assert trial.returncode == 1
    assert "failed at the step `start`" in trial.stderr
    assert "no-such" in trial.stderr


def test_it_says_that_nothing_answers(platform: Platform):
    trial = platform.run("canary", "--json", "--url", "http://127.0.0.1:9")
    assert trial.returncode == 1
    assert '"failed": "sign-in"' in trial.stdout


def test_a_dead_hub_is_told(platform: Platform):
    hub = platform.part("hub")
    os.kill(hub, signal.SIGSTOP)
    try:
        trial = platform.run("canary", "--json", "--patience", "1")
    finally:
        os.kill(hub, signal.SIGCONT)
    assert trial.returncode == 1
    assert '"failed": "sign-in"' in trial.stdout
