"""What holds for people's servers wherever they run: processes of this machine or pods of a cluster.

`test_seam.py` here and in `tests/kube` have these tests run, each with a `platform` of its kind.
"""

import json
from typing import Any

import pytest

from tests.hub.harness import Platform, until

__all__ = [
    "_ada",
    "test_a_choice_that_is_none_is_refused_at_once",
    "test_a_hub_that_was_away_finds_the_server_as_it_is",
    "test_a_larger_size_has_more",
    "test_a_second_server_has_a_name_and_the_limit_holds",
    "test_a_server_runs_as_its_person_in_a_place_of_its_own",
    "test_a_server_that_ended_while_the_hub_was_away_is_known_to_have",
    "test_how_it_ended_outlives_the_hub",
    "test_one_that_ends_by_itself_tells_its_exit_code",
    "test_one_that_is_stopped_names_who_did_it",
    "test_one_that_takes_too_much_memory_says_so",
    "test_stages_are_told_in_the_reader_s_language",
]


@pytest.fixture(autouse=True)
def _ada(platform: Platform) -> None:
    """Ada is known, and none of her servers runs."""
    if platform.api("GET", "/users/ada").status == 404:
        platform.sign_in("ada")
    for name, server in platform.api("GET", "/users/ada").json()["servers"].items():
        if server.get("ready"):
            platform.stop_server("ada", name)


def ended(platform: Platform) -> dict[str, Any]:
    until(lambda: platform.server("ada").get("stopped"), seconds=30, what="the server is known to have ended")
    return dict(platform.server("ada")["state"]["last_end"])


def test_a_server_runs_as_its_person_in_a_place_of_its_own(platform: Platform) -> None:
    platform.start_server("ada")

    told = "import os, getpass; print(getpass.getuser(), os.environ['HOME'], sorted(os.listdir('/home')))"
    assert platform.run("ada", told) == "ada /home/ada ['ada']"
    assert platform.run("ada", "print(os.getgroups()[-1] > 1000, os.access('/project/survey', os.W_OK))") == "True True"
    assert platform.run("ada", "open('/archive/x', 'w')").startswith("!")
    assert platform.run("ada", "open('/usr/x', 'w')").startswith("!")


def test_a_larger_size_has_more(platform: Platform) -> None:
    platform.start_server("ada", resources="large")

    assert platform.run("ada", "import os; print(os.environ['MEM_LIMIT'])") == str(512 * 2**20)
    assert platform.run("ada", "x = [bytearray(2**24) for _ in range(20)]; print(len(x)); del x") == "20"


def test_one_that_takes_too_much_memory_says_so(platform: Platform) -> None:
    platform.start_server("ada")

    with pytest.raises((OSError, AssertionError)):  # the connection breaks, or the proxy says that nobody is there
        platform.run("ada", "x = [bytearray(2**24) for _ in range(64)]")

    end = ended(platform)
    assert (end["reason"], end["exit_code"]) == ("out-of-memory", 137)


def test_one_that_ends_by_itself_tells_its_exit_code(platform: Platform) -> None:
    platform.start_server("ada")

    platform.run("ada", "import threading, os; threading.Timer(0.2, lambda: os._exit(7)).start()")

    end = ended(platform)
    assert (end["reason"], end["exit_code"]) == ("exited", 7)


def test_one_that_is_stopped_names_who_did_it(platform: Platform) -> None:
    platform.start_server("ada")
    made = platform.api("POST", "/users/ada/tokens", body={"note": "test"}).json()

    platform.stop_server("ada", token=made["token"])

    end = ended(platform)
    assert (end["reason"], end["by"], end["exit_code"]) == ("stopped", "ada", 0)


def test_how_it_ended_outlives_the_hub(platform: Platform) -> None:
    platform.start_server("ada")
    platform.run("ada", "import threading, os; threading.Timer(0.2, lambda: os._exit(9)).start()")
    end = ended(platform)

    platform.kill_hub()
    platform.start_hub()

    assert platform.server("ada")["state"]["last_end"] == end


def test_a_choice_that_is_none_is_refused_at_once(platform: Platform) -> None:
    answer = platform.api("POST", "/users/ada/server", body={"user_options": {"resources": "enormous"}})

    assert (answer.status, answer.json()["code"]) == (400, "environment-resources")
    assert "small, large" in answer.json()["detail"]


def test_a_second_server_has_a_name_and_the_limit_holds(platform: Platform) -> None:
    platform.start_server("ada")
    platform.start_server("ada", "second")
    platform.start_server("ada", "third")

    answer = platform.api("POST", "/users/ada/servers/fourth", body={"user_options": {}})

    assert (answer.status, answer.json()["code"]) == (409, "server-limit")
    assert platform.run("ada", "print(1)", "second") == "1"


def test_a_hub_that_was_away_finds_the_server_as_it_is(platform: Platform) -> None:
    platform.start_server("ada")
    platform.run("ada", "kept = 'still here'")

    platform.kill_hub()
    platform.start_hub()

    until(lambda: platform.server("ada").get("ready"), seconds=30, what="the server is ready to the new hub")
    assert platform.run("ada", "print(kept)") == "still here"


def test_a_server_that_ended_while_the_hub_was_away_is_known_to_have(platform: Platform) -> None:
    platform.start_server("ada")
    platform.kill_hub()

    platform.run_directly("ada", "import threading, os; threading.Timer(0.2, lambda: os._exit(5)).start()")
    until(lambda: not _answers(platform), what="it ended")
    platform.start_hub()

    end = ended(platform)
    assert (end["reason"], end["exit_code"]) == ("exited", 5)


def _answers(platform: Platform) -> bool:
    try:
        return platform.run_directly("ada", "print(1)") == "1"
    except (OSError, ValueError):
        return False


def test_stages_are_told_in_the_reader_s_language(platform: Platform) -> None:
    platform.start_server("ada")
    platform.run("ada", "import os, json; json.dump({'sleep': 2}, open(os.path.expanduser('~/stub.json'), 'w'))")
    platform.stop_server("ada")
    platform.api("POST", "/users/ada/server", body={"user_options": {}})

    lines = platform.api("GET", "/users/ada/server/progress", language="zh").text.splitlines()

    told = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    assert "正在检查请求" in [event["message"] for event in told]
    assert [event["progress"] for event in told] == sorted(event["progress"] for event in told)
    assert told[-1]["ready"] is True
    platform.run("ada", "import os; os.remove(os.path.expanduser('~/stub.json'))")
