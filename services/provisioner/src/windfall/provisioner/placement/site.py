"""A site as placement knows it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from windfall.provisioner.placement.nodes import NodeCapacity, Resources
from windfall.provisioner.placement.profile import Profile

_UNKNOWN: Final = Profile()


@dataclass(frozen=True)
class Site:
    """A site as placement knows it."""

    name: str
    nodes: tuple[NodeCapacity, ...] = ()
    jurisdiction: str = ""
    """Under whose law it lies; empty where it says nothing, which no allowed set includes."""
    profiles: Mapping[str, Profile] = field(default_factory=dict)
    """Newest measurement by node, as ``node.profiled`` names it: a lease's name, or that of the Kubernetes node."""
    held: Mapping[str, Resources] = field(default_factory=dict)
    """What the site's own leases hold, by node: it counts against what a pool lends."""

    def profile(self, node: NodeCapacity) -> Profile:
        """What was measured on a node; else the slowest measurement of another one with the same GPU model."""
        if node.name in self.profiles:
            return self.profiles[node.name]
        models = {gpu.model for gpu in node.gpus} or {""}
        alike = [each for each in self.profiles.values() if each.model in models]
        return min(
            alike, key=lambda each: (each.samples_per_s, each.gb_per_s or 0, each.memory_bytes), default=_UNKNOWN
        )
