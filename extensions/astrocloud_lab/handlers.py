"""HTTP of this package: what a browser asks a person's server for beyond JupyterLab."""

from __future__ import annotations

import json
import os
from html import escape
from pathlib import Path
from urllib.parse import quote

from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.utils import url_path_join
from tornado.web import authenticated

from astrocloud_lab import tutorials
from astrocloud_lab.words import Language, language_of, say

PAGE = """<!doctype html>
<html lang="{lang}"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title><style>
:root {{ color-scheme: light dark }}
body {{ font: 1rem/1.6 system-ui, sans-serif; max-width: 40rem; margin: 15vh auto; padding: 0 1.5rem }}
h1 {{ font-size: 1.4rem }} a {{ font-weight: 600 }} code {{ opacity: .7 }}
</style></head><body><main><h1>{title}</h1><p>{text}</p>{more}<p><a href="{href}">{link}</a></p></main></body></html>
"""


class OpenTutorialHandler(JupyterHandler):
    """``GET astrocloud/tutorials/open?tutorial=ID&lang=en|zh[&fresh=1]``: open a person's copy.

    Redirects to the copy in the Lab.  Signed-in people only.  A GET, so that any page
    of the platform can link to it; one that comes from another site is asked first.
    """

    @property
    def words(self) -> Language:
        """Return the language of the answer: the asked one, else the browser's, else the server's."""
        asked = self.get_query_argument("lang", "")
        accepted = self.request.headers.get("Accept-Language") or os.environ.get("ASTROCLOUD_LANG")
        return language_of(asked or accepted)

    @authenticated
    async def get(self) -> None:
        """Copy if needed and redirect."""
        self.set_header("Cache-Control", "no-store")
        try:
            tutorial = tutorials.check_id(self.get_query_argument("tutorial", "", strip=False))
            language = tutorials.check_language(self.get_query_argument("lang", self.words))
            if not self._on_purpose():
                self._confirm(tutorial)
                return
            copy = tutorials.open_copy(
                source=tutorials.folder(),
                home=Path.home(),
                tutorial=tutorial,
                language=language,
                fresh=self.get_query_argument("fresh", "") == "1",
            )
            self.redirect(self._lab_address(copy))
        except tutorials.TutorialError as error:
            self.log.info("astrocloud_lab: %s", error)
            self._refuse(error)

    def _on_purpose(self) -> bool:
        """Return whether this is no foreign page's doing; only browsers can be led here."""
        if self.request.headers.get("Authorization"):
            return True
        return tutorials.came_from_here(self.request.headers, self.request.host)

    def _lab_address(self, copy: Path) -> str:
        """Return the address of a file in the Lab, whose paths start at the server's root folder."""
        root = Path(self.settings["serverapp"].root_dir).resolve()
        path = copy.parent.resolve() / copy.name
        if not path.is_relative_to(root):
            raise tutorials.TutorialCopyError("tutorial.error.outside", value=str(copy.parent), root=str(root))
        relative = quote(str(path.relative_to(root)))
        address: str = url_path_join(self.base_url, "lab/tree", relative)
        return address

    def _confirm(self, tutorial: str) -> None:
        # The same address, followed from this very page: then it is on purpose.
        self._page(
            title=say("tutorial.confirm.title", self.words, value=tutorial),
            text=say("tutorial.confirm.text", self.words),
            href=self.request.uri or "",
            link=say("tutorial.confirm.open", self.words),
        )

    def _refuse(self, error: tutorials.TutorialError) -> None:
        values = dict(error.values)
        if values.get("installed") == "":
            values["installed"] = say("tutorial.error.none", self.words)
        text = say(error.code, self.words, **values)
        self.set_status(error.status)
        if "application/json" in self.request.headers.get("Accept", ""):
            self.set_header("Content-Type", "application/problem+json")
            problem = {"title": say("tutorial.error.title", self.words), "detail": text}
            self.finish(json.dumps(problem | {"status": error.status, "code": error.code}))
            return
        self._page(
            title=say("tutorial.error.title", self.words),
            text=text,
            href=url_path_join(self.base_url, "lab"),
            link=say("tutorial.error.back", self.words),
            code=error.code,
        )

    def _page(self, *, title: str, text: str, href: str, link: str, code: str = "") -> None:
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.set_header(
            "Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
        )
        more = f"<p><code>{escape(code)}</code></p>" if code else ""
        self.finish(
            PAGE.format(
                lang="zh-CN" if self.words == "zh" else "en",
                title=escape(title),
                text=escape(text),
                more=more,
                href=escape(href),
                link=escape(link),
            )
        )
