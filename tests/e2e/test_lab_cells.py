"""Cells that are run before the kernel is there."""

import json
import os
import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, Route, expect

from tests.e2e.browsing import LAB_TIMEOUT_MS, sign_in, start_button
from tests.e2e.cast import PASSWORD
from tests.support.platform import Platform

pytestmark = pytest.mark.slow

NOTEBOOK = {
    "nbformat": 4,
    "nbformat_minor": 5,
    "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
    "cells": [
        {
            "cell_type": "code",
            "id": f"cell{n}",
            "metadata": {},
            "outputs": [],
            "execution_count": None,
            "source": source,
        }
        for n, source in enumerate(["x = 6", "print('answer', x * 7)"])
    ],
}


def test_cells_run_at_once_wait_for_their_kernel(platform: Platform, open_browser: Callable[..., Page]) -> None:
    platform.add("hasty", PASSWORD)
    page = open_browser("en")
    sign_in(page, "hasty", PASSWORD, language="en")
    start_button(page).click()
    page.wait_for_url(re.compile("/user/hasty/.*lab"), timeout=LAB_TIMEOUT_MS)
    home = platform.data / "tree" / "home" / "hasty"
    owner = home.stat()
    (home / "quick.ipynb").write_text(json.dumps(NOTEBOOK), encoding="utf-8")
    os.chown(home / "quick.ipynb", owner.st_uid, owner.st_gid)

    def hold(route: Route) -> None:
        if route.request.method != "POST":
            route.continue_()

    sessions = re.compile(r"/api/sessions(\?|$)")
    page.route(sessions, hold)
    with page.expect_request(lambda request: request.method == "POST" and bool(sessions.search(request.url))):
        page.goto("/user/hasty/lab/tree/home/hasty/quick.ipynb")
    expect(page.locator(".jp-Notebook .jp-CodeCell").first).to_be_visible(timeout=LAB_TIMEOUT_MS)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text("Run All Cells", exact=True).click()
    expect(page.locator(".jp-Notebook .jp-CodeCell").last).to_contain_text("[*]")
    page.unroute(sessions)  # lets go on what is held
    expect(page.locator(".jp-Notebook .jp-OutputArea-output").last).to_contain_text("answer 42", timeout=LAB_TIMEOUT_MS)
    page.request.delete(f"{platform.url}/hub/api/users/hasty/server")
