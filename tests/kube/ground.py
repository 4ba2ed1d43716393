"""A running cluster, as tests use it."""

from dataclasses import dataclass

from tests.kube.kubectl import Kubectl


@dataclass(frozen=True, kw_only=True)
class Cluster(Kubectl):
    """A running cluster, and the registry that its nodes take images from."""

    registry: str
    image: str
    """An image there with a shell and Python."""
    own: bool
    """Whether it is the one made here, whose nodes can be switched off."""
