"""Before the operator is taken away for good: its finalizers go, so that nothing waits for somebody who never comes.

What it made stays and belongs to its Sites and Federations, with which Kubernetes collects it.
"""

import logging

from windfall.provisioner.operator.marks import FEDERATION, FINALIZER, SITE
from windfall.servicekit.kube import Cluster

log = logging.getLogger(__name__)


async def release(cluster: Cluster, namespace: str) -> int:
    """Gives how many resources were let go.

    Raises:
        Transient: somebody changes one at the same time, or the server is away; call it again.
    """
    let_go = 0
    for kind in (FEDERATION, SITE):
        for found in (await cluster.list(kind, namespace)).items:
            metadata = found["metadata"]
            finalizers = metadata.get("finalizers") or []
            if FINALIZER in finalizers:
                left = [one for one in finalizers if one != FINALIZER]
                merge = {"metadata": {"finalizers": left, "resourceVersion": metadata["resourceVersion"]}}
                await cluster.patch(kind, metadata["name"], namespace, merge)
                let_go += 1
    log.info("%d resources wait for the operator no more", let_go)
    return let_go
