"""Random operations on the service, on a plain model, and the same tree through POSIX: no difference."""

import asyncio
import os
import shutil
import tempfile
import threading
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from tests.services.vospace.platform import PEOPLE, Answer, Space, node_xml, running, uri
from tests.services.vospace.test_transfers import UWS, transfer_xml

Path_ = tuple[str, ...]
Model = dict[Path_, bytes | None]
"""Path below the home -> bytes of a file, or None for a folder."""

NAMES = st.sampled_from(["a", "b", "c", "天", "a b", "100%"])


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
    from urllib.parse import quote

    return "/home/ada" + "".join(f"/{quote(name)}" for name in path)


class Machine(RuleBasedStateMachine):
    """The rules."""

    paths = Bundle("paths")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="vospace-machine-"))
        self.run = Loop()
        self.stack = AsyncExitStack()
        self.model: Model = {(): None}
        self.space: Space = self.run(self.stack.enter_async_context(running(self.folder / "data")))
        self.run(self.space.node("/home/ada"))

    def teardown(self) -> None:
        self.run(self.stack.aclose())
        self.run.close()
        shutil.rmtree(self.folder)

    # What the model says

    def kind(self, path: Path_) -> str:
        if path not in self.model:
            return "none"
        return "folder" if self.model[path] is None else "file"

    def below(self, path: Path_) -> list[Path_]:
        return [other for other in self.model if other[: len(path)] == path]

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

    # What happens

    @initialize(target=paths)
    def root(self) -> Any:
        return multiple(("a",), ("b",), ("a", "b"), ("a", "b", "c"))

    @rule(target=paths, path=paths, name=NAMES)
    def longer(self, path: Path_, name: str) -> Path_:
        return (*path, name)[:4]

    @rule(path=paths)
    def make_folder(self, path: Path_) -> None:
        fault = self.expected_new(path)
        self.agrees(self.run(self.space("PUT", f"/nodes{quoted(path)}", data=node_xml(quoted(path)))), fault)
        if fault is None:
            self.model[path] = None

    @rule(path=paths, data=st.binary(max_size=50))
    def put(self, path: Path_, data: bytes) -> None:
        fault = None
        if self.kind(path[:-1]) != "folder":
            fault = "ContainerNotFound"
        elif self.kind(path) == "folder":
            fault = "DuplicateNode"
        self.agrees(self.run(self.space.upload(quoted(path), data)), fault)
        if fault is None:
            self.model[path] = data

    @rule(path=paths, data=st.binary(max_size=50))
    def write_as_a_notebook(self, path: Path_, data: bytes) -> None:
        if self.kind(path[:-1]) == "folder" and self.kind(path) != "folder":
            file = self.space.posix("/home/ada").joinpath(*path)
            file.write_bytes(data)
            os.chown(file, PEOPLE["ada"].identity.uid, PEOPLE["ada"].identity.gid)
            self.model[path] = data

    @rule(path=paths)
    def remove_as_a_notebook(self, path: Path_) -> None:
        if self.kind(path) == "file":
            self.space.posix("/home/ada").joinpath(*path).unlink()
            del self.model[path]

    @rule(path=paths)
    def delete(self, path: Path_) -> None:
        fault = None if path in self.model else "NodeNotFound"
        if fault and self.kind(path[:-1]) != "folder":
            fault = "ContainerNotFound"
        answer = self.run(self.space("DELETE", f"/nodes{quoted(path)}"))
        self.agrees(answer, fault)
        if fault is None:
            for other in self.below(path):
                del self.model[other]

    @rule(path=paths)
    def get(self, path: Path_) -> None:
        answer = self.run(self.space.get(f"/files{quoted(path)}"))
        match self.kind(path):
            case "file":
                assert answer.body == self.model[path]
            case "folder":
                assert answer.fault == "TypeNotSupported"
            case _:
                assert answer.fault == "NodeNotFound"

    @rule(source=paths, goal=paths, keep=st.booleans())
    def move_or_copy(self, source: Path_, goal: Path_, keep: bool) -> None:
        target = goal
        fault = None
        if source not in self.model:
            fault = "NodeNotFound"
        else:
            if self.kind(target) == "folder":
                target = (*target, source[-1])
            if target[: len(source)] == source and target != source and self.kind(source) == "folder":
                fault = "InvalidArgument"
            else:
                fault = self.expected_new(target)
        url, phase = self.run(self.transfer(source, target, keep=keep))
        if fault is None:
            assert phase == "COMPLETED"
            moved = {target + other[len(source) :]: self.model[other] for other in self.below(source)}
            if not keep:
                for other in self.below(source):
                    del self.model[other]
            self.model.update(moved)
        else:
            assert phase == "ERROR"
            found = self.run(self.space.get(f"{url}/error")).text
            # Of two things that are wrong either may be told.
            either = {"NodeNotFound", "ContainerNotFound", "InvalidArgument", "DuplicateNode"}
            assert (
                found == fault
                or ({found, fault} <= either and "InvalidArgument" in {found, fault})
                or ({found, fault} <= {"NodeNotFound", "ContainerNotFound"})
            )

    async def transfer(self, source: Path_, target: Path_, *, keep: bool) -> tuple[str, str]:
        document = transfer_xml(quoted(source), uri(quoted(target)), keep=keep)
        url = (await self.space("POST", "/transfers?PHASE=RUN", data=document)).headers["Location"]
        async with asyncio.timeout(20):
            while True:
                answer = await self.space.get(f"{url}?WAIT=5")
                phase = answer.xml.findtext(f"{UWS}phase")
                if phase not in {"QUEUED", "EXECUTING"}:
                    return url, str(phase)

    # What is always true

    @invariant()
    def posix_and_listing_agree_with_the_model(self) -> None:
        home = self.space.posix("/home/ada")
        found: Model = {(): None}
        for path in home.rglob("*"):
            found[path.relative_to(home).parts] = path.read_bytes() if path.is_file() else None
        assert found == self.model
        for folder in [path for path, data in self.model.items() if data is None]:
            listed = self.run(self.space.node(quoted(folder)))
            assert listed.status == 200
            from urllib.parse import unquote

            names = sorted(unquote(name) for name in listed.names)
            assert names == sorted(path[-1] for path in self.model if path and path[:-1] == folder)


Machine.TestCase.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
TestMachine = Machine.TestCase
