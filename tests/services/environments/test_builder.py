"""Environments are made once, completely or not at all, and say what goes wrong."""

import asyncio
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from astrocloud.environments import (
    STAGES,
    BuildError,
    Environment,
    EnvironmentBuilder,
    Progress,
    build_environment,
    load_environment,
)
from tests.services.environments.conftest import locked, make_wheel, write_environment

FakeUv = Callable[[str], Path]

# Builds the environment of the file argv[1] below argv[2], by the uv argv[3] when there is one, and prints the stages.
BUILD = """
import asyncio, sys
from pathlib import Path
from astrocloud.environments import EnvironmentBuilder, load_environment
uv = Path(sys.argv[3]) if len(sys.argv) > 3 else None
builder = EnvironmentBuilder(folder=Path(sys.argv[2]), lab=None, uv_program=uv)
asyncio.run(builder.ensure(load_environment(Path(sys.argv[1])), lambda p: print(p.stage, flush=True)))
"""


async def until(true: Callable[[], bool], what: str, deadline_s: float = 30) -> None:
    end = asyncio.get_running_loop().time() + deadline_s
    while not true():
        assert asyncio.get_running_loop().time() < end, f"not within {deadline_s} s: {what}"
        await asyncio.sleep(0.02)


def start_building(environment: Environment, folder: Path, *uv: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", BUILD, environment.folder / "environment.yaml", folder, *uv]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in {"Z", "X"}
    except OSError:
        return False


def says(python: Path, code: str) -> str:
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


async def test_an_environment_holds_what_is_locked(builder: EnvironmentBuilder, tiny: Environment) -> None:
    assert builder.ready(tiny) is None
    built = await builder.ensure(tiny)
    assert says(built.python, "import tinystar; print(tinystar.MAGNITUDE)") == "4.74"
    assert says(built.python, "import platform; print(platform.python_version())") == built.python_version
    assert Path(says(built.python, "import sys; print(sys.base_prefix)")) == built.base_prefix
    assert builder.ready(tiny) == built
    assert built.path.name == f"tiny-{tiny.lock_hash[:12]}"


async def test_modules_are_compiled_but_tests_are_not(builder: EnvironmentBuilder, tiny: Environment) -> None:
    built = await builder.ensure(tiny)
    compiled = {path.name.split(".")[0] for path in built.path.rglob("tinystar/__pycache__/*.pyc")}
    assert compiled == {"__init__"}


async def test_everybody_can_read_an_environment(builder: EnvironmentBuilder, tiny: Environment) -> None:
    previous = os.umask(0o077)
    try:
        built = await builder.ensure(tiny)
    finally:
        os.umask(previous)
    for path in [builder.path(tiny), *built.path.rglob("*")]:
        mode = path.lstat().st_mode
        if not stat.S_ISLNK(mode):
            assert mode & 0o044 == 0o044, path
            assert not stat.S_ISDIR(mode) or mode & 0o011 == 0o011, path


async def test_progress_goes_through_the_stages_and_never_back(builder: EnvironmentBuilder, tiny: Environment) -> None:
    told: list[Progress] = []
    await builder.ensure(tiny, told.append)
    stages = list(dict.fromkeys(progress.stage for progress in told))
    assert stages == [stage for stage in STAGES if stage in stages]
    assert {"creating", "downloading", "installing", "compiling", "finishing", "ready"} <= set(stages)
    percents = [progress.percent for progress in told]
    assert percents == sorted(percents)
    assert percents[-1] == 100
    for progress in told:
        assert progress.sentence("en") != progress.sentence("zh")


async def test_a_second_time_nothing_is_made(builder: EnvironmentBuilder, tiny: Environment) -> None:
    await builder.ensure(tiny)
    stamp = (builder.path(tiny) / ".ready").stat().st_mtime_ns
    told: list[Progress] = []
    await builder.ensure(tiny, told.append)
    assert [progress.stage for progress in told] == ["ready"]
    assert (builder.path(tiny) / ".ready").stat().st_mtime_ns == stamp


async def test_another_lock_is_another_environment(
    builder: EnvironmentBuilder, tiny: Environment, index: Path, tmp_path: Path
) -> None:
    first = await builder.ensure(tiny)
    wheel = make_wheel(index, "tinystar", "2.0", {"tinystar/__init__.py": "MAGNITUDE = 4.73\n"})
    newer = load_environment(write_environment(tmp_path / "images", locked(wheel)))
    second = await builder.ensure(newer)
    assert first.path != second.path
    assert says(first.python, "import tinystar; print(tinystar.MAGNITUDE)") == "4.74"
    assert says(second.python, "import tinystar; print(tinystar.MAGNITUDE)") == "4.73"


async def test_two_tasks_and_another_process_make_it_once(builder: EnvironmentBuilder, tiny: Environment) -> None:
    process = start_building(tiny, builder.folder)
    told: list[Progress] = []
    one, two = await asyncio.gather(builder.ensure(tiny, told.append), builder.ensure(tiny))
    stdout, stderr = await asyncio.to_thread(process.communicate)
    assert process.returncode == 0, stderr
    assert stdout.split()[-1] == "ready"
    assert one == two
    # Each line of uv's own is in the log once.
    assert builder.log_path(tiny).read_text(encoding="utf-8").count("+ tinystar==1.0") == 1


async def test_a_killed_build_does_not_count_and_the_next_one_waits_for_its_uv(
    builder: EnvironmentBuilder, tiny: Environment, fake_uv: FakeUv, tmp_path: Path
) -> None:
    pid_file = tmp_path / "pid"
    process = start_building(
        tiny, builder.folder, fake_uv(f"echo $$ > {pid_file}.new; mv {pid_file}.new {pid_file}; exec sleep 600")
    )
    await until(pid_file.exists, "uv runs")
    uv_pid = int(pid_file.read_text())
    process.kill()
    await asyncio.to_thread(process.communicate)
    assert alive(uv_pid)
    assert builder.ready(tiny) is None
    told_elsewhere = builder.progress(tiny)
    assert told_elsewhere is not None
    assert told_elsewhere.stage == "downloading"

    told: list[Progress] = []
    next_build = asyncio.create_task(builder.ensure(tiny, told.append))
    await until(lambda: bool(told), "the next build says that it waits")
    assert not next_build.done()
    assert "creating" not in {progress.stage for progress in told}
    os.kill(uv_pid, signal.SIGKILL)
    built = await next_build
    assert says(built.python, "import tinystar; print(tinystar.MAGNITUDE)") == "4.74"
    assert builder.progress(tiny) is None


async def test_cancelling_ends_the_build_with_its_children(tiny: Environment, fake_uv: FakeUv, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    program = fake_uv(f"sleep 600 & echo $! > {pid_file}.new; mv {pid_file}.new {pid_file}; wait")
    builder = EnvironmentBuilder(folder=tmp_path / "environments", lab=None, uv_program=program)
    task = asyncio.create_task(builder.ensure(tiny))
    await until(pid_file.exists, "uv runs")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: not alive(int(pid_file.read_text())), "uv's child is gone")
    assert builder.ready(tiny) is None
    assert builder.progress(tiny) is None


async def test_a_python_that_is_gone_takes_its_environment_along(
    builder: EnvironmentBuilder, tiny: Environment
) -> None:
    built = await builder.ensure(tiny)
    built.python.unlink()
    built.python.symlink_to("/nowhere/python3")
    assert builder.ready(tiny) is None
    again = await builder.ensure(tiny)
    assert says(again.python, "import tinystar; print(tinystar.MAGNITUDE)") == "4.74"


async def test_the_lab_is_added_and_alone_made_anew_when_it_changes(tiny: Environment, tmp_path: Path) -> None:
    lab = make_wheel(tmp_path / "lab", "astrocloud_lab", "0.1", {"astrocloud_lab/__init__.py": "A = 1\n"})
    folder = tmp_path / "environments"
    builder = EnvironmentBuilder(folder=folder, lab=lab)
    built = await builder.ensure(tiny)
    assert built.with_lab
    assert says(built.python, "import astrocloud_lab; print(astrocloud_lab.A)") == "1"

    make_wheel(tmp_path / "lab", "astrocloud_lab", "0.1", {"astrocloud_lab/__init__.py": "A = 2\n"})
    assert builder.ready(tiny) is None
    told: list[Progress] = []
    again = await builder.ensure(tiny, told.append)
    assert {progress.stage for progress in told} == {"finishing", "ready"}
    assert says(again.python, "import astrocloud_lab; print(astrocloud_lab.A)") == "2"


async def test_without_uv_it_says_where_uv_was_looked_for(
    builder: EnvironmentBuilder, tiny: Environment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(BuildError, match=f"without the program uv.*{tmp_path}") as caught:
        await builder.ensure(tiny)
    assert caught.value.code == "environment-uv"


async def test_a_python_that_does_not_fit_is_named(tiny: Environment, tmp_path: Path) -> None:
    file = tiny.folder / "environment.yaml"
    file.write_text(file.read_text(encoding="utf-8") + 'python: ">=3.99"\n', encoding="utf-8")
    builder = EnvironmentBuilder(folder=tmp_path / "environments", lab=None, python=Path(sys.executable))
    with pytest.raises(BuildError, match=r">=3\.99; found here: 3\.") as caught:
        await builder.ensure(load_environment(file))
    assert caught.value.code == "environment-python"


async def test_a_package_that_is_not_the_locked_one_is_refused(
    builder: EnvironmentBuilder, tiny: Environment, index: Path
) -> None:
    make_wheel(index, "tinystar", "1.0", {"tinystar/__init__.py": "print('not what was locked')\n"})
    with pytest.raises(BuildError, match="tinystar") as caught:
        await builder.ensure(tiny)
    assert caught.value.code == "environment-lock"
    assert builder.ready(tiny) is None


async def test_a_network_that_is_down_is_said_without_names_and_passwords(
    builder: EnvironmentBuilder, tiny: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("UV_NO_INDEX")
    monkeypatch.delenv("UV_FIND_LINKS")
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://someone:hidden-word@127.0.0.1:9/simple")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(BuildError) as caught:
        await builder.ensure(tiny)
    assert caught.value.code == "environment-network"
    for text in (str(caught.value), caught.value.sentence("zh"), builder.log_path(tiny).read_text(encoding="utf-8")):
        assert "hidden-word" not in text


@pytest.mark.parametrize(
    ("output", "code"),
    [
        ("error: Failed to install: x\n  Caused by: No space left on device (os error 28)", "environment-disk"),
        ("error: something else\n  Caused by: the moon is full", "environment-build"),
    ],
)
async def test_other_trouble_is_told_by_its_last_cause(
    tiny: Environment, fake_uv: FakeUv, tmp_path: Path, output: str, code: str
) -> None:
    text = tmp_path / "output"
    text.write_text(output, encoding="utf-8")
    builder = EnvironmentBuilder(folder=tmp_path / "environments", lab=None, uv_program=fake_uv(f"cat {text}; exit 2"))
    with pytest.raises(BuildError) as caught:
        await builder.ensure(tiny)
    assert caught.value.code == code
    assert "the moon is full" in str(caught.value) or code == "environment-disk"


async def test_a_stage_that_uv_tells_is_counted(tiny: Environment, fake_uv: FakeUv, tmp_path: Path) -> None:
    pip = """
        echo "Resolved 2 packages in 1ms"
        echo "Downloading big (2.0MiB)"
        echo "Downloading bigger (6.0MiB)"
        echo " Downloaded big"
        exit 2
        """
    builder = EnvironmentBuilder(folder=tmp_path / "environments", lab=None, uv_program=fake_uv(pip))
    told: list[Progress] = []
    with pytest.raises(BuildError):
        await builder.ensure(tiny, told.append)
    assert (told[-1].stage, told[-1].done, told[-1].total) == ("downloading", 2 * 2**20, 8 * 2**20)
    assert told[-1].sentence("en") == "Downloading the software: 2 of 8 MB"


async def test_pruning_keeps_what_is_wanted_used_or_run(
    builder: EnvironmentBuilder, tiny: Environment, index: Path, tmp_path: Path
) -> None:
    built = []
    for version in ("1.0", "2.0", "3.0", "4.0"):
        wheel = make_wheel(index, "tinystar", version, {"tinystar/__init__.py": f"VERSION = '{version}'\n"})
        environment = load_environment(write_environment(tmp_path / f"images-{version}", locked(wheel)))
        built.append((environment, await builder.ensure(environment)))
    (wanted, _), (_, used), (_, run), (_, idle) = built
    process = await asyncio.create_subprocess_exec(str(run.python), "-c", "input()", stdin=asyncio.subprocess.PIPE)
    try:
        await until(lambda: str(run.python) in Path(f"/proc/{process.pid}/cmdline").read_text(), "it runs")
        removed = await builder.prune([wanted], in_use=[used.path])
    finally:
        await process.communicate(b"\n")
    assert removed == [idle.path]
    assert [each.path.exists() for _, each in built] == [True, True, True, False]


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not on this machine")
async def test_it_works_read_only_in_a_sandbox_for_another_user(builder: EnvironmentBuilder, tiny: Environment) -> None:
    built = await builder.ensure(tiny)
    shown = [argument for path in (built.base_prefix, built.path) for argument in ("--ro-bind", str(path), str(path))]
    links = [
        argument
        for name in ("lib", "lib64", "bin")
        if Path("/", name).exists()
        for argument in ("--symlink", f"usr/{name}", f"/{name}")
    ]
    usr = [] if built.base_prefix == Path("/usr") else ["--ro-bind", "/usr", "/usr"]
    code = "import sys, tinystar, pathlib; print(tinystar.MAGNITUDE); pathlib.Path(sys.prefix, 'x').touch()"
    command = [
        "bwrap",
        "--unshare-all",
        "--uid",
        "54321",
        *usr,
        *shown,
        *links,
        "--proc",
        "/proc",
        str(built.python),
        "-c",
        code,
    ]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "4.74", done.stderr
    assert "Read-only file system" in done.stderr


async def test_the_one_call_for_a_command_makes_an_environment(tiny: Environment, tmp_path: Path) -> None:
    told: list[Progress] = []
    built = await build_environment(tiny, folder=tmp_path / "environments", lab=None, on_progress=told.append)
    stamp = json.loads((built.path / ".ready").read_text(encoding="utf-8"))
    assert (stamp["environment"], stamp["lock"]) == ("tiny", tiny.lock_hash)
    assert told[-1].stage == "ready"
