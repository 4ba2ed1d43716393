"""Random operations of two people on the service, on a plain model, and the same tree through POSIX: no difference."""

import asyncio
import hashlib
import os
import shutil
import stat
import tempfile
import threading
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from astrocloud.vospace import attributes
from tests.services.vospace.platform import CORE, PEOPLE, TEAM, Answer, Space, digest, node_xml, running, uri
from tests.services.vospace.test_transfers import UWS, transfer_xml

Path_ = tuple[str, ...]
BASE = "/project/team/base"
LINK = "link"
"""The one name that links have: nothing is asked for below it."""
QUOTA = 300
"""Bytes of the project: so few that the machine meets the limit."""
USER_READ = "ivo://astrocloud/vospace/core#userread"
NAMES = st.sampled_from(["a", "b", "c", "天", "a b", "100%"])
WHO = st.sampled_from(["ada", "bob"])


@dataclass(frozen=True)
class Thing:
    """What is at one path: a file (with bytes), a link (with where it leads) or a folder (with neither)."""

    who: str
    data: bytes | None = None
    link: Path_ | None = None
    title: str = ""
    public: bool = False
    eve: bool = False
    """Whether eve, who is in no group, may read it by an entry of her own."""

    @property
    def kind(self) -> str:
        return "link" if self.link is not None else "folder" if self.data is None else "file"

    @property
    def mode(self) -> int:
        return 0o2771 if self.kind == "folder" else 0o660 | (4 if self.public else 0)


class Loop:
    """An event loop in a thread, because the machine's rules are no coroutines."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    def __call__(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


def quoted(path: Path_) -> str:
    return BASE + "".join(f"/{quote(name)}" for name in path)


class Machine(RuleBasedStateMachine):
    """The rules."""

    paths = Bundle("paths")
    links = Bundle("links")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="vospace-machine-"))
        self.folder.chmod(0o711)
        self.run = Loop()
        self.stack = AsyncExitStack()
        config = {"vospace": {"project_quota_bytes": QUOTA}}
        self.space: Space = self.run(self.stack.enter_async_context(running(self.folder / "data", config)))
        for who in ("eve", "ada", "bob"):
            self.run(self.space.as_(who).mkdir(f"/home/{who}"))  # none is looked at before all are there
        # Everybody may pass, and nobody outside may list: so a share needs no way to be opened.
        self.space.posix("/project/team").chmod(0o2771)
        assert self.run(self.space.mkdir(BASE)).status == 201
        self.model: dict[Path_, Thing] = {(): Thing("ada")}
        self.counted = 0

    def teardown(self) -> None:
        self.run(self.stack.aclose())
        self.run.close()
        shutil.rmtree(self.folder)

    # What the model says

    def kind(self, path: Path_) -> str:
        return self.model[path].kind if path in self.model else "none"

    def below(self, path: Path_) -> list[Path_]:
        return [other for other in self.model if other[: len(path)] == path]

    def size(self, path: Path_) -> int:
        return sum(len(self.model[other].data or b"") for other in self.below(path))

    def count(self, size: int) -> bool:
        """Count bytes as the service does; return whether there is room."""
        if size > 0 and self.counted + size > QUOTA:
            return False
        self.counted = max(0, self.counted + size)
        return True

    def expected_new(self, path: Path_) -> str | None:
        """The fault of making something new at `path`."""
        if self.kind(path[:-1]) != "folder":
            return "ContainerNotFound"
        return "DuplicateNode" if path in self.model else None

    def agrees(self, answer: Answer, fault: str | None) -> None:
        if fault is None:
            assert answer.status in {200, 201}, answer.text
        else:
            assert answer.fault == fault, answer.text

    def file(self, path: Path_) -> Path:
        return self.space.posix(BASE).joinpath(*path)

    def owned(self, path: Path_, who: str, mode: int) -> None:
        os.chown(self.file(path), PEOPLE[who].identity.uid, TEAM)
        self.file(path).chmod(mode)

    # What happens by VOSpace

    @initialize(target=paths)
    def root(self) -> Any:
        return multiple(("a",), ("b",), ("a", "b"), ("a", "b", "c"))

    @rule(target=paths, path=paths, name=NAMES)
    def longer(self, path: Path_, name: str) -> Path_:
        return (*path, name)[:4]

    @rule(path=paths, who=WHO, title=st.sampled_from(["", "a title", "天文"]))
    def make_folder(self, path: Path_, who: str, title: str) -> None:
        fault = self.expected_new(path)
        document = node_xml(quoted(path), "ContainerNode", {"title": title} if title else {})
        self.agrees(self.run(self.space.as_(who)("PUT", f"/nodes{quoted(path)}", data=document)), fault)
        if fault is None:
            self.model[path] = Thing(who, title=title)

    @rule(target=links, folder=paths, aim=paths, who=WHO)
    def make_link(self, folder: Path_, aim: Path_, who: str) -> Path_:
        path = (*folder, LINK)
        fault = self.expected_new(path)
        document = node_xml(quoted(path), "LinkNode", target=uri(quoted(aim)))
        self.agrees(self.run(self.space.as_(who)("PUT", f"/nodes{quoted(path)}", data=document)), fault)
        if fault is None:
            self.model[path] = Thing(who, link=aim)
        return path

    @rule(
        path=st.one_of(paths, links),
        data=st.binary(max_size=120),
        who=WHO,
        condition=st.sampled_from(["", "", "matches", "stale", "new"]),
    )
    def put(self, path: Path_, data: bytes, who: str, condition: str) -> None:
        there, fault = path, None
        if self.kind(path) == "link":
            there = self.model[path].link or ()
            fault = {"folder": "DuplicateNode", "none": "LinkFound"}.get(self.kind(there))
        elif self.kind(path[:-1]) != "folder":
            fault = "ContainerNotFound"
        elif self.kind(path) == "folder":
            fault = "DuplicateNode"
        old = self.model.get(there)
        headers = {}
        if condition == "new":
            headers["If-None-Match"] = "*"
        elif condition:
            tag = self.run(self.space("HEAD", f"/files{quoted(path)}")).headers.get("ETag", '"0"')
            headers["If-Match"] = tag if condition == "matches" else '"1-1-1"'
        if fault is None and {"new": old is not None, "stale": True, "matches": old is None}.get(condition, False):
            fault = "PreconditionFailed"
        before = len(old.data or b"") if old is not None else 0
        if fault is None and not self.count(max(0, len(data) - before)):
            fault = "QuotaExceeded"
        elif fault is None:
            self.count(min(0, len(data) - before))
        self.agrees(self.run(self.space.as_(who).upload(quoted(path), data, headers=headers)), fault)
        if fault is None:
            self.model[there] = replace(old, data=data) if old is not None else Thing(who, data=data)

    @rule(path=st.one_of(paths, links), who=WHO)
    def delete(self, path: Path_, who: str) -> None:
        fault = None if path in self.model else "NodeNotFound"
        if fault and self.kind(path[:-1]) != "folder":
            fault = "ContainerNotFound"
        self.agrees(self.run(self.space.as_(who)("DELETE", f"/nodes{quoted(path)}")), fault)
        if fault is None:
            self.count(-self.size(path))
            for other in self.below(path):
                del self.model[other]

    @rule(path=paths, who=WHO, title=st.sampled_from([None, "a title", "another", "<&>"]))
    def set_a_property(self, path: Path_, who: str, title: str | None) -> None:
        fault = None if path in self.model else "NodeNotFound"
        text = title.replace("&", "&amp;").replace("<", "&lt;") if title else None
        self.agrees(self.run(self.space.as_(who).set(quoted(path), {"title": text})), fault)
        if fault is None:
            self.model[path] = replace(self.model[path], title=title or "")

    @rule(path=paths, who=WHO, public=st.booleans(), eve=st.booleans())
    def share(self, path: Path_, who: str, public: bool, eve: bool) -> None:
        found = self.model.get(path)
        if found is None or found.kind != "file":
            return
        changes = {"ispublic": str(public).lower(), USER_READ: "eve" if eve else None}
        # Only its owner shares; to ask for what is so already is no change.
        fault = "PermissionDenied" if who != found.who and (public, eve) != (found.public, found.eve) else None
        self.agrees(self.run(self.space.as_(who).set(quoted(path), changes)), fault)
        if fault is None:
            self.model[path] = replace(found, public=public, eve=eve)

    @rule(path=st.one_of(paths, links), who=WHO)
    def get(self, path: Path_, who: str) -> None:
        answer = self.run(self.space.as_(who).get(f"/files{quoted(path)}"))
        there = (self.model[path].link or ()) if self.kind(path) == "link" else path
        match self.kind(there):
            case "file":
                data = self.model[there].data or b""
                assert answer.body == data
                assert answer.headers.get("Digest", digest(data)) == digest(data)
                told = self.run(self.space.as_(who).node(quoted(there))).properties
                assert told.get(f"{CORE}MD5", hashlib.md5(data).hexdigest()) == hashlib.md5(data).hexdigest()
                assert told[f"{CORE}creator"] == self.model[there].who
                assert told[f"{CORE}ispublic"] == str(self.model[there].public).lower()
            case "folder":
                assert answer.fault == "TypeNotSupported"
            case _:
                assert answer.fault == "NodeNotFound"

    @rule(path=paths)
    def get_as_an_outsider(self, path: Path_) -> None:
        """Eve and who is not signed in read what is shared with them; of all else they cannot tell whether it is."""
        found = self.model.get(path)
        for who in ("eve", None):
            answer = self.run(self.space.as_(who).get(f"/files{quoted(path)}"))
            if found is not None and found.kind == "file" and (found.public or (who and found.eve)):
                assert answer.body == found.data
            else:
                assert (answer.status, answer.fault) == (403, "PermissionDenied")
                assert self.run(self.space.as_(who).node(quoted(path))).status == 403
            for method, below in (("PUT", "files"), ("DELETE", "files"), ("DELETE", "nodes")):
                body = b"theirs" if method == "PUT" else None
                answer = self.run(self.space.as_(who)(method, f"/{below}{quoted(path)}", data=body))
                assert (answer.status, answer.fault) == (403, "PermissionDenied"), (method, below)
            made = self.run(self.space.as_(who).mkdir(quoted(path)))
            assert (made.status, made.fault) == (403, "PermissionDenied")

    @rule(source=paths, goal=paths, keep=st.booleans(), who=WHO)
    def move_or_copy(self, source: Path_, goal: Path_, keep: bool, who: str) -> None:
        target, fault = goal, None
        if source not in self.model:
            fault = "NodeNotFound"
        else:
            if self.kind(target) == "folder":
                target = (*target, source[-1])
            if target[: len(source)] == source and target != source and self.kind(source) == "folder":
                fault = "InvalidArgument"
            else:
                fault = self.expected_new(target)
        if fault is None and keep and not self.count(self.size(source)):
            fault = "QuotaExceeded"
        url, phase = self.run(self.transfer(source, goal, keep=keep, who=who))
        if fault is None:
            assert phase == "COMPLETED", self.run(self.space.as_(who).get(f"{url}/error")).text
            moved = {target + other[len(source) :]: self.model[other] for other in self.below(source)}
            if keep:  # what is copied is the copier's, and shared with nobody
                moved = {path: replace(thing, who=who, public=False, eve=False) for path, thing in moved.items()}
            else:
                for other in self.below(source):
                    del self.model[other]
            self.model.update(moved)
        else:
            assert phase == "ERROR"
            found = self.run(self.space.as_(who).get(f"{url}/error")).text
            # Of two things that are wrong either may be told.
            either = {"NodeNotFound", "ContainerNotFound", "InvalidArgument", "DuplicateNode"}
            assert (
                found == fault
                or ({found, fault} <= either and "InvalidArgument" in {found, fault})
                or ({found, fault} <= {"NodeNotFound", "ContainerNotFound"})
            ), (found, fault)

    async def transfer(self, source: Path_, target: Path_, *, keep: bool, who: str) -> tuple[str, str]:
        space = self.space.as_(who)
        document = transfer_xml(quoted(source), uri(quoted(target)), keep=keep)
        url = (await space("POST", "/transfers?PHASE=RUN", data=document)).headers["Location"]
        async with asyncio.timeout(20):
            while True:
                answer = await space.get(f"{url}?WAIT=5")
                phase = answer.xml.findtext(f"{UWS}phase")
                if phase not in {"QUEUED", "EXECUTING"}:
                    return url, str(phase)

    # What happens in a notebook

    @rule(path=paths, data=st.binary(max_size=120), who=WHO)
    def notebook_writes(self, path: Path_, data: bytes, who: str) -> None:
        if self.kind(path[:-1]) == "folder" and self.kind(path) in {"none", "file"}:
            old = self.model.get(path)
            self.file(path).write_bytes(data)
            if old is None:
                self.owned(path, who, 0o660)
            self.model[path] = replace(old, data=data) if old is not None else Thing(who, data=data)

    @rule(path=paths, who=WHO)
    def notebook_makes_a_folder(self, path: Path_, who: str) -> None:
        if self.expected_new(path) is None:
            self.file(path).mkdir()
            self.owned(path, who, 0o2771)
            self.model[path] = Thing(who)

    @rule(path=st.one_of(paths, links))
    def notebook_removes(self, path: Path_) -> None:
        match self.kind(path):
            case "file" | "link":
                self.file(path).unlink()
                del self.model[path]
            case "folder" if self.below(path) == [path]:
                self.file(path).rmdir()
                del self.model[path]

    @rule(source=paths, goal=paths)
    def notebook_renames(self, source: Path_, goal: Path_) -> None:
        inside = goal[: len(source)] == source
        if source in self.model and not inside and self.expected_new(goal) is None:
            self.file(source).rename(self.file(goal))
            for other in self.below(source):
                self.model[goal + other[len(source) :]] = self.model.pop(other)

    # What is always true

    @invariant()
    def posix_agrees_with_the_model(self) -> None:
        found = {(): self.posix(())}
        for file in self.file(()).rglob("*"):
            path = file.relative_to(self.file(())).parts
            found[path] = self.posix(path)
        assert found == self.model
        for path, thing in self.model.items():
            if thing.kind != "link":
                assert oct(stat.S_IMODE(self.file(path).stat().st_mode)) == oct(thing.mode), path

    def posix(self, path: Path_) -> Thing:
        """What POSIX says is at `path`."""
        file = self.file(path)
        status = file.lstat()
        who = next(name for name, person in PEOPLE.items() if person.identity.uid == status.st_uid)
        if stat.S_ISLNK(status.st_mode):
            return Thing(who, link=tuple(os.readlink(file).removeprefix(BASE + "/").split("/")))
        title = attributes.read_kept(str(file)).properties.get(f"{CORE}title", "")
        if stat.S_ISDIR(status.st_mode):
            return Thing(who, title=title)
        eve = "system.posix_acl_access" in os.listxattr(file)
        return Thing(who, data=file.read_bytes(), title=title, public=bool(status.st_mode & 4), eve=eve)

    @invariant()
    def listings_agree_with_the_model(self) -> None:
        for folder in [path for path, thing in self.model.items() if thing.kind == "folder"]:
            listed = self.run(self.space.node(quoted(folder), "?detail=max"))
            assert listed.status == 200
            assert listed.properties.get(f"{CORE}title", "") == self.model[folder].title
            names = sorted(unquote(name) for name in listed.names)
            assert names == sorted(path[-1] for path in self.model if path and path[:-1] == folder)

    @invariant()
    def what_is_counted_agrees_with_the_model(self) -> None:
        told = self.run(self.space.node("/project/team", "?limit=0")).properties
        assert int(told[f"{CORE}availableSpace"]) == max(0, QUOTA - self.counted)


Machine.TestCase.settings = settings(
    max_examples=15, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestMachine = Machine.TestCase
