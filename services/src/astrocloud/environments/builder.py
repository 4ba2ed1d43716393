"""Making environments on one machine: each is a virtual environment, made once from its lock.

An environment is made at its final path, because a virtual environment cannot be moved, and counts only once its stamp
(``.ready``, written last) is there; what a killed build leaves behind is thrown away by the next one, which finds all
that was downloaded in uv's cache. One process makes an environment at a time; others wait and pass its progress on.
"""

import asyncio
import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from astrocloud.config import Config
from astrocloud.core.layout import DataFolder, project_folder
from astrocloud.environments import uv
from astrocloud.environments.errors import BuildError
from astrocloud.environments.interpreter import Interpreter, candidates, choose
from astrocloud.environments.models import BuiltEnvironment, Environment, Progress, Stage

OnProgress = Callable[[Progress], None]

STAMP: Final = ".ready"
_BUILD_LOCK: Final = "build.txt"
_TESTS: Final = r"(^|/)test_[^/]*\.py$"
_POLL_S: Final = 0.2
_NOT_SOURCE: Final = frozenset({"__pycache__", "node_modules", "build", "dist", "tests", "coverage"})


class EnvironmentBuilder:
    """Makes environments below one folder, and says which are there.

    Parameters
    ----------
    folder
        The folder that holds them, ``ID-HASH`` each, on a disk with about 2 GB left for each of them.
    lab
        The source folder of ``astrocloud-lab`` (its locked build tools in ``build.txt``) or its wheel, which is added
        to every environment; `None` for environments without it.
    uv_program
        uv, when it is neither beside the running Python nor on the PATH.
    python
        The Python to make environments from, when it should not be chosen: by default the one that runs the platform or
        the system's, whichever was built optimized.
    """

    def __init__(
        self,
        *,
        folder: Path,
        lab: Path | None,
        uv_program: Path | None = None,
        python: Path | None = None,
    ) -> None:
        self._folder = folder.absolute()
        self._lab = lab.absolute() if lab is not None else None
        self._uv = uv_program
        self._python = python

    def path(self, environment: Environment) -> Path:
        """Return where `environment` is or will be."""
        return self._folder / environment.key

    def ready(self, environment: Environment) -> BuiltEnvironment | None:
        """Return `environment` if it can be used as it is, else `None`. Quick: reads the stamp and the lab's source."""
        stamp = self._stamp(environment)
        if stamp is None or stamp.get("lab") != self.lab_hash():
            return None
        return self._built(environment, stamp)

    def progress(self, environment: Environment) -> Progress | None:
        """Return how far the making of `environment` is, by whichever process; `None` when nobody makes it."""
        if not self._is_locked(environment):
            return None
        return self._told_progress(environment)

    async def ensure(self, environment: Environment, on_progress: OnProgress | None = None) -> BuiltEnvironment:
        """Return `environment`, made first if need be.

        May be called for the same environment by several tasks and processes at a time. Cancelling it ends the build.

        Parameters
        ----------
        environment
            An environment of the catalogue.
        on_progress
            Called in this thread when a stage begins and while it goes on, a few times a second at most.

        Raises
        ------
        BuildError
            ``environment-uv``, ``-python``, ``-network``, ``-disk``, ``-lock`` or ``-build``.
        """
        tell = on_progress or _ignore
        built = await asyncio.to_thread(self.ready, environment)
        if built is None:
            async with self._sole_builder(environment, tell) as lock:
                built = await asyncio.to_thread(self.ready, environment)
                if built is None:
                    built = await _Build(self, environment, lock, tell).make()
        tell(Progress(environment.id, "ready"))
        return built

    async def prune(self, keep: Collection[Environment], *, in_use: Collection[Path] = ()) -> list[Path]:
        """Remove environments that are neither kept nor used, and return where they were.

        Parameters
        ----------
        keep
            The environments of the catalogue; they stay whether they are used or not.
        in_use
            Paths of environments that servers use, as far as the caller knows; besides these, every environment stays
            whose interpreter a process of this machine was started with.
        """
        return await asyncio.to_thread(self._prune, {each.key for each in keep}, {*in_use, *self._running()})

    # What builds share

    def lock_path(self, key: str) -> Path:
        """Return the file whose lock the builder of an environment holds."""
        return self._folder / f".{key}.lock"

    def log_path(self, environment: Environment) -> Path:
        """Return the file that holds uv's output of the latest build."""
        return self._folder / f".{environment.key}.log"

    def progress_path(self, environment: Environment) -> Path:
        """Return the file in which the builder tells other processes how far it is."""
        return self._folder / f".{environment.key}.progress"

    def uv_program(self, environment: Environment) -> Path:
        """Return uv. Raises `BuildError` when there is none."""
        found = self._uv or uv.find_uv()
        if found is None or not os.access(found, os.X_OK):
            raise BuildError("environment-uv", environment=environment.id, python=sys.executable)
        return found

    async def interpreter(self, environment: Environment) -> Interpreter:
        """Return the Python to make `environment` from. Raises `BuildError` when none fits."""
        paths = [self._python.resolve()] if self._python is not None else candidates()
        needs = environment.python
        chosen, found = await choose(needs, paths)
        if chosen is None:
            listed = ", ".join(found) or "none"
            raise BuildError("environment-python", environment=environment.id, needs=needs, found=listed)
        return chosen

    @property
    def folder(self) -> Path:
        """The folder that holds the environments."""
        return self._folder

    @property
    def lab(self) -> Path | None:
        """The source folder or the wheel of ``astrocloud-lab``."""
        return self._lab

    def lab_hash(self) -> str | None:
        """Return the hash of the lab's source as it is now, or `None` when there is no lab."""
        return source_hash(self._lab) if self._lab is not None else None

    def write_stamp(
        self, environment: Environment, python: str, base_prefix: Path, lab_hash: str | None
    ) -> BuiltEnvironment:
        """Say that `environment` is complete, with the lab of `lab_hash`, and return it."""
        stamp = {
            "environment": environment.id,
            "lock": environment.lock_hash,
            "lab": lab_hash,
            "python": python,
            "interpreter": str((self.path(environment) / "bin" / "python").resolve()),
            "base_prefix": str(base_prefix),
            "built_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        _replace(self.path(environment) / STAMP, json.dumps(stamp, indent=2) + "\n")
        return self._built(environment, stamp)

    def usable_stamp(self, environment: Environment) -> dict[str, Any] | None:
        """Return the stamp of an environment in which nothing but the lab may be out of date."""
        return self._stamp(environment)

    def _stamp(self, environment: Environment) -> dict[str, Any] | None:
        path = self.path(environment)
        try:
            stamp = json.loads((path / STAMP).read_text(encoding="utf-8"))
            same = stamp["lock"] == environment.lock_hash
            # A Python that was upgraded or removed under an environment takes it along.
            interpreter = Path(stamp["interpreter"])
            there = interpreter.exists() and (path / "bin" / "python").resolve() == interpreter
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return stamp if same and there and isinstance(stamp, dict) else None

    def _built(self, environment: Environment, stamp: dict[str, Any]) -> BuiltEnvironment:
        return BuiltEnvironment(
            environment=environment.id,
            path=self.path(environment),
            python_version=stamp["python"],
            base_prefix=Path(stamp["base_prefix"]),
            with_lab=stamp["lab"] is not None,
        )

    @contextlib.asynccontextmanager
    async def _sole_builder(self, environment: Environment, tell: OnProgress) -> AsyncIterator[int]:
        """Hold the environment's lock, waiting for whoever has it; gives the lock's file descriptor."""
        if not self._folder.exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            self._folder.chmod(0o755)
        descriptor = os.open(self.lock_path(environment.key), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            told: Progress | None = None
            while not _try_lock(descriptor):
                now = self._told_progress(environment) or Progress(environment.id, "waiting")
                if now != told:
                    tell(now)
                    told = now
                await asyncio.sleep(_POLL_S)
            yield descriptor
        finally:
            if _try_lock(descriptor):
                self.progress_path(environment).unlink(missing_ok=True)
            os.close(descriptor)

    def _told_progress(self, environment: Environment) -> Progress | None:
        try:
            told = json.loads(self.progress_path(environment).read_text(encoding="utf-8"))
            return Progress(environment.id, told["stage"], int(told["done"]), int(told["total"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _is_locked(self, environment: Environment) -> bool:
        try:
            descriptor = os.open(self.lock_path(environment.key), os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            return not _try_lock(descriptor)
        finally:
            os.close(descriptor)

    def _running(self) -> set[Path]:
        """Return the environments with whose interpreter a process of this machine was started."""
        return {
            self._folder / Path(program).relative_to(self._folder).parts[0]
            for program in _programs()
            if Path(program).is_relative_to(self._folder) and program != str(self._folder)
        }

    def _prune(self, keep: set[str], in_use: set[Path]) -> list[Path]:
        removed: list[Path] = []
        for path in sorted(self._folder.glob("*-*")):
            if path.name.startswith(".") or path.name in keep or path in in_use or not (path / "pyvenv.cfg").exists():
                continue
            descriptor = os.open(self.lock_path(path.name), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                if not _try_lock(descriptor):
                    continue
                (path / STAMP).unlink(missing_ok=True)
                shutil.rmtree(path)
                for rest in (".log", ".progress"):  # not the lock: somebody may be waiting for this very file
                    (self._folder / f".{path.name}{rest}").unlink(missing_ok=True)
                removed.append(path)
            finally:
                os.close(descriptor)
        return removed


class _Build:
    """One making of one environment, by the process that holds its lock."""

    def __init__(self, builder: EnvironmentBuilder, environment: Environment, lock: int, tell: OnProgress) -> None:
        self._builder = builder
        self._environment = environment
        self._lock = lock
        self._tell = tell
        self._path = builder.path(environment)
        self._log = builder.log_path(environment)
        self._stage: Stage = "creating"

    async def make(self) -> BuiltEnvironment:
        """Make the environment, or only bring the lab in it up to date, and return it."""
        self._uv = self._builder.uv_program(self._environment)
        try:
            stamp = await asyncio.to_thread(self._builder.usable_stamp, self._environment)
            if stamp is None:
                chosen = await self._builder.interpreter(self._environment)
                self._log.write_text("", encoding="utf-8")
                await self._create(chosen)
                await self._install()
                await self._compile()
                stamp = {"python": chosen.version, "base_prefix": chosen.base_prefix}
            else:
                (self._path / STAMP).unlink()
            self._begin("finishing")
            # Taken before it is built: a source that changes meanwhile is out of date, not up to date.
            lab_hash = await asyncio.to_thread(self._builder.lab_hash)
            await self._add_lab()
            await asyncio.to_thread(make_readable, self._path)
            return await asyncio.to_thread(
                self._builder.write_stamp, self._environment, str(stamp["python"]), Path(stamp["base_prefix"]), lab_hash
            )
        except uv.UvFailed as err:
            raise self._error(err) from err
        except OSError as err:
            raise self._error(uv.UvFailed(f"error: {err.strerror} (os error {err.errno}): {err.filename}")) from err

    async def _create(self, chosen: Interpreter) -> None:
        self._begin("creating")
        if self._path.exists():
            await asyncio.to_thread(shutil.rmtree, self._path)
        prompt = self._environment.id
        arguments: list[str | Path] = [
            "venv",
            "--no-project",
            "--prompt",
            prompt,
            "--python",
            chosen.executable,
            self._path,
        ]
        await self._run(self._uv, *arguments)

    async def _install(self) -> None:
        """Install just what is locked: nothing is resolved, so what the lock leaves out stays out."""
        self._begin("downloading")
        count = uv.DownloadCount()
        packages = 0

        def read(line: str) -> None:
            nonlocal packages
            if line.startswith("Resolved "):
                packages = int(line.split()[1])
            elif count.read(line):
                self._begin("downloading", count.done, count.total)
            elif line.startswith("Prepared "):
                self._begin("installing", 0, packages)

        counting = asyncio.create_task(self._count_installed(lambda: packages))
        try:
            python = self._path / "bin" / "python"
            arguments: list[str | Path] = [
                "pip",
                "sync",
                "--python",
                python,
                "--require-hashes",
                self._environment.lock,
            ]
            await self._run(self._uv, *arguments, on_line=read)
        finally:
            counting.cancel()

    async def _count_installed(self, packages: Callable[[], int]) -> None:
        """Tell how many packages are installed, while they are; uv itself says nothing until all are."""
        while True:
            await asyncio.sleep(_POLL_S)
            if self._stage == "installing":
                done = await asyncio.to_thread(self._count, "*.dist-info")
                if self._stage == "installing":
                    self._begin("installing", min(done, packages()), packages())

    def _count(self, pattern: str) -> int:
        found = self._path.glob(f"lib/python*/site-packages/{pattern}")
        return sum(1 for path in found if not path.name.startswith("test_"))

    async def _compile(self) -> None:
        """Compile all modules but tests: people cannot write here, so a module would be compiled at every start."""
        self._begin("compiling")
        total = await asyncio.to_thread(self._count, "**/*.py")
        done = 0

        def read(line: str) -> None:
            nonlocal done
            if line.startswith("Compiling "):
                done += 1
                if done % 100 == 0:
                    self._begin("compiling", min(done, total), total)

        python = self._path / "bin" / "python"
        arguments: list[str | Path] = ["-I", "-u", "-m", "compileall", "-j", "0", "-x", _TESTS, self._path / "lib"]
        # It ends with 1 when there is a file that is no Python, as some packages have for other versions.
        await self._run(python, *arguments, on_line=read, may_end_with=1)

    async def _add_lab(self) -> None:
        lab = self._builder.lab
        if lab is None:
            return
        python = self._path / "bin" / "python"
        with tempfile.TemporaryDirectory(prefix=".lab-", dir=self._builder.folder) as scratch:
            wheel = lab
            if lab.is_dir():
                tools = lab / _BUILD_LOCK
                locked = ("--build-constraints", tools, "--require-hashes") if tools.exists() else ()
                await self._run(self._uv, "build", "--wheel", "--python", python, *locked, "--out-dir", scratch, lab)
                wheel = await asyncio.to_thread(lambda: next(Path(scratch).glob("*.whl")))
            arguments: list[str | Path] = [
                "--python",
                python,
                "--no-deps",
                "--no-index",
                "--reinstall",
                "--compile-bytecode",
                wheel,
            ]
            await self._run(self._uv, "pip", "install", *arguments)
        # What is missing without is a second of everybody's first plot.
        await self._run(python, "-I", "-m", "astrocloud_lab.kernels.fonts", may_end_with=1)

    async def _run(
        self,
        program: Path,
        *arguments: str | Path,
        on_line: Callable[[str], None] | None = None,
        may_end_with: int = 0,
    ) -> None:
        await uv.run(
            [program, *arguments],
            folder=self._builder.folder,
            log=self._log,
            keep_open=self._lock,
            on_line=on_line,
            may_end_with=may_end_with,
        )

    def _begin(self, stage: Stage, done: int = 0, total: int = 0) -> None:
        self._stage = stage
        told = {"stage": stage, "done": done, "total": total}
        # Others may see a stage late, so a full disk does not matter here: it will matter to uv.
        with contextlib.suppress(OSError):
            _replace(self._builder.progress_path(self._environment), json.dumps(told))
        self._tell(Progress(self._environment.id, stage, done, total))

    def _error(self, failed: uv.UvFailed) -> BuildError:
        name = self._environment.id
        match failed.kind:
            case "disk":
                folder = self._builder.folder
                free_mb = shutil.disk_usage(folder).free // 10**6
                return BuildError("environment-disk", environment=name, folder=str(folder), free_mb=free_mb)
            case "network":
                return BuildError("environment-network", environment=name, reason=failed.reason)
            case "lock":
                lock = str(self._environment.lock)
                return BuildError("environment-lock", environment=name, package=failed.package, lock=lock)
            case _:
                return BuildError("environment-build", environment=name, reason=failed.reason, log=str(self._log))


def local_builder(config: Config, data: DataFolder) -> EnvironmentBuilder:
    """Return the builder of a platform on one machine: in its configured store, with the lab of this source tree."""
    return EnvironmentBuilder(folder=config.environments.store or data.environments, lab=project_folder("extensions"))


async def build_environment(
    environment: Environment, *, folder: Path, lab: Path | None, on_progress: OnProgress | None = None
) -> BuiltEnvironment:
    """Return `environment` of the catalogue, made below `folder` if need be: all that a command needs.

    Raises `BuildError` as `EnvironmentBuilder.ensure` does.
    """
    return await EnvironmentBuilder(folder=folder, lab=lab).ensure(environment, on_progress)


def source_hash(source: Path) -> str:
    """Return the SHA-256, in hex, of a file, or of the names and contents of all source files below a folder."""
    digest = hashlib.sha256()
    for file in [source] if source.is_file() else sorted(_source_files(source)):
        digest.update(f"{file.relative_to(source)}\0".encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def make_readable(folder: Path) -> None:
    """Let everybody read what is below `folder`: people's servers run as other users than the one who made it."""
    for current, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = os.path.join(current, name)  # quicker than Path, and there are 60,000 of them
            mode = os.lstat(path).st_mode
            if stat.S_ISLNK(mode):
                continue
            wanted = mode | 0o444 | (0o111 if stat.S_ISDIR(mode) or mode & 0o100 else 0)
            if wanted != mode:
                os.chmod(path, stat.S_IMODE(wanted))


def _source_files(folder: Path) -> Iterator[Path]:
    for current, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in _NOT_SOURCE and not name.startswith(".")]
        yield from (Path(current) / name for name in files if not name.endswith(".pyc") and not name.startswith("."))


def _programs() -> Iterator[str]:
    """Yield the program that each process of this machine was started as, by its own account."""
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            yield entry.read_bytes().split(b"\0", 1)[0].decode("utf-8", "replace")


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _replace(path: Path, text: str) -> None:
    """Write `path` so that a reader finds the old text or the new, never a part."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    fresh.write_text(text, encoding="utf-8")
    fresh.chmod(0o644)
    fresh.replace(path)


def _ignore(progress: Progress) -> None:
    """Take progress that nobody asked for."""
