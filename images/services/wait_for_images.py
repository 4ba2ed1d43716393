"""Wait until every node has fetched what a DaemonSet of this namespace has it fetch, or until a limit.

It runs as a job inside the cluster, before an upgrade, and ends well at the limit, too: a node that does not answer, or
an image that is nowhere, is no reason to keep the version of before. What it says is for whoever upgrades.
"""

import argparse
import http.client
import json
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
API: Final = "https://kubernetes.default.svc"
LOOK_EVERY_S: Final = 2.0


def status(name: str) -> dict[str, Any]:
    """Return the DaemonSet `name` as the cluster's API tells it to this pod's account."""
    namespace = (ACCOUNT / "namespace").read_text(encoding="utf-8")
    url = f"{API}/apis/apps/v1/namespaces/{namespace}/daemonsets/{name}/status"
    request = urllib.request.Request(url)  # noqa: S310 - the API is always https
    request.add_header("Authorization", f"Bearer {(ACCOUNT / 'token').read_text(encoding='utf-8')}")
    tls = ssl.create_default_context(cafile=ACCOUNT / "ca.crt")
    with urllib.request.urlopen(request, context=tls, timeout=10) as answer:  # noqa: S310
        return dict(json.load(answer))


def counted(told: dict[str, Any]) -> tuple[int, int] | None:
    """Return how many nodes have everything and how many there are, or nothing while nobody has counted them."""
    now = told.get("status", {})
    if now.get("observedGeneration", 0) < told["metadata"]["generation"]:
        return None
    return now.get("numberReady", 0), now.get("desiredNumberScheduled", 0)


def wait(
    ask: Callable[[], dict[str, Any]],
    within_s: float,
    *,
    say: Callable[[str], object],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], object] = time.sleep,
) -> bool:
    """Tell whether all nodes have everything within `within_s` seconds.

    Parameters
    ----------
    ask
        Returns the DaemonSet.
    say
        Takes a sentence about how it stands, whenever that is another one.
    """
    until, said = clock() + within_s, ""
    while True:
        try:
            found = counted(ask())
        except (OSError, http.client.HTTPException, ValueError, KeyError) as err:
            # One that is refused may be let in the next time: rights take a moment, and so does a busy API.
            found, now = None, f"the cluster does not tell: {err}"
        else:
            now = "{} of {} nodes have the images".format(*found) if found else "nobody has counted the nodes yet"
        if now != said:
            say(now)
            said = now
        if found and found[0] >= found[1]:
            return True
        if clock() >= until:
            return False
        sleep(LOOK_EVERY_S)


def main() -> int:
    """Wait, and say how it ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--daemonset", required=True)
    parser.add_argument("--timeout", type=float, required=True, metavar="SECONDS")
    options = parser.parse_args()

    def say(line: str) -> None:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()

    if not wait(lambda: status(options.daemonset), options.timeout, say=say):
        say(
            f"Not every node has the images after {options.timeout:g} s (prepuller.beforeUpgrade.timeoutSeconds). The"
            " upgrade goes on, and so does the fetching: whose server starts on such a node before that is done waits."
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
