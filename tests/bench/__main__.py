"""Measure the figures that docs/performance.md quotes: ``make bench``.

Prints a table and writes ``bench-results/one-machine.json``. Machines differ and are noisy: what counts are ratios
against the peer that was measured in the same run, alternating.
"""

import argparse
import asyncio
import json
import os
import platform as machine
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp

from astrocloud.supervisor.environments import catalogue_and_builder
from astrocloud.supervisor.processes import descendants
from tests.bench.files import measure_files
from tests.bench.sessions import Session, own_session, several, stock_session
from tests.bench.stock import stock_hub
from tests.support.platform import REPOSITORY, Platform, free_port, running_platform, wait_until

PASSWORD = "measured-twice-42"
ROUNDS = 5
TOGETHER = 8


def median(values: list[float]) -> float:
    """Return the median, in three figures."""
    return round(statistics.median(values), 3)


def pss_mib(pids: list[int]) -> float:
    """Return the memory of processes, shared pages counted in shares, in MiB (``/proc/PID/smaps_rollup``)."""
    total = 0
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
        except OSError:
            continue
        found = re.search(r"^Pss:\s+(\d+)", text, re.MULTILINE)
        total += int(found[1]) if found else 0
    return round(total / 1024, 1)


async def _restore(url: str, token: str, name: str) -> None:
    """Stop the server of `name`, so that the next round starts it again."""
    headers = {"Authorization": f"token {token}"}
    async with aiohttp.ClientSession(headers=headers) as session:
        async with session.delete(f"{url}/hub/api/users/{name}/servers/") as answer:
            await answer.read()
        while True:
            async with session.get(f"{url}/hub/api/users/{name}") as answer:
                if not (await answer.json()).get("server") and not (await answer.json()).get("pending"):
                    return
            await asyncio.sleep(0.1)


async def measure_sessions(
    own: str, stock: str, *, rounds: int, end: Callable[[str, str], Awaitable[None]]
) -> dict[str, Any]:
    """Return seconds of one person's sessions on both, alternating round by round."""
    figures: dict[str, Any] = {}
    for cell in ("trivial", "science"):
        seen: dict[str, list[Session]] = {"own": [], "stock": []}
        for number in range(rounds + 1):
            for who, one, url in (("own", own_session, own), ("stock", stock_session, stock)):
                session = await one(url, "solo", PASSWORD, cell=cell)
                if number:  # the first fills caches
                    seen[who].append(session)
                await end(who, "solo")
        figures[cell] = {
            who: {
                "lab_s": median([each.lab for each in sessions]),
                "kernel_s": median([each.kernel for each in sessions]),
                "result_s": median([each.results[cell] for each in sessions]),
            }
            for who, sessions in seen.items()
        }
        ratios = [a.results[cell] / b.results[cell] for a, b in zip(seen["own"], seen["stock"], strict=True)]
        figures[cell]["ratio"] = median(ratios)
    names = [f"person{number}" for number in range(TOGETHER)]
    together = {}
    for who, one, url in (("own", own_session, own), ("stock", stock_session, stock)):
        together[f"{who}_s"] = round(await several(one, url, names, PASSWORD, cell="science"), 3)
        if who == "stock":
            for name in names:
                await end(who, name)
    together["ratio"] = round(together["own_s"] / together["stock_s"], 3)
    figures["eight_at_once"] = together
    return figures


async def measure_pages(url: str, *, seconds: float = 5.0) -> dict[str, float]:
    """Return how many front pages a second the platform answers, asked by eight clients through the proxy."""
    count = 0
    deadline = time.perf_counter() + seconds

    async def ask(session: aiohttp.ClientSession) -> None:
        nonlocal count
        while time.perf_counter() < deadline:
            async with session.get(url) as answer:
                assert answer.status == 200
                await answer.read()
            count += 1

    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*(ask(session) for _ in range(8)))
    return {"pages_per_s": round(count / seconds, 1)}


def measure_start(platform: Platform) -> float:
    """Return the seconds from ``astrocloud up`` to its ready line, everything being installed."""
    platform.stop()
    started = time.perf_counter()
    platform.start()
    return round(time.perf_counter() - started, 2)


def measure_cold_start(folder: Path) -> float:
    """Return the seconds from ``make run`` in a fresh clone with empty caches to the ready line."""
    clone = folder / "clone"
    subprocess.run(["git", "clone", "-q", str(REPOSITORY), str(clone)], check=True)
    port = free_port()
    variables = {
        **os.environ,
        "UV_CACHE_DIR": str(folder / "uv"),
        "npm_config_cache": str(folder / "npm"),
        "PIP_NO_CACHE_DIR": "1",
        "ASTROCLOUD_DATA": str(folder / "cold"),
        "ASTROCLOUD_PORT": str(port),
    }
    out = folder / "cold.out"
    started = time.perf_counter()
    with out.open("wb") as log:
        process = subprocess.Popen(
            ["make", "run"], cwd=clone, env=variables, stdout=log, stderr=log, start_new_session=True
        )

    def ready() -> bool:
        assert process.poll() is None, out.read_text(encoding="utf-8")
        return "Astrocloud is ready" in out.read_text(encoding="utf-8")

    try:
        wait_until(ready, within_s=600, what="make run in a fresh clone")
        return round(time.perf_counter() - started, 1)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)


def measure_memory(platform: Platform, names: list[str]) -> dict[str, float]:
    """Return the memory of the platform's own parts and of each idle server with one kernel, in MiB."""
    parts = {name: platform.part(name) for name in ("proxy", "hub", "services")}
    assert platform.process is not None
    supervisor = platform.process.pid
    everything = set(descendants(supervisor))
    # What servers are forked from is there for all of them.
    parents = {pid for pid in everything if _forks(pid)}
    own = ({supervisor, *parts.values()} | parents) - {0}
    servers = everything - own
    return {
        "parts_mib": pss_mib(sorted(own)),
        **{f"{name}_mib": pss_mib([pid]) for name, pid in parts.items()},
        "server_parents_mib": pss_mib(sorted(parents)),
        "each_server_mib": round(pss_mib(sorted(servers)) / len(names), 1),
    }


def _forks(pid: int) -> bool:
    """Tell whether a process is one that servers are forked from, and not such a server."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        return b"astrocloud_lab.forked.parent" in command and Path(f"/proc/{pid}").stat().st_uid == os.getuid()
    except OSError:
        return False


def _stopper(platform: Platform, stock: str, token: str) -> Callable[[str, str], Awaitable[None]]:
    own_tokens: dict[str, str] = {}

    async def end(who: str, name: str) -> None:
        if who == "stock":
            await _restore(stock, token, name)
            return
        if name not in own_tokens:
            own_tokens[name] = platform.run_json("token", name)["token"]
        await _restore(platform.url, own_tokens[name], name)

    return end


def run(*, rounds: int, cold: bool, files: bool) -> dict[str, Any]:
    """Measure and return the figures: everything, but the cold start and the files only if they are wanted."""
    with tempfile.TemporaryDirectory(prefix="astrocloud-bench-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        figures: dict[str, Any] = {
            "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": {"cores": os.cpu_count(), "python": machine.python_version(), "system": machine.machine()},
        }
        if cold:
            figures["cold_make_run_s"] = measure_cold_start(folder)
        config = {"servers": {"limit_per_person": 3, "start_timeout_s": 300}}
        with running_platform(folder / "own", config=config) as platform:
            names = [f"person{number}" for number in range(TOGETHER)]
            for each in ["solo", *names]:
                platform.add(each, PASSWORD)
            python = _environment_python(platform)
            figures["installed_start_s"] = measure_start(platform)
            singleuser = python.parent / "jupyterhub-singleuser"
            with stock_hub(folder / "stock", singleuser=singleuser, password=PASSWORD) as (stock, token):
                end = _stopper(platform, stock, token)
                sessions = asyncio.run(measure_sessions(platform.url, stock, rounds=rounds, end=end))
            figures["sessions"] = sessions
            figures["memory"] = measure_memory(platform, names)
            figures["pages"] = asyncio.run(measure_pages(platform.url + "/"))
        if files:
            figures["files"] = measure_all_files(folder, rounds=rounds)
        return figures


def measure_all_files(folder: Path, *, rounds: int) -> dict[str, Any]:
    """Return the figures of VOSpace: on a file system in memory, which shows the programs, and on this one's disk.

    nginx does not wait for the disk when it takes a file, the platform does.
    """
    config = {"environments": {"prepare_at_start": False}}
    figures = {}
    memory = Path("/dev/shm")
    places = {"in_memory": memory, "on_disk": folder} if memory.is_dir() else {"on_disk": folder}
    for name, place in places.items():
        with tempfile.TemporaryDirectory(prefix="astrocloud-bench-", dir=place) as made:
            Path(made).chmod(0o711)
            with running_platform(Path(made), config=config) as platform:
                figures[name] = measure_files(platform, rounds=rounds)
    return figures


def _environment_python(platform: Platform) -> Path:
    from astrocloud.config import load_config
    from astrocloud.core.layout import DataFolder

    data = DataFolder(platform.data)
    catalogue, builder = catalogue_and_builder(load_config(data.config_file), data)

    def ready() -> Path | None:
        built = builder.ready(catalogue.default)
        return built.python if built else None

    return wait_until(ready, within_s=600, what="the environment")


def table(figures: dict[str, Any]) -> str:
    """Return the figures as lines for people."""
    lines = []

    def flatten(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                flatten(f"{prefix}.{key}" if prefix else key, inner)
        else:
            lines.append(f"{prefix:45} {value}")

    flatten("", figures)
    return "\n".join(lines)


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="counted rounds of each session")
    parser.add_argument("--no-cold", action="store_true", help="leave out `make run` with empty caches")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--only-files", action="store_true", help="measure VOSpace alone")
    only.add_argument("--no-files", action="store_true", help="leave out VOSpace")
    options = parser.parse_args()
    if options.only_files:
        with tempfile.TemporaryDirectory(prefix="astrocloud-bench-") as name:
            Path(name).chmod(0o711)
            figures = measure_all_files(Path(name), rounds=options.rounds)
    else:
        figures = run(rounds=options.rounds, cold=not options.no_cold, files=not options.no_files)
    results = REPOSITORY / "bench-results"
    results.mkdir(exist_ok=True)
    name = "files.json" if options.only_files else "one-machine.json"
    (results / name).write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    sys.stdout.write(table(figures) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
