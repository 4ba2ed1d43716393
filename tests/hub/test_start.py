"""A server starts, is reached through the proxy, and stops."""

from tests.hub.harness import Platform


def test_a_person_signs_in_and_reaches_their_server(platform: Platform) -> None:
    browser = platform.sign_in("ada")
    assert browser.trail[-1] == f"{platform.url}/"
    platform.start_server("ada")
    assert platform.run("ada", "import os; print(os.getcwd(), os.getuid())") == "/home/ada 20001"
    platform.stop_server("ada")
