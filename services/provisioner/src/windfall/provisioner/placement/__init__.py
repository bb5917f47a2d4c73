"""Where a gang of trainers goes: which site, which nodes of it, and a line about each for whoever asks why not.

``gpus`` names what a node has, ``nodes`` counts what is free on each, ``profile`` is what was measured, ``fitness``
says what does for a ``need``, ``lending`` how much of its pools the site still lends, ``decision`` chooses,
``explanation`` says why: pure. ``ask`` reads a question from files; ``python -m windfall.provisioner.placement
question.yaml`` asks it.
"""

from windfall.provisioner.placement.affinity import affinity
from windfall.provisioner.placement.decision import Placement, place, placements
from windfall.provisioner.placement.explanation import Verdict, explain
from windfall.provisioner.placement.need import Arrangement, Need, Pool
from windfall.provisioner.placement.nodes import NodeCapacity, Resources, Toleration, held_by_node, node_capacities
from windfall.provisioner.placement.profile import Profile
from windfall.provisioner.placement.site import Site

__all__ = [
    "Arrangement",
    "Need",
    "NodeCapacity",
    "Placement",
    "Pool",
    "Profile",
    "Resources",
    "Site",
    "Toleration",
    "Verdict",
    "affinity",
    "explain",
    "held_by_node",
    "node_capacities",
    "place",
    "placements",
]
