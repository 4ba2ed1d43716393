"""A cluster that is ended leaves nothing on the machine."""

import os

import pytest

from tests.kube.cluster import machines, traces
from tests.kube.cluster.__main__ import down, up
from tests.kube.cluster.control import kubectl
from tests.kube.cluster.layout import HOSTS, PAUSE_IMAGE

pytestmark = [pytest.mark.kube, pytest.mark.timeout(600)]


@pytest.mark.own_nodes("the cluster is ended")
@pytest.mark.skipif(os.geteuid() != 0, reason="a cluster of one's own takes root")
def test_a_cluster_leaves_nothing() -> None:
    was_on = all(machines.is_on(host) for host in HOSTS)
    down()
    before = traces.look()
    try:
        up()
        kubectl("create", "deployment", "left", f"--image={PAUSE_IMAGE}", "--replicas=3")
        kubectl("rollout", "status", "--timeout=60s", "deployment/left")
        # Nothing is found only if there is something to find.
        during = traces.look().new_since(before)
        assert {"processes", "interfaces", "routes", "namespaces", "groups", "paths"} <= during.keys()

        down()

        assert traces.look().new_since(before) == {}
    finally:
        if was_on:
            up()
        else:
            down()
