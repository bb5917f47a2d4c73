"""Where a rehearsal may let the provisioner die: every edge between what is journaled and what is done."""

from collections.abc import Mapping
from typing import Final

POINTS: Final[Mapping[str, str]] = {
    "start.ordered": "A lease is in the journal, and nobody was asked for its node.",
    "kubernetes.lease-written": "The lease's ConfigMap is in the cluster, and nothing that it owns.",
    "kubernetes.part-written": "Something of the node is in the cluster, and more will be.",
    "node.started": "A node exists, and the journal knows nothing of it.",
    "order.given": "A node has been asked to go, or is being killed, and nothing has followed from it.",
    "node.gone": "A node is gone, and the journal holds it.",
}
"""They stand in the order in which a lease comes by."""
