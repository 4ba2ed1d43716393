"""What an operator counts on: people who are put out are out, logs that tell nothing secret, backups that come back."""

import asyncio
import json
import re
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest

from astrocloud.core.runtime import SERVICES
from tests.e2e.cast import ADMIN, OTHER, OWNER, PASSWORD, Cast
from tests.support.looping import Run
from tests.support.person import Person, forms
from tests.support.platform import Platform, free_port, running_platform, wait_until

pytestmark = pytest.mark.slow
WITHIN_S: Final = 30
"""How long somebody who was put out may still be in, anywhere."""


@contextmanager
def signed_in(run: Run, platform: Platform, name: str, password: str = PASSWORD) -> Iterator[Person]:
    """A browser of `name`, signed in at the hub, the portal and the passport."""
    person = run(Person(platform.url, name, password).__aenter__())
    try:
        status, where = run(person.sign_in())
        assert (status, where) == (200, "/services/portal/home")
        yield person
    finally:
        run(person.__aexit__())


async def opens(person: Person, path: str, **headers: str) -> int:
    """Return the status of a page for a browser, without following where it is sent."""
    async with person.session.get(person.url + path, allow_redirects=False, headers=headers) as answer:
        return answer.status


async def by_token(url: str, token: str, path: str, method: str = "GET", body: object = None) -> tuple[int, str]:
    """Return status and text of an answer to a program."""
    headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
    async with aiohttp.request(method, url + path, headers=headers, json=body) as answer:
        return answer.status, await answer.text()


def ends_of(cast: Cast, name: str) -> dict[str, dict[str, Any]]:
    """Return server -> how it ended, by the portal's API."""
    status, text = cast.run(by_token(cast.platform.url, cast.tokens[name], "/services/portal/api/servers"))
    assert status == 200, text
    return {server["name"]: server["last_end"] for server in json.loads(text) if server["last_end"]}


def test_a_disabled_person_is_out_everywhere(cast: Cast) -> None:
    platform, run = cast.platform, cast.run
    platform.add("dima", PASSWORD)
    token = platform.run_json("token", "dima")["token"]
    with signed_in(run, platform, "dima") as dima:
        run(dima.start_server())
        base = run(dima.enter_server())
        pages = ("/hub/home", "/services/portal/home", "/services/passport/account", "/user/dima/lab")
        assert [run(opens(dima, page)) for page in pages] == [200] * len(pages)
        server = platform.server_process("dima")
        assert platform.run("user", "disable", "dima").returncode == 0

        def out() -> bool:
            pages_closed = all(run(opens(dima, page)) != 200 for page in pages)
            tokens = [
                run(by_token(platform.url, token, path))[0]
                for path in ("/hub/api/user", "/services/portal/api/servers")
            ]
            return (
                pages_closed and all(status in {401, 403} for status in tokens) and not Path(f"/proc/{server}").exists()
            )

        wait_until(out, within_s=WITHIN_S, what="the disabled person to be out everywhere")
        assert run(opens(dima, urllib.parse.urlsplit(base).path + "api/kernels")) != 200
    person = run(Person(platform.url, "dima", PASSWORD).__aenter__())
    try:
        status, where = run(person.sign_in())
        assert status in {401, 403}, where
    finally:
        run(person.__aexit__())
    status, text = run(by_token(platform.url, cast.tokens[ADMIN], "/hub/api/users/dima?include_stopped_servers=1"))
    assert status == 200
    assert json.loads(text)["servers"][""]["state"]["last_end"]["reason"] == "disabled"
    assert platform.run("user", "enable", "dima").returncode == 0
    with signed_in(run, platform, "dima"):
        pass


def test_a_new_password_ends_the_other_browsers(cast: Cast) -> None:
    platform, run = cast.platform, cast.run
    platform.add("petra", PASSWORD)
    with signed_in(run, platform, "petra") as here, signed_in(run, platform, "petra") as there:

        async def change() -> int:
            account = f"{platform.url}/services/passport/account"
            async with here.session.get(account) as answer:
                form = next(f for f in forms(await answer.text(), account) if f.action.endswith("/account/password"))
            names = [name for name in form.fields if name not in {"_csrf", "username"}]
            filled = {**form.fields, **dict.fromkeys(names, "another-quasar-3"), names[0]: PASSWORD}
            headers = {"Referer": account, "Origin": platform.url}
            async with here.session.post(form.action, data=filled, headers=headers) as answer:
                return answer.status

        assert run(change()) == 200
        pages = ("/hub/home", "/services/portal/home", "/services/passport/account")
        wait_until(
            lambda: all(run(opens(there, page)) != 200 for page in pages),
            within_s=WITHIN_S,
            what="the other browser to be out",
        )
        assert run(opens(here, "/services/passport/account")) == 200
    with signed_in(run, platform, "petra", "another-quasar-3"):
        pass


# A kernel is the child of its server.
SERVER: Final = "import os, signal; server = int(os.environ['JPY_PARENT_PID'])\n"


@pytest.mark.parametrize(
    ("reason", "then", "english", "chinese"),
    [
        ("exited", "os.kill(server, signal.SIGTERM)", "", ""),
        ("killed", "os.kill(server, signal.SIGKILL)", "", ""),
        (
            "out-of-memory",
            # It is the kernel that would be ended, and the server would live.
            "open(f'/proc/{server}/oom_score_adj', 'w').write('1000')\n"
            "open('/proc/self/oom_score_adj', 'w').write('0')\n"
            "x = [bytearray(2**26) for _ in range(64)]",
            "memory",
            "内存",
        ),
    ],
)
def test_a_server_tells_how_it_ended(cast: Cast, reason: str, then: str, english: str, chinese: str) -> None:
    run, name = cast.run, f"ends-{reason}"[:20]
    with signed_in(run, cast.platform, OTHER) as person:
        run(person.start_server(name))
        base = run(person.enter_server(name))
        kernel = run(person.start_kernel(base))
        # Nobody may be left to tell how the cell went.
        with suppress(aiohttp.ClientError, TypeError):
            run(person.run_cell(base, kernel, SERVER + then), within_s=90)
    end = wait_until(lambda: ends_of(cast, OTHER).get(name), within_s=30, what="the end to be told")
    assert end["reason"] == reason, end
    assert english in end["why"]["en"]
    assert chinese in end["why"]["zh"]
    assert re.search(r"[\u4e00-\u9fff]", end["why"]["zh"] + end["next_step"]["zh"])
    assert end["why"]["en"].isascii()


def test_a_server_that_an_administrator_stops_says_so(cast: Cast) -> None:
    run = cast.run
    with signed_in(run, cast.platform, OTHER) as person:
        run(person.start_server("stopped"))
    status, _ = run(
        by_token(cast.platform.url, cast.tokens[ADMIN], f"/hub/api/users/{OTHER}/servers/stopped", "DELETE")
    )
    assert status in {202, 204}
    end = wait_until(lambda: ends_of(cast, OTHER).get("stopped"), within_s=30, what="the end to be told")
    assert (end["reason"], end["by"]) == ("stopped", ADMIN)
    assert ADMIN in end["why"]["en"]
    assert ADMIN in end["why"]["zh"]


def test_every_part_tells_its_health_and_its_figures(cast: Cast) -> None:
    run, url = cast.run, cast.platform.url
    for service in SERVICES:
        for what in ("health", "ready"):
            status, text = run(by_token(url, "-", f"/services/{service}/{what}"))
            assert (status, json.loads(text)["status"]) == (200, "ok"), service
        status, text = run(by_token(url, "-", f"/services/{service}/metrics"))
        assert status == 200
        assert f'astrocloud_requests_total{{method="GET",service="{service}",status="200"}}' in text
        assert OWNER not in text
    assert run(by_token(url, "-", "/hub/health"))[0] == 200
    status, text = run(by_token(url, cast.tokens[ADMIN], "/hub/metrics"))
    assert status == 200
    assert "jupyterhub_running_servers" in text
    status, text = run(by_token(url, "-", "/services/portal/api/health"))
    assert status == 200
    assert {"proxy", "hub", "passport", "database", "isolation"} <= set(json.loads(text)["parts"])


@pytest.mark.parametrize("path", ["/services/portal/home", "/services/passport/account", "/hub/home", "/hub/api/user"])
def test_a_requests_id_is_the_same_in_the_answer_and_in_the_log(cast: Cast, path: str) -> None:
    wanted = f"test-{path.replace('/', '.')}"

    async def ask(given: str) -> str:
        async with cast.people[OWNER].session.get(cast.platform.url + path, headers={"X-Request-ID": given}) as answer:
            assert answer.status == 200
            return answer.headers["X-Request-ID"]

    assert cast.run(ask(wanted)) == wanted
    part = "services" if path.startswith("/services") else "hub"

    def logged() -> list[str]:
        lines = [json.loads(line) for line in cast.platform.log(part).splitlines() if wanted in line]
        return [line["path"] for line in lines if line["event"] == "request" and line["path"] == path]

    wait_until(logged, within_s=10, what="the request's line")
    # What cannot be an id (a line of its own in the log, or a book) is replaced.
    for hostile in ("x" * 65, "a b", '{"event":"x"}'):
        assert re.fullmatch(r"[0-9a-f]{16}", cast.run(ask(hostile)))


def test_a_requests_id_goes_on_to_the_part_that_is_asked(cast: Cast) -> None:
    async def ask() -> None:
        headers = {"X-Request-ID": "from-the-portal"}
        async with cast.people[OWNER].session.get(
            f"{cast.platform.url}/services/portal/home", headers=headers
        ) as answer:
            assert answer.status == 200

    cast.run(ask())

    def asked() -> bool:
        lines = [json.loads(line) for line in cast.platform.log("hub").splitlines() if "from-the-portal" in line]
        return f"/hub/api/users/{OWNER}" in [line.get("path") for line in lines]

    wait_until(asked, within_s=10, what="the hub's line about the portal's request")


@pytest.mark.parametrize("place", ["/hub", "/services/portal", "/services/passport", f"/user/{OWNER}"])
@pytest.mark.parametrize("state", ["", "x" * 43], ids=["none", "forged"])
def test_a_code_that_is_refused_is_in_no_log(cast: Cast, place: str, state: str) -> None:
    """It may work yet: whoever brought it was the wrong one, not the code."""
    code = f"code-{place.replace('/', '-')}-{state[:1]}"
    query = urllib.parse.urlencode({"code": code, "state": state})
    callback = "/oauth_callback"
    wanted = f"refused-{code}"
    status = cast.run(opens(cast.people[OWNER], f"{place}{callback}?{query}", **{"X-Request-ID": wanted}))
    # A server of JupyterHub's begins the sign-in anew.
    assert 400 <= status < 500 or (status == 302 and place.startswith("/user/"))
    # The line about the request is written after whatever else there was to say about it.
    name = {"services": "services", "hub": "hub", "user": f"servers/{OWNER}."}[place.split("/")[1]]
    sign = callback if name.startswith("servers") else wanted
    wait_until(lambda: sign in cast.platform.log(name), within_s=10, what="the request's line")
    assert f"code={code}" not in cast.platform.log(name)


def secrets_of(cast: Cast) -> dict[str, str]:
    """Return what -> value for all that is secret and was used: passwords, tokens, cookies, the parts' own."""
    found = {"password": PASSWORD, "new password": "another-quasar-3"}
    found |= {f"secret {name}": value for name, value in cast.platform.secrets().items()}
    found |= {f"token of {name}": token for name, token in cast.tokens.items()}
    found["token of a server"] = cast.cell("import os; print(os.environ['JUPYTERHUB_API_TOKEN'])")
    for name, person in cast.people.items():
        for cookie in person.session.cookie_jar:
            if cookie.key not in {"astrocloud-lang", "astrocloud-theme"}:
                found[f"cookie {cookie.key} of {name}"] = cookie.value.strip('"')
    return {what: value for what, value in found.items() if len(value) >= 12}


def test_logs_are_json_with_request_ids_and_tell_no_secret(cast: Cast) -> None:
    """After all that the tests of this run did, whatever their order."""
    platform = cast.platform
    for part in ("hub", "services"):
        lines = [json.loads(line) for line in platform.log(part).splitlines()]
        assert len(lines) > 20
        assert {line["part"] for line in lines} == {part}
        assert all({"event", "level", "timestamp"} <= set(line) for line in lines)
        requests = [line for line in lines if line["event"] == "request"]
        assert all(line["request_id"] for line in requests)
        assert not [line for line in requests if "?" in line["path"]]
        # What nobody expected has a traceback; JupyterHub gives one to a body that is no JSON, too.
        broken = [line for line in lines if "exception" in line and line["event"] != "Couldn't parse JSON"]
        assert not broken, json.dumps(broken[0])[:1500]
    secret = secrets_of(cast)
    for name, text in platform.all_logs().items():
        told = [what for what, value in secret.items() if value in text]
        assert not told, f"{name} tells: {told}"
        assert not re.search(
            r"[?&](code|state|key|token|id_token_hint)=[\w%.~-]{6}", re.sub(r"link\?key=\S+", "", text)
        )


def test_logs_are_for_nobody_else_on_the_machine(cast: Cast) -> None:
    for path in (cast.platform.data / "logs").rglob("*"):
        assert not path.is_file() or path.stat().st_mode & 0o077 == 0, path


def test_a_backup_of_a_running_platform_comes_back_on_an_empty_folder(tmp_path: Path, run: Run) -> None:
    with running_platform(tmp_path / "first") as first:
        first.add("vera", PASSWORD, "--admin", "--group", "survey")
        first.add("willem", PASSWORD)
        before = first.run_json("user", "list")
        token = first.run_json("token", "vera")["token"]
        note = {"severity": "info", "title": {"en": "Kept", "zh": "保留"}, "text": {"en": "Kept.", "zh": "保留。"}}
        with signed_in(run, first, "vera"):
            status, text = run(by_token(first.url, token, "/services/portal/api/announcements", "POST", note))
            assert status == 201, text
            home = first.data / "tree/home/vera"
            home.mkdir(exist_ok=True)
            (home / "note.txt").write_text("kept", encoding="utf-8")
            report = first.run_json("backup", str(tmp_path / "saved"), "--homes")
        assert report["files"]
    second = Platform(data=tmp_path / "second" / "data", port=free_port())
    second.data.parent.mkdir()
    done = second.run("restore", str(tmp_path / "saved"))
    assert done.returncode == 0, done.stderr
    assert second.run("restore", str(tmp_path / "saved")).returncode == 2, "onto something"
    try:
        second.start()
        assert "link?key=" not in second.output, "nobody is invited to take over what has an administrator"
        assert second.run_json("user", "list") == before
        assert (second.data / "tree/home/vera/note.txt").read_text(encoding="utf-8") == "kept"
        for name in ("vera", "willem"):
            with signed_in(run, second, name):
                pass
        # Tokens made before go on: the hub's database and its keys came along.
        assert run(by_token(second.url, token, "/hub/api/user"))[0] == 200
        _, text = run(by_token(second.url, token, "/services/portal/api/announcements"))
        assert [each["title"]["en"] for each in json.loads(text)] == ["Kept"]
    finally:
        if second.process is not None:
            second.stop()


def test_nobody_waits_for_somebody_who_starts_a_server(cast: Cast) -> None:
    """The hub answers others while it waits for a server."""

    async def both() -> None:
        async with Person(cast.platform.url, OTHER, PASSWORD) as person:
            await person.sign_in()
            start = asyncio.create_task(person.start_server("beside"))
            answered = 0
            while not start.done():
                assert await opens(cast.people[OWNER], "/hub/home") == 200
                answered += 1
            await start
            assert answered >= 1
            await person.hub_api("DELETE", f"/users/{OTHER}/servers/beside", {"remove": True})

    cast.run(both())
