"""The claim of whatever a federation keeps: it goes with the federation, unless it is to be kept."""

from collections.abc import Mapping
from typing import Any

from windfall.contracts.resources.fields import Metadata
from windfall.provisioner.operator.marks import FEDERATION, made
from windfall.servicekit.kube import Object
from windfall.servicekit.kube.kinds import PERSISTENT_VOLUME_CLAIM


def state_claim(
    name: str, federation: Metadata, labels: Mapping[str, str], size: str, storage_class: str | None, kept: bool
) -> Object:
    """
    Args:
        name: of what keeps it; the claim's is that with ``-state`` behind it.
        federation: who owns it.
        labels: of the claim.
        size: a quantity of Kubernetes, like ``20Gi``.
        storage_class: none takes the cluster's default.
        kept: whether it outlives the federation.
    """
    spec: dict[str, Any] = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}
    if storage_class is not None:
        spec["storageClassName"] = storage_class
    return made(PERSISTENT_VOLUME_CLAIM, f"{name}-state", FEDERATION, federation, dict(labels), kept=kept, spec=spec)
