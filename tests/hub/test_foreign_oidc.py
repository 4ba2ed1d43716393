"""Signing in at an OpenID Connect provider that is not ours: npm's oidc-provider."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from tests.hub.harness import HERE, Answer, Browser, Platform, free_port, until

FOLDER = HERE / "foreign_oidc"


@pytest.fixture(scope="module")
def provider_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the provider and what its lock names, installed once."""
    ready = os.environ.get("ASTROCLOUD_TEST_OIDC")
    if ready:
        folder = Path(ready)
    else:
        folder = HERE.parents[1] / ".cache" / "foreign-oidc"
        folder.mkdir(parents=True, exist_ok=True)
        lock = (FOLDER / "package-lock.json").read_bytes()
        kept = folder / "installed-lock.json"
        if not kept.exists() or kept.read_bytes() != lock:
            for name in ("package.json", "package-lock.json"):
                shutil.copy(FOLDER / name, folder)
            subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=folder, check=True, capture_output=True)
            kept.write_bytes(lock)
    shutil.copy(FOLDER / "provider.mjs", folder)
    return folder


class Foreign:
    def __init__(self, platform: Platform, issuer: str) -> None:
        self.platform = platform
        self.issuer = issuer

    def sign_in(self, name: str, *, sure: bool = True) -> tuple[Browser, Answer]:
        """Go through the provider's own pages as `name`; not `sure`: call it off."""
        browser = Browser(self.platform.url)
        answer = browser.open("/hub/login")
        for _ in range(4):
            if "/interaction/" not in answer.url:
                return browser, answer
            form = re.search(r'<form[^>]*action="([^"]+)"', answer.text)
            assert form, answer.text
            if not sure:
                abort = re.search(r'href="([^"]+/abort)"', answer.text)
                assert abort, answer.text
                return browser, browser.open(abort[1])
            prompt = re.search(r'name="prompt" value="(\w+)"', answer.text)
            fields = {"prompt": prompt[1] if prompt else "login", "login": name, "password": "x"}
            answer = browser.open(
                form[1],
                method="POST",
                data=urlencode(fields).encode(),
                headers={"Content-Type": "application/x-www-form-urlencoded"},
            )
        return browser, answer


@pytest.fixture(scope="module")
def foreign(start_platform: Callable[..., Platform], provider_folder: Path) -> Iterator[Foreign]:
    port = free_port()
    issuer = f"http://127.0.0.1:{port}"
    config = f"passport: {{kind: oidc, issuer: '{issuer}', client_id: astro, client_secret: {{env: OIDC_SECRET}}}}\n"
    secret = "s3cret: with/odd+characters"
    platform = start_platform(config=config, settings={"OIDC_SECRET": secret})
    log = (platform.data.logs / "provider.log").open("wb")
    command = [
        "node",
        "provider.mjs",
        str(port),
        "astro",
        secret,
        f"{platform.url}/hub/oauth_callback",
        f"{platform.url}/",
    ]
    process = subprocess.Popen(command, cwd=provider_folder, stdout=log, stderr=log)
    try:
        until(lambda: "listening" in (platform.data.logs / "provider.log").read_text(), what="the provider listens")
        platform.services.links[(issuer, "somebody")] = "ada"
        yield Foreign(platform, issuer)
    finally:
        process.terminate()
        process.wait(10)
        log.close()


def test_a_person_of_the_provider_gets_in_by_issuer_and_subject(foreign: Foreign) -> None:
    browser, answer = foreign.sign_in("somebody")
    assert answer.status == 200, answer.text
    assert browser.open("/hub/token", follow=False).status == 200
    assert foreign.platform.services.asked[-1] == f"{foreign.issuer} somebody"
    assert foreign.platform.api("GET", "/users/ada").status == 200


def test_one_whom_the_platform_does_not_know_is_refused(foreign: Foreign) -> None:
    browser, answer = foreign.sign_in("stranger")
    assert (answer.status, "sign-up-closed" in answer.text) == (403, True)
    assert browser.open("/hub/token", follow=False).status == 302


def test_one_who_calls_it_off_is_told_so(foreign: Foreign) -> None:
    _, answer = foreign.sign_in("somebody", sure=False)
    assert (answer.status, "sign-in-denied" in answer.text) == (403, True)


def test_signing_out_is_accepted_by_the_provider(foreign: Foreign) -> None:
    browser, _ = foreign.sign_in("somebody")
    answer = browser.open("/hub/logout")
    url = urlsplit(answer.url)
    assert f"{url.scheme}://{url.netloc}" == foreign.issuer
    assert parse_qs(url.query)["post_logout_redirect_uri"] == [f"{foreign.platform.url}/"]
    # It shows its form: the hint, the client and the address to come back to were all good.
    assert (answer.status, "<form" in answer.text) == (200, True)


def test_a_provider_that_is_away_is_named(foreign: Foreign, start_platform: Callable[..., Platform]) -> None:
    config = (
        f"passport: {{kind: oidc, issuer: 'http://127.0.0.1:{free_port()}', client_id: a, client_secret: {{env: S}}}}\n"
    )
    platform = start_platform(config=config, settings={"S": "s"})
    answer = Browser(platform.url, language="zh").open("/hub/login")
    assert (answer.status, "passport-away" in answer.text, "所在机构" in answer.text) == (503, True, False)
    assert foreign.platform.healthy()
