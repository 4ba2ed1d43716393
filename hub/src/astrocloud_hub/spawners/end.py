"""``python -m astrocloud_hub.spawners.end``: end every server of the platform whose data folder is ASTROCLOUD_DATA.

For the command that ends the platform, after the hub: servers outlive the hub on purpose.
"""

import argparse

from astrocloud.core.layout import DataFolder
from astrocloud_hub.spawners.records import Records, end_all


def main() -> None:
    """End the servers."""
    parser = argparse.ArgumentParser(description="End every person's server.")
    parser.add_argument("--grace", type=float, default=5.0, help="seconds until they are ended by force")
    grace_s: float = parser.parse_args().grace
    end_all(Records(DataFolder.from_environment().run / "servers"), grace_s=grace_s)


if __name__ == "__main__":
    main()
