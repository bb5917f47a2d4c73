"""Where a gang of trainers goes: which site, which nodes of it, and a line about each for whoever asks why not.

``gpus`` names what a node has, ``nodes`` counts what is free on each, ``profile`` is what was measured, ``decision``
chooses: pure. ``ask`` reads a question from files; ``python -m windfall.provisioner.placement question.yaml`` asks it.
"""

from windfall.provisioner.placement.decision import (
    Arrangement,
    Need,
    Placement,
    Site,
    Verdict,
    affinity,
    explain,
    place,
    placements,
)
from windfall.provisioner.placement.nodes import NodeCapacity, Resources, Toleration, node_capacities
from windfall.provisioner.placement.profile import Profile

__all__ = [
    "Arrangement",
    "Need",
    "NodeCapacity",
    "Placement",
    "Profile",
    "Resources",
    "Site",
    "Toleration",
    "Verdict",
    "affinity",
    "explain",
    "node_capacities",
    "place",
    "placements",
]
