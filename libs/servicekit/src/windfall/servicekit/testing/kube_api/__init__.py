"""An API server of Kubernetes in one process, for tests and rehearsals: HTTPS on loopback, objects in memory.

It keeps the protocol's promises (versions and conflicts, server-side apply, watches with bookmarks and 410, status,
generations, finalizers, owner references, selectors, pages, custom resources with structural schemas, roles, tokens)
and passes the same tests as the real one. It has no controllers but the garbage collector, no admission, no CEL rules,
no conversion between versions beyond their name, and checks of the built-in kinds no more than reconcilers run into.

``python -m windfall.servicekit.testing.kube_api --port 8001 --state FOLDER`` runs it as a process, which may be killed
with -9 and started again.
"""

from windfall.servicekit.testing.kube_api.authorizing import Identity
from windfall.servicekit.testing.kube_api.double import KubeApi, kube_api
from windfall.servicekit.testing.kube_api.faults import Faults

__all__ = ["Faults", "Identity", "KubeApi", "kube_api"]
