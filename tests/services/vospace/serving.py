"""A VOSpace service in a process of its own, so that its memory can be looked at.

``python -m tests.services.vospace.serving FOLDER`` prints its address, and ends with its standard input.
"""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from astrocloud.core.capabilities import SYS_RESOURCE, drop
from tests.services.vospace.platform import Space, running


async def main(folder: Path) -> None:
    async with running(folder) as space:
        print(space.url, flush=True)
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, sys.stdin.read)


@dataclass
class Watched:
    """The service from outside."""

    space: Space
    pid: int

    def _line(self, name: str) -> int:
        text = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        return int(next(line for line in text.splitlines() if line.startswith(name)).split()[1]) << 10

    @contextmanager
    def growing_at_most(self, size: int) -> Iterator[None]:
        """Fail unless the most memory that it has inside the block is at most `size` bytes more than before."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")  # begins the high water mark anew
        before = self._line("VmRSS:")
        yield
        grown = self._line("VmHWM:") - before
        assert grown <= size, f"it took {grown >> 20} MiB more"


@contextmanager
def serving(folder: Path) -> Iterator[tuple[str, int]]:
    """Run the service with its data in `folder`; give its address and process id."""
    folder.mkdir(exist_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.services.vospace.serving", str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        # Freed memory goes back at once: what is measured is what is held.
        env={**os.environ, "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_MMAP_THRESHOLD_": "65536"},
    )
    with process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            url = process.stdout.readline().strip()
            threading.Thread(target=process.stdout.read, daemon=True).start()  # its log must not stop it
            yield url, process.pid
            process.stdin.close()
            process.wait(30)
        finally:
            process.kill()


if __name__ == "__main__":
    drop(SYS_RESOURCE)  # as the platform does
    asyncio.run(main(Path(sys.argv[1])))
