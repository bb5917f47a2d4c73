"""The machines that placement chose for a lease. They stand in an annotation of its ConfigMap: a Job cannot be changed,
so whoever writes the lease again writes it for the same ones."""

from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, ValidationError

from windfall.provisioner.manifests.labels import Manifest
from windfall.provisioner.placement import affinity

CHOSEN: Final = "windfall.dev/placement"
"""The annotation."""


class Chosen(BaseModel):
    """A node of the cluster for each worker."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    nodes: tuple[str, ...]
    """By worker; several may be on one."""
    resource: str | None = None
    """Kubernetes' name of the GPUs, like ``nvidia.com/gpu``; none when there are none."""
    node_selector: dict[str, str] = {}
    """Labels that name the kind of GPU."""

    def annotation(self) -> dict[str, str]:
        return {CHOSEN: self.model_dump_json(exclude_defaults=True)}

    def pinned(self, spec: Manifest, worker: int) -> Manifest:
        """A pod's spec, held to the machine of its worker."""
        selector = {**(spec.get("nodeSelector") or {}), **self.node_selector}
        towards = {"affinity": {"nodeAffinity": affinity([self.nodes[worker]])}}
        return {**spec, **towards, **({"nodeSelector": dict(sorted(selector.items()))} if selector else {})}


def chosen_of(found: Mapping[str, Any]) -> Chosen | None:
    """What stands on a lease's ConfigMap; none when it was written without a choice."""
    text = (found["metadata"].get("annotations") or {}).get(CHOSEN)
    if text is None:
        return None
    try:
        return Chosen.model_validate_json(text)
    except ValidationError:
        # Somebody has written over it: the lease's next attempt is chosen for anew.
        return None
