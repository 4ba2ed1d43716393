"""Who reaches whom under a set of network policies, by the rules of networking.k8s.io/v1.

No network here enforces policies, so what the chart and the spawner write is evaluated instead of tried.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any

Json = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Place:
    """Something that connects or is connected to: a pod, or an address outside of all."""

    name: str
    address: str
    """Its address; networks differ in whether blocks of addresses mean pods, too: here they do."""
    namespace: str = ""
    """Of a pod; empty for what is outside of all."""
    namespace_labels: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    ports: Mapping[str, int] = field(default_factory=dict)
    """Names of its ports."""

    @property
    def is_pod(self) -> bool:
        """Whether policies apply to it."""
        return bool(self.namespace)


def reaches(policies: Iterable[Json], source: Place, target: Place, port: int, *, protocol: str = "TCP") -> bool:
    """Whether `source` may connect to `port` of `target`: its own policies let it out, and the other's let it in."""
    policies = list(policies)
    out = _lets(policies, source, "Egress", target, target, port, protocol)
    into = _lets(policies, target, "Ingress", source, target, port, protocol)
    return out and into


def _lets(
    policies: list[Json], subject: Place, direction: str, peer: Place, target: Place, port: int, protocol: str
) -> bool:
    if not subject.is_pod:
        return True
    applying = [p for p in policies if _applies(p, subject) and direction in _types(p)]
    if not applying:
        return True
    rules, side = ("egress", "to") if direction == "Egress" else ("ingress", "from")
    return any(
        _port_fits(rule.get("ports"), target, port, protocol) and _peer_fits(policy, rule.get(side), peer)
        for policy in applying
        for rule in policy["spec"].get(rules, [])
    )


def _types(policy: Json) -> list[str]:
    spec = policy["spec"]
    return list(spec.get("policyTypes") or ["Ingress", *(["Egress"] if "egress" in spec else [])])


def _applies(policy: Json, pod: Place) -> bool:
    return policy["metadata"]["namespace"] == pod.namespace and _matches(policy["spec"]["podSelector"], pod.labels)


def _peer_fits(policy: Json, peers: list[Json] | None, place: Place) -> bool:
    # Nothing said, or an empty list, is everybody.
    return not peers or any(_is_peer(policy, peer, place) for peer in peers)


def _is_peer(policy: Json, peer: Json, place: Place) -> bool:
    if "ipBlock" in peer:
        block = peer["ipBlock"]
        inside = ip_address(place.address) in ip_network(block["cidr"])
        return inside and not any(ip_address(place.address) in ip_network(left) for left in block.get("except", []))
    if not place.is_pod:
        return False
    if "namespaceSelector" in peer:
        if not _matches(peer["namespaceSelector"], place.namespace_labels):
            return False
    elif place.namespace != policy["metadata"]["namespace"]:
        return False
    return _matches(peer.get("podSelector", {}), place.labels)


def _matches(selector: Json, labels: Mapping[str, str]) -> bool:
    if selector.keys() - {"matchLabels"}:
        msg = f"not evaluated here: {selector}"
        raise NotImplementedError(msg)
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())


def _port_fits(ports: list[Json] | None, target: Place, port: int, protocol: str) -> bool:
    if not ports:
        return True
    return any(
        given.get("protocol", "TCP") == protocol and ("port" not in given or port == _number(given["port"], target))
        for given in ports
    )


def _number(port: int | str, target: Place) -> int | None:
    return port if isinstance(port, int) else target.ports.get(port)
