"""Running uv, and reading how far it is and what went wrong from what it prints."""

import asyncio
import contextlib
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

_KEPT_VARIABLES: Final = re.compile(
    r"^(PATH|HOME|USER|LOGNAME|TMPDIR|LANG|LC_\w+|NETRC|UV_\w+|XDG_\w+|SSL_\w+|RUST_LOG|(?i:https?_proxy|no_proxy|all_proxy))$"
)
_SIZE: Final = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_STARTED: Final = re.compile(r"^\s*Downloading (\S+) \(([\d.]+)(B|KiB|MiB|GiB)\)")
_DONE: Final = re.compile(r"^\s*Downloaded (\S+)")
_USER_INFO: Final = re.compile(r"(?<=://)[^/@\s]*@")

_DISK: Final = ("no space left", "os error 28", "disk quota exceeded", "os error 122")
_NETWORK: Final = (
    "dns error",
    "error sending request",
    "connection refused",
    "connection reset",
    "tcp connect error",
    "failed to fetch",
    "failed to download",
    "timed out",
    "network is unreachable",
)
_MISMATCH: Final = "hash mismatch"


def find_uv() -> Path | None:
    """Return uv: the one beside the running Python, else the one on the PATH; `None` when there is none."""
    here = str(Path(sys.executable).parent)
    found = shutil.which("uv", path=here) or shutil.which("uv")
    return Path(found) if found else None


class UvFailed(Exception):  # noqa: N818  (what happened, never seen outside this package)
    """uv ended with an error."""

    def __init__(self, output: str) -> None:
        super().__init__("uv failed")
        self.output = output

    @property
    def kind(self) -> str:
        """Which trouble it is: ``disk``, ``lock``, ``network`` or ``build`` (any other)."""
        text = self.output.lower()
        if any(sign in text for sign in _DISK):
            return "disk"
        if _MISMATCH in text:
            return "lock"
        if any(sign in text for sign in _NETWORK):
            return "network"
        return "build"

    @property
    def reason(self) -> str:
        """The last cause that uv gives, or its last line: one line, without names and passwords in addresses."""
        lines = [line.strip() for line in self.output.splitlines() if line.strip()]
        causes = [line for line in lines if line.lower().startswith(("error:", "cause:", "caused by:"))]
        last = (causes or lines or ["it printed nothing"])[-1]
        return last.split(":", 1)[-1].strip()[:300] if causes else last[:300]

    @property
    def package(self) -> str:
        """The package whose hash differs, as far as uv says."""
        match = re.search(r"[Hh]ash mismatch for `([^`]+)`", self.output)
        return match[1] if match else "a package"


class DownloadCount:
    """Bytes of the large packages that uv says it started and finished; small ones it does not tell."""

    def __init__(self) -> None:
        self._sizes: dict[str, int] = {}
        self.done = 0

    @property
    def total(self) -> int:
        """Bytes of all that was started so far."""
        return sum(self._sizes.values())

    def read(self, line: str) -> bool:
        """Take one line of output; `True` when it told something new."""
        if match := _STARTED.match(line):
            self._sizes[match[1]] = int(float(match[2]) * _SIZE[match[3]])
            return True
        if (match := _DONE.match(line)) and match[1] in self._sizes:
            self.done += self._sizes[match[1]]
            return True
        return False


async def run(
    command: Sequence[str | Path],
    *,
    folder: Path,
    log: Path,
    keep_open: int,
    on_line: Callable[[str], None] | None = None,
    may_end_with: int = 0,
) -> None:
    """Run uv, or a program of the environment, until it ends; cancelling kills it with all of its children.

    Parameters
    ----------
    command
        The program and its arguments.
    folder
        Its working folder. A project file there would change what uv does, so it is one of ours.
    log
        The file that its output is added to, without names and passwords in addresses.
    keep_open
        A file descriptor that uv inherits: the build's lock, which so is held for as long as uv lives, even when
        this process is killed.
    on_line
        Called with each line of output.
    may_end_with
        An exit status besides 0 that is no failure.

    Raises
    ------
    UvFailed
        When it ends with an error.
    """
    process = await asyncio.create_subprocess_exec(
        *map(str, command),
        cwd=folder,
        env={**{name: value for name, value in os.environ.items() if _KEPT_VARIABLES.match(name)}, **_OURS},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        pass_fds=(keep_open,),
        start_new_session=True,
        umask=0o022,
    )
    lines: list[str] = []
    try:
        with log.open("a", encoding="utf-8") as record:
            assert process.stdout is not None
            async for raw in process.stdout:
                line = _USER_INFO.sub("", raw.decode("utf-8", "replace").rstrip())
                lines.append(line)
                if not line.startswith("Compiling "):
                    record.write(line + "\n")
                if on_line is not None:
                    on_line(line)
        status = await process.wait()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await asyncio.shield(process.wait())
        raise
    if status not in {0, may_end_with}:
        raise UvFailed("\n".join(lines[-200:]))


# An interpreter that uv downloads would be out of the lock, and colours do not belong in a log.
_OURS: Final = {"UV_PYTHON_DOWNLOADS": "never", "NO_COLOR": "1", "UV_NO_PROGRESS": "1"}
