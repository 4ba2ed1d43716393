"""Whose requests they are on a cluster, where another pod's address is all that is seen of them."""

from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request
from pydantic import SecretStr

from astrocloud.passport.proxy import ProxyPods
from astrocloud.passport.web import Doors

PROXY, PERSONS_POD = "10.1.0.7", "10.1.0.99"


class Names:
    """A name server."""

    def __init__(self) -> None:
        self.addresses: frozenset[str] | None = frozenset({PROXY})
        self.now = 0.0

    async def look_up(self, host: str) -> frozenset[str]:
        assert host == "proxy-pods"
        if self.addresses is None:
            raise OSError("no such name")
        return self.addresses


def sender(peer: str, hops: str, proxy: ProxyPods | None, *, behind: bool = False) -> str | None:
    doors = Doors(
        public_url="https://astro.example.org",
        secret=SecretStr("x"),
        accounts=None,
        session_lifetime_s=60,
        behind_web_server=behind,
        proxy=proxy,
    )
    transport: Any = SimpleNamespace(
        get_extra_info=lambda name, default=None: (peer, 4711) if name == "peername" else default
    )
    headers = {"X-Forwarded-For": hops} if hops else {}
    return doors.browser(make_mocked_request("GET", "/", headers=headers, transport=transport)).address


@pytest.fixture
def names() -> Names:
    return Names()


@pytest.fixture
async def proxy(names: Names) -> ProxyPods:
    pods = ProxyPods("proxy-pods", look_up=names.look_up, clock=lambda: names.now)
    await pods.refresh()
    return pods


async def test_the_proxys_pod_is_believed_and_no_other(proxy: ProxyPods) -> None:
    assert sender(PROXY, "198.51.100.1", proxy) == "198.51.100.1"
    assert sender(PROXY, "1.1.1.1, 198.51.100.2", proxy) == "198.51.100.2"  # only its own word counts
    assert sender(PERSONS_POD, "198.51.100.1", proxy) == PERSONS_POD
    assert sender("127.0.0.1", "198.51.100.1", proxy) == "127.0.0.1"
    for nothing in ("", "unknown", ","):
        assert sender(PROXY, nothing, proxy) == PROXY


async def test_an_ingress_is_believed_when_it_is_one(proxy: ProxyPods) -> None:
    assert sender(PROXY, "1.1.1.1, 198.51.100.1, 10.1.0.20", proxy, behind=True) == "198.51.100.1"
    assert sender(PROXY, "198.51.100.1, 100.64.0.3", proxy, behind=True) == "198.51.100.1"  # networks of carriers
    # Whoever comes straight from the internet made up the hop before.
    assert sender(PROXY, "1.1.1.1, 8.8.8.8", proxy, behind=True) == "8.8.8.8"
    assert sender(PROXY, "8.8.8.8", proxy, behind=True) == "8.8.8.8"


async def test_a_new_pod_is_found_and_an_old_address_forgotten(proxy: ProxyPods, names: Names) -> None:
    names.addresses = frozenset({"10.1.0.8"})
    await proxy.refresh()
    assert sender("10.1.0.8", "198.51.100.1", proxy) == "198.51.100.1"
    assert sender(PROXY, "198.51.100.1", proxy) == PROXY
    names.addresses = None
    await proxy.refresh()  # a moment without names changes nothing
    assert "10.1.0.8" in proxy
    names.now = 100.0
    assert "10.1.0.8" not in proxy


async def test_a_cluster_that_names_no_pods_believes_nobody() -> None:
    proxy = ProxyPods("")
    await proxy.refresh()
    assert sender(PROXY, "198.51.100.1", proxy) == PROXY


def test_on_one_machine_the_proxy_connects_from_the_machine() -> None:
    assert sender("127.0.0.1", "1.1.1.1, 198.51.100.1", None) == "198.51.100.1"
    assert sender("127.0.0.1", "198.51.100.1, 192.0.2.1", None, behind=True) == "198.51.100.1"
    assert sender(PERSONS_POD, "198.51.100.1", None) == PERSONS_POD
