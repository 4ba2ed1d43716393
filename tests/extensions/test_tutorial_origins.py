"""Which navigations put a copy into a home without asking."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HOST = "hub.example:8000"

CASES = [
    ({"Sec-Fetch-Site": "same-origin"}, True),
    ({"Sec-Fetch-Site": "none"}, True),
    ({"Sec-Fetch-Site": "cross-site"}, False),
    ({"Sec-Fetch-Site": "same-site"}, False),
    ({"Sec-Fetch-Site": "cross-site", "Referer": f"http://{HOST}/"}, False),
    ({"Referer": f"http://{HOST}/services/portal/"}, True),
    ({"Referer": f"https://{HOST}/"}, True),
    ({"Referer": "http://evil.example/"}, False),
    ({"Referer": f"http://{HOST}.evil.example/"}, False),
    ({"Referer": f"http://evil.example/http://{HOST}/"}, False),
    ({"Referer": f"data:{HOST}"}, False),
    ({}, False),
]


@pytest.mark.parametrize(("headers", "expected"), CASES)
def test_origin_of_a_navigation(lab_python: Path, headers: dict[str, str], expected: bool) -> None:
    code = f"from astrocloud_lab.tutorials import came_from_here as c; print(c({headers!r}, {HOST!r}))"
    answer = subprocess.run([lab_python, "-c", code], capture_output=True, text=True, check=True).stdout
    assert answer.strip() == str(expected), sys.version
