"""Measure people's servers as pods: ``make bench-kube``, on the test cluster with the platform that the chart installs.

Prints a table and writes ``bench-results/kubernetes.json``. Real servers: how long a start takes, by its parts, with
the image on the nodes, and the first cell. Simulated ones (kwok's nodes, and one program of this machine that answers
at all their addresses): what many servers cost the hub. A quarter of an hour on two cores, images and cluster not
counted.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import aiohttp
import psutil

from tests.kube.cluster import images, machines
from tests.kube.cluster.__main__ import up
from tests.kube.cluster.layout import BRIDGE_ADDRESS, KUBECONFIG, NODES, REGISTRY, REPOSITORY
from tests.kube.cluster.programs import build, program
from tests.kube.ground import Cluster
from tests.kube.installation import Installation, installed, until
from tests.kube.processes import first_process
from tests.support.person import Person

GOALS: Final = {"request_to_ready_s": 1.8, "all_known_again_s": 30.0}
"""A start by the median, with the image on the node; and what is true again after the hub was away."""
PRETENDED: Final = "10.91.0.0/16"
"""Addresses of pretended pods; nothing else has them."""
PRETENDED_NODES: Final = 10
AT_ONCE: Final = 12
PAGE: Final = 200
"""As many people as the hub tells of at once."""
PARTS: Final = ("hub", "services", "proxy", "database")


def say(line: str) -> None:
    print(line, flush=True)


def percentile(values: list[float], part: float) -> float:
    """Return the value below which `part` of the values lie."""
    return sorted(values)[min(len(values) - 1, int(part * len(values)))]


def spread(values: list[float]) -> dict[str, float]:
    """Return median and 95th percentile."""
    return {"p50": round(statistics.median(values), 3), "p95": round(percentile(values, 0.95), 3)}


def hub_events(platform: Installation, name: str) -> list[dict[str, Any]]:
    """Return the events of a name in the hub's log."""
    (pod,) = platform.pods("hub")
    lines = platform.kubectl("logs", pod["metadata"]["name"], "--tail=-1").splitlines()
    told = (json.loads(line) for line in lines if line.startswith("{") and f'"{name}"' in line)
    return [event for event in told if event.get("event") == name]


# Real servers


async def measure_starts(platform: Installation, rounds: int) -> dict[str, Any]:
    """Return how long a start of the environment Astronomy takes, from the request on, and its first cell."""
    readies: list[float] = []
    cells: list[float] = []
    nodes = [host["metadata"]["name"] for host in platform.kube.get("nodes")["items"]]
    async with platform.person("ada") as ada:
        await ada.sign_in()
        for name in nodes:
            # The image is on every node: each has run it once.
            others = [other for other in nodes if other != name]
            platform.kube.kubectl("cordon", *others)
            try:
                await _start_and_stop(platform, ada)
            finally:
                platform.kube.kubectl("uncordon", *others)
        for _ in range(rounds):
            ready, cell = await _start_and_stop(platform, ada)
            readies.append(ready)
            cells.append(cell)
    parts: dict[str, list[float]] = {}
    for event in hub_events(platform, "server-started")[-rounds:]:
        for part, ms in event["parts_ms"].items():
            parts.setdefault(part, []).append(ms / 1e3)
    return {
        "rounds": rounds,
        "request_to_ready_s": spread(readies),
        "request_to_first_cell_s": spread(cells),
        "since_request_s": {part: spread(values) for part, values in parts.items()},
        "goal_met": statistics.median(readies) <= GOALS["request_to_ready_s"],
    }


async def _start_and_stop(platform: Installation, person: Person) -> tuple[float, float]:
    """Return after how many seconds a server was ready, and had run its first cell."""
    began = time.monotonic()
    await person.start_server(environment="astro")
    ready = time.monotonic() - began
    base = await person.enter_server()
    kernel = await person.start_kernel(base)
    done = await person.run_cell(base, kernel, "1 + 1")
    cell = time.monotonic() - began
    assert done["text"] == "2", done
    await person.hub_api("DELETE", f"/users/{person.username}/server")

    async def gone() -> bool:
        namespace = platform.namespace_of(person.username)
        return not platform.kube.get("pods", "-n", namespace)["items"]

    await until("the end of the server", gone, within_s=60)
    return ready, cell


# Pretended servers


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
def pretended_addresses() -> Iterator[None]:
    """Answer at all addresses of pretended pods, for this machine and for the nodes."""
    subprocess.run(["ip", "route", "replace", "local", PRETENDED, "dev", "lo"], check=True)
    for host in NODES:
        machines.run(*machines.inside(host, "ip", "route", "replace", PRETENDED, "via", BRIDGE_ADDRESS))
    answering = ThreadingHTTPServer(("0.0.0.0", 8888), _Server)
    threading.Thread(target=answering.serve_forever, daemon=True).start()
    try:
        yield
    finally:
        answering.shutdown()
        answering.server_close()
        for host in NODES:
            machines.run(*machines.inside(host, "ip", "route", "del", PRETENDED))
        subprocess.run(["ip", "route", "del", "local", PRETENDED, "dev", "lo"], check=False)


@contextmanager
def pretended_nodes(cluster: Cluster) -> Iterator[None]:
    """Add nodes to the cluster whose pods only seem to run."""
    selector = "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake"
    stages = str(Path(__file__).with_name("pretended.yaml"))
    command = [str(program("kwok")), "--kubeconfig", str(cluster.kubeconfig), "--manage-all-nodes=false", selector]
    command += ["--config", stages, "--cidr", PRETENDED, "--node-ip", BRIDGE_ADDRESS]
    command += ["--node-lease-duration-seconds", "40"]
    names = [f"pretended-{number}" for number in range(PRETENDED_NODES)]
    room = {"cpu": "64", "memory": "512Gi", "pods": "110", "ephemeral-storage": "4Ti"}
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


async def measure_many(platform: Installation, servers: int, users: int, seconds: float) -> dict[str, Any]:
    """Return what `servers` pretended servers, and `users` people in the database, cost the hub."""
    async with platform.person("chief") as chief:
        # It is then that the hub learns who is an administrator.
        await chief.sign_in()
    headers = {"Authorization": f"Bearer {platform.token('chief')}"}
    async with aiohttp.ClientSession(platform.url, headers=headers) as session:
        names = [f"p{number}" for number in range(servers)]
        limit = asyncio.Semaphore(AT_ONCE)

        async def start(name: str) -> float:
            async with limit:
                await _add(session, name)
                began = time.monotonic()
                await _start(session, name)
                return time.monotonic() - began

        began = time.monotonic()
        took = await asyncio.gather(*(start(name) for name in names))
        found: dict[str, Any] = {"servers": servers, "all_started_s": round(time.monotonic() - began, 1)}
        found["one_of_them_s"] = spread(list(took))
        say(f"{servers} servers started in {found['all_started_s']} s")
        found["hub_cpu"] = await hub_cpu(platform, seconds)
        found["hub_memory_mib"] = round(_hub(platform).memory_info().rss / 2**20, 1)
        found["restart_with_servers_s"] = await restart(platform, session, names)
        found["hub_cpu_after_restart"] = await hub_cpu(platform, seconds)
        if users:
            add_users(platform, users)
            found["users"] = users
            found["restart_with_users_s"] = await restart(platform, session, names)
            found["hub_memory_with_users_mib"] = round(_hub(platform).memory_info().rss / 2**20, 1)
        known_s = max(value["all_known"] for key, value in found.items() if key.startswith("restart_with"))
        found["goal_met"] = known_s <= GOALS["all_known_again_s"]
    return found


async def _add(session: aiohttp.ClientSession, name: str) -> None:
    async with session.post("/services/passport/api/people", json={"username": name}) as answer:
        assert answer.status in {200, 201}, await answer.text()
    async with session.post(f"/hub/api/users/{name}") as answer:
        assert answer.status in {201, 409}, await answer.text()


async def _server(session: aiohttp.ClientSession, name: str) -> dict[str, Any]:
    async with session.get(f"/hub/api/users/{name}") as answer:
        found = await answer.json()
    server: dict[str, Any] = found["servers"].get("", {})
    return server


async def _start(session: aiohttp.ClientSession, name: str) -> None:
    async with session.post(f"/hub/api/users/{name}/server", json={"environment": "astro"}) as answer:
        assert answer.status in {201, 202}, await answer.text()

    async def ready() -> bool:
        return bool((await _server(session, name)).get("ready"))

    await until(f"the server of {name}", ready, within_s=300)


def _hub(platform: Installation) -> psutil.Process:
    (pod,) = platform.pods("hub")
    pid = first_process(pod["metadata"]["uid"])
    assert pid, "the hub does not run"
    return psutil.Process(pid)


async def hub_cpu(platform: Installation, seconds: float) -> float:
    """Return the part of one processor that the hub takes while nobody asks anything."""
    hub = _hub(platform)
    before, began = sum(hub.cpu_times()[:2]), time.monotonic()
    await asyncio.sleep(seconds)
    return round((sum(hub.cpu_times()[:2]) - before) / (time.monotonic() - began), 4)


async def restart(platform: Installation, session: aiohttp.ClientSession, names: list[str]) -> dict[str, float]:
    """Delete the hub; return when it answered again and when it knew of all servers."""
    (before,) = platform.pods("hub")
    began = time.monotonic()
    platform.delete("hub")

    async def ended() -> bool:
        return first_process(before["metadata"]["uid"]) is None

    async def answers() -> bool:
        async with session.get("/hub/api/", timeout=aiohttp.ClientTimeout(total=2)) as answer:
            return answer.status == 200

    async def knows() -> bool:
        known = 0
        for first in range(0, len(names), PAGE):
            page = {"state": "ready", "offset": str(first), "limit": str(PAGE)}
            async with session.get("/hub/api/users", params=page) as answer:
                known += len(await answer.json()) if answer.status == 200 else 0
        return known >= len(names)

    # Or the one that is on its way out would be asked.
    await until("the end of the hub", ended)
    await until("the hub", answers, within_s=300)
    answered = time.monotonic() - began
    await until("all servers", knows, within_s=300)
    return {"answers": round(answered, 1), "all_known": round(time.monotonic() - began, 1)}


def add_users(platform: Installation, users: int) -> None:
    """Put people into the hub's database."""
    made = (
        "INSERT INTO users (name, admin, created, cookie_id, state) SELECT 'u' || n, false, now(), md5(n::text), '{}'"
        f" FROM generate_series(1, {users}) AS n"
    )
    # As people have it who have signed in; else the next start would be about giving it to them.
    role = (
        "INSERT INTO user_role_map (user_id, role_id, managed_by_auth)"
        " SELECT users.id, roles.id, false FROM users, roles"
        " WHERE roles.name = 'user' ON CONFLICT DO NOTHING"
    )
    database = f"statefulset/{platform.name}-database"
    platform.kubectl("exec", database, "--", "psql", "-U", "postgres", "-d", "jupyterhub", "-c", made, "-c", role)


# All of it


def measure(cluster: Cluster, options: argparse.Namespace) -> dict[str, Any]:
    """Install the platform, for real servers and for pretended ones; return what was found."""
    made = images.make(*PARTS, "astro", prefix=f"{REGISTRY}/astrocloud/", tag="test", say=say)
    found: dict[str, Any] = {"load_before": os.getloadavg()[0], "goals": GOALS}
    reserve = {"reserve": {"memory": 0.1, "cpus": 0.05}}
    for name, tls in (("starts", True), ("starts_without_tls", False)) if options.rounds else ():
        servers = {"namespacePrefix": "bench-", **reserve}
        with installed(cluster, made, servers=servers, tls={"internal": tls}) as platform:
            platform.kubectl("rollout", "status", "--timeout=600s", f"daemonset/{platform.name}-prepuller")
            found[name] = asyncio.run(measure_starts(platform, options.rounds))
            say(json.dumps(found[name], indent=2))
    if options.servers:
        build(("kwok",), say=say)
        there = {"nodeSelector": {"pretended": "yes"}, "tolerations": [{"key": "pretended", "operator": "Exists"}]}
        many = {"namespacePrefix": "many-", **reserve, **there}
        config = {"servers": {"idle_timeout_s": 0, "start_timeout_s": 300}}
        with (
            pretended_addresses(),
            pretended_nodes(cluster),
            # What pretends to be a server speaks no TLS.
            installed(
                cluster,
                made,
                servers=many,
                config=config,
                prepuller={"enabled": False},
                tls={"internal": False},
            ) as platform,
        ):
            platform.add("chief", admin=True)
            found["many"] = asyncio.run(measure_many(platform, options.servers, options.users, options.seconds))
    return found


def table(found: dict[str, Any]) -> str:
    """Return the figures as docs/performance.md shows them."""
    rows = [("On Kubernetes", "", "Goal"), ("-", "-", "-")]
    if starts := found.get("starts"):
        met = "met" if starts["goal_met"] else "missed"
        rows += [
            ("Request to ready, median and p95", _both(starts["request_to_ready_s"]), f"1.8 s: {met}"),
            ("Request to the first cell", _both(starts["request_to_first_cell_s"]), ""),
        ]
        rows += [(f"of a start, until {part}", _both(each), "") for part, each in starts["since_request_s"].items()]
    if plain := found.get("starts_without_tls"):
        rows += [
            ("Without TLS: request to ready", _both(plain["request_to_ready_s"]), ""),
            ("Without TLS: request to the first cell", _both(plain["request_to_first_cell_s"]), ""),
        ]
    if many := found.get("many"):
        met = "met" if many["goal_met"] else "missed"
        again = many["restart_with_servers_s"]
        rows += [
            (f"Hub with {many['servers']} servers, of a processor", f"{100 * many['hub_cpu']:.1f} %", ""),
            ("its memory", f"{many['hub_memory_mib']} MiB", ""),
            ("Hub deleted: answers, knows all", f"{again['answers']} s, {again['all_known']} s", f"30 s: {met}"),
        ]
        if crowd := many.get("restart_with_users_s"):
            title = f"The same with {many['users']} people in the database"
            rows.append((title, f"{crowd['answers']} s, {crowd['all_known']} s", ""))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _both(values: dict[str, float]) -> str:
    return f"{values['p50']:.2f} s, {values['p95']:.2f} s"


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.kube", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="real starts")
    parser.add_argument("--servers", type=int, default=500, help="pretended servers")
    parser.add_argument("--users", type=int, default=20_000, help="people in the database")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long the hub's processor is watched")
    options = parser.parse_args()
    began = time.monotonic()
    up()
    images.ensure_bases(say=say)
    found = measure(Cluster(kubeconfig=KUBECONFIG, registry=REGISTRY, image="", own=True), options)
    found["took_s"] = round(time.monotonic() - began)
    folder = REPOSITORY / "bench-results"
    folder.mkdir(exist_ok=True)
    (folder / "kubernetes.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    say(table(found))


if __name__ == "__main__":
    main()
