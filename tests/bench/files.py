"""Bytes and folders by VOSpace: against nginx in the same run, directly and through the platform's proxy."""

import asyncio
import json
import os
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from tests.bench.nginx import Nginx, nginx
from tests.bench.wire import Line, Reply
from tests.support.platform import Platform

SIZE_BYTES = 256 * 2**20
SMALL_BYTES = 4096
CHILDREN = 1_000_000
CLIENTS = 200
REPEATS = 4
"""How often the large file goes within a round: the processor's clock ticks 100 times a second."""
SECONDS = 4.0
"""How long small files are asked for, in each round."""

PASSWORD = "measured-twice-42"
BASE = "/services/vospace"
NO_SUM = {"Want-Repr-Digest": "md5=0"}
# A page's own script is not sent around the proxy: that is how to measure the way through it.
THROUGH = {"Sec-Fetch-Mode": "cors"}

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_s(pids: list[int]) -> float:
    """Return the seconds of processor time that processes have used."""
    total = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:
            continue
        total += int(fields[11]) + int(fields[12])
    return total / _TICKS


def resident_mib(pid: int) -> float:
    """Return the memory of a process, in MiB."""
    text = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(next(line for line in text.splitlines() if line.startswith("VmRSS:")).split()[1]) / 1024


class Way:
    """One way to a server, and what it has cost so far.

    Parameters
    ----------
    work
        Moves the bytes once and returns the seconds that took.
    pids
        The processes on the way.
    """

    def __init__(self, work: Callable[[], float], pids: list[int]) -> None:
        self._work = work
        self._pids = pids
        self.seconds: list[float] = []
        self.cpu: list[float] = []

    def go(self, *, counted: bool) -> None:
        """Move the bytes a few times; remember what one took in the mean."""
        times = REPEATS if counted else 1
        before = cpu_s(self._pids)
        seconds = sum(self._work() for _ in range(times))
        if counted:
            self.seconds.append(seconds / times)
            self.cpu.append((cpu_s(self._pids) - before) / times)

    def figures(self, peer: "Way") -> dict[str, float]:
        """Return its speed and cost, and both against `peer`, which went in the same rounds."""
        gigabytes = SIZE_BYTES / 1e9
        own, others = statistics.median(self.cpu) / gigabytes, statistics.median(peer.cpu) / gigabytes
        ratios = [theirs / ours for ours, theirs in zip(self.seconds, peer.seconds, strict=True)]
        return {
            "gb_per_s": round(gigabytes / statistics.median(self.seconds), 3),
            "cpu_s_per_gb": round(own, 3),
            "of_nginx": round(statistics.median(ratios), 3),
            "cpu_of_nginx": round(own / others, 2) if others else 0.0,
        }


class Bench:
    """A platform and an nginx on the same file system.

    Parameters
    ----------
    platform
        The platform, with ada.
    peer
        The nginx, which gives the same files.
    folder
        Where files to send are, on that file system.
    rounds
        Counted rounds.
    """

    def __init__(self, *, platform: Platform, peer: Nginx, folder: Path, rounds: int) -> None:
        self._platform = platform
        self._peer = peer
        self._rounds = rounds
        self._services = platform.part("services")
        self._proxy = platform.part("proxy")
        self._home = platform.data / "tree" / "home" / "ada"
        self._bearer = {"Authorization": f"Bearer {platform.run_json('token', 'ada')['token']}"}
        self._around = json.loads((platform.data / "run" / "runtime.json").read_text())["bytes_url"]
        self._source = folder / "source"
        piece = os.urandom(2**20)
        with self._source.open("wb") as file:
            for _ in range(SIZE_BYTES >> 20):
                file.write(piece)

    def _line(self, address: str) -> Line:
        return Line(address, self._bearer)

    def _address(self, line: Line, path: str) -> str:
        """Return where a client is sent that asks for `path`."""
        reply = line("GET", f"{BASE}/files{path}")
        assert reply.status == 303, reply
        return urlsplit(reply.headers["location"]).path

    def get(self) -> dict[str, Any]:
        """Measure GET of one large file."""
        with self._line(self._platform.url) as line:
            reply = line("PUT", f"{BASE}/files/home/ada/large", body=self._source)
            assert reply.status in {200, 201}, reply
            there = self._address(line, "/home/ada/large")
        ways = {
            "nginx": Way(_getting(self._peer.url, "/get/large"), self._peer.pids),
            "direct": Way(_getting(self._around, there), [self._services]),
            "proxy": Way(
                _getting(self._platform.url, f"{BASE}/files/home/ada/large", {**self._bearer, **THROUGH}),
                [self._services, self._proxy],
            ),
        }
        return self._alternate(ways)

    def put(self) -> dict[str, Any]:
        """Measure PUT of one large file over an old one, as nginx does, with and without a checksum."""
        target, mine = f"{BASE}/files/home/ada/put", dict(self._bearer)
        ways = {
            "nginx": Way(_putting(self._peer.url, "/put/large", self._source), self._peer.pids),
            "direct": Way(_putting(self._around, target, self._source, {**mine, **NO_SUM}), [self._services]),
            "direct_md5": Way(_putting(self._around, target, self._source, mine), [self._services]),
            "proxy": Way(
                _putting(self._platform.url, target, self._source, {**mine, **NO_SUM}), [self._services, self._proxy]
            ),
        }
        return self._alternate(ways)

    def _alternate(self, ways: dict[str, Way]) -> dict[str, Any]:
        for number in range(self._rounds + 1):
            for way in ways.values():
                way.go(counted=number > 0)  # the first fills caches
        return {name: way.figures(ways["nginx"]) for name, way in ways.items()}

    def small_files(self) -> dict[str, Any]:
        """Measure how many files of 4 kB are given and taken in a second, to eight clients."""
        small = os.urandom(SMALL_BYTES)
        with self._line(self._platform.url) as line:
            assert line("PUT", f"{BASE}/files/home/ada/small", body=small).status in {200, 201}
        path = f"{BASE}/files/home/ada/small"
        figures: dict[str, Any] = {
            "get_nginx_per_s": self._rate(self._peer.url, "GET", lambda _n: "/get/small"),
            "get_direct_per_s": self._rate(self._around, "GET", lambda _n: path),
            "get_proxy_per_s": self._rate(self._platform.url, "GET", lambda _n: path),
            "put_nginx_per_s": self._rate(self._peer.url, "PUT", lambda n: f"/put/s{n}", small),
            "put_direct_per_s": self._rate(self._around, "PUT", lambda n: f"{path}{n}", small),
        }
        for found in self._home.glob("small?*"):
            found.unlink()
        return figures

    def _rate(self, address: str, method: str, path: Callable[[int], str], body: bytes = b"") -> float:
        deadline = time.perf_counter() + SECONDS

        def ask(client: int) -> int:
            count = 0
            with self._line(address) as line:
                while time.perf_counter() < deadline:
                    reply = line(method, path(client * 1_000_000 + count), body=body)
                    assert reply.status in {200, 201, 204}, reply
                    count += 1
            return count

        with ThreadPoolExecutor(8) as pool:
            return round(sum(pool.map(ask, range(8))) / SECONDS, 1)

    def large_folder(self) -> dict[str, Any]:
        """Measure the listing of a folder with a million children, and what it costs in memory."""
        folder = self._home / "many"
        folder.mkdir()
        owner = self._home.stat()
        os.chown(folder, owner.st_uid, owner.st_gid)
        started = time.perf_counter()
        here = os.open(folder, os.O_RDONLY)
        for number in range(CHILDREN):
            os.close(os.open(f"f{number:07d}", os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=here))
        os.close(here)
        figures: dict[str, Any] = {"children": CHILDREN, "made_in_s": round(time.perf_counter() - started, 1)}
        try:
            for detail in ("min", "max"):
                figures[detail] = self._listing(f"{BASE}/nodes/home/ada/many?detail={detail}")
            page = f"{BASE}/nodes/home/ada/many?detail=min&limit=1000&uri=vos://astrocloud.local~vospace/home/ada/many/"
            with self._line(self._platform.url) as line:
                line("GET", page + "f0000000")  # makes the index of names
                times = [line("GET", f"{page}f{start:07d}").seconds for start in range(0, 500_000, 25_000)]
            figures["page_of_1000_ms"] = round(statistics.median(times) * 1e3, 2)
        finally:
            shutil.rmtree(folder)
        return figures

    def _listing(self, path: str) -> dict[str, Any]:
        before = resident_mib(self._services)
        with self._line(self._platform.url) as line, _watched(self._services) as highest:
            began = self._first_byte(path)  # the first time, of a list that nobody reads to its end
            line("GET", path)
            reply = line("GET", path)
            firsts = [self._first_byte(path) for _ in range(9)]
        return {
            "first_first_byte_ms": round(began * 1e3, 2),
            "first_byte_ms": round(statistics.median(firsts) * 1e3, 2),
            "whole_s": round(reply.seconds, 2),
            "megabytes": round(reply.size / 1e6, 1),
            "grows_mib": round(max(0.0, highest[0] - before), 1),
        }

    def _first_byte(self, path: str) -> float:
        return first_byte(self._platform.url, path, self._bearer)

    def nodes(self) -> dict[str, float]:
        """Measure getNode of one file."""
        path = f"{BASE}/nodes/home/ada/small"
        found = {}
        for name, address in (("proxy", self._platform.url), ("direct", self._services_url())):
            with self._line(address) as line:
                times = [self._good(line("GET", path)).seconds for _ in range(500)]
            found[f"{name}_p50_ms"] = round(statistics.median(times) * 1e3, 2)
            found[f"{name}_p99_ms"] = round(sorted(times)[int(len(times) * 0.99)] * 1e3, 2)
        return found

    def _services_url(self) -> str:
        runtime = json.loads((self._platform.data / "run" / "runtime.json").read_text())
        return f"http://127.0.0.1:{runtime['services_port']}"

    def _good(self, reply: Reply) -> Reply:
        assert reply.status == 200, reply
        return reply

    def together(self) -> dict[str, Any]:
        """Let 200 clients at once look, read and write; return the errors there were."""
        return asyncio.run(_together(self._platform.url, self._bearer, self._home))


def first_byte(address: str, path: str, headers: dict[str, str]) -> float:
    """Return the seconds until the first byte of an answer's body, of which no more is read."""
    import socket

    parts = urlsplit(address)
    told = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    with socket.create_connection((parts.hostname, parts.port)) as line:
        started = time.perf_counter()
        line.sendall(f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\n{told}\r\n".encode())
        received = b""
        while not received.partition(b"\r\n\r\n")[2]:
            more = line.recv(65536)
            assert more
            received += more
        return time.perf_counter() - started


@contextmanager
def _watched(pid: int) -> Iterator[list[float]]:
    """Give the most memory that process `pid` has had since."""
    highest, ending = [resident_mib(pid)], threading.Event()

    def watch() -> None:
        while not ending.wait(0.02):
            highest[0] = max(highest[0], resident_mib(pid))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield highest
    finally:
        ending.set()
        thread.join()


def _getting(address: str, path: str, headers: dict[str, str] | None = None) -> Callable[[], float]:
    def get() -> float:
        with Line(address, headers or {}) as line:
            reply = line("GET", path)
        assert (reply.status, reply.size) == (200, SIZE_BYTES), (reply.status, reply.size)
        return reply.seconds

    return get


def _putting(address: str, path: str, source: Path, headers: dict[str, str] | None = None) -> Callable[[], float]:
    def put() -> float:
        with Line(address, headers or {}) as line:
            reply = line("PUT", path, body=source)
        assert reply.status in {200, 201, 204}, reply
        return reply.seconds

    return put


async def _together(url: str, headers: dict[str, str], home: Path) -> dict[str, Any]:
    errors: list[str] = []
    data = os.urandom(100_000)

    async def client(session: aiohttp.ClientSession, number: int) -> None:
        try:
            for turn in range(5):
                mine = f"{url}{BASE}/files/home/ada/c{number}"
                async with session.put(mine, data=data) as answer:
                    assert answer.status == (200 if turn else 201), answer.status
                async with session.get(f"{url}{BASE}/nodes/home/ada/c{number}") as answer:
                    assert answer.status == 200, answer.status
                    await answer.read()
                async with session.get(mine) as answer:
                    assert await answer.read() == data
        except Exception as err:  # noqa: BLE001 - counted
            errors.append(repr(err)[:200])

    started = time.perf_counter()
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(headers=headers, connector=connector) as session:
        await asyncio.gather(*(client(session, number) for number in range(CLIENTS)))
    for found in home.glob("c*"):
        found.unlink()
    seconds = time.perf_counter() - started
    return {
        "clients": CLIENTS,
        "requests_per_s": round(CLIENTS * 15 / seconds, 1),
        "errors": len(errors),
        "first_error": errors[0] if errors else "",
    }


GOALS: tuple[tuple[str, str, float], ...] = (
    ("get_256_mib direct of_nginx", "at least", 0.95),
    ("get_256_mib direct cpu_of_nginx", "at most", 2.0),
    ("put_256_mib direct of_nginx", "at least", 0.95),
    ("put_256_mib direct_md5 of_nginx", "at least", 0.5),
    ("together errors", "at most", 0),
    ("folder min first_byte_ms", "at most", 50),
    ("folder max first_byte_ms", "at most", 50),
    ("folder min grows_mib", "at most", 100),
    ("folder max grows_mib", "at most", 100),
)
"""Which figure is to be how large."""


def compared(figures: dict[str, Any]) -> dict[str, str]:
    """Return for every goal whether `figures` meet it, and by what."""
    told = {}
    for name, bound, limit in GOALS:
        found: Any = figures
        for part in name.split():
            found = found[part]
        met = found >= limit if bound == "at least" else found <= limit
        told[name] = f"{'met' if met else 'MISSED'}: {found} ({bound} {limit:g})"
    return told


def measure_files(platform: Platform, *, rounds: int) -> dict[str, Any]:
    """Return the figures of VOSpace on `platform`, whose data is on the file system to measure."""
    platform.add("ada", PASSWORD)
    with tempfile.TemporaryDirectory(prefix="astrocloud-nginx-", dir=platform.data.parent) as name:
        folder = Path(name)
        folder.chmod(0o711)
        with nginx(folder / "nginx", files=platform.data / "tree" / "home" / "ada") as peer:
            bench = Bench(platform=platform, peer=peer, folder=folder, rounds=rounds)
            figures = {
                "get_256_mib": bench.get(),
                "put_256_mib": bench.put(),
                "small": bench.small_files(),
                "get_node": bench.nodes(),
                "together": bench.together(),
                "folder": bench.large_folder(),
            }
            return {**figures, "goals": compared(figures)}
