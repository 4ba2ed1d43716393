"""Measure people's servers as pods: ``make bench-kube``, on the test cluster and with a hub on this machine.

Prints a table and writes ``bench-results/kubernetes.json``. Real servers: how long a start takes, by its parts, with
the image on the nodes, and the first cell. Simulated ones (kwok's nodes, and one program of this machine that answers
at all their addresses): what many servers cost the hub.
"""

import argparse
import asyncio
import json
import os
import secrets
import sqlite3
import statistics
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from tests.hub.harness import until
from tests.kube.cluster import images
from tests.kube.cluster.__main__ import up
from tests.kube.cluster.layout import BRIDGE_ADDRESS, KUBECONFIG, REGISTRY, REPOSITORY
from tests.kube.cluster.programs import build, program
from tests.kube.ground import Cluster
from tests.kube.people import PodPlatform, file_tree

SIZES = """
  - {id: small, name: {en: Small, zh: 小}, memory: 2GiB, cpus: 1, processes: 512}
"""
PRETENDED = "10.91.0.0/16"
"""Addresses of pretended pods; nothing else has them."""
PRETENDED_NODES = 10


def say(line: str) -> None:
    print(line, flush=True)


def percentile(values: list[float], part: float) -> float:
    """Return the value below which `part` of the values lie."""
    return sorted(values)[min(len(values) - 1, int(part * len(values)))]


@contextmanager
def platform_of(cluster: Cluster, environments: dict[str, str], **options: Any) -> Iterator[PodPlatform]:
    """Run a hub here whose servers are pods."""
    namespace = f"bench-{secrets.token_hex(2)}"
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch, file_tree(cluster, namespace) as tree:
        Path(scratch).chmod(0o711)
        made = PodPlatform(
            Path(scratch) / "data", cluster=cluster, namespace=namespace, tree=tree, images=environments, **options
        )
        for environment in environments:
            made.add_environment(environment, SIZES)
        try:
            yield made.start()
        finally:
            made.stop()


def measure_starts(cluster: Cluster, rounds: int) -> dict[str, Any]:
    """Return how long a start of the environment Astronomy takes, from the request on, and its first cell."""
    image = images.make("astro", prefix=f"{REGISTRY}/astrocloud/", tag="test", say=say)["astro"]
    totals: list[float] = []
    cells: list[float] = []
    parts: dict[str, list[float]] = {}
    with platform_of(cluster, {"astro": image}, stub=False) as platform:
        platform.services.add("ada", 200001)
        platform.sign_in("ada")
        for name in [host["metadata"]["name"] for host in cluster.get("nodes")["items"]]:
            # The image is on every node: each has run it once.
            others = [each["metadata"]["name"] for each in cluster.get("nodes")["items"]]
            cluster.kubectl("cordon", *(other for other in others if other != name))
            try:
                platform.start_server("ada")
                platform.stop_server("ada")
            finally:
                cluster.kubectl("uncordon", *others)
        for _ in range(rounds):
            began = time.monotonic()
            platform.start_server("ada")
            totals.append(time.monotonic() - began)
            cells.append(asyncio.run(first_cell(platform, "ada")))
            for part, ms in platform.events("server-started")[-1]["parts_ms"].items():
                parts.setdefault(part, []).append(ms / 1e3)
            platform.stop_server("ada")
    return {
        "rounds": rounds,
        "request_to_ready_s": {"p50": statistics.median(totals), "p95": percentile(totals, 0.95)},
        "ready_to_first_cell_s": {"p50": statistics.median(cells), "p95": percentile(cells, 0.95)},
        "since_request_s": {part: statistics.median(values) for part, values in parts.items()},
    }


async def first_cell(platform: PodPlatform, user: str) -> float:
    """Return after how many seconds a new kernel has run its first cell."""
    token = platform.api("POST", f"/users/{user}/tokens", body={"note": "bench"}).json()["token"]
    base = f"{platform.url}/user/{user}/"
    began = time.monotonic()
    async with aiohttp.ClientSession(headers={"Authorization": f"token {token}"}) as session:
        async with session.post(base + "api/kernels", json={"name": "python3"}) as answer:
            kernel = (await answer.json())["id"]
        address = base.replace("http", "ws", 1) + f"api/kernels/{kernel}/channels"
        async with session.ws_connect(address) as socket:
            header = {"msg_id": uuid.uuid4().hex, "msg_type": "execute_request", "session": uuid.uuid4().hex}
            header |= {"username": "", "version": "5.3", "date": "2026-01-01T00:00:00Z"}
            content = {"code": "1 + 1", "silent": False, "store_history": True, "user_expressions": {}}
            content["allow_stdin"] = False
            message = {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell"}
            await socket.send_json(message)
            while True:
                told = json.loads(await socket.receive_str())
                if told["msg_type"] == "execute_reply" and told["parent_header"].get("msg_id") == header["msg_id"]:
                    return time.monotonic() - began


class _Server(BaseHTTPRequestHandler):
    """What every pretended server answers."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("X-JupyterHub-Version", "6.1.1")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def pretended_nodes(cluster: Cluster) -> Iterator[None]:
    """Add nodes to the cluster whose pods only seem to run, at addresses at which one program here answers."""
    route = ["ip", "route", "replace", "local", PRETENDED, "dev", "lo"]
    subprocess.run(route, check=True)
    answering = ThreadingHTTPServer(("0.0.0.0", 8888), _Server)
    threading.Thread(target=answering.serve_forever, daemon=True).start()
    selector = "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake"
    command = [str(program("kwok")), "--kubeconfig", str(cluster.kubeconfig), "--manage-all-nodes=false", selector]
    command += [
        "--config",
        str(Path(__file__).with_name("pretended.yaml")),
        "--cidr",
        PRETENDED,
        "--node-ip",
        BRIDGE_ADDRESS,
        "--node-lease-duration-seconds",
        "40",
    ]
    names = [f"pretended-{number}" for number in range(PRETENDED_NODES)]
    room = {"cpu": "64", "memory": "512Gi", "pods": "110"}
    with tempfile.TemporaryFile() as log:
        running = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            for name in names:
                about = {"name": name, "annotations": {"kwok.x-k8s.io/node": "fake"}, "labels": {"pretended": "yes"}}
                taint = {"key": "pretended", "value": "yes", "effect": "NoSchedule"}
                given = {"apiVersion": "v1", "kind": "Node", "metadata": about, "spec": {"taints": [taint]}}
                cluster.kubectl("create", "-f", "-", given={**given, "status": {"capacity": room, "allocatable": room}})
            cluster.kubectl("wait", "--for=condition=Ready", "--timeout=60s", *(f"node/{name}" for name in names))
            yield
        finally:
            cluster.try_kubectl("delete", "node", *names)
            running.terminate()
            running.wait(20)
            answering.shutdown()
            subprocess.run(["ip", "route", "del", "local", PRETENDED, "dev", "lo"], check=False)


def measure_many(cluster: Cluster, servers: int, users: int, seconds: float) -> dict[str, Any]:
    """Return what `servers` pretended servers, and `users` people in the database, cost the hub."""
    found: dict[str, Any] = {"servers": servers}
    there = {"node_selector": {"pretended": "yes"}, "tolerations": [{"key": "pretended", "operator": "Exists"}]}
    options = {"servers": {**there, "priority_class": ""}, "stub": True}
    settings = {"TEST_SETTING_AstrocloudHub__idle_timeout_s": "0"}
    with (
        pretended_nodes(cluster),
        platform_of(cluster, {"stub": f"{REGISTRY}/nowhere:1"}, settings=settings, **options) as platform,
    ):
        names = [f"p{number}" for number in range(servers)]
        for number, name in enumerate(names):
            platform.services.add(name, 210000 + number)
        began = time.monotonic()
        with ThreadPoolExecutor(12) as at_once:
            list(at_once.map(lambda name: _start(platform, name), names))
        found["all_started_s"] = time.monotonic() - began
        say(f"{servers} servers started in {found['all_started_s']:.0f} s")
        found["hub_cpu"] = hub_cpu(platform, seconds)
        found["hub_memory_mib"] = _hub(platform).memory_info().rss / 2**20
        found["restart_with_servers_s"] = restart(platform, names[-1])
        found["hub_cpu_after_restart"] = hub_cpu(platform, seconds)
        platform.kill_hub()
        add_users(platform, users)
        began = time.monotonic()
        platform.start_hub()
        found["restart_with_users_s"] = time.monotonic() - began
        found["users"] = users
    return found


def _start(platform: PodPlatform, name: str) -> None:
    assert platform.api("POST", f"/users/{name}").status in {201, 409}
    answer = platform.api("POST", f"/users/{name}/server", body={"user_options": {}})
    assert answer.status in {201, 202}, answer.text
    until(lambda: platform.server(name).get("ready"), seconds=300, what=f"the server of {name}")


def _hub(platform: PodPlatform) -> psutil.Process:
    assert platform.hub is not None
    return psutil.Process(platform.hub.pid)


def hub_cpu(platform: PodPlatform, seconds: float) -> float:
    """Return the part of one processor that the hub takes while nobody asks anything."""
    hub = _hub(platform)
    before, began = sum(hub.cpu_times()[:2]), time.monotonic()
    time.sleep(seconds)
    return float((sum(hub.cpu_times()[:2]) - before) / (time.monotonic() - began))


def restart(platform: PodPlatform, last: str) -> float:
    """Return how long the hub takes to be back and to know its servers again."""
    platform.kill_hub()
    began = time.monotonic()
    platform.start_hub()
    until(lambda: platform.server(last).get("ready"), seconds=120, what="the last server is known")
    return time.monotonic() - began


def add_users(platform: PodPlatform, users: int) -> None:
    """Put people into the hub's database."""
    with sqlite3.connect(platform.data.databases / "jupyterhub.sqlite") as database:
        columns = "name, admin, created, last_activity, cookie_id, state, encrypted_auth_state"
        rows = ((f"u{n}", 0, "2026-01-01 00:00:00", None, uuid.uuid4().hex, "{}", None) for n in range(users))
        database.executemany(f"INSERT INTO users ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?)", rows)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.kube", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="real starts")
    parser.add_argument("--servers", type=int, default=500, help="pretended servers")
    parser.add_argument("--users", type=int, default=20_000, help="people in the database")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long the hub's processor is watched")
    options = parser.parse_args()
    up()
    images.ensure_bases(say=say)
    cluster = Cluster(kubeconfig=KUBECONFIG, registry=REGISTRY, image="", own=True)
    found: dict[str, Any] = {"load_before": os.getloadavg()[0]}
    if options.rounds:
        found["starts"] = measure_starts(cluster, options.rounds)
    if options.servers:
        build(("kwok",), say=say)
        found["many"] = measure_many(cluster, options.servers, options.users, options.seconds)
    folder = REPOSITORY / "bench-results"
    folder.mkdir(exist_ok=True)
    (folder / "kubernetes.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    say(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
