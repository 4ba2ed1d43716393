"""A real JupyterHub behind a real configurable-http-proxy, with the services faked, for tests."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import psutil

from astrocloud.core.layout import DataFolder
from astrocloud.core.runtime import Runtime, write_json
from astrocloud.core.secrets import SecretFiles
from astrocloud_hub.spawners.records import Records, end_all
from tests.hub.fake_services import FakeServices

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]

ENVIRONMENT = """
id: stub
name: {en: Stub, zh: 桩}
description: {en: A stub., zh: 桩。}
python: ">=3.11"
software: [pip]
resources:
  - {id: small, name: {en: Small, zh: 小}, memory: 256MiB, cpus: 1, processes: 64}
  - {id: large, name: {en: Large, zh: 大}, memory: 512MiB, cpus: 2, processes: 128}
"""


def until(condition: Callable[[], Any], *, seconds: float = 20, what: str = "") -> Any:
    """Return the first true answer of `condition`; fail when there is none in time."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what or condition}")
        time.sleep(0.03)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def proxy_script() -> str | None:
    """Return configurable-http-proxy's script, where `npm ci` in hub/proxy, or somebody else, put it."""
    named = os.environ.get("ASTROCLOUD_TEST_PROXY")
    places = [Path(named)] if named else []
    places.append(REPOSITORY / "hub/proxy/node_modules/configurable-http-proxy/bin/configurable-http-proxy")
    return next((str(place) for place in places if place.is_file()), shutil.which("configurable-http-proxy"))


@dataclass
class Answer:
    status: int
    headers: Any
    body: bytes
    url: str

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        return json.loads(self.body)


def _add_lab(venv: Path) -> None:
    """Let servers be forked in the stub environment: by the real package, but for the server itself."""
    version = subprocess.run(
        ["/usr/bin/python3", "-c", "import sys; print('python%d.%d' % sys.version_info[:2])"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    packages = venv / "lib" / version / "site-packages"
    lab = packages / "astrocloud_lab"
    shutil.copytree(REPOSITORY / "extensions" / "astrocloud_lab", lab, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(HERE / "stub_server.py", packages)
    (lab / "serve.py").write_text("import stub_server\n\ndef main(arguments):\n    stub_server.main()\n")
    (lab / "forked" / "imports.py").write_text(
        "import stub_server, astrocloud_lab.serve, astrocloud_lab.forked.child\n\ndef import_everything():\n    pass\n"
    )
    (venv / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


@dataclass
class Browser:
    """A browser's cookies (with their paths) and redirects, without its pages."""

    base: str
    language: str = "en"
    jar: dict[tuple[str, str], str] = field(default_factory=dict)
    trail: list[str] = field(default_factory=list)
    set_cookies: list[str] = field(default_factory=list)

    def open(
        self, path: str, *, method: str = "GET", data: bytes | None = None, headers: dict[str, str] | None = None,
        follow: bool = True,
    ) -> Answer:  # fmt: skip
        url = urljoin(self.base, path)
        for _ in range(20):
            answer = self._once(url, method, data, headers or {})
            if not follow or answer.status not in {301, 302, 303, 307} or "Location" not in answer.headers:
                return answer
            url = urljoin(url, answer.headers["Location"])
            self.trail.append(url)
            method, data = "GET", None
        raise AssertionError(f"too many redirects: {self.trail[-6:]}")

    def _once(self, url: str, method: str, data: bytes | None, headers: dict[str, str]) -> Answer:
        path = urlsplit(url).path
        cookies = "; ".join(f"{name}={value}" for (name, where), value in self.jar.items() if path.startswith(where))
        sent = {
            "Accept-Language": self.language,
            "Accept": "text/html",
            **({"Cookie": cookies} if cookies else {}),
            **headers,
        }
        request = urllib.request.Request(url, method=method, data=data, headers=sent)
        opener = urllib.request.build_opener(_NoRedirect, urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=30) as response:
                answer = Answer(response.status, response.headers, response.read(), url)
        except urllib.error.HTTPError as err:
            with err:
                answer = Answer(err.code, err.headers, err.read(), url)
        for line in answer.headers.get_all("Set-Cookie") or []:
            self.set_cookies.append(line)
            for name, morsel in SimpleCookie(line).items():
                key = (name, morsel["path"] or "/")
                if not morsel.value or morsel["max-age"] == "0":
                    self.jar.pop(key, None)
                else:
                    self.jar[key] = morsel.value
        return answer

    def cookie(self, name: str) -> str | None:
        return next((value for (found, _), value in self.jar.items() if found == name), None)


class Platform:
    """Proxy, hub and fake services in one data folder."""

    settings_file = HERE / "hub_settings.py"
    """What JupyterHub reads."""

    def __init__(self, root: Path, *, config: str = "", settings: dict[str, str] | None = None, uid: int = 0) -> None:
        self.data = DataFolder(root)
        self.data.make()
        if config:
            self.data.config_file.write_text(config, encoding="utf-8")
        self.runtime = Runtime.choose(self.data, bind="127.0.0.1", port=free_port(), public_url=None)
        if uid:
            # This process is root's and has chosen ports that root alone may use.
            ports = {name: free_port() for name in ("proxy_api_port", "hub_port", "services_port")}
            self.runtime = replace(self.runtime, **ports)
            write_json(self.data.run / "runtime.json", asdict(self.runtime))
        self.secrets = SecretFiles(self.data.secrets)
        self.settings = settings or {}
        self.uid = uid
        self.services = FakeServices(
            port=self.runtime.services_port,
            internal=self.secrets.get("internal").get_secret_value(),
            client_secret=self.secrets.get("passport-client").get_secret_value(),
            public_url=self.runtime.public_url,
        )
        self.records = Records(self.data.run / "servers")
        self.environment = "stub"
        self._parents_told = 0
        self.hub: subprocess.Popen[bytes] | None = None
        self.proxy: subprocess.Popen[bytes] | None = None
        images = root / "images" / "stub"
        images.mkdir(parents=True)
        (images / "environment.yaml").write_text(ENVIRONMENT, encoding="utf-8")
        (images / "requirements.txt").write_text("pip==26.0\n", encoding="utf-8")
        venv = self.data.environments / "stub"
        (venv / "bin").mkdir(parents=True)
        (venv / "bin" / "python").symlink_to("/usr/bin/python3")
        shutil.copy(HERE / "stub_server.py", venv)
        # Not without bubblewrap, and not in an environment that is not ours to make.
        usual = uid == 0 and os.geteuid() == 0 and not {"PATH", "TEST_REAL_ENVIRONMENT"} & self.settings.keys()
        self.forks = self.settings.setdefault("TEST_FORK", "1" if usual else "0") == "1"
        _add_lab(venv)

    @property
    def url(self) -> str:
        return self.runtime.public_url

    def start(self) -> "Platform":
        self.services.__enter__()
        self.start_proxy()
        self.start_hub()
        return self

    def start_proxy(self) -> None:
        script = proxy_script()
        assert script, "configurable-http-proxy is not installed: npm ci in hub/proxy"
        command = ["node", script, "--ip", "127.0.0.1", "--port", str(self.runtime.port)]
        command += ["--api-ip", "127.0.0.1", "--api-port", str(self.runtime.proxy_api_port), "--log-level", "warn"]
        token = self.secrets.get("proxy-token").get_secret_value()
        environment = {**os.environ, "CONFIGPROXY_AUTH_TOKEN": token}
        log = (self.data.logs / "proxy.log").open("ab")
        with log:
            self.proxy = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)

    def start_hub(self, *, wait: bool = True) -> None:
        if self.uid:
            for path in (self.data.root, *self.data.root.rglob("*")):
                os.chown(path, self.uid, self.uid, follow_symlinks=False)
        environment = {
            **os.environ,
            "ASTROCLOUD_DATA": str(self.data.root),
            "PYTHONPATH": f"{REPOSITORY}:{os.environ.get('PYTHONPATH', '')}",
            "A_SECRET_OF_THE_PLATFORM": "must-not-be-seen",
            **self.settings,
        }
        code = (
            "from pathlib import Path; from astrocloud_hub.__main__ import main; "
            f"main(Path({str(self.settings_file)!r}))"
        )
        with (self.data.logs / "hub.log").open("ab") as log:
            become = (
                ["setpriv", f"--reuid={self.uid}", f"--regid={self.uid}", "--clear-groups", "--"] if self.uid else []
            )
            self.hub = subprocess.Popen(
                [*become, sys.executable, "-c", code], env=environment, stdout=log, stderr=log, start_new_session=True
            )
        if wait:
            until(self.healthy, seconds=60, what="the hub is healthy")
            if self.forks:
                until(self.parents_ready, seconds=60, what="servers can be forked")

    def healthy(self) -> bool:
        assert self.hub is not None
        if self.hub.poll() is not None:
            raise AssertionError(f"the hub ended:\n{self.hub_log()[-4000:]}")
        try:
            return Browser(self.url).open("/hub/health").status == 200
        except OSError:
            return False

    def parents(self) -> list[int]:
        """Return the processes of the hub that servers are forked from; each has bwrap for its parent."""
        assert self.hub is not None
        found = []
        for outer in psutil.Process(self.hub.pid).children():
            with suppress(psutil.Error):
                if "astrocloud_lab.forked.parent" in outer.cmdline():
                    found += [process.pid for process in outer.children()]
        return found

    def parents_ready(self) -> bool:
        """Tell whether servers will be forked now."""
        log = self.data.logs / f"parent-{self.environment}.log"
        told = log.read_text(encoding="utf-8").count("ready to fork") if log.exists() else 0
        ready, self._parents_told = told > self._parents_told, told
        return ready

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return what the hub has logged under the name `name`."""
        lines = (json.loads(line) for line in self.hub_log().splitlines() if line.startswith("{"))
        return [line for line in lines if line.get("event") == name]

    def hub_log(self) -> str:
        return (self.data.logs / "hub.log").read_text(encoding="utf-8", errors="replace")

    def kill_hub(self, number: int = signal.SIGKILL) -> None:
        assert self.hub is not None
        self.hub.send_signal(number)
        self.hub.wait(30)

    def stop(self) -> None:
        for process in (self.hub, self.proxy):
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait(5)
        end_all(self.records, grace_s=0.2)
        self.services.__exit__()

    # What tests do

    def sign_in(self, name: str, *, language: str = "en") -> Browser:
        self.services.passport_user = name
        browser = Browser(self.url, language=language)
        answer = browser.open("/hub/login")
        assert answer.status == 200, answer.text
        return browser

    def api(
        self, method: str, path: str, *, token: str | None = None, body: Any = None, language: str = "en"
    ) -> Answer:
        token = token or self.secrets.get("service-operator").get_secret_value()
        data = json.dumps(body).encode() if body is not None else None
        headers = {"Authorization": f"token {token}", "Accept": "application/json", "Accept-Language": language}
        return Browser(self.runtime.hub_api_url).open(
            f"{self.runtime.hub_api_url}{path}", method=method, data=data, headers=headers, follow=False
        )

    def server(self, user: str, name: str = "") -> dict[str, Any]:
        model = self.api("GET", f"/users/{user}?include_stopped_servers=1").json()
        return model.get("servers", {}).get(name, {})

    def start_server(self, user: str, name: str = "", **options: str) -> dict[str, Any]:
        path = f"/users/{user}/servers/{name}" if name else f"/users/{user}/server"
        answer = self.api("POST", path, body={"user_options": options})
        assert answer.status in {201, 202}, answer.text
        return until(
            lambda: (model := self.server(user, name)).get("ready") and model,
            seconds=120,
            what=f"server of {user} is ready; log: {self.hub_log()[-2000:]}",
        )

    def stop_server(self, user: str, name: str = "", *, token: str | None = None) -> dict[str, Any]:
        path = f"/users/{user}/servers/{name}" if name else f"/users/{user}/server"
        answer = self.api("DELETE", path, token=token)
        assert answer.status in {202, 204}, answer.text
        return until(lambda: (model := self.server(user, name)).get("stopped") and model, what="stopped")

    def run_directly(self, user: str, code: str, name: str = "") -> str:
        """Run Python in the server as `run` does, without the hub's help."""
        path = f"/user/{user}/{name}/" if name else f"/user/{user}/"
        document = Browser(self.url).open(f"{path}run", method="POST", data=code.encode()).json()
        return f"!{document['error']}" if document["error"] else document["out"].strip()

    def run(self, user: str, code: str, name: str = "") -> str:
        """Run Python in the server's own process; return what it prints, or ``!`` and the error."""
        model = self.server(user, name)
        answer = Browser(self.url).open(f"{model['url']}run", method="POST", data=code.encode())
        assert answer.status == 200, (answer.status, answer.text)
        document = answer.json()
        return f"!{document['error']}" if document["error"] else document["out"].strip()
