"""What the cluster refuses, as a sentence: the reason is in the body of its answer."""

import re
from typing import Final

from astrocloud_hub.errors import HubError
from astrocloud_hub.spawners.kube.room import quantity

# pods "x" is forbidden: exceeded quota: astrocloud, requested: limits.memory=2Gi, used: limits.memory=4Gi,
# limited: limits.memory=4Gi
_QUOTA: Final = re.compile(
    r"exceeded quota: (?P<name>[^,]+), requested: (?P<requested>.*), used: (?P<used>.*), limited: (?P<limited>.*)"
)
_POLICY: Final = re.compile(
    r"violates PodSecurity \"[^\"]*\": (?P<what>.*)|ValidatingAdmissionPolicy '[^']*' [^:]*: (?P<rule>.*)"
)
_LONGEST: Final = 400


def refusal(status: int, message: str, *, namespace: str) -> HubError:
    """Return the error for an answer of the cluster that is a refusal.

    Parameters
    ----------
    status
        The answer's HTTP status.
    message
        What the answer's body says.
    namespace
        The namespace it was about.
    """
    quota = _QUOTA.search(message)
    if quota is not None:
        over = quota_sentence(quota["requested"], quota["used"], quota["limited"])
        return HubError("server-quota", over=over)
    if "being terminated" in message:
        return HubError("server-namespace-ending", namespace=namespace)
    policy = _POLICY.search(message)
    if policy is not None:
        return HubError("server-policy", reason=(policy["what"] or policy["rule"])[:_LONGEST])
    if status in {400, 403, 422}:
        return HubError("server-policy", reason=message[:_LONGEST])
    return HubError("server-cluster", reason=message[:_LONGEST] or f"HTTP {status}")


def quota_sentence(requested: str, used: str, limited: str) -> str:
    """Return what of a quota is used up, in signs of any language: ``memory: 4 GiB + 2 GiB > 5 GiB``."""
    wanted, taken, most = (_pairs(text) for text in (requested, used, limited))
    return "; ".join(
        f"{key.removeprefix('limits.').removeprefix('requests.')}: "
        f"{_shown(key, taken.get(key, '0'))} + {_shown(key, amount)} > {_shown(key, most.get(key, '?'))}"
        for key, amount in wanted.items()
    )


def _shown(key: str, amount: str) -> str:
    return f"{quantity(amount) / 2**30:.3g} GiB" if key.endswith("memory") and amount != "?" else amount


def _pairs(text: str) -> dict[str, str]:
    found = (part.strip().partition("=") for part in text.split(","))
    return {key: value for key, _, value in found if key}
