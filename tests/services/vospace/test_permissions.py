"""Evaluating permissions in code says what the kernel says; without root, the gate says what the kernel cannot."""

import errno
import os
import random
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from astrocloud.vospace import acl, posix
from astrocloud.vospace.errors import Fault
from astrocloud.vospace.gate import Gate
from astrocloud.vospace.identity import Identity, acting_as
from astrocloud.vospace.models import NodePath, Person
from astrocloud.vospace.storage import Tree

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="acting as people needs root")
UIDS, GIDS = (20001, 20002, 20003), (30001, 30002, 30003)


def random_acl(rng: random.Random) -> acl.Acl:
    users = {uid: rng.randrange(8) for uid in rng.sample(UIDS, rng.randrange(3))}
    groups = {gid: rng.randrange(8) for gid in rng.sample(GIDS, rng.randrange(3))}
    mask = rng.randrange(8) if users or groups else None
    return acl.Acl(rng.randrange(8), rng.randrange(8), rng.randrange(8), users, groups, mask)


@root_only
def test_evaluation_agrees_with_the_kernel(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    folder = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    rng = random.Random(1)
    wrong = []
    for number in range(600):
        name = f"f{number}".encode()
        file = tmp_path / name.decode()
        file.touch()
        os.chown(file, rng.choice(UIDS), rng.choice(GIDS))
        given = random_acl(rng)
        os.setxattr(file, acl.ACCESS, given.encode())
        if rng.random() < 0.3:
            # chmod changes the mask, to nothing among others.
            file.chmod(rng.choice([0o000, 0o604, 0o640, 0o700, 0o077]))
        status = file.lstat()
        value = acl.read(posix.proc_path(folder, name))
        for _ in range(6):
            who = Identity(rng.choice(UIDS), rng.choice(GIDS), tuple(rng.sample(GIDS, rng.randrange(3))))
            for want, flags in ((acl.READ, os.O_RDONLY), (acl.WRITE, os.O_WRONLY), (acl.READ | acl.WRITE, os.O_RDWR)):
                with acting_as(who):
                    try:
                        os.close(posix.open_beneath(folder, (name,), flags))
                        kernel = True
                    except PermissionError:
                        kernel = False
                # Without need of the list it is not read: that shortcut is part of what is tested.
                used = value if acl.needs_list(status, who) else None
                if acl.permits(status, used, who, want) != kernel:
                    wrong.append((oct(status.st_mode), status.st_uid, status.st_gid, given, who, want, kernel))
    os.close(folder)
    assert wrong == []


def test_a_list_is_what_its_attribute_says_and_back() -> None:
    rng = random.Random(2)
    for _ in range(200):
        given = random_acl(rng)
        assert acl.Acl.parse(given.encode()) == given
    with pytest.raises(ValueError, match="not a POSIX"):
        acl.Acl.parse(b"\x01\x00\x00\x00")


@root_only
def test_identity_is_given_back_when_something_fails() -> None:
    before = (os.getgroups(), os.open("/root", os.O_RDONLY))
    os.close(before[1])

    def fail() -> None:
        with acting_as(Identity(20001, 20001, (30001,))):
            os.open("/root", os.O_RDONLY)

    with pytest.raises(PermissionError):
        fail()
    os.close(os.open("/root", os.O_RDONLY))
    assert os.getgroups() == before[0]
    for identity in (Identity(0, 20001), Identity(20001, 0)):
        with pytest.raises(PermissionError), acting_as(identity):
            pass


@root_only
def test_identity_is_one_threads_alone() -> None:
    from concurrent.futures import ThreadPoolExecutor
    from threading import Barrier

    barrier = Barrier(3)

    def who(identity: Identity | None) -> str:
        if identity is None:
            barrier.wait(10)
            found = Path("/proc/thread-self/status").read_text()
            barrier.wait(10)
        else:
            with acting_as(identity):
                barrier.wait(10)
                found = Path("/proc/thread-self/status").read_text()
                barrier.wait(10)
        lines = dict(line.split(":", 1) for line in found.splitlines() if ":" in line)
        return f"{lines['Uid'].split()[3]} {lines['Gid'].split()[3]} {lines['Groups'].strip()}"

    with ThreadPoolExecutor(3) as threads:
        asked = [Identity(20001, 20011, (30001, 30002)), Identity(20002, 20012), None]
        assert list(threads.map(who, asked))[:2] == ["20001 20011 30001 30002", "20002 20012 "]


def names(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    os.close(descriptor)
    return status.st_ino, stat.S_IFMT(status.st_mode)


def test_walking_resolves_as_openat2_does(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "f").touch()
    (tmp_path / "a" / "link").symlink_to("b")
    (tmp_path / "out").symlink_to("/")
    (tmp_path / "a" / "up").symlink_to("..")
    os.mkfifo(tmp_path / "pipe")
    folder = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    texts = ["a", "a/b", "a/f", "a/link", "a/link/x", "a/up/a", "out", "out/etc", "none", "none/x", "a/f/x", "pipe"]
    look = os.O_PATH | os.O_NOFOLLOW
    for text in texts:
        parts = tuple(text.encode().split(b"/"))
        for flags in (look, look | os.O_DIRECTORY, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW):
            outcomes = []
            for function in (posix.open_beneath, posix.walk_beneath):
                try:
                    outcomes.append(names(function(folder, parts, flags)))
                except OSError as err:
                    outcomes.append(err.errno)
            # For a final link in the place of a folder either says so in its own way.
            assert outcomes[0] == outcomes[1] or set(outcomes) <= {errno.ELOOP, errno.ENOTDIR}, (text, flags, outcomes)
            if isinstance(outcomes[0], tuple):
                assert outcomes[0][0] != os.stat("/").st_ino
    os.close(folder)


def test_gate_keeps_people_apart_where_the_kernel_cannot(tmp_path: Path) -> None:
    for name in ("home/ada", "home/bob/open", "project/team", "archive/survey"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "home/bob").chmod(0o711)
    (tmp_path / "home/bob/open/f").touch(0o644)
    (tmp_path / "home/bob/f").touch(0o600)
    (tmp_path / "home/ada").chmod(0o700)
    gate = Gate(tree=Tree(tmp_path), closed=True)
    me = Identity(os.geteuid(), os.getegid())
    ada, nobody = Person("ada", me, {"team": 1}), Person(None, me)

    def may(person: Person, path: str, want: int) -> bool:
        try:
            gate.check(person, NodePath.from_url(path), want)
        except Fault as fault:
            return fault.name != "PermissionDenied"
        return True

    read, write = acl.READ, acl.WRITE
    assert may(ada, "/home/ada/x", write)
    assert may(ada, "/project/team/x", write)
    assert may(ada, "/archive/survey", read)
    assert may(ada, "/home/bob/open/f", read)
    assert not may(ada, "/home/bob/open/f", write)
    assert not may(ada, "/home/bob/f", read)
    assert not may(ada, "/home/bob/none", read)
    assert not may(ada, "/archive/survey/x", write)
    assert not may(ada, "/project/other/x", read)
    assert not may(ada, "/home", write)
    assert may(nobody, "/home/bob/open/f", read)
    assert not may(nobody, "/home/ada", read)
    assert not may(nobody, "/home/ada/x", write)


@root_only
def test_service_without_root_serves_its_own_user(repository: Path) -> None:
    """The whole service as an ordinary user of the machine: what it cannot ask of the kernel it decides itself."""
    script = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from tests.services.vospace.platform import running\n"
        "async def main():\n"
        "    async with running(Path(sys.argv[1])) as ada:\n"
        "        bob, nobody = ada.as_('bob'), ada.as_(None)\n"
        "        print((await ada.upload('/home/ada/f', b'hello')).status)\n"
        "        print((await ada.get('/files/home/ada/f')).text)\n"
        "        print((await ada.upload('/project/team/f', b'ours')).status)\n"
        "        print((await bob.get('/files/project/team/f')).text)\n"
        "        print(*[(await who.get('/files/home/ada/f')).status for who in (bob, nobody)])\n"
        "        print((await bob.upload('/home/ada/f', b'x')).status)\n"
        "        print((await ada.set('/home/ada/f', {'ispublic': 'true'})).status)\n"
        "        print((await nobody.get('/files/home/ada/f')).text)\n"
        "        print((await bob('DELETE', '/nodes/home/ada/f')).status)\n"
        "asyncio.run(main())\n"
    )
    # pytest's own folders are root's alone.
    with tempfile.TemporaryDirectory(prefix="vospace-") as folder:
        os.chown(folder, 65534, 65534)
        done = subprocess.run(
            [sys.executable, "-c", script, f"{folder}/data"],
            cwd=repository,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "HOME": folder},
            user=65534,
            group=65534,
            extra_groups=[],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    said = [line for line in done.stdout.splitlines() if "request  " not in line]
    assert said == ["201", "hello", "201", "ours", "403 403", "403", "200", "hello", "403"], done.stdout + done.stderr
