"""One of several VOSpace processes on one database and one tree: ``python -m tests.services.vospace.replica``.

Prints its address, and ends on SIGTERM, as `astrocloud serve` does.
"""

import asyncio
import signal
import sys
from pathlib import Path

from astrocloud.core.uws.jobs import Jobs
from tests.services.vospace.platform import running

BEAT_S, LOST_S = 0.2, 2.0


async def main(folder: Path, database: str, drain_s: int) -> None:
    # A test need not wait as long as a slow network may.
    defaults = Jobs.__init__.__kwdefaults__
    assert defaults is not None
    defaults.update(beat_s=BEAT_S, lost_s=LOST_S)
    ending = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ending.set)
    settings = {"vospace": {"transfer_networks": ["127.0.0.0/8"]}}
    async with running(folder, settings, shared_database=database, drain_s=drain_s) as space:
        print(space.url, flush=True)
        await ending.wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
