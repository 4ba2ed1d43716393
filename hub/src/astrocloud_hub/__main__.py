"""``python -m astrocloud_hub``: run the hub of the platform whose data folder is ASTROCLOUD_DATA."""

import logging
import os
import sys
from pathlib import Path
from typing import Final

from astrocloud.config import load_config
from astrocloud.core.database import database_url, open_database, wait_for_database
from astrocloud.core.errors import ConfigError, StartError
from astrocloud.core.layout import DataFolder
from astrocloud.core.logs import configure_logs

CONFIG_FILE: Final = Path(__file__).with_name("jupyterhub_config.py")


def main(config_file: Path = CONFIG_FILE) -> None:
    """Run the hub until SIGTERM; exit code 2 with one sentence when the configuration is wrong.

    Parameters
    ----------
    config_file
        What JupyterHub reads; by default the platform's own.
    """
    os.umask(0o022)
    data = DataFolder.from_environment()
    try:
        config = load_config(data.config_if_any)
        data.make()
    except (ConfigError, StartError) as err:
        sys.stderr.write(f"{err}\n")
        sys.exit(2)
    configure_logs(level=config.logging.level, part="hub")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    if data.on_cluster:
        try:
            wait_for_database(open_database(database_url(data, "jupyterhub")))
        except StartError as err:
            sys.stderr.write(f"{err}\n")
            sys.exit(2)
    # What JupyterHub would leave in the folder it is started in belongs with the rest.
    os.chdir(data.run)

    from astrocloud_hub.app import AstrocloudHub

    AstrocloudHub.launch_instance(["-f", str(config_file)])


if __name__ == "__main__":
    main()
