"""Bring the test cluster up, take it down, say how it is, or whether there can be one."""

import argparse
import fcntl
import shutil
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from tests.kube.cluster import ability, control, images, machines, node, pki, traces
from tests.kube.cluster.layout import CACHE, CONTROL, HOSTS, KUBECONFIG, NODES, REGISTRY, STATE
from tests.kube.cluster.machines import ClusterError
from tests.kube.cluster.programs import CLUSTER_PROGRAMS, BuildError, build, need_debian_packages


def say(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)


@contextmanager
def _alone() -> Iterator[None]:
    """Keep a second command from changing the cluster at the same time."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def up() -> None:
    """Return when the three nodes are ready; starts only what does not run."""
    need_debian_packages()
    build(CLUSTER_PROGRAMS, say=say)
    STATE.mkdir(parents=True, exist_ok=True)
    # The administrator's key is below it.
    STATE.chmod(0o711)
    traces.save_kernel_settings()
    pki.make()
    machines.bridge_up()
    machines.power_on(CONTROL)
    control.start()
    with ThreadPoolExecutor(len(NODES)) as at_once:
        list(at_once.map(node.start_runtime, NODES))
        machines.wait_until("the registry", control.registry_answers, within_s=20)
        images.ensure_pause()
        control.wait_for_api()
        control.start_controllers()
        list(at_once.map(node.start_kubelet, NODES))
        control.add_ons()
    names = [f"node/{host.name}" for host in NODES]
    machines.wait_until("the nodes to register", lambda: _registered(names), within_s=60)
    control.kubectl("wait", "--for=condition=Ready", "--timeout=60s", *names)
    for host in NODES:
        # A node without it starts no pod while the registry is away.
        node.fetch_pause(host)


def _registered(names: list[str]) -> bool:
    return set(names) <= set(control.kubectl("get", "nodes", "-o", "name").split())


def down() -> None:
    """End everything of the cluster and remove it; images in the registry and built programs stay in the cache."""
    machines.all_off()
    machines.bridge_down()
    traces.restore_kernel_settings()
    shutil.rmtree(STATE, ignore_errors=True)


def status() -> bool:
    """Say what runs; return whether all does."""
    off = [host.name for host in HOSTS if not machines.is_on(host)]
    if off:
        say(f"off: {', '.join(off)}")
        return False
    say(control.kubectl("get", "nodes", "-L", "topology.kubernetes.io/region").rstrip())
    return True


def main() -> int:
    """Run one command; errors that a person can act on are one sentence and exit status 2."""
    parser = argparse.ArgumentParser(prog="python -m tests.kube.cluster", description=__doc__)
    parser.add_argument("what", choices=["up", "down", "status", "build", "can"])
    parser.add_argument(
        "programs", nargs="*", help="what `build` builds; nothing: all that a cluster and its tests need"
    )
    options = parser.parse_args()
    what = options.what
    if what != "build":
        lacks = ability.why_not()
        if lacks:
            print(f"No cluster can be made on this machine: {lacks}.", file=sys.stderr)
            return 2
    if what == "can":
        return 0
    began = time.monotonic()
    try:
        if what == "status":
            return 0 if status() else 1
        if what == "build":
            build(tuple(options.programs) or CLUSTER_PROGRAMS, say=say)
            return 0
        with _alone():
            if what == "down":
                down()
                return 0
            up()
        took = time.monotonic() - began
        say(f"Cluster is ready after {took:.0f} s: KUBECONFIG={KUBECONFIG} registry {REGISTRY}")
    except (ClusterError, BuildError) as err:
        print(f"cluster: {err}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
