"""The look: contrast, static files, and templates that our own policy lets through."""

import re
from pathlib import Path

import pytest

from astrocloud.core import words
from astrocloud.core.web import PAGES
from tests.services.portal.conftest import REPOSITORY, Portal

STYLE = (PAGES / "static" / "astrocloud.css").read_text(encoding="utf-8")
TEMPLATES = sorted(
    path
    for folder in (PAGES, REPOSITORY / "services/src/astrocloud", REPOSITORY / "hub/src/astrocloud_hub/templates")
    for path in folder.rglob("*.html")
)

TEXT_PAIRS = [
    *[(text, ground) for text in ("ink", "soft", "link") for ground in ("bg", "surface", "sunken")],
    *[("ink", f"{kind}-bg") for kind in ("ok", "info", "warning", "critical")],
    *[(kind, f"{kind}-bg") for kind in ("ok", "info", "warning", "critical")],
    ("on-brand", "brand"),
    ("on-brand", "brand-strong"),
    ("danger", "surface"),
    ("on-danger", "danger"),
    ("critical", "surface"),
    ("star", "bg"),
]


def colours(theme: int) -> dict[str, str]:
    found = re.findall(r"--ac-([\w-]+): light-dark\((#\w{6}), (#\w{6})\)", STYLE)
    return {name: pair[theme] for name, *pair in found}


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_text_can_be_read(theme: int) -> None:
    """WCAG 2.2, 1.4.3: 4.5 to 1 for text."""
    known = colours(theme)
    poor = {pair: contrast(known[pair[0]], known[pair[1]]) for pair in TEXT_PAIRS}
    assert {pair: value for pair, value in poor.items() if value < 4.5} == {}


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_edges_and_focus_can_be_seen(theme: int) -> None:
    """WCAG 2.2, 1.4.11: 3 to 1 for what is not text."""
    known = colours(theme)
    for name in ("edge", "focus"):
        assert contrast(known[name], known["bg"]) >= 3
        assert contrast(known[name], known["surface"]) >= 3


def test_templates_have_no_style_and_no_script_inline() -> None:
    for path in TEMPLATES:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", text), path
        for tag in re.findall(r"<script[^>]*>", text):
            assert " src=" in tag, (path, tag)


def test_nothing_is_fetched_from_elsewhere() -> None:
    for path in [*TEMPLATES, *(PAGES / "static").iterdir()]:
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"""(?:src|href|url|from|import)\W{1,3}https?://""", text), path


def test_every_text_of_a_template_is_in_the_catalogue() -> None:
    known = words.catalogue()
    for path in TEMPLATES:
        for key in re.findall(r"""\bt\(\s*["']([a-z-]+\.[a-z0-9-]+)["']\s*[,)]""", path.read_text(encoding="utf-8")):
            assert key in known, (path, key)


def test_every_text_of_the_portal_is_used() -> None:
    sources = [*TEMPLATES, *(REPOSITORY / "services/src/astrocloud").rglob("*.py")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    # Keys that are put together from a state, a reason or a kind.
    made = r"(end|next|state|part|health|severity|proxy|what|ran-out|event-node)-"
    for key in words.catalogue():
        domain, name = key.split(".", 1)
        if domain in {"portal", "hub", "common"} and not re.match(made, name):
            assert name in text or re.search(rf"{domain}\.{name.rsplit('-', 1)[0]}-[\"']", text), key


async def test_static_files_are_kept_for_ever_by_their_content(portal: Portal) -> None:
    browser = portal.browser()
    async with browser.get("/") as answer:
        style = re.search(r'href="(/services/portal/static/astrocloud\.css\?v=\w+)"', await answer.text())
    assert style
    async with browser.get(style[1]) as answer:
        assert answer.status == 200
        assert answer.content_type == "text/css"
        assert "immutable" in answer.headers["Cache-Control"]
    for name in sorted(path.name for path in (PAGES / "static").iterdir()):
        async with browser.get(f"/services/portal/static/{name}") as answer:
            assert answer.status == 200, name


@pytest.mark.parametrize("name", ["nothing.css", "..%2fbase.html", "base.html", "%2e%2e/base.html"])
async def test_only_static_files_are_static(portal: Portal, name: str) -> None:
    async with portal.browser().get(f"/services/portal/static/{name}") as answer:
        assert answer.status == 404


def test_pages_and_templates_are_part_of_the_package() -> None:
    assert (PAGES / "base.html").is_file()
    assert len(TEMPLATES) > 20
    assert Path(PAGES / "static" / "favicon.svg").is_file()
