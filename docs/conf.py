"""Sphinx: `make docs` builds these pages with every warning an error and without the network."""

import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

from astrocloud import __version__  # noqa: E402 - installed, not found beside this file

project = "Astrocloud"
author = "The Astrocloud developers"
copyright = author  # noqa: A001 - Sphinx names it so
release = version = __version__

extensions = ["myst_parser", "sphinx_design", "reference"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build", "_ext", "_templates"]
templates_path = ["_templates"]
nitpicky = True
language = "en"

html_theme = "pydata_sphinx_theme"
html_title = "Astrocloud"
html_static_path = ["_static"]
html_css_files = ["docs.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "navbar_end": ["language", "theme-switcher"],
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "show_prev_next": False,
    "header_links_before_dropdown": 4,
    "navbar_align": "left",
    "pygments_light_style": "default",
    "pygments_dark_style": "github-dark",
}


def _page_language(_app: Any, pagename: str, _template: str, context: dict[str, Any], _doctree: Any) -> None:
    """Tell the browser which language a page is in, and name its twin in the other one."""
    chinese = pagename.startswith("zh/")
    context["language"] = "zh-CN" if chinese else "en"
    context["twin"] = pagename.removeprefix("zh/") if chinese else f"zh/{pagename}"


def setup(app: Any) -> None:
    """Register what is above."""
    app.connect("html-page-context", _page_language)
