"""Texts, languages and the errors made of them."""

import pytest

from astrocloud.core import words
from astrocloud.core.errors import PlatformError, RequestError


@pytest.mark.parametrize(
    ("header", "language"),
    [
        (None, "en"),
        ("", "en"),
        ("zh", "zh"),
        ("zh-CN", "zh"),
        ("zh-Hant-TW,en;q=0.1", "zh"),
        ("ZH-cn;Q=0.9, en;q=0.8", "zh"),
        ("de, zh;q=0.5, en;q=0.4", "zh"),
        ("en;q=0.4,zh;q=0.5", "zh"),
        ("en,zh", "en"),
        ("zh;q=0", "en"),
        ("de", "en"),
        ("*", "en"),
        ("zh;q=abc, en", "en"),
        ("zh;q=nan", "en"),
        (",;,;q=,zh", "zh"),
        ("fr," * 1000 + "zh", "en"),
    ],
)
def test_the_language_a_browser_asks_for_is_answered(header: str | None, language: str):
    assert words.negotiate(header) == language


def test_what_a_person_chose_wins_unless_it_is_no_language_of_ours():
    assert words.negotiate("en", chosen="zh") == "zh"
    assert words.negotiate("zh", chosen="de") == "zh"
    assert words.negotiate(None, chosen=None, default="zh") == "zh"


def test_a_text_is_filled_in_and_what_is_put_in_is_not_read_again():
    assert words.text("terminal.running", "en", url="http://{port}") == "The platform runs at http://{port}"
    with pytest.raises(KeyError):
        words.text("terminal.running", "en")
    with pytest.raises(KeyError):
        words.text("terminal.no-such-text", "en")


def test_an_error_says_the_same_in_the_problem_and_in_the_terminal():
    error = RequestError("not-found", path="/x")
    for language in words.LANGUAGES:
        problem = error.problem(language)
        assert problem == {
            "type": "urn:astrocloud:error:not-found",
            "title": words.text("errors.not-found.title", language),
            "status": 404,
            "detail": error.sentence(language),
            "code": "not-found",
        }
    assert str(error) == error.sentence("en")
    assert error.sentence("zh") != error.sentence("en")


def test_an_error_without_an_entry_cannot_be_raised():
    with pytest.raises(KeyError):
        PlatformError("no-such-code")
