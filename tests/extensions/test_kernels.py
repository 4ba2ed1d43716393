"""A kernel that was prepared ahead is a kernel like any other."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.extensions.servers import (
    CellError,
    Kernel,
    Server,
    StandInHub,
    descendants,
    kernel_parent_pid,
    running,
    state,
    wait_for,
)

UNPREPARED = "started without preparation"


def write_spec(server: Server, python: Path, name: str, *options: str, **fields: Any) -> str:
    """Install a kernel specification in the person's home."""
    folder = server.home / ".local/share/jupyter/kernels" / name
    folder.mkdir(parents=True, exist_ok=True)
    argv = [str(python), *options, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (folder / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": name, "language": "python"} | fields))
    return name


async def is_forked(kernel: Kernel) -> bool:
    """Return whether a kernel came from the parent: its command line is still the parent's."""
    return "kernels.forkserver" in await kernel.value("open('/proc/self/cmdline').read()")


async def test_kernel_is_forked_and_is_a_child_of_the_server(server: Server) -> None:
    async with server.kernel() as kernel:
        assert await is_forked(kernel)
        assert await kernel.value("__import__('os').getppid()") == server.process.pid
        assert await kernel.value("__import__('os').environ['JPY_PARENT_PID']") == str(server.process.pid)


async def test_listed_packages_are_imported_ahead(server: Server) -> None:
    parent = kernel_parent_pid(server)

    def has_matplotlib() -> bool:
        return "matplotlib" in Path(f"/proc/{parent}/maps").read_text()

    await asyncio.to_thread(wait_for, has_matplotlib, "the parent has imported matplotlib")
    async with server.kernel() as kernel:
        assert await kernel.value("[n in __import__('sys').modules for n in ('numpy', 'astropy')]") == [True, True]


async def test_names_of_the_kernel_are_as_in_a_fresh_one(server: Server, lab_python: Path) -> None:
    expected = write_spec(server, lab_python, "fresh", env={"PYTHONFAULTHANDLER": "0"})
    question = (
        "(sorted(n for n in globals() if not n.startswith('_')), __name__, __import__('sys').path,"
        " __import__('sys').argv[0], __import__('sys').flags.__repr__(), __import__('sys').executable)"
    )
    async with server.kernel() as forked, server.kernel(expected) as fresh:
        assert not await is_forked(fresh)
        assert await forked.value(question) == await fresh.value(question)


async def test_random_numbers_differ_between_kernels(server: Server) -> None:
    question = "(__import__('numpy').random.random(), __import__('random').random(), __import__('uuid').uuid4().hex)"
    async with server.kernel() as one, server.kernel() as two:
        first, second = await one.value(question), await two.value(question)
    assert all(a != b for a, b in zip(first, second, strict=True))


async def test_interrupt_raises_keyboard_interrupt_and_the_kernel_lives(server: Server) -> None:
    async with server.kernel() as kernel:
        asked = await kernel.send("import time\nprint('in', flush=True)\nfor _ in range(600): time.sleep(0.1)")
        while (await kernel.next_message())["msg_type"] != "stream":
            pass
        await kernel.post("interrupt")
        assert (await kernel.result(asked)).error == ("KeyboardInterrupt", "")
        assert await kernel.value("1 + 1") == 2


async def test_a_kernel_ends_before_the_server_when_memory_runs_out(server: Server) -> None:
    async with server.kernel() as kernel:
        score = int(await kernel.run("print(open('/proc/self/oom_score_adj').read())"))
    assert score >= 500 > int(Path(f"/proc/{server.process.pid}/oom_score_adj").read_text())


async def test_restart_gives_a_new_prepared_kernel(server: Server) -> None:
    async with server.kernel() as kernel:
        before = await kernel.value("__import__('os').getpid()")
        await kernel.run("x = 1")
        await kernel.post("restart")
        await kernel.close()
        await kernel.connect()
        assert await kernel.value("__import__('os').getpid()") != before
        with pytest.raises(CellError, match="NameError"):
            await kernel.run("x")
        assert await is_forked(kernel)


async def test_killed_kernel_is_started_again(server: Server) -> None:
    async with server.kernel() as kernel:
        await kernel.send("import os; os.kill(os.getpid(), 9)")
        await kernel.wait_for_state("restarting")
        await kernel.close()
        await kernel.connect()
        assert await kernel.value("6 * 7") == 42


async def test_working_folder_is_the_notebooks(server: Server) -> None:
    folder = server.home / "work"
    folder.mkdir(exist_ok=True)
    (folder / "beside.py").write_text("x = 3\n")
    async with server.kernel(path=f"{folder}/one.ipynb".lstrip("/")) as kernel:
        assert await kernel.value("__import__('os').getcwd()") == str(folder)
        assert await kernel.value("__import__('beside').x") == 3
        assert await is_forked(kernel)


async def test_variables_and_time_zone_of_a_kernel_specification_apply(server: Server, lab_python: Path) -> None:
    name = write_spec(server, lab_python, "zone", env={"TZ": "Asia/Shanghai", "OBSERVATORY": "兴隆"})
    async with server.kernel(name) as kernel:
        assert await is_forked(kernel)
        assert await kernel.value("__import__('os').environ['OBSERVATORY']") == "兴隆"
        assert await kernel.value("__import__('time').strftime('%z')") == "+0800"
        assert (
            await kernel.run("import subprocess; print(subprocess.check_output(['date', '+%z'], text=True))") == "+0800"
        )


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
async def test_multiprocessing_works(server: Server, method: str) -> None:
    async with server.kernel() as kernel:
        code = "import multiprocessing as m\nwith m.get_context('METHOD').Pool(2) as pool: r = pool.map(abs, [-1, -2])"
        code = code.replace("METHOD", method)
        await kernel.run(code)
        assert await kernel.value("r") == [1, 2]


async def test_linear_algebra_works_after_the_fork(server: Server) -> None:
    async with server.kernel() as kernel:
        await kernel.run("import numpy as np; a = np.random.default_rng(1).random((400, 400))")
        assert await kernel.value("bool(np.allclose(a @ np.linalg.inv(a), np.eye(400)))") is True


async def test_plots_are_inline_and_matplotlib_uses_the_persons_folders(server: Server) -> None:
    async with server.kernel() as kernel:
        asked = await kernel.send("import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()")
        result = await kernel.result(asked)
        assert result.error is None
        assert any("image/png" in data for data in result.data)
        assert (await kernel.value("__import__('matplotlib').get_configdir()")).startswith(str(server.home))
        assert "inline" in await kernel.value("__import__('matplotlib').get_backend()")


async def test_plots_appear_without_show_and_figures_are_closed(server: Server) -> None:
    async with server.kernel() as kernel:
        result = await kernel.result(await kernel.send("import matplotlib.pyplot as plt; plt.plot([1, 2]);"))
        assert any("image/png" in data for data in result.data)
        assert await kernel.value("plt.get_fignums()") == []


async def test_astropy_reads_the_persons_configuration_of_now(server: Server) -> None:
    folder = server.home / ".astropy/config"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "astropy.cfg").write_text("max_lines = 7\n")
    try:
        async with server.kernel() as kernel:
            assert await is_forked(kernel)
            assert await kernel.value("__import__('astropy').conf.max_lines") == 7
    finally:
        (folder / "astropy.cfg").unlink()


async def test_output_of_programs_is_shown(server: Server) -> None:
    async with server.kernel() as kernel:
        assert await kernel.run("import os; _ = os.system('echo from a program')") == "from a program"


async def reply_of(kernel: Kernel, kind: str, content: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a kernel's reply to a request."""
    asked = await kernel.send("", f"{kind}_request", content)
    while True:
        message = await kernel.next_message()
        if message["msg_type"] == f"{kind}_reply" and message["parent_header"]["msg_id"] == asked:
            found: dict[str, Any] = message["content"]
            return found


async def test_debugger_answers(server: Server) -> None:
    async with server.kernel() as kernel:
        reply = await reply_of(kernel, "debug", {"type": "request", "seq": 1, "command": "debugInfo"})
        assert reply["success"] is True
        info = await reply_of(kernel, "kernel_info", {"any": ""})
        assert "debugger" in info["supported_features"]


def listened_to(pid: int) -> set[str]:
    """Return the sockets on which a process and those below it listen on TCP."""
    lines = [line.split() for table in ("tcp", "tcp6") for line in Path(f"/proc/net/{table}").read_text().splitlines()]
    listening = {f"socket:[{fields[9]}]" for fields in lines if fields[3] == "0A"}
    found: set[str] = set()
    for each in (pid, *descendants(pid)):
        for entry in Path(f"/proc/{each}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                found.add(os.readlink(entry))
    return found & listening


@pytest.mark.parametrize("prepared", ["1", "0"])
async def test_no_kernel_has_a_debugger_where_the_network_is_shared(
    lab_python: Path, hub: StandInHub, tmp_path: Path, prepared: str
) -> None:
    shared = {"ASTROCLOUD_SHARED_NETWORK": "1", "ASTROCLOUD_PREPARE_KERNEL": prepared}
    with running(lab_python, tmp_path, hub, **shared) as server:
        async with server.client() as client, client.get("lab") as answer:
            assert "@jupyterlab/debugger-extension" in await answer.text()
        async with server.kernel() as kernel:
            assert await is_forked(kernel) is (prepared == "1")
            info = await reply_of(kernel, "kernel_info", {"any": ""})
            assert info["language_info"]["name"] == "python"
            assert "debugger" not in info["supported_features"]
            pid = await kernel.value("__import__('os').getpid()")
            # One is there from the start: where forked children send what they print, with a secret.
            before = listened_to(pid)
            for seq, command in enumerate(("debugInfo", "initialize", "attach"), 1):
                request = {"type": "request", "seq": seq, "command": command, "arguments": {}}
                reply = await reply_of(kernel, "debug", request)
                assert (reply["success"], reply["request_seq"], reply["command"]) == (False, seq, command)
                assert "%debug" in reply["message"]
            assert listened_to(pid) == before
            assert await kernel.value("6 * 7") == 42


async def test_a_kernel_of_another_kind_starts_where_the_network_is_shared(
    lab_python: Path, hub: StandInHub, tmp_path: Path
) -> None:
    with running(lab_python, tmp_path, hub, ASTROCLOUD_SHARED_NETWORK="1") as server:
        name = write_spec(server, Path("/usr/bin/env"), "by-env", str(lab_python))
        async with server.kernel(name) as kernel:
            assert await kernel.value("1 + 1") == 2


async def test_sockets_of_a_kernel_are_unix_sockets_in_a_private_folder(server: Server) -> None:
    async with server.kernel() as kernel:
        await kernel.run("import ipykernel; info = ipykernel.get_connection_info(unpack=True)")
        assert await kernel.value("info['transport']") == "ipc"
        folder = Path(await kernel.value("info['ip']")).parent
        assert folder.stat().st_mode & 0o777 == 0o700
        assert {name.rpartition("-")[0] for name in os.listdir(folder) if f"{kernel.id}-ipc" in name} == {
            f"kernel-{kernel.id}-ipc"
        }


def _descriptors(pid: int) -> list[str]:
    return [f"/proc/{pid}/fd/{number}" for number in os.listdir(f"/proc/{pid}/fd")]


async def test_a_kernel_gets_no_descriptor_of_the_parents(server: Server) -> None:
    parent = kernel_parent_pid(server)
    control = {os.readlink(fd) for fd in _descriptors(parent) if os.readlink(fd).startswith("socket:")}
    async with server.kernel() as kernel:
        pid = await kernel.value("__import__('os').getpid()")
        assert not control & {os.readlink(fd) for fd in _descriptors(pid)}


@pytest.mark.parametrize(
    ("options", "env", "why"),
    [
        ((), {"PYTHONPATH": "/nowhere"}, "PYTHONPATH"),
        ((), {"LD_LIBRARY_PATH": "/nowhere"}, "LD_LIBRARY_PATH"),
        ((), {"OMP_NUM_THREADS": "1"}, "OMP_NUM_THREADS"),
        (("-O",), {}, "ipykernel_launcher"),
    ],
)
async def test_kernel_with_needs_of_its_own_is_started_as_usual(
    server: Server, lab_python: Path, options: tuple[str, ...], env: dict[str, str], why: str
) -> None:
    name = write_spec(server, lab_python, "own", *options, env=env)
    async with server.kernel(name) as kernel:
        assert not await is_forked(kernel)
        for variable, value in env.items():
            assert await kernel.value(f"__import__('os').environ['{variable}']") == value
    reasons = [line for line in server.log().splitlines() if UNPREPARED in line]
    assert why in reasons[-1]


async def test_kernel_of_another_interpreter_is_started_as_usual(
    server: Server, tmp_path: Path, lab_python: Path
) -> None:
    wrapper = tmp_path / "my-python"
    wrapper.write_text(f'#!/bin/sh\nexec "{lab_python}" "$@"\n')
    wrapper.chmod(0o755)
    async with server.kernel(write_spec(server, wrapper, "wrapped")) as kernel:
        assert not await is_forked(kernel)


async def test_package_installed_meanwhile_is_seen(server: Server, lab_python: Path) -> None:
    version = subprocess.check_output(
        [lab_python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], text=True
    ).strip()
    folder = server.home / f".local/lib/python{version}/site-packages"
    before = kernel_parent_pid(server)
    folder.mkdir(parents=True)
    (folder / "brand_new.py").write_text("x = 5\n")
    async with server.kernel() as kernel:
        assert not await is_forked(kernel)
    await asyncio.to_thread(wait_for, lambda: kernel_parent_pid(server) != before, "another parent")
    async with server.kernel() as kernel:
        assert await is_forked(kernel)


async def test_no_zombie_is_left(server: Server) -> None:
    async with server.kernel() as kernel:
        pid = await kernel.value("__import__('os').getpid()")
    await asyncio.to_thread(wait_for, lambda: state(pid) == "", "the kernel is reaped")
    assert all(state(one) != "Z" for one in descendants(server.process.pid))


async def test_kernels_outlive_the_parent_and_the_next_is_started_as_usual(server: Server) -> None:
    async with server.kernel() as kernel:
        await kernel.run("x = 1")
        os.kill(kernel_parent_pid(server), signal.SIGKILL)
        async with server.kernel() as next_one:
            assert not await is_forked(next_one)
        assert await kernel.value("x") == 1
    async with server.kernel() as later:
        assert await is_forked(later)


def test_parent_that_refuses_a_request_counts_as_gone(lab_python: Path) -> None:
    script = (
        "import os, signal\n"
        "from astrocloud_lab.kernels.parent import KernelParent\n"
        "for _ in range(40):\n"
        "    parent = KernelParent()\n"
        "    os.kill(parent.pid, signal.SIGKILL)\n"
        "    try:\n"
        "        while True:\n"
        "            parent.ask([], {}, '/', [0, 1, 2]).close()\n"
        "    except BlockingIOError:\n"
        "        pass\n"
        "    except OSError:\n"
        "        assert not parent.alive()\n"
        "    parent.stop()\n"
    )
    subprocess.run([lab_python, "-c", script], check=True, timeout=60)


def test_nothing_is_left_when_the_server_ends(lab_python: Path, hub: StandInHub, tmp_path: Path) -> None:
    async def use(server: Server) -> list[int]:
        async with server.client() as client, client.post("api/kernels", json={}) as answer:
            assert answer.status == 201
        return descendants(server.process.pid)

    with running(lab_python, tmp_path, hub) as server:
        pids = asyncio.run(use(server))
        assert len(pids) >= 2
    wait_for(lambda: all(state(pid) in {"", "Z"} for pid in pids), "all processes have ended")


def test_kernels_end_with_a_server_that_was_killed(lab_python: Path, hub: StandInHub, tmp_path: Path) -> None:
    async def use(server: Server) -> list[int]:
        async with server.client() as client, client.post("api/kernels", json={}) as answer:
            assert answer.status == 201
        return descendants(server.process.pid)

    with running(lab_python, tmp_path, hub) as server:
        pids = asyncio.run(use(server))
        server.process.kill()
        wait_for(lambda: all(state(pid) in {"", "Z"} for pid in pids), "all processes have ended")


def test_preparation_can_be_turned_off(lab_python: Path, hub: StandInHub, tmp_path: Path) -> None:
    async def use(server: Server) -> bool:
        async with server.kernel() as kernel:
            return await is_forked(kernel)

    with running(lab_python, tmp_path, hub, ASTROCLOUD_PREPARE_KERNEL="0") as server:
        assert asyncio.run(use(server)) is False


def offered(lab_python: Path, prefix: Path, home: Path) -> bool:
    """Tell whether a person with `home` was given the list of the environment at `prefix`."""
    script = (
        "import sys, pathlib; from astrocloud_lab.kernels import fonts; sys.prefix = sys.argv[1]; "
        "print(fonts.offer({}, pathlib.Path(sys.argv[2])))"
    )
    done = subprocess.run([lab_python, "-c", script, prefix, home], capture_output=True, text=True, check=True)
    return done.stdout == "True\n"


def test_people_get_the_environments_list_of_fonts(lab_python: Path, tmp_path: Path) -> None:
    prefix, home = tmp_path / "environment", tmp_path / "home"
    assert not offered(lab_python, prefix, home)  # the environment has none
    kept = prefix / "share" / "astrocloud" / "matplotlib"
    kept.mkdir(parents=True)
    (kept / "fontlist-v1.json").write_text("theirs")
    assert offered(lab_python, prefix, home)
    got = home / ".cache" / "matplotlib" / "fontlist-v1.json"
    assert got.read_text() == "theirs"
    got.write_text("mine")
    assert not offered(lab_python, prefix, home)
    assert got.read_text() == "mine"


def test_people_with_fonts_of_their_own_get_no_list(lab_python: Path, tmp_path: Path) -> None:
    prefix, home = tmp_path / "environment", tmp_path / "home"
    kept = prefix / "share" / "astrocloud" / "matplotlib"
    kept.mkdir(parents=True)
    (kept / "fontlist-v1.json").write_text("theirs")
    (home / ".fonts").mkdir(parents=True)
    assert not offered(lab_python, prefix, home)
    assert not (home / ".cache").exists()
