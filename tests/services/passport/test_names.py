"""Which usernames are allowed, and how one is derived for a newcomer."""

import pytest

from astrocloud.passport.errors import NameRefused
from astrocloud.passport.names import RESERVED, USERNAME, check_group, check_username, derive_username, shown


@pytest.mark.parametrize("name", ["a", "ada", "x-ray", "a1", "a" * 32, "admin"])
def test_plain_names_are_allowed(name: str) -> None:
    assert check_username(name) == name
    assert check_group(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "1a",
        "-a",
        "a-",
        "A",
        "Ada",
        "a_b",
        "a.b",
        "..",
        "../a",
        "a/b",
        "a b",
        "a\n",
        "a\x00",
        "ä",
        "ａ",
        "天文",
        "a" * 33,
        "а",
        "a\u200b",
        "\ud800",
        "a" * 10_000_000,
    ],
)
def test_hostile_names_are_refused_with_what_is_allowed(name: str) -> None:
    with pytest.raises(NameRefused) as refused:
        check_username(name)
    assert refused.value.code == "username-refused"
    assert len(str(refused.value)) < 400
    refused.value.sentence("zh").encode()
    with pytest.raises(NameRefused):
        check_group(name)


@pytest.mark.parametrize("name", ["root", "nobody", "hub", "services", "storage"])
def test_names_of_the_machine_and_the_platform_are_reserved(name: str) -> None:
    # On a cluster the namespace of what mounts GlusterFS may be called like that of a person `storage`.
    with pytest.raises(NameRefused, match="reserved"):
        check_username(name)


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({"preferred_username": "Ada.Lovelace"}, "ada-lovelace"),
        ({"preferred_username": "müller@example.org"}, "muller"),
        ({"preferred_username": "天文", "email": "li.wei@cstnet.cn"}, "li-wei"),
        ({"name": "José Núñez"}, "jose-nunez"),
        ({"email": "42istheanswer@example.org"}, "istheanswer"),
        ({"preferred_username": "root"}, "root-2"),
        ({"preferred_username": "x" * 500}, "x" * 32),
        ({"preferred_username": 7, "email": None, "name": ["ada"]}, "u1"),
        ({"preferred_username": "李伟", "name": "李伟"}, "u1"),
        ({"preferred_username": "../../etc"}, "etc"),
        ({}, "u1"),
    ],
)
def test_username_is_derived_without_transliteration(claims: dict[str, object], expected: str) -> None:
    assert derive_username(claims, taken=lambda _name: False) == expected


def test_username_that_was_ever_given_gets_a_number() -> None:
    given = {"ada", "ada-2", "u1", "x" * 32}
    assert derive_username({"name": "Ada"}, taken=given.__contains__) == "ada-3"
    assert derive_username({}, taken=given.__contains__) == "u2"
    long = derive_username({"name": "x" * 40}, taken=given.__contains__)
    assert long == "x" * 30 + "-2"
    assert USERNAME.match(long)


def test_reserved_names_are_names() -> None:
    assert all(USERNAME.match(name) for name in RESERVED)


def test_what_an_error_repeats_is_short_and_printable() -> None:
    assert shown("a\x1b[31m\u202eb" + "c" * 100) == "a�[31m�b" + "c" * 56 + "…"
