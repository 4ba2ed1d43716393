"""The filesystem's own promises, against a running service."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import io
import os
import pickle
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import fsspec
import pytest
from given import AUTHORITY, folder, fs, own, posix  # noqa: F401 - fixtures

BIG = os.urandom(12_000_001)


def test_addresses_and_paths(fs, folder):  # noqa: F811
    fs.pipe(f"{folder}/b 50%.txt", b"x")
    address = fs.unstrip_protocol(f"{folder}/b 50%.txt")
    assert address == f"{AUTHORITY}{folder}/b%2050%25.txt"
    assert fsspec.open(address).open().read() == b"x"
    assert fsspec.open(address.replace("~", "!")).open().read() == b"x"
    assert fs.cat(f"{folder}/b 50%.txt") == b"x"
    assert fs.ls(folder, detail=False) == [f"{folder}/b 50%.txt"]
    with pytest.raises(ValueError, match="no service is known for vos://other~vospace"):
        fsspec.open("vos://other~vospace/x").open()


def test_what_is_told_of_a_file(fs, folder):  # noqa: F811
    before = datetime.now(tz=UTC)
    fs.pipe(f"{folder}/f", b"hello")
    told = fs.info(f"{folder}/f")
    assert (told["name"], told["size"], told["type"]) == (f"{folder}/f", 5, "file")
    assert abs((fs.modified(f"{folder}/f") - before).total_seconds()) < 60
    assert fs.checksum(f"{folder}/f") == hashlib.md5(b"hello").hexdigest()
    # Written by a notebook: seen at once, and the checksum is not the old one.
    posix(f"{folder}/f").write_bytes(b"hello, world")
    assert fs.info(f"{folder}/f")["size"] == 12
    assert fs.checksum(f"{folder}/f") != hashlib.md5(b"hello").hexdigest()
    assert fs.info(folder)["type"] == "directory"
    assert fs.info("/")["type"] == "directory"
    assert "/home" in fs.ls("/", detail=False)


def test_a_file_can_have_any_name(fs, folder):  # noqa: F811
    names = [
        "天 文.fits",
        "a&b=c?d#e",
        "%41",
        "x+y;z",
        "quote'\"",
        "<&>",
        "\udcff.bin".encode("utf-8", "surrogateescape"),
    ]
    for name in names:
        if isinstance(name, bytes):
            # Not UTF-8: the service takes no new one, but a notebook may have made it.
            with open(os.fsencode(posix(folder)) + b"/" + name, "wb") as file:
                file.write(b"x")
            os.chown(os.fsencode(posix(folder)) + b"/" + name, posix(folder).stat().st_uid, posix(folder).stat().st_gid)
        else:
            fs.pipe(f"{folder}/{name}", b"x")
    found = fs.ls(folder, detail=False)
    assert sorted(found) == sorted(f"{folder}/{os.fsdecode(name)}" for name in names)
    assert all(fs.cat(one) == b"x" for one in found)


def test_ranges(fs, folder):  # noqa: F811
    data = bytes(range(256)) * 40
    fs.pipe(f"{folder}/f", data)
    for start, end in [
        (0, 10),
        (5, 5),
        (9, 3),
        (100, None),
        (-10, None),
        (-10, -3),
        (5, -5),
        (20_000, 20_010),
        (None, 7),
    ]:
        assert fs.cat_file(f"{folder}/f", start, end) == data[start:end], (start, end)
    parts = fs.cat_ranges([f"{folder}/f"] * 3, [0, 10, 1000], [5, 20, 1003])
    assert parts == [data[0:5], data[10:20], data[1000:1003]]
    with fs.open(f"{folder}/f", block_size=512) as file:
        file.seek(-100, 2)
        assert file.read() == data[-100:]
        file.seek(3)
        assert file.read(4) == data[3:7]


def test_refusals_are_pythons_own(fs, folder):  # noqa: F811
    with pytest.raises(FileNotFoundError, match="none"):
        fs.cat(f"{folder}/none")
    with pytest.raises(FileNotFoundError):
        fs.info(f"{folder}/none")
    with pytest.raises(FileNotFoundError):
        fs.ls(f"{folder}/none")
    assert not fs.exists(f"{folder}/none")
    with pytest.raises(PermissionError):
        fs.ls("/home/bob")
    with pytest.raises(PermissionError):
        fs.pipe("/home/bob/f", b"x")
    with pytest.raises(FileExistsError):
        fs.mkdir(folder)
    with pytest.raises(FileExistsError):
        fs.makedirs(folder, exist_ok=False)
    fs.makedirs(folder, exist_ok=True)
    fs.pipe(f"{folder}/d/f", b"x")
    with pytest.raises(IsADirectoryError):
        fs.rm_file(f"{folder}/d")
    with pytest.raises(OSError, match="not empty"):
        fs.rmdir(f"{folder}/d")
    with pytest.raises(NotADirectoryError):
        fs.rmdir(f"{folder}/d/f")
    with pytest.raises(FileExistsError):
        fs.pipe_file(f"{folder}/d/f", b"y", mode="create")
    fs.rm(f"{folder}/d/f")
    fs.rmdir(f"{folder}/d")
    assert fs.ls(folder) == []
    strict = fsspec.filesystem("vos", auto_mkdir=False)
    with pytest.raises(FileNotFoundError):
        strict.pipe(f"{folder}/no/such/f", b"x")


def test_a_wrong_token_is_a_permission_error_that_does_not_tell_it(folder):  # noqa: F811
    other = fsspec.filesystem("vos", token="not-a-token-of-anybody", retries=0)
    with pytest.raises(PermissionError) as caught:
        other.ls("/home/ada")
    assert "not-a-token" not in str(caught.value)


def break_off(opened):
    with opened as file:
        file.write(BIG[:3_000_000])
        raise RuntimeError


def write_all(opened):
    with opened as file:
        for start in range(0, len(BIG), 2**18):
            file.write(BIG[start : start + 2**18])


def test_writing_replaces_when_it_is_closed_and_not_before(fs, folder):  # noqa: F811
    fs.pipe(f"{folder}/f", b"old")
    with fs.open(f"{folder}/f", "wb", block_size=2**20) as file:
        for start in range(0, len(BIG), 700_000):
            file.write(BIG[start : start + 700_000])
        assert posix(f"{folder}/f").read_bytes() == b"old"
    assert posix(f"{folder}/f").read_bytes() == BIG
    with pytest.raises(RuntimeError):
        break_off(fs.open(f"{folder}/f", "wb", block_size=2**20))
    assert posix(f"{folder}/f").read_bytes() == BIG
    assert fs.ls(folder, detail=False) == [f"{folder}/f"]
    with fs.open(f"{folder}/log", "ab") as file:
        file.write(b"one ")
    with fs.open(f"{folder}/log", "ab") as file:
        assert file.tell() == 4
        file.write(b"two")
    assert fs.cat(f"{folder}/log") == b"one two"
    with fs.transaction:
        with fs.open(f"{folder}/late", "wb") as file:
            file.write(b"x")
        assert not fs.exists(f"{folder}/late")
    assert fs.cat(f"{folder}/late") == b"x"


def test_a_refused_upload_is_told_where_it_is_written(fs):  # noqa: F811
    with pytest.raises(PermissionError):
        write_all(fs.open("/home/bob/f", "wb", block_size=2**18))


def test_put_get_and_copy_of_large_files(fs, folder, tmp_path):  # noqa: F811
    (tmp_path / "up").write_bytes(BIG)
    fs.put(str(tmp_path / "up"), f"{folder}/a/b/f")
    fs.get(f"{folder}/a/b/f", str(tmp_path / "down"))
    assert (tmp_path / "down").read_bytes() == BIG
    assert sorted(one.name for one in tmp_path.iterdir()) == ["down", "up"]
    fs.cp(f"{folder}/a/b/f", f"{folder}/copy")
    fs.pipe(f"{folder}/there", b"old")
    fs.cp(f"{folder}/a/b/f", f"{folder}/there")
    assert fs.cat(f"{folder}/copy") == fs.cat(f"{folder}/there") == BIG


def test_move(fs, folder):  # noqa: F811
    fs.pipe({f"{folder}/f": b"f", f"{folder}/g": b"g", f"{folder}/d/x": b"x"})
    inode = posix(f"{folder}/d/x").stat().st_ino
    fs.mv(f"{folder}/d", f"{folder}/e", recursive=True)
    assert posix(f"{folder}/e/x").stat().st_ino == inode
    fs.mv(f"{folder}/f", f"{folder}/g")
    assert fs.cat(f"{folder}/g") == b"f"
    fs.mv(f"{folder}/g", f"{folder}/e")
    fs.mv(f"{folder}/e/*", f"{folder}/new/")
    assert fs.find(folder) == [f"{folder}/new/g", f"{folder}/new/x"]


def test_a_file_moved_onto_a_link_to_it_takes_the_links_place(fs, folder):  # noqa: F811
    fs.pipe(f"{folder}/f", b"hello")
    posix(f"{folder}/link").symlink_to(f"{folder}/f")
    own(f"{folder}/link")
    fs.mv(f"{folder}/f", f"{folder}/link")
    assert fs.ls(folder, detail=False) == [f"{folder}/link"]
    assert not posix(f"{folder}/link").is_symlink()
    assert fs.cat(f"{folder}/link") == b"hello"


def test_rmdir_leaves_what_its_caller_cannot_see(fs, folder):  # noqa: F811
    fs.mkdir(f"{folder}/d")
    # As what a colleague keeps private in a folder of a group: no listing tells it.
    kept = posix(f"{folder}/d/.f.astrocloud-0123456789abcdef")
    kept.write_bytes(b"x")
    assert fs.ls(f"{folder}/d") == []
    with pytest.raises(OSError, match="not empty") as caught:
        fs.rmdir(f"{folder}/d")
    assert caught.value.errno == errno.ENOTEMPTY
    assert kept.read_bytes() == b"x"


def test_find_and_glob(fs, folder):  # noqa: F811
    fs.pipe({f"{folder}/{name}": b"x" for name in ("a.csv", "b.csv", "c.txt", "d/e.csv", "d/f/g.csv")})
    assert fs.glob(f"{folder}/*.csv") == [f"{folder}/a.csv", f"{folder}/b.csv"]
    assert len(fs.glob(f"{AUTHORITY}{folder}/**/*.csv")) == 4
    assert len(fs.find(folder)) == 5
    assert fs.du(folder) == 5
    fs.rm(folder, recursive=True)
    assert not fs.exists(folder)


def test_links(fs, folder):  # noqa: F811
    fs.pipe({f"{folder}/d/f": b"hello"})
    for name, target in (("file", "d/f"), ("dir", "d"), ("lost", "nowhere")):
        posix(f"{folder}/{name}").symlink_to(f"{folder}/{target}")
        own(f"{folder}/{name}")
    assert fs.info(f"{folder}/file")["size"] == 5
    assert fs.cat(f"{folder}/file") == b"hello"
    assert fs.isdir(f"{folder}/dir")
    assert fs.ls(f"{folder}/dir", detail=False) == [f"{folder}/dir/f"]
    assert fs.info(f"{folder}/dir/f")["size"] == 5
    assert fs.info(f"{folder}/lost")["type"] == "other"
    # A link is no folder to walk into, or one to itself would have no end.
    assert fs.find(folder) == [f"{folder}/{name}" for name in ("d/f", "dir", "file", "lost")]
    fs.rm(f"{folder}/file")
    assert fs.cat(f"{folder}/d/f") == b"hello"


def test_a_listing_is_whole_and_comes_in_pages(fs, folder, monkeypatch):  # noqa: F811
    monkeypatch.setattr("astrocloud_lab.vospace.filesystem._PAGE", 7)
    for count in (6, 7, 8, 14, 15):
        for number in range(count):
            posix(f"{folder}/{number:02d}").touch()
            own(f"{folder}/{number:02d}")
        assert fs.ls(folder, detail=False) == [f"{folder}/{number:02d}" for number in range(count)]
    # Also below a folder that is a link.
    fs.pipe({f"{folder}/real/in ner/{number:02d}": b"x" for number in range(15)})
    posix(f"{folder}/link").symlink_to(f"{folder}/real")
    own(f"{folder}/link")
    found = fs.ls(f"{folder}/link/in ner", detail=False)
    assert found == [f"{folder}/link/in ner/{number:02d}" for number in range(15)]


def test_a_file_that_changes_while_it_is_read_is_told(fs, folder):  # noqa: F811
    fs.pipe(f"{folder}/f", BIG[:100_000])
    with fs.open(f"{folder}/f", block_size=1000, cache_type="none") as file:
        file.read(10)
        fs.pipe(f"{folder}/f", BIG[-100_000:])
        with pytest.raises(OSError, match="changed while"):
            file.read(10)


def test_pickled_it_works_elsewhere_and_holds_no_token(fs, folder):  # noqa: F811
    fs.pipe(f"{folder}/f", b"x")
    packed = pickle.dumps(fs)
    assert os.environ["ASTROCLOUD_TOKEN"].encode() not in packed
    assert pickle.loads(packed).cat(f"{folder}/f") == b"x"


def test_asynchronous(folder):  # noqa: F811
    async def work() -> bytes:
        fs = fsspec.filesystem("vos", asynchronous=True, skip_instance_cache=True)  # noqa: F811
        try:
            await fs._pipe_file(f"{folder}/f", b"async")
            return await fs._cat_file(f"{folder}/f", 1, 3)
        finally:
            await fs.client.close()

    assert asyncio.run(work()) == b"sy"


class Failing(BaseHTTPRequestHandler):
    """Fails as its server's list says, each time another way, then answers."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server: Stub = self.server  # type: ignore[assignment]
        server.seen.append((self.command, self.path, self.headers.get("Authorization")))
        how = server.plan.pop(0) if server.plan else "ok"
        length = int(self.headers.get("Content-Length") or 0)
        self.rfile.read(length)
        if how == "drop":
            self.close_connection = True
            return
        if how == "cut":
            self.send_response(200)
            self.send_header("Content-Length", "10")
            self.end_headers()
            self.wfile.write(b"half")
            self.close_connection = True
            return
        status, headers, body = {"ok": (200, {}, b"hello")}.get(how) if isinstance(how, str) else how  # type: ignore[misc]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_PUT(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        return


class Stub(ThreadingHTTPServer):
    """A service that fails."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Failing)
        self.plan: list[object] = []
        self.seen: list[tuple[str, str, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@pytest.fixture
def stubs() -> Iterator[tuple[Stub, Stub]]:
    pair = (Stub(), Stub())
    threads = [threading.Thread(target=one.serve_forever) for one in pair]
    for thread in threads:
        thread.start()
    yield pair
    for one, thread in zip(pair, threads, strict=True):
        one.shutdown()
        thread.join()
        one.server_close()


@pytest.mark.parametrize("how", ["drop", "cut", (503, {"Retry-After": "0"}, b""), (502, {}, b"")])
def test_what_passes_is_tried_again(stubs, how):
    stubs[0].plan = [how, how]
    fs = fsspec.filesystem("vos", endpoint=stubs[0].url, token="t")  # noqa: F811
    assert fs.cat_file("/home/ada/f") == b"hello"
    assert len(stubs[0].seen) == 3
    stubs[0].plan = [how if how != "cut" else "drop"]
    fs.pipe_file("/home/ada/f", b"whole again")
    fs.get_file("/home/ada/f", io.BytesIO())


def test_it_gives_up_with_a_sentence(stubs):
    stubs[0].plan = [(503, {}, b"later")] * 3
    fs = fsspec.filesystem("vos", endpoint=stubs[0].url, token="secret-token", retries=2)  # noqa: F811
    with pytest.raises(OSError, match="503"):
        fs.cat_file("/home/ada/f")
    stubs[0].plan = ["drop"] * 9  # the client below tries again by itself, too
    with pytest.raises(OSError, match="cannot be reached") as caught:
        fs.cat_file("/home/ada/f")
    assert "secret-token" not in str(caught.value)


def test_the_environments_token_goes_to_the_platform_only(stubs, monkeypatch):
    service, other = stubs
    monkeypatch.setenv("ASTROCLOUD_VOSPACE_URL", f"{service.url}/services/vospace")
    monkeypatch.setenv("ASTROCLOUD_TOKEN", "mine")
    assert fsspec.filesystem("vos", skip_instance_cache=True).cat_file("/home/ada/f") == b"hello"
    assert fsspec.filesystem("vos", endpoint=f"{service.url}/vos").cat_file("/home/ada/f") == b"hello"
    assert [token for *_, token in service.seen] == ["Bearer mine"] * 2
    monkeypatch.delenv("ASTROCLOUD_TOKEN")
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", "the server's")
    fsspec.filesystem("vos", endpoint=other.url).cat_file("/home/ada/f")
    fsspec.filesystem("vos", endpoint=other.url, token="given").cat_file("/home/ada/f")
    monkeypatch.delenv("ASTROCLOUD_VOSPACE_URL")
    fsspec.filesystem("vos", endpoint=other.url, retries=0).cat_file("/home/ada/f")
    assert [token for *_, token in other.seen] == [None, "Bearer given", None]


def test_another_host_never_gets_the_token(stubs):
    service, other = stubs
    fs = fsspec.filesystem("vos", endpoint=service.url, token="t")  # noqa: F811
    service.plan = [(303, {"Location": f"{other.url}/bytes"}, b"")]
    assert fs.cat_file("/home/ada/f") == b"hello"
    service.plan = [(307, {"Location": "/elsewhere"}, b"")]
    assert fs.cat_file("/home/ada/f") == b"hello"
    assert other.seen == [("GET", "/bytes", None)]
    assert service.seen[-1] == ("GET", "/elsewhere", "Bearer t")
    # Bytes are not sent where a redirect leads.
    service.plan = [(307, {"Location": f"{other.url}/bytes"}, b"")]
    with pytest.raises(OSError, match="307"):
        fs.pipe_file("/home/ada/f", b"x")
    assert len(other.seen) == 1
