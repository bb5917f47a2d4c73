"""By what the operator's objects are known."""

from typing import Any, Final

from windfall.contracts.resources.fields import GROUP, VERSION, Metadata
from windfall.servicekit.kube import Kind, Object

SITE: Final = Kind(GROUP, VERSION, "Site", "sites")
FEDERATION: Final = Kind(GROUP, VERSION, "Federation", "federations")

OPERATOR: Final = "windfall-operator"
"""Field manager, and the value of the label by which everything that the operator made is found."""
BUS_WORD: Final = "windfall-operator-bus"
"""Field manager of what the bus has told of a resource: the same fields survive whatever reconciling says."""
HOLD: Final = "windfall-operator-hold"
"""Field manager of the finalizer."""
FINALIZER: Final = f"{GROUP}/drain"

MANAGED_BY: Final = "app.kubernetes.io/managed-by"
NAME: Final = "app.kubernetes.io/name"
INSTANCE: Final = "app.kubernetes.io/instance"
COMPONENT: Final = "app.kubernetes.io/component"
FEDERATION_LABEL: Final = f"{GROUP}/federation"
SITE_LABEL: Final = f"{GROUP}/site"
POOL_LABEL: Final = f"{GROUP}/pool"
SUSPENDED: Final = f"{GROUP}/suspended"
"""Label that no node has: a DaemonSet that selects it is at 0."""
SELECTOR: Final = f"{MANAGED_BY}={OPERATOR}"

LONGEST_STATEFUL_SET: Final = 52
"""Its revisions are labels: the name, a dash, and ten characters of a hash within 63."""
LONGEST_DAEMON_SET: Final = 57
"""Its pods are called by its name, a dash and five characters, and a host name has 63."""


def labels_of(federation: Metadata, component: str, **more: str) -> dict[str, str]:
    return {
        NAME: "flower" if component.startswith("super") else "windfall",
        INSTANCE: federation.name,
        COMPONENT: component,
        MANAGED_BY: OPERATOR,
        FEDERATION_LABEL: federation.name,
        **more,
    }


def owned(owner_kind: Kind, owner: Metadata) -> dict[str, Any]:
    """The owner reference by which Kubernetes collects what an owner leaves behind."""
    return {
        "apiVersion": owner_kind.api_version,
        "kind": owner_kind.kind,
        "name": owner.name,
        "uid": owner.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def made(
    kind: Kind, name: str, owner_kind: Kind, owner: Metadata, labels: dict[str, str], *, kept: bool = False, **body: Any
) -> Object:
    """An object of an owner's; ``kept``: it stays when the owner goes."""
    metadata: dict[str, Any] = {"name": name, "namespace": owner.namespace, "labels": labels}
    if not kept:
        metadata["ownerReferences"] = [owned(owner_kind, owner)]
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, **body}
