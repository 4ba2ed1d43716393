"""Run one part of a cluster's platform on this machine: at ports of its own, on SQLite.

`cluster_part hub`, or what `astrocloud` takes.

The ports are in the variables TEST_TLS_PORT, TEST_PLAIN_PORT and TEST_BYTES_PORT, what the hub reads in TEST_SETTINGS.
"""

import os
import sys
from pathlib import Path
from typing import Any

from astrocloud.core import database, runtime

# As far as the pods' network and PostgreSQL go, this is no cluster.
runtime.TLS_PORT = int(os.environ["TEST_TLS_PORT"])  # type: ignore[misc]
runtime.HUB_PORT = runtime.SERVICE_PORT = int(os.environ["TEST_PLAIN_PORT"])  # type: ignore[misc]
runtime.BYTES_PORT = int(os.environ["TEST_BYTES_PORT"])  # type: ignore[misc]


def on_sqlite(_database: Any, name: str, **_: Any) -> str:
    return f"sqlite:///{os.environ['ASTROCLOUD_DATA']}/{name}.sqlite"


database.postgresql_url = on_sqlite

if sys.argv[1] == "hub":
    from astrocloud_hub.__main__ import main as run_hub

    run_hub(Path(os.environ["TEST_SETTINGS"]))
else:
    from astrocloud.cli import main

    sys.exit(main(sys.argv[1:]))
