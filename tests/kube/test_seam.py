"""Servers as pods: what holds for those of one machine holds for them."""

import pytest

from tests.hub.seam import *  # noqa: F403 - the tests themselves

pytestmark = [
    pytest.mark.kube,
    pytest.mark.own_nodes("pods call a hub at this machine's address on the bridge"),
    pytest.mark.timeout(600),
]
