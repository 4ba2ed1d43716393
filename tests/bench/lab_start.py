"""Time a person's server from process start to the first cell: stock against lean.

Runs the stock ``jupyterhub-singleuser`` and ``astrocloud_lab.serve`` in turn
against a stand-in hub that answers only what a server asks of it, and prints
the medians.  Nothing else differs: same interpreter, packages, home and cell.

    python tests/bench/lab_start.py --python ENV/bin/python --runs 7 --json out.json

``first_200_s``
    process start -> the server answers ``GET api``.
``first_cell_s``
    process start -> the output of the first cell, with the kernel asked for as
    soon as the server answers.
``later_cell_s``
    request for a second kernel a second later -> the output of its first cell.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import shutil
import signal
import statistics
import sys
import tempfile
import time
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tornado.httpclient import AsyncHTTPClient, HTTPRequest
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler
from tornado.websocket import websocket_connect

CELL = "import numpy, astropy, matplotlib; print('sum', numpy.arange(10).sum())"
TOKEN = "bench-" + uuid.uuid4().hex
USER = "bench"


@dataclass(frozen=True)
class Sample:
    """One run of one variant; times in seconds, memory in MiB (PSS of every process)."""

    first_200_s: float
    first_cell_s: float
    later_cell_s: float
    cpu_s: float
    server_pss_mib: float
    all_pss_mib: float


class HubApi(RequestHandler):
    """What a server asks of its hub: the version, who a token is, activity."""

    def get(self, path: str = "") -> None:
        self.set_header("X-JupyterHub-Version", "6.1.1")
        if path == "user":
            self.write(
                {
                    "name": USER,
                    "kind": "user",
                    "admin": False,
                    "groups": [],
                    "scopes": [f"access:servers!server={USER}/"],
                    "session_id": None,
                }
            )
        else:
            self.write({"version": "6.1.1"})

    def post(self, path: str = "") -> None:
        self.set_status(200)

    def check_xsrf_cookie(self) -> None:
        return


def server_env(home: Path, hub_port: int, port: int) -> dict[str, str]:
    """Return the environment a spawner would give."""
    hub = f"http://127.0.0.1:{hub_port}/hub/"
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "JUPYTERHUB_API_TOKEN": TOKEN,
        "JUPYTERHUB_CLIENT_ID": f"jupyterhub-user-{USER}",
        "JUPYTERHUB_HOST": "",
        "JUPYTERHUB_OAUTH_CALLBACK_URL": f"/user/{USER}/oauth_callback",
        "JUPYTERHUB_OAUTH_SCOPES": json.dumps([f"access:servers!server={USER}/"]),
        "JUPYTERHUB_OAUTH_ACCESS_SCOPES": json.dumps([f"access:servers!server={USER}/"]),
        "JUPYTERHUB_USER": USER,
        "JUPYTERHUB_SERVER_NAME": "",
        "JUPYTERHUB_API_URL": hub + "api",
        "JUPYTERHUB_ACTIVITY_URL": hub + f"api/users/{USER}/activity",
        "JUPYTERHUB_BASE_URL": "/",
        "JUPYTERHUB_SERVICE_PREFIX": f"/user/{USER}/",
        "JUPYTERHUB_SERVICE_URL": f"http://127.0.0.1:{port}/user/{USER}/",
    }


def descendants(pid: int) -> list[int]:
    """Return the pids of ``pid`` and all below it."""
    found = [pid]
    for one in found:
        try:
            tasks = os.listdir(f"/proc/{one}/task")
        except OSError:
            continue
        for task in tasks:
            try:
                children = Path(f"/proc/{one}/task/{task}/children").read_text()
            except OSError:
                continue
            found.extend(int(child) for child in children.split())
    return found


def pss_mib(pid: int) -> float:
    """Return the proportional set size: shared pages divided by their users."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return 0.0


async def first_answer(url: str, process: asyncio.subprocess.Process) -> None:
    """Wait until ``url`` answers 200."""
    client = AsyncHTTPClient()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if process.returncode is not None:
            raise RuntimeError(f"the server ended with {process.returncode}")
        try:
            answer = await client.fetch(url, raise_error=False, request_timeout=30)
        except OSError:
            await asyncio.sleep(0.005)
            continue
        if answer.code == 200:
            return
        await asyncio.sleep(0.005)
    raise TimeoutError(url)


async def run_cell(base: str, code: str) -> str:
    """Start a kernel, run ``code`` and return what it printed."""
    headers = {"Authorization": f"token {TOKEN}"}
    client = AsyncHTTPClient()
    answer = await client.fetch(base + "api/kernels", method="POST", body="{}", headers=headers, request_timeout=60)
    kernel = json.loads(answer.body)["id"]
    socket = await websocket_connect(
        HTTPRequest(base.replace("http", "ws", 1) + f"api/kernels/{kernel}/channels", headers=headers)
    )
    message: dict[str, Any] = {
        "header": {
            "msg_id": uuid.uuid4().hex,
            "username": USER,
            "session": uuid.uuid4().hex,
            "msg_type": "execute_request",
            "version": "5.3",
        },
        "parent_header": {},
        "metadata": {},
        "content": {"code": code, "silent": False, "store_history": True, "allow_stdin": False},
        "channel": "shell",
        "buffers": [],
    }
    await socket.write_message(json.dumps(message))
    try:
        while True:
            reply = json.loads(await asyncio.wait_for(socket.read_message(), 60))
            if reply["msg_type"] == "error":
                raise RuntimeError("\n".join(reply["content"]["traceback"]))
            if reply["msg_type"] == "stream" and reply["content"]["name"] == "stdout":
                return str(reply["content"]["text"])
    finally:
        socket.close()


async def end(process: asyncio.subprocess.Process) -> None:
    """End the server as a spawner would, by force after 15 s."""
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
    try:
        await asyncio.wait_for(process.wait(), 15)
    except TimeoutError:
        process.kill()
        await process.wait()


async def sample(command: list[str], hub_port: int, workdir: Path, extra: dict[str, str]) -> Sample:
    """Start one server, ask the questions, end it."""
    (socket,) = bind_sockets(0, "127.0.0.1")
    port = socket.getsockname()[1]
    socket.close()
    # The same home in every run: the first start of a person's life (matplotlib lists the
    # machine's fonts) is another measurement.
    home = workdir / "home"
    home.mkdir(exist_ok=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with (workdir / "server.log").open("ab") as log:
        started = time.perf_counter()
        process = await asyncio.create_subprocess_exec(
            *command,
            env=server_env(home, hub_port, port)
            | {k: v for k, v in os.environ.items() if k.startswith("ASTROCLOUD_")}
            | extra,
            cwd=home,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    base = f"http://127.0.0.1:{port}/user/{USER}/"
    try:
        await first_answer(base + "api", process)
        first_200 = time.perf_counter() - started
        await run_cell(base, CELL)
        first_cell = time.perf_counter() - started
        await asyncio.sleep(1.0)
        asked = time.perf_counter()
        await run_cell(base, CELL)
        later_cell = time.perf_counter() - asked
        server = pss_mib(process.pid)
        everything = sum(pss_mib(pid) for pid in descendants(process.pid))
    finally:
        await end(process)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)
    return Sample(first_200, first_cell, later_cell, cpu, server, everything)


def commands(python: str) -> dict[str, list[str]]:
    """Return the variants: name -> command."""
    return {
        "stock": [python, "-m", "jupyterhub.singleuser", "--allow-root"],
        "lean": [python, "-m", "astrocloud_lab.serve", "--allow-root"],
    }


async def bench(python: str, runs: int, only: list[str]) -> dict[str, list[Sample]]:
    """Run the variants in turn, ``runs`` times each (the first round is thrown away)."""
    (socket,) = bind_sockets(0, "127.0.0.1")
    hub = HTTPServer(Application([(r"/hub/api/?(.*)", HubApi)]))
    hub.add_socket(socket)
    variants = {name: cmd for name, cmd in commands(python).items() if name in only}
    samples: dict[str, list[Sample]] = {name: [] for name in variants}
    workdir = Path(tempfile.mkdtemp(prefix="lab-start-"))
    try:
        for round_number in range(runs + 1):
            for name, command in variants.items():
                taken = await sample(command, socket.getsockname()[1], workdir, {})
                if round_number:
                    samples[name].append(taken)
    except Exception:
        sys.stderr.write((workdir / "server.log").read_text()[-4000:])
        raise
    finally:
        hub.stop()
        shutil.rmtree(workdir, ignore_errors=True)
    return samples


def main() -> int:
    """Print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", default=os.environ.get("ASTROCLOUD_TEST_ENV_PYTHON", sys.executable))
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--only", nargs="*", default=["stock", "lean"])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    samples = asyncio.run(bench(options.python, options.runs, options.only))
    figures = {
        name: {field: statistics.median(asdict(one)[field] for one in taken) for field in asdict(taken[0])}
        for name, taken in samples.items()
    }
    fields = list(next(iter(figures.values())))
    print("variant  " + "  ".join(f"{field:>15}" for field in fields))
    for name, row in figures.items():
        print(f"{name:<8} " + "  ".join(f"{row[field]:>15.3f}" for field in fields))
    if options.json:
        document = {
            "runs": options.runs,
            "medians": figures,
            "samples": {name: [asdict(one) for one in taken] for name, taken in samples.items()},
        }
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
