"""Copies a folder in the tree FOLDER and stops in the middle of it, until a line comes in or it is killed.

Run on a node of the test cluster: ``python -m tests.kube.holding_a_copy FOLDER``. With ``sweep`` besides it removes
what nobody works on any more and prints how much that was.
"""

import os
import sys
from pathlib import Path

from astrocloud.vospace.copying import copy
from astrocloud.vospace.identity import Identity
from astrocloud.vospace.models import NodePath
from astrocloud.vospace.scanning import sweep
from astrocloud.vospace.storage import Tree


def main(folder: Path, *, sweeps: bool) -> None:
    if sweeps:
        home = os.open(folder / "home/ada", os.O_RDONLY)
        print(sweep(home, older_than_s=0), flush=True)
        return
    told = 0

    def tell(_size: int, files: int) -> None:
        nonlocal told
        told += files
        if files and told == 2:
            print("half", flush=True)
            sys.stdin.readline()

    path = NodePath.from_url
    copy(Tree(folder), path("/home/ada/d"), path("/home/ada/copied"), identity=Identity(0, 0, ()), tell=tell)
    print("done", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sweeps="sweep" in sys.argv[2:])
