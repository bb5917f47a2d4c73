"""What a Machine of Cluster API says of itself, read alike in both contracts.

In v1beta1 the new conditions stand under ``status.v1beta2`` beside the old ones, which know a severity; in v1beta2 they
stand under ``status.conditions``, and what is left of the old under ``status.deprecated.v1beta1``. A condition that is
missing, ``Unknown``, or of an earlier generation says nothing good.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from windfall.provisioner.holdings import Node
from windfall.provisioner.manifests.labels import node_of

DELETE_FIRST: Final = "cluster.x-k8s.io/delete-machine"
"""An annotation: when there are too many machines, this one goes first."""
NO_DRAIN: Final = "machine.cluster.x-k8s.io/exclude-node-draining"
NO_DETACH: Final = "machine.cluster.x-k8s.io/exclude-wait-for-node-volume-detach"
"""Annotations: the machine goes at once."""
NODE_LABEL: Final = "node.cluster.x-k8s.io/windfall-lease"
"""A label that Cluster API copies from a Machine to its Node: by it a lease's trainer finds its machine."""


@dataclass(frozen=True)
class Machine:
    """One Machine, as far as a lease is concerned."""

    name: str
    uid: str
    created: str
    node: Node | None
    """In whose name it is."""
    leaving: bool
    """It has been asked to go, and goes."""
    joined: str | None
    """Name of its Node in the cluster; none until it has one."""
    ready: bool
    failure: str | None
    """Why nothing will come of it any more."""
    waits_for: str
    """What it waits for, for a person; empty once it is ready."""
    leaves: str = ""
    """How far it has got with leaving, for a person."""
    annotations: frozenset[str] = frozenset()


def read(found: Mapping[str, Any]) -> Machine:
    """
    Args:
        found: a Machine as the API server gave it.
    """
    metadata, status = found["metadata"], found.get("status") or {}
    conditions = current(found)
    joined = (status.get("nodeRef") or {}).get("name")
    ready = _is(conditions, "Ready") and _is(conditions, "NodeHealthy", absent="NodeReady") and joined is not None
    return Machine(
        name=metadata["name"],
        uid=metadata["uid"],
        created=metadata.get("creationTimestamp") or "",
        node=node_of(found),
        leaving=bool(metadata.get("deletionTimestamp")),
        joined=joined,
        ready=ready,
        failure=failure(found),
        waits_for="" if ready else _waits_for(conditions, joined),
        leaves=_leaves(conditions),
        annotations=frozenset(metadata.get("annotations") or {}),
    )


def current(found: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """An object's conditions by type, in the newer form if it has them, but those of an earlier generation."""
    status = found.get("status") or {}
    newer = (status.get("v1beta2") or {}).get("conditions")
    generation = found["metadata"].get("generation") or 0
    return {
        condition["type"]: condition
        for condition in newer or status.get("conditions") or ()
        if condition.get("observedGeneration", generation) >= generation
    }


def failure(found: Mapping[str, Any]) -> str | None:
    """Why an object has failed for good; none while there is hope."""
    status = found.get("status") or {}
    old = (status.get("deprecated") or {}).get("v1beta1") or {}
    for said in (status, old):
        if said.get("failureReason") or said.get("failureMessage"):
            return ": ".join(part for part in (said.get("failureReason"), said.get("failureMessage")) if part)
    if status.get("phase") == "Failed":
        return "phase Failed"
    return None


def line(condition: Mapping[str, Any]) -> str:
    """A condition, for a person."""
    words = f"{condition['type']} {condition['status']}"
    why = ": ".join(part for part in (condition.get("reason"), condition.get("message")) if part)
    return f"{words} ({why})" if why else words


def _is(conditions: Mapping[str, Mapping[str, Any]], kind: str, absent: str = "") -> bool:
    condition = conditions.get(kind) or conditions.get(absent)
    return condition is not None and condition["status"] == "True"


_ORDER: Final = ("InfrastructureReady", "BootstrapConfigReady", "BootstrapReady", "NodeHealthy", "NodeReady", "Ready")


def _waits_for(conditions: Mapping[str, Mapping[str, Any]], joined: str | None) -> str:
    for kind in _ORDER:
        condition = conditions.get(kind)
        if condition is not None and condition["status"] != "True":
            return line(condition)
    return "its node has not joined" if joined is None else "it says nothing of its readiness"


def _leaves(conditions: Mapping[str, Mapping[str, Any]]) -> str:
    for kind, status in (("Deleting", "True"), ("DrainingSucceeded", "False"), ("VolumeDetachSucceeded", "False")):
        condition = conditions.get(kind)
        if condition is not None and condition["status"] == status:
            return line(condition)
    return "its machine leaves"
