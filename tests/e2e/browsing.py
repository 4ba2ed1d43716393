"""What a person does in the browser, in either language."""

import re

from playwright.sync_api import Locator, Page, expect

from astrocloud.core import words

LAB_TIMEOUT_MS = 120_000
KERNEL_READY = re.compile(r"\| (Idle|空闲)")
IDLE = ".jp-Notebook-ExecutionIndicator[data-status=idle]"
BUSY = ".jp-Notebook-ExecutionIndicator:not([data-status=idle])"


def said(key: str, language: str, **parameters: object) -> str:
    """Return a text of the platform, on one line as a browser shows it."""
    return " ".join(words.text(key, language, **parameters).split())


def sign_in(page: Page, name: str, password: str, *, language: str = "en") -> None:
    """Sign in from the front page and wait for what is one's own there."""
    page.goto("/")
    page.get_by_role("link", name=said("common.sign-in", language)).first.click()
    fill_sign_in(page, name, password)
    welcome = page.get_by_role("heading", name=said("portal.welcome", language, user=name))
    expect(welcome).to_be_visible(timeout=30_000)


def fill_sign_in(page: Page, name: str, password: str) -> None:
    """Fill the passport's form and send it."""
    page.locator("input[name=username]").fill(name)
    page.locator("input[name=password]").fill(password)
    page.locator("input[name=password]").press("Enter")


def choose_password(page: Page, link: str, password: str, *, username: str | None = None) -> None:
    """Follow a set-up or invite link and choose a password."""
    page.goto(link)
    if username is not None:
        page.locator("input[name=username]").fill(username)
    page.locator("input[name=password]").fill(password)
    page.locator("input[name=again]").fill(password)
    page.locator("input[name=again]").press("Enter")


def start_button(page: Page, environment: str = "astro") -> Locator:
    """Return the button that starts an environment."""
    form = page.locator(
        "form[action='/services/portal/servers/start']", has=page.locator(f"input[value={environment}]")
    )
    return form.locator("button[type=submit]").first


def open_tutorial(page: Page, tutorial: str, language: str) -> None:
    """Open one's copy of a tutorial from the front page and wait until JupyterLab shows it."""
    form = page.locator("form[action='/services/portal/tutorials/open']", has=page.locator(f"input[value={tutorial}]"))
    form.locator(f"button[value={language}], button:not([value])").first.click()
    page.wait_for_url(re.compile(rf"/lab/tree/home/[a-z0-9-]+/tutorials/{tutorial}"), timeout=LAB_TIMEOUT_MS)
    notebook(page)


def notebook(page: Page) -> Locator:
    """Return the open notebook once its kernel is there."""
    found = page.locator(".jp-NotebookPanel:not(.lm-mod-hidden)")
    expect(found).to_be_visible(timeout=LAB_TIMEOUT_MS)
    # The round indicator looks idle before there is a kernel; cells run then are dropped. The status bar knows.
    expect(page.locator(".jp-StatusBar-Left").get_by_text(KERNEL_READY)).to_be_visible(timeout=LAB_TIMEOUT_MS)
    return found


def run_all(page: Page, *, timeout_ms: int = 180_000) -> None:
    """Run all cells by the menu and wait until the kernel has nothing left to do."""
    panel = notebook(page)
    panel.locator(".jp-Cell").first.click()
    page.locator(".lm-MenuBar-item").nth(3).click()
    page.locator("li[data-command='runmenu:run-all']").click()
    # Cells out of sight are not drawn, so their prompts cannot be asked; the kernel's indicator can.
    expect(panel.locator(BUSY)).to_be_visible(timeout=timeout_ms)
    expect(panel.locator(IDLE)).to_be_visible(timeout=timeout_ms)
